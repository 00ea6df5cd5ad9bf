"""Many texts with a common beginning in one forward pass: the beginning is computed once.

A pack is a tree of token segments. Each token attends to its own segment and to its ancestors, at
the position it would have if the branch stood alone, so that values equal those of separate texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Segment:
    """Token ids that follow a parent segment (its index in the pack; None: the beginning)."""

    ids: tuple[int, ...]
    parent: int | None


@dataclass(frozen=True, slots=True)
class Pack:
    """A tree laid out as one sequence of n tokens.

    `ids`, `positions`: (n,). `allowed`: (n, n), row attends to column. `ends[s]` is the index of
    the last token of segment s.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    ends: tuple[int, ...]


def lay_out(segments: Sequence[Segment]) -> Pack:
    """Lay a tree out. A parent must come before its children; segments are not empty.

    >>> pack = lay_out([Segment((5, 6), None), Segment((7,), 0), Segment((8,), 0)])
    >>> pack.positions.tolist(), pack.allowed.astype(int)[3].tolist()
    ([0, 1, 2, 2], [1, 1, 0, 1])
    """
    n = sum(len(s.ids) for s in segments)
    ids, positions = np.empty(n, np.int64), np.empty(n, np.int64)
    allowed = np.zeros((n, n), np.bool_)
    spans: list[tuple[int, int]] = []
    start = 0
    for segment in segments:
        end = start + len(segment.ids)
        ids[start:end] = segment.ids
        first = 0
        if segment.parent is not None:
            low, high = spans[segment.parent]
            first = int(positions[high - 1]) + 1
            # the parent's last token sees all of its ancestors and its segment
            allowed[start:end] = allowed[high - 1]
        positions[start:end] = np.arange(first, first + end - start)
        allowed[start:end, start:end] = np.tri(end - start, dtype=np.bool_)
        spans.append((start, end))
        start = end
    return Pack(ids, positions, allowed, tuple(end - 1 for _, end in spans))


def collate(packs: Sequence[Pack], pad_id: int) -> dict[str, torch.Tensor]:
    """Model inputs for several packs, padded on the right: ids, positions, 4-d mask.

    The mask is (batch, 1, n, n), True where attention is allowed; padding attends to itself.
    """
    import torch

    n = max(len(pack.ids) for pack in packs)
    ids = np.full((len(packs), n), pad_id, np.int64)
    positions = np.zeros((len(packs), n), np.int64)
    allowed = np.zeros((len(packs), 1, n, n), np.bool_)
    allowed[:, 0, np.arange(n), np.arange(n)] = True
    for row, pack in enumerate(packs):
        size = len(pack.ids)
        ids[row, :size], positions[row, :size] = pack.ids, pack.positions
        allowed[row, 0, :size, :size] = pack.allowed
    return {
        "input_ids": torch.from_numpy(ids),
        "position_ids": torch.from_numpy(positions),
        "attention_mask": torch.from_numpy(allowed),
    }
