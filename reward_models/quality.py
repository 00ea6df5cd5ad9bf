"""`--judge r2w-quality`: the outcome score as a judge of runs, mapped to the suite's scale.

It looks only at the answer, so that every criterion gets the same number; its identity says so. It
needs no network, no key and no torch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from r2w_eval.reward_models.items import ItemScore, WritingItem
from r2w_eval.reward_models.linear.features import MAX_CHARS
from r2w_eval.reward_models.scorer import RewardModel, load_reward

from r2w_eval.judge.scorers import ScoreItem, Verdict
from r2w_eval.types import JudgeStatus, Scale, Score


class QualityJudge:
    """A `Scorer` over the shipped reward model."""

    def __init__(self, model: RewardModel | None = None) -> None:
        self._model = model or load_reward()

    @property
    def id(self) -> str:
        """`r2w-quality@` and the hash of the weights that score writing."""
        return f"r2w-quality@{self._model.outcome_hash[:12]}"

    def describe(self) -> Mapping[str, Any]:
        """Weights and limits of this judge."""
        return {
            "weights_sha256": self._model.outcome_hash,
            "max_chars": MAX_CHARS,
            "reads": "answer only; blind to criterion and prompt",
        }

    async def close(self) -> None:
        """Nothing to release."""

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        """One verdict per item, in order, computed in a thread."""
        return await asyncio.to_thread(self._score, items)

    def _score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        started = time.monotonic()
        writings = [WritingItem(str(i), item.prompt, item.answer) for i, item in enumerate(items)]
        scores = self._model.score(writings)
        spent = (time.monotonic() - started) / max(1, len(items))
        return [
            Verdict(on_scale(score, item.request.scale), (), self.id, latency_s=spent)
            for item, score in zip(items, scores, strict=True)
        ]


def on_scale(score: ItemScore, scale: Scale | None) -> Score:
    """The outcome in [-1, 1] mapped linearly to the range of the suite's scale."""
    if scale is None:
        return Score(None, JudgeStatus.BAD_REQUEST, "this verdict has no discrete scale")
    if score.value is None:
        return Score(None, JudgeStatus.BAD_REQUEST, f"{score.status}: {score.reason}")
    low, high = min(scale.labels.values()), max(scale.labels.values())
    return Score(low + (score.value + 1) / 2 * (high - low), parts={"outcome": score.value})
