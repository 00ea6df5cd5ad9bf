"""`r2w-eval reflect`: from a run folder or a file of traces to measures, files and a viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2w_eval.judge.scorers import Scorer
from r2w_eval.models.thinking import ThinkTags
from r2w_eval.reflection.analysis import DEAD_BAND, Analysis, TraceInput, analyse
from r2w_eval.reflection.effects import score_effects
from r2w_eval.reflection.measures import ReflectionSummary, summarise_reflection
from r2w_eval.reflection.sources import read_file, read_run
from r2w_eval.store import RunFolder
from r2w_eval.trace.types import TagSchema


@dataclass(frozen=True, slots=True)
class ReflectOptions:
    """How traces are read and measured."""

    schema: TagSchema = TagSchema()
    tags: ThinkTags = ThinkTags()
    limit: int | None = None
    dead_band: float = DEAD_BAND


def read_source(source: str, options: ReflectOptions) -> dict[str, list[TraceInput]]:
    """Traces by task; a file is one task under its own name. Raises UsageError, DataError."""
    path = Path(source)
    if (path / "run.json").is_file():
        found = read_run(RunFolder.existing(source))
    else:
        found = {path.stem: read_file(path, options.tags)}
    return {task: own[: options.limit] for task, own in found.items()}


async def reflect(
    inputs: Mapping[str, Sequence[TraceInput]], options: ReflectOptions, scorer: Scorer | None
) -> tuple[dict[str, list[Analysis]], dict[str, ReflectionSummary]]:
    """Analyse all traces; with a scorer also the effect of each step."""
    analyses = {task: [analyse(s, options.schema) for s in own] for task, own in inputs.items()}
    if scorer is not None:
        analyses = {
            task: await score_effects(own, scorer, options.dead_band)
            for task, own in analyses.items()
        }
    judge = scorer.id if scorer else None
    return analyses, {task: summarise_reflection(own, judge) for task, own in analyses.items()}
