"""Trainer callbacks: seeding, a stop on broken losses, a common last step, evaluations.

Imports transformers: load this module from within a function.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from r2w_eval.training.checkpoints.decline import DECLINE
from r2w_eval.training.checkpoints.folders import last_sound
from r2w_eval.training.checkpoints.progress import evaluations
from r2w_eval.training.checkpoints.validation import EvaluationSettings, Watcher
from transformers import TrainerCallback, TrainerControl, TrainerState

from r2w_eval.errors import R2WError
from r2w_eval.ranks import on_first


class TrainingBroke(R2WError):
    """Loss or gradient is not finite; the message names the last checkpoint with finite weights."""


class SeedEachStep(TrainerCallback):
    """Seeds torch from (seed, step) before every step.

    Sampling then depends on the step alone, so that a resumed training continues exactly like an
    uninterrupted one; the trainer itself restores the generator one data loader draw too early.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seed this process; ranks differ."""
        rank = int(getattr(args, "process_index", 0))
        torch.manual_seed(self._seed * 1_000_003 + state.global_step * 1009 + rank)


class StopOnBrokenLoss(TrainerCallback):
    """Ends training when loss or gradient is NaN or infinite, before the next checkpoint."""

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Raises TrainingBroke."""
        for name, value in (logs or {}).items():
            if name in ("loss", "grad_norm") and not is_finite(value):
                raise TrainingBroke(
                    f"{name} is {value} at step {state.global_step}: not a number any more. "
                    f"{_way_on(Path(args.output_dir))}"
                )


class StopTogether(TrainerCallback):
    """Ends concurrent trainings at the same step.

    The first one that has trained for `seconds` writes the common last step into the file `agreed`:
    its own plus `MARGIN`, since the others may be slightly ahead. A training that is further ahead
    ends at once. One that takes all its steps in time writes these, and the others follow. With
    `saves` the last state is also saved as a checkpoint, to be evaluated.
    """

    MARGIN = 2

    def __init__(self, agreed: Path, seconds: float, *, saves: bool = False) -> None:
        self._agreed = agreed
        self._saves = saves
        self._seconds = seconds
        self._end = math.inf

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._end = time.monotonic() + self._seconds

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop at the common last step, once it is known."""
        if on_first(lambda: self._is_over(state.global_step)):
            control.should_training_stop = True
            control.should_save |= self._saves

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have the others take all steps too, unless they end before."""
        if state.global_step >= state.max_steps:
            on_first(lambda: self._propose(state.global_step))

    def _is_over(self, step: int) -> bool:
        if time.monotonic() > self._end:
            self._propose(step + self.MARGIN)
        end = agreed_step(self._agreed)
        return end is not None and step >= end

    def _propose(self, step: int) -> None:
        """Write the file aside and link it: it appears whole, and the first one wins."""
        aside = self._agreed.with_name(f".{self._agreed.name}.{os.getpid()}")
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(str(step), "ascii")
        with contextlib.suppress(FileExistsError):
            os.link(aside, self._agreed)
        aside.unlink()


def agreed_step(path: Path) -> int | None:
    """The common last step of concurrent trainings (`StopTogether`); None while none has ended."""
    return int(path.read_text("ascii")) if path.is_file() else None


def is_finite(value: float | None) -> bool:
    """Whether a logged value is finite; transformers logs NaN as None.

    >>> is_finite(0.5), is_finite(float("inf")), is_finite(None)
    (True, False, False)
    """
    return value is not None and math.isfinite(float(value))


def _way_on(folder: Path) -> str:
    sound = last_sound(folder)
    if sound is None:
        return (
            "There is no good checkpoint yet. Lower learning_rate in the recipe, use another --out"
        )
    return (
        f"The last good checkpoint is {sound.path}. Lower learning_rate in the recipe and go on "
        f"from it: --model {sound.path} --out OTHER"
    )


class EvaluateOnSave(TrainerCallback):
    """Evaluates saved checkpoints in a separate process while training goes on.

    It runs `r2w-eval watch DIR --once`, one at a time; the last checkpoints are evaluated when
    training ends. A failed evaluation is logged in `evaluations/watch.log` and never ends training.
    """

    def __init__(self, folder: Path, settings: EvaluationSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._watcher = Watcher(folder, settings)

    def on_save(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start an evaluation, unless one is running: that finds this checkpoint too."""
        if state.is_world_process_zero:
            self._watcher.start()

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate what became due meanwhile; on a decline, save the last state and stop."""
        if state.is_world_process_zero:
            self._watcher.go_on()
        declined = evaluations(self._folder) / DECLINE
        if self._settings.stop_on_decline and on_first(declined.exists):
            control.should_training_stop = True
            control.should_save = True

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wait for the running evaluation, then evaluate the remaining checkpoints."""
        if state.is_world_process_zero:
            self._watcher.finish()
