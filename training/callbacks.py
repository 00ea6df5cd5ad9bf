"""What happens beside the training steps: seeds, a stop on broken losses. Imports transformers."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from r2w_eval.errors import R2WError


class TrainingBroke(R2WError):
    """The loss is no number any more; the last checkpoint is sound."""


class SeedEachStep(TrainerCallback):  # type: ignore[misc]
    """Seeds torch from (seed, step) before every step.

    What is sampled then depends on the step alone, so that a resumed training goes on exactly as an
    unbroken one: the trainer restores the generator's state one draw of the data loader too early.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seed this process; ranks differ."""
        rank = int(getattr(args, "process_index", 0))
        torch.manual_seed(self._seed * 1_000_003 + state.global_step * 1009 + rank)


class StopOnBrokenLoss(TrainerCallback):  # type: ignore[misc]
    """Ends training when the loss is NaN or infinite, before the next checkpoint is written."""

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Raises TrainingBroke."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise TrainingBroke(
                f"loss {loss} at step {state.global_step}. The last checkpoint is sound: lower "
                f"learning_rate or max_grad_norm in the recipe and run the same command again"
            )
