"""Experiment trackers that a training logs to, beside its own history."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from r2w_eval.errors import UsageError

# by transformers' names for them, which are those of their modules
Tracker = Literal["clearml", "comet_ml", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]
MODULES = {"tensorboard": ("tensorboard", "tensorboardX")}


def tracking_arguments(trackers: Iterable[Tracker], out: Path) -> dict[str, Any]:
    """Trainer arguments for the trackers; a run is named after the stage's folder `out`.

    Raises UsageError for one that is not installed.
    """
    return {"report_to": require_trackers(trackers), "run_name": out.name}


def require_trackers(trackers: Iterable[Tracker]) -> list[Tracker]:
    """The trackers. Raises UsageError for one that is not installed."""
    chosen = list(trackers)
    for name in chosen:
        if not any(find_spec(module) for module in MODULES.get(name, (name,))):
            raise UsageError(
                f"report_to {name!r}: not installed here. Try: pip install {name}, or leave it out "
                f"of report_to"
            )
    return chosen
