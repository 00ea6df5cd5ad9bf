"""Rewards of reflections in verl on Ray, through verl's extension points (checked with verl 0.9.1).

`actor_rollout_ref.model.external_lib` imports this module in the trainer and in every worker that
generates; `training/cluster/verl/*.yaml` name its parts:

reward manager      `SegmentRewards`: outcome of the answer and score of each reflection, for one
                    response at a time, while others are generated
agent loop          `r2w_agent`: verl's single turn, with the rewards on their own tokens
estimator           `r2w_local`: verl's `grpo` plus the local term of `advantages.py`; lambda 0 is
                    `grpo` bit for bit. For PPO verl's own `gae` reads the rewards at closing tags
checkpoint callback `EvaluateCheckpoints`: `r2w-eval watch` beside training

A response without a valid outcome counts as failed in verl: it is left out of its group and never
gets 0. Imports torch and verl: load this module from within a function.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from omegaconf import OmegaConf
from r2w_eval.reward_models.adapters import Unscorable
from r2w_eval.reward_models.checks.report import require_valid
from r2w_eval.reward_models.scorer import ItemScorer, open_scorer
from r2w_eval.training.checkpoints.validation import EvaluationSettings, Watcher
from r2w_eval.training.cluster.rows import dense_row, from_runs, read_row, to_runs
from r2w_eval.training.prompts import Criterion, Prompt, make_rubric
from r2w_eval.training.recipe import read_settings
from r2w_eval.training.rl.advantages import LocalMapping, Rollout, Tokens, local_terms, reward_row
from r2w_eval.training.rl.completions import (
    read_completion,
    reflections,
    template_tags,
    to_segments,
    without_end,
)
from r2w_eval.training.rl.effects import EffectSettings, with_effects
from r2w_eval.training.rl.outcomes import Pointwise, ScorerOutcome, open_judge, pay_unanswered
from r2w_eval.training.rl.reference_file import (
    Ranked,
    check_references,
    match_references,
    read_reference_file,
)
from r2w_eval.training.rl.references import AgainstReferences
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, register_adv_est
from verl.utils.skip import SkipManager

from r2w_eval.errors import UsageError
from r2w_eval.models.completions import last_turn
from r2w_eval.models.thinking import answer_of
from r2w_eval.trace.types import TagSchema

LOCAL = "r2w_local"
ROW = "r2w_row"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterSettings:
    """The section `algorithm.r2w`: how responses and their reflections are rewarded.

    outcome_form, outcome, unanswered, patience_s, process, effect, validity, process_mapping: as in
        RLSettings. The forms pairwise and in_group are not available, since they need the whole
        group at once. A validity report is made in trainer.default_local_dir
    references: as in RLSettings, on every worker. An answer is compared with all references of its
        prompt; a rising schedule would need the whole group and a single writer
    total_steps: number of steps that the warm-up of lambda is a share of
    evaluation: of each checkpoint, on the trainer's machine; off without tasks
    """

    outcome_form: Literal["scorer", "pointwise", "references"] = "scorer"
    outcome: str = "r2w-reward"
    unanswered: float | None = None
    references: str = ""
    patience_s: float = 1800.0
    process: str = "r2w-reward"
    effect: EffectSettings = EffectSettings()
    validity: str = ""
    process_mapping: LocalMapping = LocalMapping()
    total_steps: int | None = None
    evaluation: EvaluationSettings = EvaluationSettings()

    def weight_at(self, step: int) -> float:
        """lambda at a step; verl counts them from 1."""
        mapping = self.process_mapping
        if not mapping.weight or mapping.warmup_share <= 0:
            return mapping.weight
        return mapping.weight_at(max(0, step - 1) / (self.total_steps or 1))


def read_cluster_settings(algorithm: Any) -> ClusterSettings:
    """The settings of a run's section `algorithm`. Raises UsageError, UnknownName."""
    own = algorithm.get("r2w") or {}
    values = own if isinstance(own, dict) else OmegaConf.to_container(own, resolve=True)
    settings = read_settings(ClusterSettings, values, "algorithm.r2w")
    check_references("algorithm.r2w", settings.outcome_form, settings.references)
    mapping = settings.process_mapping
    if mapping.weight and mapping.warmup_share > 0 and settings.total_steps is None:
        raise UsageError(
            "algorithm.r2w.total_steps: null, and lambda warms up over a share of it. Set "
            "trainer.total_training_steps, or algorithm.r2w.process_mapping.warmup_share=0"
        )
    if mapping.form != "local":
        raise UsageError(
            f"algorithm.r2w.process_mapping.form: {mapping.form}: verl's own estimators are the "
            f"other forms here. Set local, or algorithm.adv_estimator=gae"
        )
    if algorithm.get("adv_estimator") == LOCAL:
        _check_rows_stay_whole(algorithm)
    return settings


