"""The table of a training's evaluated checkpoints, and its plot: files in `DIR/evaluations`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.training.checkpoints.folders import Checkpoint, find_checkpoints

from r2w_eval.store import iter_jsonl, write_atomically, write_jsonl

ROWS = "progress.jsonl"


@dataclass(frozen=True, slots=True)
class ProgressRow:
    """One checkpoint on one suite under one judge; `error` says why there is no score.

    floor: the score when failures of the writer count as the suite's lowest value
    n_lost: verdicts lost to the judge's endpoint; a second evaluation asks for them again
    """

    step: int
    checkpoint: str
    run: str
    task: str = ""
    judge: str = ""
    score_key: str = ""
    score: float | None = None
    low: float | None = None
    high: float | None = None
    n_scored: int = 0
    n_expected: int = 0
    floor: float | None = None
    completion_tokens: int = 0
    reflection: Any = None
    error: str = ""
    n_lost: int = 0


def evaluations(folder: Path) -> Path:
    """The folder of the evaluations of a training's checkpoints."""
    return folder / "evaluations"


def read_progress(folder: Path) -> list[ProgressRow]:
    """The rows so far, ordered by step."""
    return _ordered(ProgressRow(**record) for record in iter_jsonl(evaluations(folder) / ROWS))


def _ordered(rows: Iterable[ProgressRow]) -> list[ProgressRow]:
    return sorted(rows, key=lambda row: (row.step, row.task, row.judge))


def due(folder: Path) -> list[Checkpoint]:
    """Whole checkpoints that have no row yet, oldest first."""
    done = {row.step for row in read_progress(folder)}
    return [one for one in find_checkpoints(folder) if one.step not in done]


def unsettled(folder: Path) -> list[Checkpoint]:
    """Checkpoints whose evaluation failed, or lost verdicts to an endpoint, oldest first."""
    steps = {row.step for row in read_progress(folder) if row.error or row.n_lost}
    return [one for one in find_checkpoints(folder) if one.step in steps]


def put_rows(folder: Path, step: int, rows: Sequence[ProgressRow]) -> None:
    """Replace the rows of a step in the table, and draw the plot again."""
    others = [row for row in read_progress(folder) if row.step != step]
    write_jsonl(evaluations(folder) / ROWS, _ordered([*others, *rows]))
    write_atomically(evaluations(folder) / "progress.svg", plot(read_progress(folder)))


def worth(row: ProgressRow) -> float | None:
    """The number that checkpoints are ranked by: the score with unfinished answers at the lowest
    value. Otherwise a policy that stops answering hard prompts would win by its mean over the rest.
    """
    return row.score if row.floor is None else row.floor


# measures of reflections that need no judge, and their labels
REFLECTION_SHARES = {
    "specificity": "specific",
    "not_taken_up": "not taken up",
    "repeats": "repeats",
}


def plot(rows: Sequence[ProgressRow]) -> bytes:
    """Scores with intervals, reflection measures and tokens over the steps: SVG."""
    from matplotlib.figure import Figure

    from r2w_eval.plots import plain_label

    figure = Figure(figsize=(7, 8), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    for task, judge in sorted({(row.task, row.judge) for row in rows if row.score is not None}):
        own = [r for r in rows if (r.task, r.judge) == (task, judge) and r.score is not None]
        _plot_scores(panels[0], own, plain_label(f"{task}, {judge}"))
        _plot_reflection(panels[1], own, plain_label(task))
        per_answer = [r.completion_tokens / max(1, r.n_expected) for r in own]
        panels[2].plot([r.step for r in own], per_answer, marker="o", label=plain_label(task))
    panels[0].set_ylabel("score (95 % interval)")
    panels[1].set_ylabel("reflection")
    panels[2].set_ylabel("tokens an answer")
    panels[2].set_xlabel("training step")
    for panel in panels[:2]:
        if panel.lines or panel.containers:
            panel.legend(fontsize="small")
    text = io.BytesIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _plot_scores(panel: Any, own: Sequence[ProgressRow], label: str) -> None:
    steps, scores = [r.step for r in own], [float(r.score or 0.0) for r in own]
    bars = [
        [s - (r.low if r.low is not None else s) for s, r in zip(scores, own, strict=True)],
        [(r.high if r.high is not None else s) - s for s, r in zip(scores, own, strict=True)],
    ]
    panel.errorbar(steps, scores, yerr=bars, marker="o", capsize=3, label=label)


def _plot_reflection(panel: Any, own: Sequence[ProgressRow], task: str) -> None:
    for name, label in REFLECTION_SHARES.items():
        values = [(row.step, reflection_share(row, name)) for row in own]
        known = [(step, value) for step, value in values if value is not None]
        if known:
            panel.plot(*zip(*known, strict=True), marker="o", label=f"{label}, {task}")


def reflection_share(row: ProgressRow, name: str) -> float | None:
    """One measure of the row's `reflection` block; None where there was no thinking to measure."""
    metrics = (row.reflection or {}).get("metrics", ())
    return next((metric["value"] for metric in metrics if metric["name"] == name), None)
