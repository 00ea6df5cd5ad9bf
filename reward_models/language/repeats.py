"""How much of a remark was said in an earlier one."""

from __future__ import annotations

from dataclasses import dataclass

from r2w_eval.reward_models.language.words import (
    containment,
    content_words,
    quotations,
    remembered,
    words,
)

BY_CHANCE_RUNS, BY_CHANCE_WORDS = 0.5, 0.75
"""What two remarks that say different things may share of either."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Shares of a remark, in [0, 1], that an earlier one contains."""

    runs: float
    """Of its runs of three words."""
    words: float
    """Of its content words."""
    quotations: float
    """Of its quotations."""

    @property
    def is_repeat(self) -> bool:
        """More than by chance, or the same place again."""
        return self.runs > BY_CHANCE_RUNS or self.words > BY_CHANCE_WORDS or self.quotations > 0


@remembered
def overlap(remark: str, earlier: str) -> Overlap:
    """What of a remark was said in an earlier one.

    >>> overlap("The gate is rusty.", "I see that the gate is rusty now.").runs
    1.0
    """
    quoted, said = quotations(remark), earlier.lower()
    again = [q for q in quoted if q.lower() in said]
    return Overlap(
        containment(words(remark), words(earlier), 3),
        containment(content_words(remark), words(earlier), 1),
        len(again) / len(quoted) if quoted else 0.0,
    )
