"""The run report of a pipeline: one self-contained HTML page, readable with scripts off.

Lineage, stages with what they took, curves, and every evaluated model with its interval and its
paired difference from the base. Everything is escaped, nothing is loaded; its links are relative to
the pipeline's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from r2w_eval.training.pipeline.plan import BASE, Stage
from r2w_eval.training.pipeline.plots import COLUMNS, Box, all_curves, curves_svg, graph_svg
from r2w_eval.training.pipeline.records import Record, finished
from r2w_eval.training.pipeline.runner import LOG, MANIFEST, STATEMENT, Pipeline

from r2w_eval.comparison.scores import StoredResult, load_results
from r2w_eval.errors import R2WError
from r2w_eval.paths import packaged_text
from r2w_eval.run.opening import is_smoke_test
from r2w_eval.stats.inference import compare
from r2w_eval.store import write_atomically

REPORT = "report.html"
THINKING = {
    "thinking_tokens": "thinking tokens",
    "reflections_per_trace": "reflections a trace",
    "steps/improved": "effective reflections",
    "repeats": "repeats",
}


@dataclass(frozen=True, slots=True)
class StageView:
    """A line of the table of stages."""

    name: str
    key: str
    folder: str
    has_log: bool
    inputs: str
    record: Record | None
    facts: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """A line of the table of evaluations; values are None where there is none."""

    model: str
    row: Mapping[str, Any]
    difference: tuple[float | None, float | None, float | None]
    per_answer: float
    thinking: tuple[float | None, ...]
    report: str


def write_pipeline_report(pipeline: Pipeline) -> Path:
    """Write report.html of what is finished so far."""
    records = {stage.name: finished(stage, pipeline.out) for stage in pipeline.stages}
    done = {name: record for name, record in records.items() if record is not None}
    models = list(_models(pipeline, done))
    curves = all_curves([(s.name, s.kind, s.folder(pipeline.out)) for s in pipeline.stages])
    shown = [m for m in THINKING if any(one.thinking[list(THINKING).index(m)] for one in models)]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = _number
    style = packaged_text("templates/report.css")
    template = packaged_text("templates/pipeline.html", "r2w_eval.training")
    page = environment.from_string(template).render(
        recipe=pipeline.recipe,
        statement=STATEMENT,
        style=style,
        manifest=MANIFEST,
        log=LOG,
        graph=graph_svg(*_graph(pipeline.stages, done, models)),
        stages=[_stage_view(stage, pipeline.out, records[stage.name]) for stage in pipeline.stages],
        records=list(done.values()),
        versions=next(reversed(done.values())).versions if done else {},
        plots=[curves_svg(own, label) for label, own in curves.items()],
        models=models,
        signal=done["signal"].facts if "signal" in done else None,
        thinking=[(list(THINKING).index(name), THINKING[name]) for name in shown],
        is_smoke=any(is_smoke_test(str(one.row["judge"])) for one in models),
        board=_board(pipeline),
    )
    path = pipeline.out / REPORT
    write_atomically(path, page.encode("utf-8", "replace"))
    return path


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _stage_view(stage: Stage, out: Path, record: Record | None) -> StageView:
    folder = stage.folder(out)
    facts = record.facts if record else {}
    told = {
        "n": "items", "steps": "steps", "n_too_long": "too long", "calls_sent": "calls",
        "scorer": "scorer",
    }  # fmt: skip
    parts = [f"{facts[name]} {word}" for name, word in told.items() if facts.get(name)]
    return StageView(
        stage.name,
        stage.key[:8],
        folder.relative_to(out).as_posix(),
        (folder / LOG).is_file(),
        ", ".join(stage.inputs),
        record,
        ", ".join(parts).removesuffix(" scorer"),
    )


def _models(pipeline: Pipeline, done: Mapping[str, Record]) -> Iterator[ModelView]:
    """Every row of every evaluation, beside the base's on the same task and judge."""
    folders = {s.name: s.folder(pipeline.out) / "run" for s in pipeline.stages if s.name in done}
    base = _results(folders.get(f"evaluate-{BASE}"))
    for stage in pipeline.stages:
        if stage.kind != "evaluate" or stage.name not in done:
            continue
        own = _results(folders[stage.name])
        for row in done[stage.name].facts["rows"]:
            place = (row["task"], row["judge"])
            is_base = stage.name == f"evaluate-{BASE}"
            found = None if is_base else _difference(own.get(place), base.get(place))
            measures = (row["reflection"] or {}).get("measures", {})
            yield ModelView(
                done[stage.name].facts["model"],
                row,
                found or (None, None, None),
                row["completion_tokens"] / max(1, row["n_expected"]),
                tuple(measures.get(name, {}).get("value") for name in THINKING),
                f"{folders[stage.name].relative_to(pipeline.out).as_posix()}/report.html",
            )


def _results(run: Path | None) -> dict[tuple[str, str], StoredResult]:
    """The results of a run by task and judge; none where it cannot be read."""
    if run is None:
        return {}
    try:
        return {(result.task, result.judge): result for result in load_results(str(run))}
    except R2WError:
        return {}


def _difference(
    own: StoredResult | None, base: StoredResult | None
) -> tuple[float | None, float | None, float | None] | None:
    """Paired difference with its interval, where both are scores of one identity."""
    if own is None or base is None or own.score_key != base.score_key:
        return None
    paired = compare(own.estimate, base.estimate)
    return paired.difference, paired.low, paired.high


def _graph(
    stages: Sequence[Stage], done: Mapping[str, Record], models: Sequence[ModelView]
) -> tuple[list[Box], list[tuple[str, str]]]:
    """Nodes and edges of the drawing: stages, and a row for every score."""
    drawn = [stage for stage in stages if stage.kind in COLUMNS]
    boxes = [_stage_box(stage, done.get(stage.name)) for stage in drawn]
    edges = [(other, stage.name) for stage in drawn for other in stage.inputs]
    signed = done["leaderboard"].facts["rows"] if "leaderboard" in done else []
    hashes = {(row["model"], row["task"], row["judge"]): row["hash"][:8] for row in signed}
    for one in models:
        place = (one.model, one.row["task"], one.row["judge"])
        name = " ".join(place)
        score = f"{one.row['task']} {_number(one.row['value'])}"
        boxes.append(Box(name, "row", ("row", score, hashes.get(place, "")), place in hashes))
        edges.append((f"evaluate-{one.model}", name))
    return boxes, edges


def _stage_box(stage: Stage, record: Record | None) -> Box:
    kind, _, rest = stage.name.partition("-")
    took = f"{stage.key[:8]} · {record.seconds:,.0f} s" if record else f"{stage.key[:8]} · not run"
    lines = (kind, rest, took) if rest else (kind, took)
    return Box(stage.name, stage.kind, lines, record is not None)


def _board(pipeline: Pipeline) -> str:
    """The leaderboard's page, where it is made."""
    (board,) = (stage for stage in pipeline.stages if stage.kind == "leaderboard")
    page = board.folder(pipeline.out) / "site" / "index.html"
    return page.relative_to(pipeline.out).as_posix() if page.is_file() else ""
