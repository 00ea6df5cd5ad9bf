"""A judge without calls, so that only generation is timed (`--judge
constant_scorer:SCORER`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r2w_eval.judge.scorers import ScoreItem, Verdict
from r2w_eval.types import Score


class ConstantScorer:
    """Gives every question the same score."""

    id = "constant"

    def describe(self) -> dict[str, Any]:
        """Nothing changes its scores."""
        return {"value": 1.0}

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        """The same verdict for each item."""
        return [Verdict(Score(1.0)) for _ in items]

    async def close(self) -> None:
        """There is nothing to close."""


SCORER = ConstantScorer()