def _check_rows_stay_whole(algorithm: Any) -> None:
    """Raise UsageError for settings under which verl would change or misread dense rows."""
    if algorithm.get("use_kl_in_reward", False):
        raise UsageError(
            f"algorithm.use_kl_in_reward: true writes over the rows that {LOCAL} reads. Use "
            f"actor_rollout_ref.actor.use_kl_loss=true"
        )
    groups = algorithm.get("filter_groups") or {}
    if groups.get("enable", False) and groups.get("metric") == "reward":
        raise UsageError(
            "algorithm.filter_groups.metric: reward is the sum of outcome and reflection scores "
            "here. Use metric=outcome"
        )


class SegmentRewards(RewardManagerBase):  # type: ignore[misc]
    """verl's reward manager: the outcome of a response, and a reward for each reflection.

    Rows of the data set whose `extra_info.split` is not `train` get the outcome alone.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        self._settings = read_cluster_settings(config.algorithm)
        self._is_local = config.algorithm.adv_estimator == LOCAL
        self._schema = TagSchema()
        options = OmegaConf.select(config, "data.apply_chat_template_kwargs") or {}
        self._tags = template_tags(tokenizer, **options)
        self._rubrics: dict[str, Sequence[Criterion]] = {}
        self._references: dict[str, Ranked] = {}
        file = self._settings.references
        self._stored = read_reference_file(Path(file)) if file else {}
        self._judge = self._open_judge()
        self._scorer = None if self._judge else self._open_scorer()
        self._process = self._open_process(Path(config.trainer.default_local_dir))
        self._thread = ThreadPoolExecutor(1, "scorer")

    def _open_scorer(self) -> ScorerOutcome:
        own = self._settings
        scorer = open_scorer(own.outcome, own.patience_s)
        return ScorerOutcome(scorer, own.unanswered, self._tags)

    def _open_process(self, folder: Path) -> ItemScorer | None:
        own = self._settings
        if not own.process_mapping.weight:
            return None
        process = open_scorer(own.process, own.patience_s)
        require_valid(process, own.validity, folder)
        return with_effects(process, own.effect, own.patience_s)

    def _open_judge(self) -> Pointwise | AgainstReferences | None:
        if self._settings.outcome_form == "scorer":
            return None
        judge = open_judge(self._settings.outcome, self._settings.patience_s)
        if self._settings.outcome_form == "references":
            return AgainstReferences(judge, self._references)
        return Pointwise(judge, self._rubrics)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Outcome and row of one response. Raises Unscorable if it has no valid outcome."""
        item = data[-1:][0]
        facts = item.non_tensor_batch
        prompt = last_turn(facts["raw_prompt"], "user")
        ids = response_ids(item)
        info = facts.get("extra_info") or {}
        is_training = info.get("split", "train") == "train"
        weight = self._settings.weight_at(int(facts.get("global_steps", 1))) if is_training else 0.0
        outcome, rollout = await asyncio.gather(
            self._outcome(prompt, ids, info), self._read_reflections(prompt, ids, weight)
        )
        if outcome is None:
            raise Unscorable(
                f"{facts.get('data_source', 'response')}: no valid outcome. It is no 0; the "
                f"response leaves its group"
            )
        scored = Rollout(rollout.n_tokens, outcome, rollout.segments)
        row = dense_row(scored) if self._is_local else reward_row(scored, weight)
        return {"reward_score": outcome, "reward_extra_info": describe(scored, row)}

    async def _outcome(
        self, prompt: str, ids: Sequence[int], info: Mapping[str, Any]
    ) -> float | None:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        if self._judge is not None:
            answers = [answer_of(text, self._tags)]
            self._look_up(prompt, info)
            marks = await self._judge(prompt, answers)
            (value,) = pay_unanswered(marks, answers, self._settings.unanswered)
        else:
            (value,) = await self._in_thread(self._scorer, [prompt], [text])
        return None if value is None else float(value)

    def _look_up(self, prompt: str, info: Mapping[str, Any]) -> None:
        """Read the rubric or the references of a prompt from its row, once."""
        if self._settings.outcome_form == "pointwise":
            # another row may have the same prompt
            self._rubrics[prompt] = read_rubric_column(info)
        elif prompt not in self._references:
            row = Prompt(str(info.get("id", "")), "", "", prompt)
            self._references |= match_references(self._stored, [row])

    async def _read_reflections(self, prompt: str, ids: Sequence[int], weight: float) -> Rollout:
        """The reflections with their scores; while lambda is 0 nothing is scored."""
        text = without_end(ids, self.tokenizer)
        trace = read_completion(text, self.tokenizer.decode, self._schema, self._tags)
        found = reflections(trace, prompt, "0")
        scores: list[float | None] = [None] * len(found)
        if self._process and weight and found:
            items = [one.item for one in found]
            scores = [one.value for one in await self._in_thread(self._process.score, items)]
        return Rollout(len(ids), None, to_segments(found, scores))

    async def _in_thread(self, call: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


def response_ids(item: Any) -> list[int]:
    """The token ids of a response without padding."""
    responses = item.batch["responses"]
    n_tokens = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
    return [int(token) for token in responses[:n_tokens]]


def read_rubric_column(info: Mapping[str, Any]) -> tuple[Criterion, ...]:
    """The rubric of a row of the data set. Raises UsageError if it has none."""
    rubric = make_rubric(json.loads(info.get("rubric") or "[]"))
    if not rubric:
        raise UsageError(
            f"prompt {str(info.get('id', ''))!r}: no rubric, and outcome_form is pointwise. Try: "
            f"r2w-eval train choose, which gives each prompt one"
        )
    return rubric


def describe(rollout: Rollout, row: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The extra info of a response in verl, with the row as text; the keys are always the same."""
    scores = [segment.score for segment in rollout.segments if segment.score is not None]
    return {
        "outcome": rollout.outcome,
        "reflections": len(rollout.segments),
        "reflections_scored": len(scores),
        "process_sum": float(sum(scores)),
        ROW: json.dumps(to_runs(row)),
    }


class SegmentedOutput(AgentLoopOutput):  # type: ignore[misc]
    """verl's output of a response, with the reward manager's row as its token-level rewards."""

    def as_dict(self) -> dict[str, Any]:
        """The parent's fields; `rm_scores` of shape (response tokens,)."""
        output: dict[str, Any] = super().as_dict()
        info = self.extra_fields.get("reward_extra_info") or {}
        if ROW in info:
            row = from_runs(json.loads(info[ROW]), len(self.response_ids))
            output["rm_scores"] = torch.tensor(row, dtype=torch.float32)
        return output


@register("r2w_agent")
class SegmentedAgentLoop(SingleTurnAgentLoop):  # type: ignore[misc]
    """verl's single-turn loop with `SegmentedOutput`."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> SegmentedOutput:
        """The parent's response as a `SegmentedOutput`."""
        output = await super().run(sampling_params, **kwargs)
        return SegmentedOutput(**{name: getattr(output, name) for name in output.model_fields_set})


@register_adv_est(LOCAL)  # type: ignore[untyped-decorator]
def local_advantages(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray[Any, Any],
    config: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns, both (responses, tokens): verl's `grpo` plus the local term.

    `token_level_rewards` are dense rows, `index` names each response's group.
    """
    config = config if config is not None else {}
    settings = read_cluster_settings(config)
    rollouts = read_rollouts(token_level_rewards, response_mask)
    outcomes = torch.tensor([[rollout.outcome or 0.0] for rollout in rollouts])
    scalars, _returns = compute_grpo_outcome_advantage(
        outcomes,
        torch.ones_like(outcomes),
        index,
        norm_adv_by_std_in_grpo=config.get("norm_adv_by_std_in_grpo", True),
    )
    advantages = scalars * response_mask
    if weight := settings.weight_at(SkipManager.step):
        terms = process_terms(rollouts, scalars, index, (settings.process_mapping, weight))
        process = torch.zeros_like(advantages)
        for row, term in zip(process, terms, strict=True):
            row[: len(term)] = torch.as_tensor(term)
        advantages = advantages + process * response_mask
    return advantages, advantages


def read_rollouts(rewards: torch.Tensor, mask: torch.Tensor) -> list[Rollout]:
    """The rollout of each dense row; rows without tokens, verl's batch padding, give empty ones."""
    lengths = [int(own.nonzero()[-1]) + 1 if own.any() else 0 for own in mask]
    return [
        read_row(row.double().cpu().numpy(), n_tokens)
        for row, n_tokens in zip(rewards, lengths, strict=True)
    ]


def process_terms(
    rollouts: Sequence[Rollout],
    scalars: torch.Tensor,
    index: np.ndarray[Any, Any],
    strength: tuple[LocalMapping, float],
) -> list[Tokens]:
    """The process term of every rollout; `scalars` are outcome advantages, (responses, 1).

    `index` names each rollout's group; `strength` is the mapping and lambda.
    """
    groups: dict[Any, list[int]] = {}
    for place, name in enumerate(index):
        groups.setdefault(name, []).append(place)
    terms: list[Tokens] = [np.zeros(0)] * len(rollouts)
    for places in groups.values():
        own = [rollouts[place] for place in places]
        known = [
            None if one.outcome is None else float(scalars[place, 0])
            for place, one in zip(places, own, strict=True)
        ]
        for place, term in zip(places, local_terms(own, known, *strength), strict=True):
            terms[place] = term
    return terms


class EvaluateCheckpoints(CheckpointCallback):  # type: ignore[misc]
    """Evaluates saved checkpoints in a separate process; never ends training.

    verl calls nothing after the last save: evaluate the remaining checkpoints with
    `r2w-eval watch DIR --once`.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._settings = read_cluster_settings(config.algorithm).evaluation
        self._watcher = Watcher(Path(config.trainer.default_local_dir), self._settings)

    def on_save(
        self,
        trainer: Any,
        global_step: int,
        checkpoint_dir: str,
        async_save: bool = False,
        **kwargs: Any,
    ) -> None:
        """Start an evaluation, unless one is running or the checkpoint is still being written."""
        if not self._settings.is_on or async_save:
            return
        try:
            self._watcher.start()
        except OSError as error:
            log.warning("no evaluation of step %s: %s", global_step, error)
