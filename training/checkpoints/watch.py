"""Evaluates every checkpoint with the same `evaluate` that a user calls, beside the training.

One run folder a checkpoint below `DIR/evaluations`, and one table of all of them. A failing
evaluation is a row with its reason and never ends the training (specification: r2write.md section
7). A decline is told only when a paired test says that it is real.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2w_eval.training.checkpoints.evaluated import headlines
from r2w_eval.training.checkpoints.folders import Checkpoint, find_checkpoints

from r2w_eval.comparison.scores import load_results
from r2w_eval.config import RunConfig
from r2w_eval.errors import CoverageTooLow, UsageError
from r2w_eval.estimates import share_of
from r2w_eval.records.collect import latest_responses
from r2w_eval.run import evaluate
from r2w_eval.stats.inference import compare
from r2w_eval.store import RunFolder, iter_jsonl, write_atomically, write_json, write_jsonl
from r2w_eval.types import Cause, Estimate

ROWS, DECLINE = "progress.jsonl", "declined.json"
_OF_MODEL = (None, Cause.MODEL)


@dataclass(frozen=True, slots=True)
class ProgressRow:
    """One checkpoint on one suite under one judge; `error` says why there is no score.

    floor: the score with the writer's own failures at the lowest value
    n_lost: verdicts that the endpoint did not give, and that another evaluation asks for again
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
    """Where the evaluations of a training folder lie."""
    return folder / "evaluations"


def read_progress(folder: Path) -> list[ProgressRow]:
    """The table so far, by step."""
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


def evaluate_checkpoint(
    folder: Path, checkpoint: Checkpoint, config: RunConfig
) -> list[ProgressRow]:
    """The rows of one checkpoint. What goes wrong with it is a row, not an exception."""
    run = evaluations(folder) / f"checkpoint-{checkpoint.step}"
    facts: dict[str, Any] = {
        "step": checkpoint.step,
        "checkpoint": str(checkpoint.path),
        "run": str(run),
    }
    try:
        asyncio.run(evaluate(replace(config, model=str(checkpoint.path), out=str(run))))
    except CoverageTooLow:
        pass
    except Exception as error:  # noqa: BLE001 - the loader's own, or memory that runs out: a row
        return [ProgressRow(**facts, error=f"{type(error).__name__}: {error}")]
    return [ProgressRow(**facts, score=row.pop("value"), **row) for row in headlines(run)]


