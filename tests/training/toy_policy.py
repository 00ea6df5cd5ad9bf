"""A policy small enough to train in a test: thirteen words, among them the tags of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = (
    "<pad>",
    "<eos>",
    "<unk>",
    "<draft>",
    "</draft>",
    "<reflection>",
    "</reflection>",
    "<revision>",
    "</revision>",
    "rain",
    "sun",
    "<think>",
    "</think>",
)

TURNS = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
# as R1's does, it opens the thinking: all that the policy writes is thought
THINKS = f"{TURNS}<think>"


def make_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(WORDS)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        chat_template=THINKS,
    )


def make_policy(seed: int = 0) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def grpo_config(folder: Path, **changed: Any) -> Any:
    from trl import GRPOConfig

    values = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 12,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "loss_type": "dapo",
        "beta": 0.0,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 3,
        "dataloader_pin_memory": False,
    }
    return GRPOConfig(**{**values, **changed})


def prompts() -> Any:
    from datasets import Dataset

    # one long epoch: TRL's sampler cannot be resumed exactly at the border of two
    texts = ("rain", "sun", "rain sun", "sun sun") * 4
    return Dataset.from_list([{"prompt": text} for text in texts])


def count_rain(completions: list[str], **_: object) -> list[float | None]:
    """The outcome of the toy: the more rain the better."""
    return [float(text.count("rain")) for text in completions]


def weights_of(model: Any) -> Any:
    import torch

    return torch.cat([p.detach().flatten() for p in model.parameters()])


def save_policy(folder: Path) -> Path:
    """The toy as a checkpoint that the stages of the pipeline load."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TURNS
    make_policy().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
