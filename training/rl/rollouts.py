"""Samples texts of a model on held-out prompts, with their thinking split off and counted.

The model runs in this process. Prompts, samples and settings are the same for every model of a
pipeline, so that measures can be paired.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.training.limits import COUNT, NOT_NEGATIVE, POSITIVE, SEED, check_numbers
from r2w_eval.training.prompts import Prompt
from r2w_eval.training.rl.completions import TAGS, template_tags, thinking_tokens
from r2w_eval.training.trainer.stage import check_end_of_turn, load_tokenizer, model_folder

from r2w_eval.models.local import end_tokens
from r2w_eval.models.thinking import ThinkTags, split_thinking
from r2w_eval.store import write_jsonl
from r2w_eval.trace.tokens import decode_pieces

ROLLOUTS = "rollouts.jsonl"


@dataclass(frozen=True)
class RolloutSettings:
    """Texts of the base and of every trained model on the held-out prompts.

    samples: texts per prompt; 0: no rollouts
    temperature, max_tokens: of the texts
    batch_size: texts generated at a time
    seed: of the sampling
    graphed_generation: on a GPU, decode by a CUDA graph (decoding.py); full attention only
    """

    samples: int = 0
    temperature: float = 1.0
    max_tokens: int = 512
    batch_size: int = 32
    seed: int = 0
    graphed_generation: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of its range."""
        allowed = {
            NOT_NEGATIVE: ("samples",),
            POSITIVE: ("temperature",),
            COUNT: ("max_tokens", "batch_size"),
            SEED: ("seed",),
        }
        check_numbers("rollouts", self, allowed)


@dataclass(frozen=True, slots=True)
class RolloutText:
    """One sampled text.

    text: the whole completion; an opening thinking tag written by the chat template is added
    thinking, answer: None if there is none
    thinking_tokens, answer_tokens: up to and including the closing tag, and after it; end tokens
        are not counted
    is_ended: the model ended the text itself, before the limit
    """

    prompt_id: str
    sample: int
    lang: str
    domain: str
    prompt: str
    text: str
    thinking: str | None
    answer: str | None
    thinking_tokens: int
    answer_tokens: int
    is_ended: bool


def read_text(
    prompt: Prompt, sample: int, pieces: Sequence[str], is_ended: bool, tags: ThinkTags = TAGS
) -> RolloutText:
    """A rollout from the pieces of text that its tokens added.

    >>> one = read_text(Prompt("p", "en", "d", "x"), 0, ["<think>", "a", "</think>", "b"], True)
    >>> one.thinking, one.answer, one.thinking_tokens, one.answer_tokens
    ('a', 'b', 3, 1)
    """
    text = "".join(pieces)
    if tags.opened_by_template and not text.lstrip().startswith(tags.open):
        text = f"{tags.open}{text}"
    split = split_thinking(text)
    n_thinking = thinking_tokens(pieces, tags)
    return RolloutText(
        prompt.id,
        sample,
        prompt.lang,
        prompt.domain,
        prompt.prompt,
        text,
        split.thinking,
        split.answer or None,
        n_thinking,
        len(pieces) - n_thinking,
        is_ended,
    )


def write_rollouts(
    model: str, prompts: Sequence[Prompt], settings: RolloutSettings, path: Path
) -> dict[str, Any]:
    """Write the texts of all prompts and samples; facts: their number, tokens and seconds."""
    started = time.monotonic()
    texts = list(_generate(model, prompts, settings))
    write_jsonl(path, texts)
    return {
        "n": len(texts),
        "tokens": sum(one.thinking_tokens + one.answer_tokens for one in texts),
        "generation_s": round(time.monotonic() - started, 2),
    }


def _generate(
    model: str, prompts: Sequence[Prompt], settings: RolloutSettings
) -> Iterator[RolloutText]:
    import torch
    from r2w_eval.training.rl.decoding import GraphedDecoding
    from transformers import AutoModelForCausalLM, GenerationConfig

    source = model_folder(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    tokenizer = load_tokenizer(source, padding_side="left")
    if tokenizer.pad_token is None:
        # as TRL does: base models of the Llama kind have none
        tokenizer.pad_token = tokenizer.eos_token
    policy: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    policy = policy.to(device).eval()
    loop = GraphedDecoding() if settings.graphed_generation and device == "cuda" else None
    tags = template_tags(tokenizer)
    check_end_of_turn(model, tokenizer, policy.generation_config)
    ends = end_tokens(policy.generation_config, tokenizer)
    # as RL draws them: a model's own settings, such as a repetition penalty, would be added
    policy.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=sorted(ends) or None
    )
    places = [(prompt, sample) for sample in range(settings.samples) for prompt in prompts]
    for start in range(0, len(places), settings.batch_size):
        batch = places[start : start + settings.batch_size]
        # a batch does not depend on the ones before it
        torch.manual_seed(settings.seed * 1_000_003 + start)
        for (prompt, sample), ids in zip(
            batch, _complete(policy, tokenizer, batch, settings, loop), strict=True
        ):
            own = list(itertools.takewhile(lambda token: token not in ends, ids))
            is_ended = len(own) < len(ids)
            yield read_text(prompt, sample, decode_pieces(own, tokenizer.decode), is_ended, tags)


def _complete(
    policy: Any,
    tokenizer: Any,
    batch: Sequence[tuple[Prompt, int]],
    settings: RolloutSettings,
    loop: Any,
) -> list[list[int]]:
    """The tokens generated for each prompt, padding included."""
    import torch

    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt.prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt, _ in batch
    ]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    inputs = inputs.to(policy.device)
    with torch.inference_mode():
        written = policy.generate(
            **inputs,
            custom_generate=loop,
            do_sample=True,
            temperature=settings.temperature,
            top_p=1.0,
            top_k=0,
            max_new_tokens=settings.max_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
    ids: list[list[int]] = written[:, inputs["input_ids"].shape[1] :].tolist()
    return ids
