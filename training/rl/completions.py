"""Finds the reflections of a policy's completion and their token spans. Imports no framework.

The completion's ids are decoded token by token and never tokenised again, so that a span of
characters maps to the tokens that produced it (specification: reward-model.md section 8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from r2w_eval.reward_models.items import ReflectionItem
from r2w_eval.training.rl.advantages import SegmentScore
from r2w_eval.training.specials import special_tokens

from r2w_eval.models.thinking import Block, ThinkTags, answer_of, thinking_blocks
from r2w_eval.trace.tags import parse_tagged
from r2w_eval.trace.tokens import decode_pieces, offsets_of_pieces, token_span, with_tokens
from r2w_eval.trace.types import Span, TagSchema, Trace, steps
from r2w_eval.trace.units import units

TAGS = ThinkTags()

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class ScorableReflection:
    """One reflection of a completion: its span in policy tokens, and the item to be scored."""

    span: Span
    item: ReflectionItem


def template_tags(tokenizer: Any, **options: Any) -> ThinkTags:
    """The thinking tags of completions. A chat template may end in the opening tag, as R1's does;
    completions then lack it. `options` are passed to the template.
    """
    if not getattr(tokenizer, "chat_template", None):
        return TAGS
    turns = [{"role": "user", "content": "Write."}]
    prompt = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=False, **options
    )
    return TAGS.after(prompt)


def without_end(ids: Sequence[int], tokenizer: Any) -> Sequence[int]:
    """The tokens without the special ones at the end: an end of turn is no text, which a scorer of
    the answer as the last revision would read.
    """
    special = special_tokens(tokenizer)
    end = len(ids)
    while end and ids[end - 1] in special:
        end -= 1
    return ids[:end]


def read_completion(
    ids: Sequence[int], decode: Decode, schema: TagSchema, tags: ThinkTags = TAGS
) -> Trace:
    """The thinking of a completion as a trace whose segments have token spans.

    `ids` are the tokens of the policy, by `without_end`; `decode` must keep special tokens.
    """
    return read_pieces(decode_pieces(ids, decode), schema, tags)


def read_pieces(pieces: Sequence[str], schema: TagSchema, tags: ThinkTags = TAGS) -> Trace:
    """As `read_completion`, from the text that each token added.

    All blocks of thinking are read, as `split_thinking` finds them; without any there are no
    segments.
    """
    text = "".join(pieces)
    answer = answer_of(text, tags)
    trace = parse_tagged(_thoughts(text, thinking_blocks(text, tags)), schema, answer)
    return with_tokens(trace, offsets_of_pieces(pieces))


def _thoughts(text: str, blocks: Sequence[Block]) -> str:
    """The text with everything outside of the thinking blocks blanked, so that offsets stay."""
    parts, last = [], 0
    for block in blocks:
        parts += [" " * (block.start - last), text[block.start : block.end]]
        last = block.end
    return "".join(parts)


def thinking_tokens(pieces: Sequence[str], tags: ThinkTags = TAGS) -> int:
    """Number of tokens of all thinking blocks, their tags included; 0 without thinking.

    >>> thinking_tokens(["<think>", "a", "</think>", "b"]), thinking_tokens(["<think>", "a"])
    (3, 2)
    >>> thinking_tokens(["a", "b"]), thinking_tokens(["a", "b"], ThinkTags(opened_by_template=True))
    (0, 2)
    """
    offsets = offsets_of_pieces(pieces)
    blocks = thinking_blocks("".join(pieces), tags)
    return sum(len(token_span(Span(one.outer_start, one.outer_end), offsets)) for one in blocks)


def reflections(trace: Trace, prompt: str, name: str) -> list[ScorableReflection]:
    """The reflections of a trace that can be scored, in order; item ids are `name:step`.

    Left out are reflections without a draft before them or without a token; their spans get no
    credit, like those with an invalid score.
    """
    found = []
    for step, texts in zip(steps(trace), units(trace, prompt), strict=True):
        span = step.reflection.tokens
        if texts.draft is None or span is None or not len(span):
            continue
        item = ReflectionItem(
            f"{name}:{step.index}",
            prompt,
            texts.draft,
            texts.reflection,
            texts.revision,
            texts.earlier,
        )
        found.append(ScorableReflection(span, item))
    return found


def to_segments(
    found: Sequence[ScorableReflection], scores: Sequence[float | None]
) -> tuple[SegmentScore, ...]:
    """Token spans with their scores, clipped to [-1, 1] so that an unbounded scorer cannot outweigh
    the outcome (specification: r2write.md section 6.2).
    """
    return tuple(
        SegmentScore(one.span.start, one.span.end, _clipped(score))
        for one, score in zip(found, scores, strict=True)
    )


def _clipped(score: float | None) -> float | None:
    return None if score is None else max(-1.0, min(1.0, score))
