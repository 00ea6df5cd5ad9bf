"""The run report of a pipeline: one self-contained HTML page, readable with scripts off.

It shows the lineage, the stages with their resource use, training curves, and every evaluated model
with its interval and its paired differences from the base and from its control. All text is
escaped, no external resource is loaded, and links are relative to the pipeline's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from r2w_eval.training.pipeline.grid import BASE, about, control_of
from r2w_eval.training.pipeline.plan import Stage
from r2w_eval.training.pipeline.plots import (
    COLUMNS,
    Box,
    all_curves,
    curves_svg,
    graph_svg,
    way_colours,
)
from r2w_eval.training.pipeline.records import Record, finished
from r2w_eval.training.pipeline.runner import LOG, MANIFEST, STATEMENT, Pipeline

from r2w_eval.comparison.scores import StoredResult, load_results
from r2w_eval.errors import R2WError
from r2w_eval.paths import packaged_text
from r2w_eval.run.opening import is_smoke_test
from r2w_eval.stats.inference import compare
from r2w_eval.store import write_atomically

REPORT = "report.html"
# of a line in a box of the lineage
BOX_CHARS = 18
THINKING = {
    "thinking_tokens": "thinking tokens",
    "reflections_per_trace": "reflections a trace",
    "steps/improved": "effective reflections",
    "repeats": "repeats",
}


@dataclass(frozen=True, slots=True)
class StageView:
    """A row of the table of stages."""

    name: str
    key: str
    folder: str
    has_log: bool
    inputs: str
    record: Record | None
    facts: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference from another model with its interval; None if not comparable."""

    model: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ModelView:
    """A row of the table of evaluations.

    from_base, from_control: differences from the base, and from the control (grid.control_of)
    per_answer: tokens per answer
    thinking: the value of every measure of THINKING; None where there is none
    """

    model: str
    about: str
    row: Mapping[str, Any]
    from_base: Difference
    from_control: Difference
    per_answer: float
    thinking: Mapping[str, float | None]
    report: str


def write_pipeline_report(pipeline: Pipeline) -> Path:
    """Write report.html about the stages that are finished so far."""
    records = {stage.name: finished(stage, pipeline.out) for stage in pipeline.stages}
    done = {name: record for name, record in records.items() if record is not None}
    models = list(_models(pipeline, done))
    curves = all_curves([(s.name, s.kind, s.folder(pipeline.out)) for s in pipeline.stages])
    colours: dict[str, str] = {}
    for kind in ("sft", "rl"):
        colours |= way_colours(s.name for s in pipeline.stages if s.kind == kind)
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
        plots=[curves_svg(own, label, colours) for label, own in curves.items()],
        models=models,
        has_controls=any(one.from_control.value is not None for one in models),
        signal=done["signal"].facts if "signal" in done else None,
        thinking={m: label for m, label in THINKING.items() if any(o.thinking[m] for o in models)},
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
    """Every result, compared with the base and the control on the same task and judge."""
    stages = {stage.name: stage for stage in pipeline.stages}
    evaluated = [s for s in pipeline.stages if s.kind == "evaluate" and s.name in done]
    folders = {done[s.name].facts["model"]: s.folder(pipeline.out) / "run" for s in evaluated}
    results = {model: _results(run) for model, run in folders.items()}
    for stage in evaluated:
        facts = done[stage.name].facts
        model = facts["model"]
        made_by = stages[stage.inputs[0]] if stage.inputs else stage
        others = (BASE if stage.inputs else "", control_of(made_by.kind, made_by.settings) or "")
        for row in facts["rows"]:
            place = (row["task"], row["judge"])
            own = results[model].get(place)
            from_base, from_control = (
                _difference(other, own, results.get(other, {}).get(place)) for other in others
            )
            measures = (row["reflection"] or {}).get("measures", {})
            yield ModelView(
                model,
                about(made_by.kind, made_by.settings),
                row,
                from_base,
                from_control,
                row["completion_tokens"] / max(1, row["n_expected"]),
                {name: measures.get(name, {}).get("value") for name in THINKING},
                f"{folders[model].relative_to(pipeline.out).as_posix()}/report.html",
            )


def _results(run: Path) -> dict[tuple[str, str], StoredResult]:
    """The results of a run by (task, judge); empty if it cannot be read."""
    try:
        return {(result.task, result.judge): result for result in load_results(str(run))}
    except R2WError:
        return {}


def _difference(model: str, own: StoredResult | None, other: StoredResult | None) -> Difference:
    """The difference of `own` from `other`, the result of `model`, if their score keys agree."""
    if own is None or other is None or own.score_key != other.score_key:
        return Difference(model)
    paired = compare(own.estimate, other.estimate)
    return Difference(model, paired.difference, paired.low, paired.high)


def _graph(
    stages: Sequence[Stage], done: Mapping[str, Record], models: Sequence[ModelView]
) -> tuple[list[Box], list[tuple[str, str]]]:
    """Nodes and edges of the lineage: the stages, and a leaderboard row for every score."""
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
    lines = (kind, *_in_two(rest), took) if rest else (kind, took)
    return Box(stage.name, stage.kind, lines, record is not None)


def _in_two(name: str) -> tuple[str, ...]:
    """A name in one line or, if too long for a box, two: split before its lambda or in the middle.

    >>> _in_two("lambda0.3-seed0"), _in_two("sum-lambda0.3-seed0")
    (('lambda0.3-seed0',), ('sum', 'lambda0.3-seed0'))
    >>> _in_two("sft-without-reflections-seed0")
    ('sft-without', 'reflections-seed0')
    """
    cuts = [place for place, letter in enumerate(name) if letter == "-"]
    if len(name) <= BOX_CHARS or not cuts:
        return (name,)
    middle = min(cuts, key=lambda place: max(place, len(name) - place))
    cut = found if (found := name.find("-lambda")) > 0 else middle
    return name[:cut], name[cut + 1 :]


def _board(pipeline: Pipeline) -> str:
    """The relative path of the leaderboard's page; empty if it is not there."""
    (board,) = (stage for stage in pipeline.stages if stage.kind == "leaderboard")
    page = board.folder(pipeline.out) / "site" / "index.html"
    return page.relative_to(pipeline.out).as_posix() if page.is_file() else ""
