"""What process reward and token mapping add to a GRPO step, against plain TRL in the same run.

In: a small random Llama with SmolLM2's tokenizer, and completions scripted to hold
reflections (a random policy writes none). Both trainers do the same steps in turn; the scorer's own
time is taken off. Seconds are CPU time of all threads, which other work on the machine does not
stretch. Out: seconds a step and their ratio, with a bootstrap interval over the pairs, as JSON.

    python benchmarks/rl_overhead.py --steps 12
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from r2w_eval.reward_models.items import ItemScore, ReflectionItem
from r2w_eval.reward_models.scorer import load_reward
from r2w_eval.training.rl.advantages import LocalMapping

from r2w_eval.models.embedded import convert_to_hf
from r2w_eval.store import write_json
from r2w_eval.trace.types import TagSchema

TEXT = (
    "<think><plan>I begin with the sea.</plan><draft>The sea was calm and the night was dark. "
    "Nobody on the shore spoke, and the boats lay still as if they had been drawn there.</draft>"
    '<reflection>"The night was dark" says nothing that the reader does not know; I will name '
    "what could still be seen.</reflection><revision>The sea was calm. One window on the shore was "
    "lit, and nobody spoke.</revision><reflection>The end is abrupt: I will let the window go out."
    "</reflection><revision>The sea was calm. One window on the shore was lit, and then it was "
    "not.</revision></think>The sea was calm. One window on the shore was lit, and then it was not."
)


class Timed:
    """The shipped process scorer with a clock, so that its time can be subtracted."""

    def __init__(self) -> None:
        self._model = load_reward()
        self.spent_s = 0.0

    def __call__(self, items: Sequence[ReflectionItem]) -> list[ItemScore]:
        """Scores of the shipped reward model."""
        started = time.thread_time()
        found = self._model.score(items)
        self.spent_s += time.thread_time() - started
        return found


def scripted(trainer_class: type) -> type:
    """The trainer with completions that hold reflections, written after the usual generation."""

    class Scripted(trainer_class):  # type: ignore[misc]
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            super()._generate_single_turn(prompt_ids, *args, **kwargs)
            tokenizer = self.processing_class
            texts = [f"{TEXT} {place}" for place in range(len(prompt_ids))]
            limit = self.args.max_completion_length - 1
            end = [tokenizer.eos_token_id]
            return [tokenizer(text)["input_ids"][:limit] + end for text in texts], None

    return Scripted


def count_letters(completions: Sequence[Any], **_: object) -> list[float]:
    """A cheap outcome reward that differs within a group."""
    return [float(sum(map(ord, str(one))) % 7) for one in completions]


def make_trainer(kind: str, folder: Path, options: argparse.Namespace, scorer: Timed) -> Any:
    """A plain or a process trainer on the same random weights."""
    import torch
    from datasets import Dataset
    from r2w_eval.training.rl.grpo import ProcessGRPOTrainer
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    source = str(convert_to_hf())
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(source)
    config.num_hidden_layers = options.layers
    config.hidden_size, config.intermediate_size = options.width, 2 * options.width
    config.num_attention_heads = config.num_key_value_heads = 4
    config.head_dim = options.width // 4
    shared: dict[str, Any] = {
        "model": AutoModelForCausalLM.from_config(config, dtype=torch.float32),
        "reward_funcs": [count_letters],
        "train_dataset": Dataset.from_list([{"prompt": "Write of the sea."}] * 4 * options.steps),
        "processing_class": AutoTokenizer.from_pretrained(source),
        "args": GRPOConfig(
            output_dir=str(folder / kind),
            max_steps=options.steps,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=options.tokens,
            loss_type="dapo",
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        ),
    }
    if kind == "plain":
        return scripted(GRPOTrainer)(**shared)
    return scripted(ProcessGRPOTrainer)(
        **shared,
        score_reflections=scorer,
        mapping=LocalMapping(weight=0.3, warmup_share=0.0),
        schema=TagSchema(),
    )


def steps_of(trainer: Any) -> Iterator[float]:
    """Runs one training step per item; its CPU seconds."""
    loader = iter(trainer.get_train_dataloader())
    trainer.create_optimizer_and_scheduler(num_training_steps=trainer.args.max_steps)
    trainer.state.max_steps = trainer.args.max_steps
    trainer.current_gradient_accumulation_steps = 1
    model = trainer.accelerator.prepare(trainer.model)
    trainer.model_wrapped = model
    model.train()
    while True:
        started = time.process_time()
        trainer.training_step(model, next(loader), 4)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        trainer.state.global_step += 1
        yield time.process_time() - started


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Alternating steps of both trainers; the first pair warms up and is left out."""
    scorer = Timed()
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = (
            steps_of(make_trainer(kind, Path(folder), options, scorer))
            for kind in ("plain", "process")
        )
        pairs: list[tuple[float, float, float]] = []
        end = time.monotonic() + options.seconds
        for number in range(options.steps - 1):
            if len(pairs) > 2 and time.monotonic() > end:
                break
            before = scorer.spent_s
            # who goes first changes, so that neither always meets the colder cache
            first, second = (plain, ours) if number % 2 else (ours, plain)
            times = {first: next(first), second: next(second)}
            pairs.append((times[plain], times[ours], scorer.spent_s - before))
    return summarise(np.array(pairs[1:]))


def summarise(pairs: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Medians and the overhead beyond the scorer: 95 % bootstrap interval over the pairs."""
    ratios = (pairs[:, 1] - pairs[:, 2]) / pairs[:, 0] - 1
    chance = np.random.default_rng(0)
    draws = np.median(chance.choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    names = ("plain_s", "process_s", "scorer_s")
    return {
        "n_pairs": len(pairs),
        **{name: float(np.median(pairs[:, i])) for i, name in enumerate(names)},
        "overhead": float(np.median(ratios)),
        "overhead_low": float(low),
        "overhead_high": float(high),
    }


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=260)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--out", default="benchmarks/results/rl_overhead.json")
    options = parser.parse_args()
    found = {
        **measure(options),
        "layers": options.layers,
        "width": options.width,
        "tokens": options.tokens,
    }
    write_json(Path(options.out), found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
