"""GRPO with a process term on the tokens of each reflection, through TRL's supported seam.

TRL's loss takes advantages of shape (batch, tokens) where a subclass gives them; here the parent's
outcome advantages get the `local` term of `advantages.py` added (specification: reward-model.md
section 9.1, checked against TRL 1.16). With lambda 0 the parent's own tensor is returned.

Imports torch and TRL: load this module from within a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather, gather_object
from r2w_eval.reward_models.items import ReflectionItem
from r2w_eval.training.advantages import LocalMapping, Rollout, local_terms
from r2w_eval.training.completions import (
    prompt_text,
    read_completion,
    reflections,
    to_segments,
)
from trl import GRPOTrainer

from r2w_eval.trace import TagSchema

ScoreReflections = Callable[[Sequence[ReflectionItem]], Sequence[float | None]]


class ProcessGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` that also pays each reflection on its own tokens.

    `score_reflections` gives one score in [-1, 1] per reflection, None where there is no valid one;
    it runs in a thread beside the outcome rewards. `mapping.weight` 0 switches everything off.
    """

    def __init__(
        self,
        *args: Any,
        score_reflections: ScoreReflections,
        mapping: LocalMapping,
        schema: TagSchema,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._score_reflections = score_reflections
        self._mapping = mapping
        self._schema = schema
        self._thread = ThreadPoolExecutor(1, "reflections")
        self._outcomes: list[float | None] = []
        self._scored: Future[list[Rollout]] | None = None

    def _process_weight(self) -> float:
        """lambda now; 0 while evaluating, where the outcome alone counts."""
        if not self.model.training or not self.state.max_steps:
            return 0.0
        return self._mapping.weight_at(self.state.global_step / self.state.max_steps)

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """The parent's rewards of all ranks, with the reflections scored meanwhile."""
        self._scored = None
        if self._process_weight():
            self._scored = self._thread.submit(self._read_rollouts, prompts, completion_ids_list)
        rewards: torch.Tensor = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        self._outcomes = combine(rewards, self.reward_weights)
        return rewards

    def _read_rollouts(self, prompts: Sequence[Any], ids: Sequence[Sequence[int]]) -> list[Rollout]:
        """Segments and scores of this rank's completions; all of them in one call of the scorer."""
        found = [
            reflections(
                read_completion(own, self.processing_class.decode, self._schema),
                prompt_text(prompt),
                str(place),
            )
            for place, (prompt, own) in enumerate(zip(prompts, ids, strict=True))
        ]
        items = [one.item for own in found for one in own]
        scores = iter(self._score_reflections(items) if items else [])
        return [
            Rollout(len(own_ids), None, to_segments(own, [next(scores) for _ in own]))
            for own, own_ids in zip(found, ids, strict=True)
        ]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """The parent's batch, with advantages of shape (batch, tokens) where lambda is not 0."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self._scored is None:
            return output
        own = self._scored.result()
        outcome_advantages = output["advantages"]
        terms = self._terms(own, outcome_advantages)
        mask = output["completion_mask"]
        process = torch.zeros_like(mask, dtype=outcome_advantages.dtype)
        for row, term in enumerate(terms):
            process[row, : len(term)] = torch.as_tensor(term, dtype=process.dtype)
        output["advantages"] = (outcome_advantages.unsqueeze(1) + process) * mask
        self._log_process(own, process, outcome_advantages)
        return output

    def _terms(
        self, own: Sequence[Rollout], advantages: torch.Tensor
    ) -> list[np.ndarray[Any, Any]]:
        """This rank's process terms; groups may straddle ranks, so all are gathered first."""
        everyone = gather_object(list(own))
        every_advantage = gather(advantages).tolist()
        rollouts = [
            replace(rollout, outcome=outcome)
            for rollout, outcome in zip(everyone, self._outcomes, strict=True)
        ]
        known = [
            None if rollout.outcome is None else advantage
            for rollout, advantage in zip(rollouts, every_advantage, strict=True)
        ]
        weight, size = self._process_weight(), self.num_generations
        terms = [
            term
            for start in range(0, len(rollouts), size)
            for term in local_terms(
                rollouts[start : start + size], known[start : start + size], self._mapping, weight
            )
        ]
        first = self.accelerator.process_index * len(own)
        return terms[first : first + len(own)]

    def _log_process(
        self, own: Sequence[Rollout], process: torch.Tensor, advantages: torch.Tensor
    ) -> None:
        segments = [segment for rollout in own for segment in rollout.segments]
        scores = [segment.score for segment in segments if segment.score is not None]
        log = self._metrics["train"]
        log["process/reflections"].append(len(segments) / max(1, len(own)))
        log["process/without_reflection"].append(
            sum(not r.segments for r in own) / max(1, len(own))
        )
        if segments:
            log["process/invalid_share"].append(1 - len(scores) / len(segments))
        if scores:
            log["process/score"].append(float(np.mean(scores)))
        if size := float(advantages.abs().mean()):
            log["process/relative_size"].append(float(process.abs().mean()) / size)
        log["process/segments_scored"].append(len(scores) / max(1, len(own)))


def combine(rewards: torch.Tensor, weights: torch.Tensor) -> list[float | None]:
    """One outcome per completion of all ranks: the weighted sum of the valid rewards, or None."""
    total = (rewards * weights.to(rewards.device)).nansum(dim=1)
    lost = torch.isnan(rewards).all(dim=1)
    return [
        None if gone else float(x) for x, gone in zip(total.tolist(), lost.tolist(), strict=True)
    ]
