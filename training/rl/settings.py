"""The settings of reinforcement learning, and the checks of their values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from r2w_eval.training.checkpoints.validation import EvaluationSettings
from r2w_eval.training.limits import (
    COUNT,
    FINITE,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    Range,
    check_numbers,
)
from r2w_eval.training.rl.advantages import LocalMapping
from r2w_eval.training.rl.effects import EffectSettings
from r2w_eval.training.rl.penalties import Penalties
from r2w_eval.training.rl.reference_file import check_references
from r2w_eval.training.trainer.stage import EMBEDDED
from r2w_eval.training.trainer.trackers import Tracker

from r2w_eval.errors import UsageError
from r2w_eval.hashing import to_plain

# TRL compares a rollout with others of its group
ALLOWED = {
    Range(2): ("group",),
    COUNT: (
        "opponents",
        "steps",
        "groups_per_step",
        "max_completion_tokens",
        "save_steps",
    ),
    POSITIVE: ("patience_s", "temperature", "learning_rate"),
    NOT_NEGATIVE: ("beta", "max_seconds", "groups_per_call"),
    SEED: ("seed",),
}
LATER = ("references", "rising_references", "effect", "shuffled", "report_to")


@dataclass(frozen=True)
class RLSettings:
    """Values of the stage (r2write.md section 6.5; marked there by source).

    model: checkpoint folder, hub id (org/name@REVISION stays with one), or smollm2
    outcome_form: how an answer is rewarded: by a scorer, or by a judge that marks it by a rubric
        (pointwise) or compares it with several answers of its group (pairwise), one of them
        (in_group), or stored answers (references)
    outcome: a scorer, as in r2w-eval score --scorer; for the other forms a judge, as in --judge
    unanswered: reward of a completion that never comes to an answer; by default it is left out of
        its group, and then nothing stops a policy from thinking for ever
    penalties: subtracted from the outcome for repetitive, long or malformed thinking
    opponents: number of answers before and after it in the group that each is compared with
        (pairwise)
    references: JSON lines of stored answers, several per prompt (reference_file.py)
    rising_references: compare with one reference of a prompt at a time, starting with the weakest,
        and move on when the group has won; false: the mean over all of them
    patience_s: seconds to wait for a silent judge before its pending verdicts become invalid
    process: scorer of reflections; judge:MODEL for an LLM, MODEL as in --judge
    effect: measures the effect of reflections by scores of the text before and after them
    validity: report of `train rm --validate` on `process`; by default it is made before the first
        step; `waived` also trains on a scorer that failed, or was never tested
    process_mapping: how reflection scores become token advantages; weight 0: outcome only
    shuffled: control: in every group the scores of the reflections are shuffled
    steps, group, groups_per_step: optimiser steps, rollouts per prompt, prompts per step
    micro_batch: rollouts in one forward and backward pass, with gradients accumulated over the
        step; 0: all rollouts of the step at once
    max_completion_tokens, temperature: of the rollouts
    learning_rate, loss, beta: as in TRL's GRPOConfig; dapo keeps the weight of short spans
    schedule: of the learning rate; use constant if the number of steps is not known beforehand
    max_seconds: time limit, after which all arms of a grid end at one common step; 0: none
    half_generation: generate with a bf16 copy of the weights (2 more bytes per parameter, whole on
        every device); otherwise all weights are cast for each token
    graphed_generation: decode with that copy by a CUDA graph, which is faster for small models.
        Full attention only
    groups_per_call: groups generated at a time; a judge works on finished ones meanwhile; 0: all
    vllm: generate with vLLM in this process, where it is installed
    save_steps: steps between checkpoints
    seed: of prompts, rollouts and order
    evaluation: of each checkpoint, while training goes on
    report_to: experiment trackers that rewards are also sent to; no part of the stage's identity
    """

    model: str = EMBEDDED
    outcome_form: Literal["scorer", "pointwise", "pairwise", "in_group", "references"] = "scorer"
    outcome: str = "r2w-reward"
    unanswered: float | None = None
    penalties: Penalties = Penalties()
    opponents: int = 2
    references: str = ""
    rising_references: bool = True
    patience_s: float = 1800.0
    process: str = "r2w-reward"
    effect: EffectSettings = EffectSettings()
    validity: str = ""
    process_mapping: LocalMapping = LocalMapping()
    shuffled: bool = False
    steps: int = 100
    group: int = 8
    groups_per_step: int = 4
    micro_batch: int = 0
    max_completion_tokens: int = 512
    temperature: float = 1.0
    learning_rate: float = 1e-6
    loss: Literal["dapo", "dr_grpo", "grpo"] = "dapo"
    beta: float = 0.0
    schedule: Literal["linear", "constant"] = "linear"
    max_seconds: float = 0.0
    half_generation: bool = False
    graphed_generation: bool = False
    groups_per_call: int = 0
    vllm: bool = False
    save_steps: int = 50
    seed: int = 0
    evaluation: EvaluationSettings = EvaluationSettings()
    report_to: tuple[Tracker, ...] = ()

    def work(self) -> dict[str, Any]:
        """The settings that affect the model, as plain values. Newer ones with their default value
        are left out, so that keys and folders of older trainings stay valid.
        """
        plain, usual = to_plain(replace(self, report_to=())), to_plain(RLSettings())
        return {k: v for k, v in plain.items() if k not in LATER or v != usual[k]}

    @property
    def reads_reflections(self) -> bool:
        """Whether reflections are rewarded or penalised, so that the policy must tag them."""
        charged = self.penalties.redundancy > 0 or self.penalties.form > 0
        return charged or self.process_mapping.weight > 0

    @property
    def rollouts(self) -> int:
        """Rollouts of one optimiser step."""
        return self.group * self.groups_per_step

    @property
    def rollouts_per_pass(self) -> int:
        """Rollouts whose activations are in memory at the same time."""
        return self.micro_batch or self.rollouts

    @property
    def rollouts_per_call(self) -> int:
        """Rollouts whose keys and values are in memory at the same time."""
        return min(self.groups_per_call * self.group or self.rollouts, self.rollouts)

    def __post_init__(self) -> None:
        """Raises UsageError for numbers out of their range and for settings that contradict each
        other.
        """
        check_numbers("rl", self, ALLOWED)
        check_references("rl", self.outcome_form, self.references)
        if self.unanswered is not None:
            check_numbers("rl", self, {FINITE: ("unanswered",)})
        if self.graphed_generation and not self.half_generation:
            raise UsageError(
                "rl.graphed_generation true with half_generation false: a graph wants weights that "
                "stay in place, as the copy's do. Set half_generation: true"
            )
        if self.micro_batch < 0 or self.rollouts % self.rollouts_per_pass:
            smaller = range(1, min(self.micro_batch, self.rollouts) + 1)
            fits = max((n for n in smaller if self.rollouts % n == 0), default=1)
            raise UsageError(
                f"rl.micro_batch {self.micro_batch}: expected 0, or a divisor of the "
                f"{self.rollouts} rollouts of a step (rl.group {self.group} x rl.groups_per_step "
                f"{self.groups_per_step}). Try micro_batch: {fits}"
            )
