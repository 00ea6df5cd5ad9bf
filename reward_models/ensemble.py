"""`r2w-ensemble`: both forms of the reward model in one value, for machines with torch.

A reflection is worth two thirds of what the n-gram model says and one third of what the transformer
says; they err on different items (EXPERIMENTS.md, 49). A piece of writing is read by the n-gram
model alone, as the transformer's order of pieces is no better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r2w_eval.reward_models.items import Item, ItemScore, ReflectionItem, failed
from r2w_eval.reward_models.scorer import ItemScorer, load_reward

from r2w_eval.hashing import content_hash

NAME = "r2w-ensemble"
SHARE = 1 / 3


@dataclass(frozen=True)
class Ensemble:
    """The weighted mean of two scorers on reflections; `share` is the transformer's."""

    ngrams: ItemScorer
    transformer: ItemScorer
    share: float = SHARE

    @property
    def id(self) -> str:
        """`r2w-ensemble@` and the beginning of a hash of both members' names and the share."""
        return f"{NAME}@{content_hash([self.ngrams.id, self.transformer.id, self.share], 12)}"

    def describe(self) -> Mapping[str, Any]:
        """Both members and the share."""
        members = {one.id: dict(one.describe()) for one in (self.ngrams, self.transformer)}
        return {"members": members, "share": self.share}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item, in order; a reflection without a value in either has none."""
        found = self.ngrams.score(items)
        both = [
            i for i, (item, score) in enumerate(zip(items, found, strict=True))
            if isinstance(item, ReflectionItem) and score.value is not None
        ]  # fmt: skip
        seconds = self.transformer.score([items[i] for i in both])
        for i, second in zip(both, seconds, strict=True):
            found[i] = self._joined(found[i], second)
        return found

    def _joined(self, first: ItemScore, second: ItemScore) -> ItemScore:
        if first.value is None or second.value is None:
            return failed(second.id, second.status, second.reason)
        value = (1 - self.share) * first.value + self.share * second.value
        cut = {name: n for name, n in second.parts.items() if name == "cut_tokens"}
        own = {"ngrams": first.value, "transformer": round(second.value, 6), **cut}
        return ItemScore(first.id, round(value, 6), {**first.parts, **own})


def load_ensemble() -> Ensemble:
    """The shipped weights of both; drafts too long for the transformer are cut and say so.

    Raises DataError, UsageError.
    """
    from r2w_eval.reward_models.transformer.artifact import load_shipped

    return Ensemble(load_reward(), load_shipped(truncation="middle"))
