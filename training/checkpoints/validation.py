"""Evaluation of checkpoints during training: its settings, its process, the best checkpoint."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from r2w_eval.training.checkpoints.folders import Checkpoint, find_checkpoints
from r2w_eval.training.checkpoints.progress import (
    ROWS,
    ProgressRow,
    due,
    evaluations,
    read_progress,
    worth,
)

from r2w_eval.config import RunConfig, change
from r2w_eval.ranks import environment_alone
from r2w_eval.suites.groups import expand_groups


@dataclass(frozen=True)
class EvaluationSettings:
    """The evaluation of each checkpoint; off without tasks.

    tasks, judge, limit, gen_kwargs, model_args: as in r2w-eval watch; limit 0 takes every sample
    stop_on_decline: end training when a paired test finds the newest checkpoint worse than the best
    keep: which checkpoint becomes the model, the best by validation or the last
    """

    tasks: str = ""
    judge: str = ""
    limit: int = 0
    gen_kwargs: str = ""
    model_args: str = ""
    stop_on_decline: bool = True
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        """Raises UsageError, UnknownName: a watcher's error would stand in its log alone, and the
        last checkpoint would be kept for the best.
        """
        if self.is_on:
            given = {"limit": self.limit or None, "judge": (self.judge,) if self.judge else None}
            settings = {name: value for name, value in given.items() if value is not None}
            expand_groups(change(RunConfig(tasks=self.tasks), settings).task_names, ())

    @property
    def is_on(self) -> bool:
        """Whether tasks are named."""
        return bool(self.tasks)

    def command(self, folder: Path) -> list[str]:
        """The command line that evaluates the checkpoints which are due in a folder."""
        flags = {
            "--tasks": self.tasks,
            "--judge": self.judge,
            "--limit": str(self.limit or ""),
            "--gen-kwargs": self.gen_kwargs,
            "--model-args": self.model_args,
        }
        chosen = [part for flag, value in flags.items() if value for part in (flag, value)]
        return [sys.executable, "-m", "r2w_eval", "watch", str(folder), "--once", *chosen]


class Watcher:
    """Runs `r2w-eval watch --once` on a folder, one at a time; its output goes to `watch.log`."""

    def __init__(self, folder: Path, settings: EvaluationSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._running: subprocess.Popen[bytes] | None = None
        self._taken: list[Checkpoint] = []

    def start(self) -> None:
        """Start an evaluation, unless one is running. Raises OSError."""
        if self._running is not None and self._running.poll() is None:
            return
        self._taken = due(self._folder)
        place = evaluations(self._folder)
        place.mkdir(parents=True, exist_ok=True)
        with (place / "watch.log").open("ab") as log:
            self._running = subprocess.Popen(
                self._settings.command(self._folder),
                stdout=log,
                stderr=log,
                env=environment_alone(),
            )

    def go_on(self) -> None:
        """Start another evaluation if the last has ended and checkpoints became due meanwhile."""
        if self._running is not None and self._running.poll() is not None:
            failed, self._running = self._running.returncode != 0, None
            waiting = due(self._folder)
            # one that crashed before it wrote a row would crash again at every training step
            if waiting and not (failed and waiting == self._taken):
                self.start()

    def finish(self) -> None:
        """Wait for the running evaluation, then evaluate the remaining checkpoints."""
        self._wait()
        if due(self._folder):
            self.start()
            self._wait()

    def _wait(self) -> None:
        if self._running is not None:
            self._running.wait()
            self._running = None


def best_checkpoint(folder: Path) -> Checkpoint | None:
    """The best checkpoint so far (`best_step`); None without scores, or if it was deleted."""
    step = best_step(read_progress(folder))
    return next((one for one in find_checkpoints(folder) if one.step == step), None)


def best_step(rows: Sequence[ProgressRow]) -> int | None:
    """The step with the lowest mean rank over all (task, judge) pairs; the earlier one of a tie."""
    ranks = sums_of_ranks(rows)
    return min(sorted(ranks), key=lambda step: ranks[step], default=None)


def sums_of_ranks(rows: Sequence[ProgressRow]) -> dict[int, float]:
    """The sum of ranks, over all (task, judge) pairs, of every step that can be compared.

    Ranks are used because the scales of suites differ. Only steps that every pair has scored, under
    the newest score key of the pair, are compared.
    """
    places: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    newest = {(row.task, row.judge): row.score_key for row in rows if row.score is not None}
    for row in rows:
        place = (row.task, row.judge)
        if (own := worth(row)) is not None and row.score_key == newest.get(place):
            places[place][row.step] = own
    if not places:
        return {}
    common = set.intersection(*(set(scores) for scores in places.values()))
    return {step: sum(_rank(scores, common, step) for scores in places.values()) for step in common}


def tell_uncompared(folder: Path) -> tuple[str, ...]:
    """A note if evaluated checkpoints could not be compared: the best is then one of the others."""
    rows = read_progress(folder)
    n_compared, n_all = len(sums_of_ranks(rows)), len({row.step for row in rows})
    if not n_compared or n_compared == n_all:
        return ()
    return (
        f"only {n_compared} of {n_all} evaluated checkpoints have a score of every suite and "
        f"judge; the best is one of these: {evaluations(folder) / ROWS}",
    )


def _rank(scores: dict[int, float], common: set[int], step: int) -> float:
    """The rank of a step by score, 1 for the best; ties share their mean rank."""
    own = scores[step]
    better = sum(scores[other] > own for other in common)
    equal = sum(scores[other] == own for other in common if other != step)
    return 1 + better + equal / 2
