"""Reinforcement learning: outcome rewards on answers, process rewards on reflections.

GRPO in TRL with the `local` token mapping (grpo.py). A rollout without a valid reward leaves its
group; it never gets 0. Steps are seeded by their number and the prompts laid out beforehand, so a
resumed run goes on as an unbroken one (specification: r2write.md section 6).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from r2w_eval.reward_models.items import WritingItem
from r2w_eval.training.advantages import LocalMapping
from r2w_eval.training.checkpoints import resume_from
from r2w_eval.training.completions import prompt_text
from r2w_eval.training.prompts import Prompt
from r2w_eval.training.sft import (
    EMBEDDED,
    Trained,
    device_arguments,
    model_folder,
    save_model,
)

from r2w_eval.thinking import ThinkTags, split_thinking
from r2w_eval.trace import TagSchema


@dataclass(frozen=True)
class RLSettings:
    """Values of the stage (r2write.md section 6.5; marked there by source).

    model: checkpoint folder, hub id, or smollm2
    outcome, process: scorers of writings and of reflections, as in r2w-eval score --scorer
    process_mapping: how reflection scores become token advantages; weight 0 is outcome only
    steps, group, groups_per_step: optimiser steps, rollouts per prompt, prompts per step
    max_completion_tokens, temperature: of the rollouts
    learning_rate, loss, beta: as in TRL's GRPOConfig; dapo keeps the weight of short spans
    save_steps: steps between checkpoints
    seed: of prompts, rollouts and order
    """

    model: str = EMBEDDED
    outcome: str = "r2w-reward"
    process: str = "r2w-reward"
    process_mapping: LocalMapping = LocalMapping()
    steps: int = 100
    group: int = 8
    groups_per_step: int = 4
    max_completion_tokens: int = 512
    temperature: float = 1.0
    learning_rate: float = 1e-6
    loss: Literal["dapo", "dr_grpo", "grpo"] = "dapo"
    beta: float = 0.0
    save_steps: int = 50
    seed: int = 0


def lay_out(prompts: Sequence[Prompt], n: int, seed: int) -> list[Prompt]:
    """`n` prompts in the order of training: one shuffle an epoch, all epochs in a row.

    >>> from r2w_eval.training.prompts import Prompt
    >>> two = [Prompt(name, "en", "d", "p") for name in "ab"]
    >>> sorted(prompt.id for prompt in lay_out(two, 4, 0))
    ['a', 'a', 'b', 'b']
    """
    chance = random.Random(seed)
    laid: list[Prompt] = []
    while len(laid) < n:
        laid += chance.sample(list(prompts), len(prompts))
    return laid[:n]


def answer_of(completion: str) -> str | None:
    """What stands after the thinking; None while the thinking is not closed, or nothing follows."""
    split = split_thinking(completion, ThinkTags())
    return None if split.unclosed or not split.answer else split.answer


class OutcomeReward:
    """TRL's reward callable over a scorer of writings: None where there is no valid score."""

    __name__ = "outcome"

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """One number per completion."""
        texts = [c if isinstance(c, str) else str(c[-1]["content"]) for c in completions]
        answers = [answer_of(text) for text in texts]
        items = [
            WritingItem(str(place), prompt_text(prompts[place]), answer)
            for place, answer in enumerate(answers)
            if answer is not None
        ]
        values = {score.id: score.value for score in self._scorer.score(items)} if items else {}
        return [values.get(str(place)) for place in range(len(texts))]


def train_rl(settings: RLSettings, prompts: Sequence[Prompt], out: Path) -> Trained:
    """Train and write `out/model`. Raises UsageError for an unknown scorer."""
    from datasets import Dataset
    from r2w_eval.reward_models.scorer import open_scorer
    from r2w_eval.training.callbacks import SeedEachStep, StopOnBrokenLoss
    from r2w_eval.training.grpo import ProcessGRPOTrainer
    from transformers import AutoTokenizer
    from trl import GRPOConfig

    process = open_scorer(settings.process)
    source = model_folder(settings.model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    rows = lay_out(prompts, settings.steps * settings.groups_per_step, settings.seed)
    trainer = ProcessGRPOTrainer(
        model=source,
        reward_funcs=[OutcomeReward(open_scorer(settings.outcome))],
        args=GRPOConfig(
            output_dir=str(out / "checkpoints"),
            max_steps=settings.steps,
            per_device_train_batch_size=settings.group * settings.groups_per_step,
            num_generations=settings.group,
            max_completion_length=settings.max_completion_tokens,
            temperature=settings.temperature,
            learning_rate=settings.learning_rate,
            loss_type=settings.loss,
            beta=settings.beta,
            save_steps=settings.save_steps,
            shuffle_dataset=False,
            seed=settings.seed,
            report_to=[],
            logging_steps=1,
            **device_arguments(),
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": prompt.prompt}]} for prompt in rows]
        ),
        processing_class=tokenizer,
        callbacks=[SeedEachStep(settings.seed), StopOnBrokenLoss()],
        score_reflections=lambda items: [score.value for score in process.score(items)],
        mapping=settings.process_mapping,
        schema=TagSchema(),
    )
    trainer.train(resume_from_checkpoint=resume_from(out / "checkpoints"))
    save_model(trainer, tokenizer, out / "model")
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    last = float(rewards[-1]) if rewards else None
    return Trained(out / "model", len(rows), 0, trainer.state.global_step, last)
