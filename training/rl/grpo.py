"""GRPO with a process term on the tokens of each reflection, as a subclass of TRL's trainer.

TRL's loss accepts advantages of shape (batch, tokens) from a subclass. Here the process terms of
`advantages.py` are added to the parent's outcome advantages (specification: reward-model.md section
9.1, checked against TRL 1.16). With lambda 0 the parent's tensor is returned unchanged.

Imports torch and TRL: load this module from within a function.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather, gather_object
from r2w_eval.reward_models.axes import AXIS_WEIGHTS
from r2w_eval.reward_models.items import ItemScore, ReflectionItem
from r2w_eval.training.rl.advantages import LocalMapping, Rollout, process_terms
from r2w_eval.training.rl.completions import (
    ScorableReflection,
    read_pieces,
    reflections,
    template_tags,
    thinking_tokens,
    to_segments,
    without_end,
)
from r2w_eval.training.rl.controls import shuffle_scores
from r2w_eval.training.rl.decoding import GraphedDecoding
from transformers import AutoModelForCausalLM, GenerationConfig
from trl import GRPOTrainer

from r2w_eval.models.completions import last_turn
from r2w_eval.trace.tokens import decode_pieces
from r2w_eval.trace.types import TagSchema

ScoreReflections = Callable[[Sequence[ReflectionItem]], Sequence[ItemScore]]


class ProcessGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` that also rewards each reflection on its own tokens.

    score_reflections: the `score` of an item scorer, one score in [-1, 1] per reflection; it runs
        in a thread beside the outcome rewards. None if the weight of `mapping` is 0
    mapping: how scores become token advantages; weight 0 switches the process term off
    schema: the tags of a trace
    groups_per_call: groups generated at a time (0: all); rewards with a method `begin` are asked
        about finished groups while the next ones are generated
    half_generation: generate with a bf16 copy of the weights (2 bytes per parameter, whole on every
        rank); mixed precision would cast all weights for every token
    graphed_generation: that copy replays a CUDA graph for each token
    """

    # the trainer wraps it once it is built
    model_wrapped: Any

    def __init__(
        self,
        *args: Any,
        score_reflections: ScoreReflections | None,
        mapping: LocalMapping,
        schema: TagSchema,
        groups_per_call: int = 0,
        half_generation: bool = False,
        graphed_generation: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._half_generation = half_generation
        self._graphed_generation = graphed_generation
        self._half: Any = None
        self._groups_per_call = groups_per_call
        self._prompts: Sequence[Any] = ()
        self._score_reflections = score_reflections
        self._mapping = mapping
        self._schema = schema
        self._tags = template_tags(self.processing_class)
        self._thread = ThreadPoolExecutor(1, "reflections")
        self._outcomes: list[float | None] = []
        self._scored: Future[list[Rollout]] | None = None
        self._n_without_effect = 0

    def _process_weight(self) -> float:
        """lambda at this step; 0 in evaluation, where the outcome alone counts."""
        if not self.model.training or not self.state.max_steps:
            return 0.0
        return self._mapping.weight_at(self.state.global_step / self.state.max_steps)

    def _generate(self, prompts: Any) -> Any:
        """The parent's generation; the prompts are kept for `_begin_rewards`."""
        self._prompts = prompts
        return super()._generate(prompts)

    @property
    def _mode_metrics(self) -> Any:
        """Lists of values by name, of the current mode: training or evaluation."""
        return self._metrics["train" if self.model.training else "eval"]

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Log the seconds of a part of the step."""
        started = time.perf_counter()
        yield
        self._mode_metrics[f"time/{what}_s"].append(time.perf_counter() - started)

    @contextmanager
    def _generating(self) -> Iterator[None]:
        """Generate with the half-precision copy if `half_generation` is set; else without the
        policy's own generation settings. What TRL leaves open, such as min-p, would be taken from
        these, and log-probabilities are without it.
        """
        if not self._half_generation:
            policy = self.accelerator.unwrap_model(self.model)
            own = policy.generation_config
            policy.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
            try:
                yield
            finally:
                policy.generation_config = own
            return
        whole = self.model_wrapped
        self.model_wrapped = self._half_copy()
        try:
            yield
        finally:
            self.model_wrapped = whole

    def _half_copy(self) -> Any:
        """The half-precision copy, with the current weights."""
        policy = self.accelerator.unwrap_model(self.model)
        if self._half is None:
            config = copy.deepcopy(policy.config)
            # off in training; without it each token would process the whole text again
            config.use_cache = True
            half: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=torch.bfloat16
            )
            self._half = half.to(self.accelerator.device).requires_grad_(False)
            if self._graphed_generation:
                self._half.generate = partial(half.generate, custom_generate=GraphedDecoding())
        self._half.load_state_dict(policy.state_dict())
        return self._half

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, fields: Any, num_generations: int, **more: Any
    ) -> tuple[list[Any], Any]:
        """The parent's completions."""
        with self._timed("generation"), self._generating():
            return self._generate_calls(prompt_ids, images, fields, num_generations, **more)

    def _generate_calls(
        self, prompt_ids: Any, images: Any, fields: Any, num_generations: int, **more: Any
    ) -> tuple[list[Any], Any]:
        """All completions, `groups_per_call` groups at a time, starting rewards in between."""
        size = self._groups_per_call * num_generations
        if not size or size >= len(prompt_ids) or images or fields:
            return super()._generate_single_turn(  # type: ignore[no-any-return]
                prompt_ids, images, fields, num_generations, **more
            )
        ids: list[Any] = []
        logprobs: list[Any] = []
        for start in range(0, len(prompt_ids), size):
            own, own_logprobs = super()._generate_single_turn(
                prompt_ids[start : start + size], images, fields, num_generations, **more
            )
            self._begin_rewards(self._prompts[start : start + size], own)
            ids += own
            logprobs += own_logprobs or ()
        return ids, logprobs or None

    def _begin_rewards(self, prompts: Sequence[Any], ids: Sequence[Sequence[int]]) -> None:
        texts = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        for reward in self.reward_funcs:
            if begin := getattr(reward, "begin", None):
                begin(prompts, texts, self.state.global_step)

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """The parent's rewards of all ranks; reflections are scored in a thread meanwhile."""
        self._scored = None
        if self._process_weight():
            self._scored = self._thread.submit(self._read_rollouts, prompts, completion_ids_list)
        else:
            self._count_reflections(prompts, completion_ids_list)
        with self._timed("rewards"):
            rewards: torch.Tensor = super()._calculate_rewards(
                inputs, prompts, completions, completion_ids_list
            )
        self._outcomes = combine(rewards, self.reward_weights)
        self._log_outcomes()
        return rewards

    def _log_outcomes(self) -> None:
        """Log how many rollouts and whole groups have no reward, over all ranks."""
        size = self.num_generations if self.model.training else self.num_generations_eval
        groups = [self._outcomes[i : i + size] for i in range(0, len(self._outcomes), size)]
        lost = sum(outcome is None for outcome in self._outcomes)
        empty = sum(all(outcome is None for outcome in group) for group in groups)
        self._mode_metrics["outcome/invalid"].append(float(lost))
        self._mode_metrics["outcome/groups_without_reward"].append(float(empty))

    def _find_reflections(
        self, prompts: Sequence[Any], ids: Sequence[Sequence[int]]
    ) -> list[list[ScorableReflection]]:
        tokenizer = self.processing_class
        pieces = [decode_pieces(without_end(own, tokenizer), tokenizer.decode) for own in ids]
        traces = [read_pieces(own, self._schema, self._tags) for own in pieces]
        if self.model.training and traces:
            tokens = [thinking_tokens(own, self._tags) for own in pieces]
            self._metrics["train"]["process/thinking_tokens"].append(sum(tokens) / len(tokens))
        return [
            reflections(trace, last_turn(prompt, "user"), str(place))
            for place, (prompt, trace) in enumerate(zip(prompts, traces, strict=True))
        ]

    def _count_reflections(self, prompts: Sequence[Any], ids: Sequence[Sequence[int]]) -> None:
        """Log counts of reflections also without a process term, for comparison."""
        if self.model.training:
            self._log_counts([len(own) for own in self._find_reflections(prompts, ids)])

    def _log_counts(self, counts: Sequence[int]) -> None:
        log = self._metrics["train"]
        log["process/reflections"].append(sum(counts) / max(1, len(counts)))
        log["process/without_reflection"].append(counts.count(0) / max(1, len(counts)))

    def _read_rollouts(self, prompts: Sequence[Any], ids: Sequence[Sequence[int]]) -> list[Rollout]:
        """Segments of this rank's completions with scores, from one call of the scorer."""
        found = self._find_reflections(prompts, ids)
        items = [one.item for own in found for one in own]
        scores = self._score_reflections(items) if self._score_reflections and items else []
        self._log_axes(scores)
        values = iter(score.value for score in scores)
        return [
            Rollout(len(own_ids), None, to_segments(own, [next(values) for _ in own]))
            for own, own_ids in zip(found, ids, strict=True)
        ]

    def _log_axes(self, scores: Sequence[ItemScore]) -> None:
        """Log the mean of each axis; keep how many valid scores lack the axis `effect`."""
        log, valid = self._metrics["train"], [one for one in scores if one.value is not None]
        for axis in AXIS_WEIGHTS:
            if known := [score.parts[axis] for score in valid if axis in score.parts]:
                log[f"process/{axis}"].append(sum(known) / len(known))
        self._n_without_effect = sum("effect" not in score.parts for score in valid)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """The parent's batch; if lambda is not 0, with advantages of shape (batch, tokens)."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self._scored is None:
            return output
        with self._timed("process_rewards"):
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
        """This rank's process terms. Groups may span ranks, so all rollouts are gathered first."""
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
            for term in process_terms(
                self._paid(rollouts[start : start + size], start // size),
                known[start : start + size],
                self._mapping,
                weight,
            )
        ]
        first = self.accelerator.process_index * len(own)
        return terms[first : first + len(own)]

    def _paid(self, group: Sequence[Rollout], number: int) -> Sequence[Rollout]:
        """The group with the scores it is rewarded by; a seam for the control below."""
        return group

    def _log_process(
        self, own: Sequence[Rollout], process: torch.Tensor, advantages: torch.Tensor
    ) -> None:
        segments = [segment for rollout in own for segment in rollout.segments]
        # of all ranks, which only the main thread may ask
        lacking = sum(gather_object([self._n_without_effect]))
        scores = [segment.score for segment in segments if segment.score is not None]
        log = self._metrics["train"]
        log["process/without_effect"].append(float(lacking))
        self._log_counts([len(rollout.segments) for rollout in own])
        if segments:
            log["process/invalid_share"].append(1 - len(scores) / len(segments))
        if scores:
            log["process/score"].append(float(np.mean(scores)))
        if size := float(advantages.abs().mean()):
            log["process/relative_size"].append(float(process.abs().mean()) / size)
        if mass := float(process.abs().sum()):
            # near 1 the term mostly says: reflect less
            log["process/below_zero"].append(float(-process.clamp(max=0).sum()) / mass)
        log["process/segments_scored"].append(len(scores) / max(1, len(own)))


class ShuffledGRPOTrainer(ProcessGRPOTrainer):
    """The control: in every group the scores of the reflections are shuffled."""

    def _paid(self, group: Sequence[Rollout], number: int) -> Sequence[Rollout]:
        return shuffle_scores(group, (self.args.seed, self.state.global_step, number))


def combine(rewards: torch.Tensor, weights: torch.Tensor) -> list[float | None]:
    """One outcome per completion of all ranks: the weighted sum of its valid rewards, or None."""
    total = (rewards * weights.to(rewards.device)).nansum(dim=1)
    lost = torch.isnan(rewards).all(dim=1)
    return [
        None if gone else float(x) for x, gone in zip(total.tolist(), lost.tolist(), strict=True)
    ]
