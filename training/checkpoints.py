"""Checkpoints on disk: which are whole, and which to go on from. No framework import."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d+)$")
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
)


@dataclass(frozen=True, slots=True, order=True)
class Checkpoint:
    """A folder `checkpoint-<step>` of the trainer."""

    step: int
    path: Path

    @property
    def is_whole(self) -> bool:
        """Weights, optimiser and trainer state are there and can be read.

        The trainer writes its state last: a kill in between leaves a folder without it.
        """
        try:
            state = json.loads((self.path / "trainer_state.json").read_bytes())
        except (OSError, ValueError):
            return False
        has_weights = any((self.path / name).is_file() for name in _WEIGHTS)
        return has_weights and state.get("global_step") == self.step


def find_checkpoints(folder: Path) -> list[Checkpoint]:
    """All whole checkpoints, by step; half-written ones are left out."""
    found = [
        Checkpoint(int(match[1]), path)
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and (match := _NAME.search(path.name))
    ]
    return sorted(one for one in found if one.is_whole)


def resume_from(folder: Path) -> str | None:
    """The last whole checkpoint as the trainer wants it, or None to begin."""
    found = find_checkpoints(folder)
    return str(found[-1].path) if found else None
