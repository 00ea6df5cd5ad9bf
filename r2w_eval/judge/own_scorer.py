"""A scorer of the user's own as a judge: what it gives is checked before it is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from r2w_eval.errors import UsageError
from r2w_eval.judge.scorers import ScoreItem, Scorer, Verdict
from r2w_eval.named_objects import load_object
from r2w_eval.terminal import warn
from r2w_eval.types import JudgeStatus, Score, is_number

Bounds = tuple[float, float]


class OwnScorer:
    """A `Scorer` around another: one verdict per item, each a finite number of its own range."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    @property
    def id(self) -> str:
        """The scorer's name."""
        return self._scorer.id

    def describe(self) -> dict[str, Any]:
        """The scorer's facts."""
        return self._scorer.describe()

    async def close(self) -> None:
        """Close the scorer; where it fails to, its verdicts stand all the same."""
        try:
            await self._scorer.close()
        except Exception as error:  # noqa: BLE001 - somebody's program
            warn(f"{self.id}: close() failed with {type(error).__name__}: {error}")

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        """The scorer's verdicts. Raises UsageError where they are not one per item."""
        verdicts = await self._scorer.score(items)
        if len(verdicts) != len(items):
            raise UsageError(
                f"{self.id}: {len(verdicts)} verdicts on {len(items)} items. Expected one per "
                f"item, in order; see docs/howto/scorer.md"
            )
        bounds = stated_range(self.describe())
        return [replace(verdict, score=check_value(verdict.score, bounds)) for verdict in verdicts]


def load_scorer(spec: str) -> Scorer:
    """`module:attr`, where attr is a scorer, or makes one. Raises UsageError."""
    return OwnScorer(load_object("--judge", spec, ("id", "describe", "score", "close")))


def stated_range(facts: Mapping[str, Any]) -> Bounds | None:
    """The lowest and highest value that a scorer says it gives (`range` of its facts).

    >>> stated_range({"range": [0, 3]}), stated_range({})
    ((0.0, 3.0), None)
    """
    stated = facts.get("range")
    if not isinstance(stated, (list, tuple)) or len(stated) != 2 or not all(map(is_number, stated)):
        return None
    if stated[0] >= stated[1]:
        return None
    return float(stated[0]), float(stated[1])


def check_value(score: Score, bounds: Bounds | None) -> Score:
    """The score, `out_of_range` where its value is no number or not of the range.

    >>> check_value(Score(7.0), (0.0, 3.0)).reason
    '7.0 is outside of the range 0.0 to 3.0'
    """
    low, high = bounds or (-math.inf, math.inf)
    value = score.value
    if value is None or (math.isfinite(value) and low <= value <= high):
        return score
    allowed = "no finite number" if bounds is None else f"outside of the range {low} to {high}"
    return replace(
        score, value=None, status=JudgeStatus.OUT_OF_RANGE, reason=f"{value} is {allowed}"
    )
