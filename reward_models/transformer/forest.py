"""Attention of a CPU to packs that lie one behind another in one row, without padding.

A mask over a whole row makes every token meet every other one. Here a pack is taken apart: its stem
(what all of it sees) attends causally, and its branches, a few at a time, attend to the stem and to
themselves. Registered with transformers as the attention FOREST; its layers hand the argument
`forest` down. A GPU does better with one kernel and a mask (`packing.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from r2w_eval.reward_models.transformer.packing import Pack
from torch.nn import functional as F

FOREST = "r2w_forest"
# branches go together until they hold this many tokens: fewer calls against more cells in vain
TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Grove:
    """A pack in parts: tokens of the stem, then of each group of branches with its mask.

    A mask (n, stem + n) is added to the scores: 0 where a token of the group may look, else minus
    infinity. None: no stem, and everything before.
    """

    stem: int
    groups: tuple[tuple[int, torch.Tensor | None], ...]

    @property
    def sizes(self) -> list[int]:
        """Tokens of the parts, in order; a stem of none is no part."""
        return [n for n in (self.stem, *(n for n, _ in self.groups)) if n]


def grove_of(pack: Pack, dtype: torch.dtype = torch.float32) -> Grove:
    """Take a pack apart; masks in `dtype`.

    >>> from r2w_eval.reward_models.transformer.packing import Segment, lay_out
    >>> grove_of(lay_out([Segment((5, 6), None), Segment((7,), 0), Segment((8,), 0)])).sizes
    [2, 2]
    """
    n = len(pack.ids)
    seen_by_all = pack.until == n
    stem = n if pack.is_chain else int(seen_by_all.argmin())
    cuts = [stem]
    while cuts[-1] < n:
        end = cuts[-1]
        while end < n and end - cuts[-1] < TOGETHER:
            end = int(pack.until[end])
        cuts.append(end)
    return Grove(stem, tuple((b - a, _mask(pack, stem, a, b, dtype)) for a, b in pairwise(cuts)))


def _mask(pack: Pack, stem: int, start: int, end: int, dtype: torch.dtype) -> torch.Tensor | None:
    own = pack.until[start:end]
    if not stem and (own == end).all():
        return None
    order = np.arange(start, end)
    hidden = (order > order[:, None]) | (order[:, None] >= own)
    mask = torch.zeros(end - start, stem + end - start, dtype=dtype)
    mask[:, stem:].masked_fill_(torch.from_numpy(hidden), -torch.inf)
    return mask


def forest_inputs(packs: Sequence[Pack], dtype: torch.dtype) -> dict[str, Any]:
    """Model inputs for several packs in one row: ids, positions and the forest."""
    return {
        "input_ids": torch.from_numpy(np.concatenate([p.ids for p in packs]))[None],
        "position_ids": torch.from_numpy(np.concatenate([p.positions for p in packs]))[None],
        "forest": [grove_of(pack, dtype) for pack in packs],
    }


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    forest: Sequence[Grove],
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """(1, heads, n, d) to (1, n, heads, d): the attention function that transformers calls.

    `module` and `attention_mask` are its contract; the forest says what a token may see. Of the
    options `scaling` is read.
    """
    scaling = options.get("scaling")
    copies = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(copies, dim=1) for x in (key, value))
    sizes = [n for grove in forest for n in grove.sizes]
    parts = zip(*(torch.split(x, sizes, dim=2) for x in (query, key, value)), strict=True)
    found = []
    for grove in forest:
        stem_key, stem_value = key[:, :, :0], value[:, :, :0]
        if grove.stem:
            own, stem_key, stem_value = next(parts)
            found.append(_attend(own, stem_key, stem_value, None, scaling))
        for _, mask in grove.groups:
            own, *rest = next(parts)
            k, v = (torch.cat(pair, 2) for pair in zip((stem_key, stem_value), rest, strict=True))
            found.append(_attend(own, k, v, mask, scaling))
    return torch.cat(found, 2).transpose(1, 2), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    # the fused kernel is slow for few queries with a mask, above all backwards
    scores = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5) + mask
    return torch.softmax(scores, -1) @ value


def use_forest(model: Any) -> None:
    """Let a transformers model attend this way from now on; it then reads forests only."""
    from transformers import AttentionInterface

    if model.config._attn_implementation != FOREST:
        AttentionInterface.register(FOREST, attend)
        model.set_attn_implementation(FOREST)
