"""Checkpoints on disk: which are complete, and which to resume from. Imports no framework."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path

# of transformers' trainer, and of verl, whose trainer records its last complete step
_NAME = re.compile(r"(?:checkpoint-|global_step_)(\d+)$")
VERL_MODEL, VERL_LATEST = Path("actor/huggingface"), "latest_checkpointed_iteration.txt"
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
)


@dataclass(frozen=True, slots=True, order=True)
class Checkpoint:
    """A model that a trainer saved: `checkpoint-<step>`, or verl's `global_step_<step>/actor/…`."""

    step: int
    path: Path

    @property
    def is_whole(self) -> bool:
        """Weights and trainer state are present, complete and of the same step."""
        has_weights = any((self.path / name).is_file() for name in _WEIGHTS)
        has_all = all(_is_complete(path) for path in self.path.glob("*.safetensors"))
        return has_weights and has_all and self._is_finished()

    def _is_finished(self) -> bool:
        """Trainers write their state last, so a kill while saving leaves a folder without it."""
        try:
            if self.path.name == VERL_MODEL.name:
                return int((self.path.parents[2] / VERL_LATEST).read_text("utf-8")) >= self.step
            state = json.loads((self.path / "trainer_state.json").read_bytes())
            return bool(state["global_step"] == self.step)
        except (OSError, ValueError, LookupError, TypeError):
            return False


def _is_complete(path: Path) -> bool:
    """The file has the length that its header implies: a full disk cuts files short."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        return bool(path.stat().st_size == 8 + length + max(ends, default=0))
    except (OSError, ValueError, struct.error, LookupError, TypeError):
        return False


def _folders(folder: Path) -> list[Checkpoint]:
    found = (
        Checkpoint(int(match[1]), path / VERL_MODEL if path.name.startswith("global") else path)
        for path in folder.glob("*")
        if path.is_dir() and (match := _NAME.fullmatch(path.name))
    )
    return sorted(found)


def find_checkpoints(folder: Path) -> list[Checkpoint]:
    """The complete checkpoints, by step."""
    return [one for one in _folders(folder) if one.is_whole]


def half_written(folder: Path) -> list[Path]:
    """Folders of incomplete checkpoints, by step."""
    return [one.path for one in _folders(folder) if not one.is_whole]


def resume_from(folder: Path, end: int | None = None) -> str | None:
    """The last complete checkpoint as the trainer takes it; None to start from the beginning.

    It is one before step `end`, where the training is to end: a trainer always takes one step more.
    """
    found = [one for one in find_checkpoints(folder) if end is None or one.step < end]
    return str(found[-1].path) if found else None


def last_sound(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint whose weights are all finite; reads whole files."""
    return next((one for one in reversed(find_checkpoints(folder)) if is_sound(one)), None)


def is_sound(checkpoint: Checkpoint) -> bool:
    """Whether every weight is finite."""
    import torch
    from safetensors import safe_open

    for path in checkpoint.path.glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            names = list(weights.keys())
            if not all(torch.isfinite(weights.get_tensor(name)).all() for name in names):
                return False
    return True
