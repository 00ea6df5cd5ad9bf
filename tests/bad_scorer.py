"""A reward that a policy would exploit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r2w_eval.reward_models.items import Item, ItemScore, ReflectionItem


class LongerScorer:
    """A bad scorer: the longer the remark, the better."""

    id = "longer@1"

    def describe(self) -> Mapping[str, Any]:
        return {}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        return [
            ItemScore(i.id, float(len(i.reflection) if isinstance(i, ReflectionItem) else 0))
            for i in items
        ]