def watch_once(folder: Path, config: RunConfig, *, is_again: bool = True) -> list[ProgressRow]:
    """Evaluate what is due, and with `is_again` what is unsettled too; the new rows.

    Raises UsageError when there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{str(folder)!r}: no such folder. Expected the checkpoints of a training. Try: "
            f"r2w-eval watch OUT/checkpoints"
        )
    evaluations(folder).mkdir(exist_ok=True)
    new: list[ProgressRow] = []
    with _only_watcher(folder):
        for checkpoint in (unsettled(folder) if is_again else []) + due(folder):
            rows = evaluate_checkpoint(folder, checkpoint, config)
            new += rows
            _put(folder, checkpoint.step, rows)
            _tell_decline(folder)
    return new


@contextmanager
def _only_watcher(folder: Path) -> Iterator[None]:
    """Two would evaluate a checkpoint twice. Raises UsageError while another is at work."""
    with (evaluations(folder) / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{str(folder)!r}: another process evaluates these checkpoints, perhaps the "
                f"training itself. Its table is {evaluations(folder) / ROWS}"
            ) from error
        yield


def _put(folder: Path, step: int, rows: Sequence[ProgressRow]) -> None:
    """The table with these rows of a step instead of its earlier ones."""
    others = [row for row in read_progress(folder) if row.step != step]
    write_jsonl(evaluations(folder) / ROWS, _ordered([*others, *rows]))
    write_atomically(evaluations(folder) / "progress.svg", plot(read_progress(folder)))


def watch(
    folder: Path, config: RunConfig, interval_s: float, show: Callable[[ProgressRow], None]
) -> None:
    """Evaluate checkpoints as they come, until interrupted; what failed before is tried once."""
    is_again = True
    while True:
        for row in watch_once(folder, config, is_again=is_again):
            show(row)
        is_again = False
        time.sleep(interval_s)


@dataclass(frozen=True, slots=True)
class Decline:
    """The newest checkpoint is worse than an earlier one, by a paired test on the same items."""

    task: str
    judge: str
    quantity: str
    """`score`, or `answers`: the share of samples with one, from 0 to 1."""
    best_step: int
    step: int
    difference: float
    low: float | None
    """None, as `high`, where all items differ alike."""
    high: float | None
    p: float

    @property
    def is_below(self) -> bool:
        """The difference is below 0, and so is all of its interval."""
        return self.difference < 0 and (self.high is None or self.high < 0)


def find_decline(rows: Sequence[ProgressRow], alpha: float = 0.05) -> Decline | None:
    """Newest against the best so far, on each (task, judge): in score, or in answers brought to an
    end, which a mean over the rest does not show. None without a real decline.

    The best is chosen among the earlier ones, so its score flatters it; with k earlier checkpoints
    alpha is divided by 2 k (Bonferroni).
    """
    whole = [row for row in rows if not row.error]
    for place in sorted({(row.task, row.judge) for row in whole}):
        own = [row for row in whole if (row.task, row.judge) == place]
        *earlier, newest = sorted(own, key=lambda row: row.step)
        earlier = [row for row in earlier if row.score_key == newest.score_key]
        if not earlier:
            continue
        best = max(earlier, key=lambda row: worth(row) or -math.inf)
        for quantity, read in (("score", _scores), ("answers", _finished_answers)):
            found = _compare(best, newest, quantity, read)
            if found and found.is_below and found.p <= alpha / (2 * len(earlier)):
                return found
    return None


def worth(row: ProgressRow) -> float | None:
    """What a checkpoint is chosen by. A policy that stops answering hard prompts has a high mean
    over the rest, so an unfinished answer counts, at the lowest value.
    """
    return row.score if row.floor is None else row.floor


def _compare(
    best: ProgressRow,
    newest: ProgressRow,
    quantity: str,
    read: Callable[[ProgressRow], Estimate | None],
) -> Decline | None:
    new, old = read(newest), read(best)
    if new is None or old is None:
        return None
    paired = compare(new, old)
    if paired.difference is None or paired.p_value is None:
        return None
    place = (newest.task, newest.judge, quantity, best.step, newest.step)
    return Decline(*place, paired.difference, paired.low, paired.high, paired.p_value)


def _scores(row: ProgressRow) -> Estimate | None:
    if row.score is None:
        return None
    place = (row.task, row.judge)
    return next(r.estimate for r in load_results(row.run) if (r.task, r.judge) == place)


def _finished_answers(row: ProgressRow) -> Estimate | None:
    """Share of samples with an answer; what an endpoint failed to give counts neither way."""
    written = latest_responses(RunFolder.existing(row.run).responses(), []).get(row.task, {})
    known = [(sample, one.response.status.cause) for (sample, _), one in written.items()]
    rows = [(sample, float(cause is None)) for sample, cause in known if cause in _OF_MODEL]
    return share_of("answers", rows, row.n_expected) if rows else None


def _tell_decline(folder: Path) -> None:
    """The file stands as long as the newest checkpoint is the one that is worse."""
    decline = find_decline(read_progress(folder))
    if decline is not None:
        write_json(evaluations(folder) / DECLINE, decline)
    else:
        (evaluations(folder) / DECLINE).unlink(missing_ok=True)


# measures that need no judge of drafts, as shares of the reflections
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
    """One measure of the row's `reflection` block; None where there was no thinking."""
    metrics = (row.reflection or {}).get("metrics", ())
    return next((metric["value"] for metric in metrics if metric["name"] == name), None)
