"""`r2w-rules`: scores reflections by formulas, without trained weights.

Definitions and guards: r2write.md section 6.2. The axes are in [-1, 1]; the value is their weighted
mean without `effect`, which formulas cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r2w_eval.reward_models.axes import combine
from r2w_eval.reward_models.items import (
    Item,
    ItemScore,
    ItemStatus,
    ReflectionItem,
    failed,
    unscorable,
)
from r2w_eval.reward_models.language.cues import cue, unquoted
from r2w_eval.reward_models.language.filler import clean, strip_filler
from r2w_eval.reward_models.language.words import containment, sentences, words
from r2w_eval.reward_models.linear.features import MAX_CHARS, reflection_features

MAX_SHARE_OF_DRAFT = 0.25


class RulesScorer:
    """Scores reflections; pieces of writing get the status `bad_item`."""

    id = "r2w-rules"

    def describe(self) -> Mapping[str, Any]:
        """The formula and its version."""
        return {"formula": "method section 6.2", "version": 2}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item."""
        return [_score(item) for item in items]


def _score(item: Item) -> ItemScore:
    if not isinstance(item, ReflectionItem):
        return failed(item.id, ItemStatus.BAD_ITEM, "the rules score reflections only")
    problem = unscorable(item)
    if problem is not None:
        return failed(item.id, *problem)
    found = reflection_features(item).dense
    axes = {
        "relevance": relevance(found),
        "constructiveness": constructiveness(found),
        "efficiency": efficiency(item, found),
    }
    return ItemScore(item.id, round(combine(axes), 6), axes)


def relevance(found: Mapping[str, float]) -> float:
    """+1 if it quotes the draft and names a problem; -1 if most quotations are invented.

    Up to half of the quotations may be in neither draft nor prompt, and then lower the value by
    their share: a good remark also quotes the wording that it asks for.
    """
    if found["quotes_absent"] > 0.5:
        return -1.0
    anchored = found["quotes_found"] if found["quotes"] else min(1.0, 2.0 * found["echo"])
    named = 1.0 - found["no_category"]
    return max(-1.0, min(1.0, anchored + named - 1.0))


def constructiveness(found: Mapping[str, float]) -> float:
    """Half for stating a change, half for its uptake: change there minus change elsewhere."""
    stated = 1.0 if found["has_request"] and not found["is_degenerate"] else -1.0
    if not found["has_revision"]:
        return stated
    if found["quotes_found"] and not found["touched"]:
        return 0.5 * stated - 0.5
    return 0.5 * stated + 0.5 * max(-1.0, min(1.0, found["lift"]))


def efficiency(item: ReflectionItem, found: Mapping[str, float]) -> float:
    """1 - 2 max(redundancy, restated prompt, filler), less for over a quarter of the draft."""
    waste = max(redundancy(item), found["restates"], filler_share(item.reflection))
    length = len(words(item.reflection)) / max(1, len(words(item.draft)))
    return max(-1.0, 1.0 - 2.0 * waste - max(0.0, length - MAX_SHARE_OF_DRAFT))


def redundancy(item: ReflectionItem) -> float:
    """Largest share of its 3-grams that one of the latest reflections contains."""
    own = words(clean(item.reflection[:MAX_CHARS]))
    return max((containment(own, words(earlier), 3) for earlier in item.latest), default=0.0)


def filler_share(reflection: str) -> float:
    """Share of sentences that only praise or give general advice."""
    parts = sentences(strip_filler(reflection))
    empty = [
        part
        for part in parts
        if (cue("praise").search(unquoted(part)) or cue("generic").search(unquoted(part)))
        and not cue("because").search(part)
    ]
    return len(empty) / len(parts) if parts else 0.0
