"""Trivial baselines beside every learned score, so that no figure is shown without its floor.

Length in characters and, for reflections, the share of their words that the draft has and the
number of words of request (specification: reward model, section 6). They need no weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r2w_eval.reward_models.items import Item, ItemScore, WritingItem
from r2w_eval.reward_models.language.cues import cue, unquoted
from r2w_eval.reward_models.language.words import containment, content_words
from r2w_eval.reward_models.scorer import ItemScorer

from r2w_eval.stats.agreement import Method, associate

PART = "baselines"


@dataclass(frozen=True, slots=True)
class WithBaselines:
    """A scorer that adds the trivial baselines of each item to its score's `parts`."""

    scorer: ItemScorer

    @property
    def id(self) -> str:
        """The wrapped scorer's id: values are the same."""
        return self.scorer.id

    def describe(self) -> Mapping[str, Any]:
        """The wrapped scorer's description, marked as having baselines."""
        return {**self.scorer.describe(), PART: True}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """Scores in order; those without a value are not changed."""
        return [
            score if score.value is None
            else replace(score, parts={**score.parts, PART: baselines_of(item)})
            for item, score in zip(items, self.scorer.score(items), strict=True)
        ]  # fmt: skip


def baselines_of(item: Item) -> dict[str, float]:
    """The trivial baselines of one item.

    >>> baselines_of(WritingItem("1", "Write.", "A gate."))
    {'longer': 7.0}
    """
    if isinstance(item, WritingItem):
        return {"longer": float(len(item.response))}
    own = content_words(unquoted(item.reflection))
    return {
        "longer": float(len(item.reflection)),
        "overlap": round(containment(own, content_words(item.draft), 1), 6),
        "requests": float(len(cue("request").findall(unquoted(item.reflection)))),
    }


def correlations(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line a baseline: rank correlation with the value, interval and n."""
    values: dict[str, tuple[list[float], list[float]]] = {}
    for record in records:
        for name, reading in record["parts"].get(PART, {}).items():
            own, trivial = values.setdefault(name, ([], []))
            own.append(record["value"])
            trivial.append(reading)
    return [_line(name, *columns) for name, columns in values.items()]


def _line(name: str, values: list[float], trivial: list[float]) -> str:
    found, n = associate(values, trivial, Method.SPEARMAN), len(values)
    if found.value is None:
        return f"{name}: no rank correlation with the value (n = {n}; too few, or all are equal)"
    bounds = "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{name}: rank correlation with the value {found.value:.3f}{bounds}, n = {n}"
