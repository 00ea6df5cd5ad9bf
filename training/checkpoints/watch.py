"""Evaluates every checkpoint with the same `evaluate` that a user calls, beside the training.

Each checkpoint gets a run folder below `DIR/evaluations` and its rows in one table (progress.py). A
failing evaluation becomes a row with its reason and never ends the training (specification:
r2write.md section 7). A significant decline is written to a file (decline.py).
"""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from r2w_eval.training.checkpoints.decline import tell_decline
from r2w_eval.training.checkpoints.evaluated import headlines
from r2w_eval.training.checkpoints.folders import Checkpoint
from r2w_eval.training.checkpoints.progress import (
    ROWS,
    ProgressRow,
    due,
    evaluations,
    put_rows,
    unsettled,
)

from r2w_eval.config import RunConfig
from r2w_eval.errors import CoverageTooLow, UsageError
from r2w_eval.run import evaluate


def evaluate_checkpoint(
    folder: Path, checkpoint: Checkpoint, config: RunConfig
) -> list[ProgressRow]:
    """The rows of one checkpoint; an evaluation that fails becomes a row with the error."""
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
    """Evaluate the checkpoints that are due, with `is_again` also the unsettled; their rows.

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
            put_rows(folder, checkpoint.step, rows)
            tell_decline(folder)
    return new


@contextmanager
def _only_watcher(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises UsageError while another process evaluates it."""
    with (evaluations(folder) / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{str(folder)!r}: another process evaluates these checkpoints, perhaps the "
                f"training itself. Its table is {evaluations(folder) / ROWS}"
            ) from error
        yield


def watch(
    folder: Path, config: RunConfig, interval_s: float, show: Callable[[ProgressRow], None]
) -> None:
    """Evaluate checkpoints as they appear, until interrupted; earlier failures are retried once."""
    is_again = True
    while True:
        for row in watch_once(folder, config, is_again=is_again):
            show(row)
        is_again = False
        time.sleep(interval_s)
