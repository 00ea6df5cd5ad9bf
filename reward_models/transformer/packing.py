"""Many texts with a common beginning in one forward pass: the beginning is computed once.

A pack is a tree of token segments. Each token attends to its own segment and to its ancestors, at
the position it would have if the branch stood alone, so that values equal those of separate texts.
Segments are laid out depth first, so that what a token may be seen by is one range: itself up to
`until`. On a GPU a mask of n x n bits is made from that, and only vectors travel there; a CPU
attends branch by branch (`forest.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]
# rows end at a multiple of this: attention kernels for masks and matrix units want it
ALIGN = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """Token ids that follow a parent segment (its index in the pack; None: the beginning)."""

    ids: tuple[int, ...]
    parent: int | None


@dataclass(frozen=True, slots=True)
class Pack:
    """A tree laid out as one sequence of n tokens.

    `ids`, `positions`, `until`: (n,); token j is seen by the tokens i with j <= i < until[j].
    `ends[s]` is the index of the last token of segment s.
    """

    ids: Ints
    positions: Ints
    until: Ints
    ends: tuple[int, ...]

    @property
    def is_chain(self) -> bool:
        """One text without branches: ordinary causal attention."""
        return bool((self.until == len(self.ids)).all())

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """(n, n), row attends to column."""
        order = np.arange(len(self.ids))
        return (order <= order[:, None]) & (order[:, None] < self.until)


def lay_out(segments: Sequence[Segment]) -> Pack:
    """Lay a tree out. A parent must come before its children; segments are not empty.

    >>> pack = lay_out([Segment((5, 6), None), Segment((7,), 0), Segment((8,), 0)])
    >>> pack.positions.tolist(), pack.allowed.astype(int)[3].tolist()
    ([0, 1, 2, 2], [1, 1, 0, 1])
    """
    subtree = [len(s.ids) for s in segments]
    for s in range(len(segments) - 1, -1, -1):
        parent = segments[s].parent
        if parent is not None:
            subtree[parent] += subtree[s]
    n = sum(len(s.ids) for s in segments)
    ids, positions, until = (np.empty(n, np.int64) for _ in range(3))
    # where the next child of a segment begins; of the whole pack at the last place
    free = [0] * len(segments) + [0]
    depth = [0] * len(segments) + [0]
    ends = []
    for s, segment in enumerate(segments):
        above = len(segments) if segment.parent is None else segment.parent
        start, first = free[above], depth[above]
        end = start + len(segment.ids)
        ids[start:end] = segment.ids
        positions[start:end] = np.arange(first, first + end - start)
        until[start:end] = start + subtree[s]
        free[above] = start + subtree[s]
        free[s], depth[s] = end, first + end - start
        ends.append(end - 1)
    return Pack(ids, positions, until, tuple(ends))


def by_budget(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of packs in batches of like length, at most `budget` tokens with their padding.

    >>> list(by_budget([5, 96, 6, 88], 200))
    [[0, 2], [3, 1]]
    """
    batch: list[int] = []
    for index in sorted(range(len(sizes)), key=sizes.__getitem__):
        padded = aligned(sizes[index])
        # padding of more than an eighth of the longest is worth a pass of its own
        short = bool(batch) and aligned(sizes[batch[0]]) * 8 < padded * 7
        if batch and (short or padded * (len(batch) + 1) > budget):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def aligned(n: int) -> int:
    """The next multiple of ALIGN."""
    return -(-n // ALIGN) * ALIGN


def collate(
    packs: Sequence[Pack], pad_id: int, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """Model inputs for several packs, padded on the right, on the device.

    Chains need ids alone: causal attention never looks at padding to the right. Trees get positions
    and a mask (batch, 1, n, n), True where attention is allowed; padding attends to itself.
    """
    import torch

    n = aligned(max(len(pack.ids) for pack in packs))
    ids = np.full((len(packs), n), pad_id, np.int64)
    for row, pack in enumerate(packs):
        ids[row, : len(pack.ids)] = pack.ids
    if all(pack.is_chain for pack in packs):
        return {"input_ids": to_device(ids, device)}
    positions = np.zeros((len(packs), n), np.int64)
    until = np.tile(np.arange(1, n + 1), (len(packs), 1))
    for row, pack in enumerate(packs):
        positions[row, : len(pack.ids)] = pack.positions
        until[row, : len(pack.ids)] = pack.until
    order, last = torch.arange(n, device=device), to_device(until, device)
    allowed = (order <= order[:, None]) & (order[:, None] < last[:, None, :])
    return {
        "input_ids": to_device(ids, device),
        "position_ids": to_device(positions, device),
        "attention_mask": allowed[:, None],
    }


def to_device(array: NDArray[np.generic], device: torch.device | str) -> torch.Tensor:
    """A tensor on the device, copied from pinned memory so that the host need not wait."""
    import torch

    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda" or not tensor.numel():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def hidden_at(
    model: torch.nn.Module, packs: Sequence[Pack], places: Sequence[Sequence[int]], pad_id: int
) -> torch.Tensor:
    """Last hidden states (readings, width) at places of each pack, in order, in one pass.

    `model` is the body of a transformers model (`.model` of a classifier).
    """
    weight = next(model.parameters())
    device = weight.device
    sizes = [len(pack.ids) for pack in packs]
    if device.type == "cpu":
        from r2w_eval.reward_models.transformer.forest import forest_inputs, use_forest

        use_forest(model)
        inputs = forest_inputs(packs, weight.dtype)
        starts = [0, *itertools.accumulate(sizes[:-1])]
    else:
        inputs = collate(packs, pad_id, device)
        starts = [row * inputs["input_ids"].shape[1] for row in range(len(packs))]
    flat = [start + place for start, own in zip(starts, places, strict=True) for place in own]
    hidden: torch.Tensor = model(**inputs, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[to_device(np.array(flat, np.int64), device)]
