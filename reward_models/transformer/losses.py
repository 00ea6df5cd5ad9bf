"""The loss of the transformer on trees of readings, as sums over flat arrays of a whole batch.

With s the head's output at a reading and y its target (specification: reward model, section 4):

    Huber(s, y) + rank over pairs of one draft + gamma * mean(s)^2 + axis_weight * Huber(axes)

each term a mean over one tree, where in the first right and wrong readings count the same: a remark
has several wrong ones beside it, and one that cannot be told from them would else be put below a
revision that changes nothing, of which it is known that it is half right. Trees are weighed, then
summed; what is known about a tree is worked out once and moved to the device as a few vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from r2w_eval.reward_models.axes import HEAD_AXES
from r2w_eval.reward_models.transformer.packing import to_device
from r2w_eval.reward_models.transformer.trees import Reading, Tree
from torch.nn import functional as F

RANK_MARGIN = 0.3
RANK_SLOPE = 2.0
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Targets:
    """What is known about the readings of one tree. Shares are what an element counts in its mean.

    `value`, `share`: (readings,); `better`, `worse`, `pair_share`: (pairs,); `axis_row`,
    `axis_column`, `axis_value`, `axis_share`: (known axes,).
    """

    value: Floats
    share: Floats
    better: Ints
    worse: Ints
    pair_share: Floats
    axis_row: Ints
    axis_column: Ints
    axis_value: Floats
    axis_share: Floats


@dataclass(frozen=True, slots=True)
class Batch:
    """Targets of several trees as tensors on one device; `owner` names the tree of a reading."""

    value: torch.Tensor
    share: torch.Tensor
    better: torch.Tensor
    worse: torch.Tensor
    pair_share: torch.Tensor
    axis_row: torch.Tensor
    axis_column: torch.Tensor
    axis_value: torch.Tensor
    axis_share: torch.Tensor
    owner: torch.Tensor
    mean_share: torch.Tensor
    """One over the readings of the owner."""
    tree_weight: torch.Tensor


def targets_of(tree: Tree) -> Targets:
    """The targets of a tree as arrays."""
    readings = tree.readings
    better, worse = ranked(readings)
    known = [(i, j, r.axes[a]) for i, r in enumerate(readings)
             for j, a in enumerate(HEAD_AXES) if a in r.axes]  # fmt: skip
    rows, columns, labels = zip(*known, strict=True) if known else ((), (), ())
    return Targets(
        np.array([r.value for r in readings], np.float32),
        shares(readings),
        np.array(better, np.int64),
        np.array(worse, np.int64),
        np.full(len(better), 1 / max(1, len(better)), np.float32),
        np.array(rows, np.int64),
        np.array(columns, np.int64),
        np.array(labels, np.float32),
        np.full(len(known), 1 / max(1, len(known)), np.float32),
    )


def shares(readings: Sequence[Reading]) -> Floats:
    """What each reading counts, (readings,): its weight, where there are right and wrong ones so
    scaled that either side has half of all; their sum is the mean weight.
    """
    weights = np.array([r.weight for r in readings], np.float32)
    right = np.array([r.value > 0 for r in readings])
    total = weights.sum()
    if right.any() and not right.all():
        halves = np.where(right, weights[right].sum(), weights[~right].sum())
        weights = weights * total / (2 * halves)
    return weights / np.float32(len(readings))


def ranked(readings: Sequence[Reading]) -> tuple[list[int], list[int]]:
    """Indices (better, worse) of readings of one pair whose targets differ clearly."""
    better, worse = [], []
    for i, one in enumerate(readings):
        for j, other in enumerate(readings):
            if one.pair == other.pair and one.value - other.value > RANK_MARGIN:
                better.append(i)
                worse.append(j)
    return better, worse


def join(trees: Sequence[Targets], weights: Sequence[float], device: torch.device | str) -> Batch:
    """Targets of a batch; indices count over all its readings, shares carry the tree's weight."""
    sizes = np.array([len(t.value) for t in trees])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    columns: dict[str, NDArray[np.generic]] = {}
    for name in (f.name for f in fields(Targets)):
        parts = [getattr(t, name) for t in trees]
        if name in ("better", "worse", "axis_row"):
            parts = [p + start for p, start in zip(parts, starts, strict=True)]
        elif name.endswith("share"):
            parts = [p * np.float32(w) for p, w in zip(parts, weights, strict=True)]
        columns[name] = np.concatenate(parts)
    columns["owner"] = np.repeat(np.arange(len(trees)), sizes)
    columns["mean_share"] = np.repeat(1 / sizes, sizes).astype(np.float32)
    columns["tree_weight"] = np.array(weights, np.float32)
    return Batch(**{name: to_device(column, device) for name, column in columns.items()})


def batch_loss(
    values: torch.Tensor, axes: torch.Tensor, batch: Batch, axis_weight: float, gamma: float
) -> torch.Tensor:
    """Weighted sum of the losses of all trees; `values` (readings,), `axes` (readings, 4)."""
    single = F.huber_loss(values, batch.value, reduction="none")
    gaps = values[batch.better] - values[batch.worse]
    means = torch.zeros_like(batch.tree_weight).index_add(0, batch.owner, values * batch.mean_share)
    loss = (
        (batch.share * single).sum()
        - (batch.pair_share * F.logsigmoid(RANK_SLOPE * gaps)).sum()
        + gamma * (batch.tree_weight * means**2).sum()
    )
    # without a known axis the axis heads get no gradient at all, and the optimizer leaves them
    if batch.axis_row.numel():
        found = axes[batch.axis_row, batch.axis_column]
        named = F.huber_loss(found, batch.axis_value, reduction="none")
        loss = loss + axis_weight * (batch.axis_share * named).sum()
    return loss
