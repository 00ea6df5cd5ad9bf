"""GRPO in TRL with two rewards of r2w-reward: outcome on all tokens, process on reflections.

    python examples/trl_grpo.py --model Qwen/Qwen3-0.6B --steps 100 --out out

The writer is asked to think in <draft>, <reflection> and <revision>; each reflection is scored
against its draft and paid on its own tokens. What has no score gets no reward, never 0.
"""

import argparse

from datasets import Dataset
from r2w_eval.reward_models.adapters import trl_reward
from r2w_eval.reward_models.scorer import load_reward
from r2w_eval.training.rl.advantages import LocalMapping
from r2w_eval.training.rl.grpo import ProcessGRPOTrainer
from r2w_eval.training.trainer.stage import device_arguments
from transformers import AutoTokenizer
from trl import GRPOConfig

from r2w_eval.trace.types import TagSchema

ASK = (
    "Think in <think></think>: a <draft></draft>, a <reflection></reflection> that says what is "
    "weak and why, a <revision></revision>. Then give the text.\n\n"
)
TASKS = ("Two sentences about a ferry in fog.", "A note to the neighbour who fed the cat.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--out", default="out")
    options = parser.parse_args()
    reward = load_reward()
    rows = [{"prompt": [{"role": "user", "content": ASK + task}]} for task in TASKS]
    trainer = ProcessGRPOTrainer(
        model=options.model,
        processing_class=AutoTokenizer.from_pretrained(options.model),
        train_dataset=Dataset.from_list(rows),
        reward_funcs=[trl_reward],
        score_reflections=reward.score,
        mapping=LocalMapping(weight=0.3),
        schema=TagSchema(),
        args=GRPOConfig(
            output_dir=options.out,
            max_steps=options.steps,
            per_device_train_batch_size=options.group,
            num_generations=options.group,
            max_completion_length=options.tokens,
            logging_steps=1,
            report_to=[],
            **device_arguments(),
        ),
    )
    trainer.train()
    trainer.save_model(options.out)


if __name__ == "__main__":
    main()
