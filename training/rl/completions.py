"""A policy's completion as reflections on its own tokens, ready to be scored. No framework import.

The completion's ids are decoded piece by piece and never tokenised again: a span of characters maps
to the tokens that wrote it (specification: reward-model.md section 8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from r2w_eval.reward_models.items import ReflectionItem
from r2w_eval.training.rl.advantages import SegmentScore

from r2w_eval.models.thinking import ThinkTags, split_thinking
from r2w_eval.trace.tags import parse_tagged
from r2w_eval.trace.tokens import decode_pieces, offsets_of_pieces, token_span, with_tokens
from r2w_eval.trace.types import Span, TagSchema, Trace, steps
from r2w_eval.trace.units import units

TAGS = ThinkTags()

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class ScorableReflection:
    """One reflection of a completion: the policy tokens it spans, and what a scorer gets."""

    span: Span
    item: ReflectionItem


def read_completion(ids: Sequence[int], decode: Decode, schema: TagSchema) -> Trace:
    """The thinking of a completion with its segments in policy tokens.

    The thinking ends at the first `</think>`; without one the whole completion is thinking. `ids`
    are those that the policy wrote, without padding; `decode` keeps special tokens.
    """
    return read_pieces(decode_pieces(ids, decode), schema)


def read_pieces(pieces: Sequence[str], schema: TagSchema) -> Trace:
    """As `read_completion`, of the text that each token added."""
    text = "".join(pieces)
    start = len(TAGS.open) if text.startswith(TAGS.open) else 0
    end = text.find(TAGS.close)
    answer = text[end + len(TAGS.close) :].strip() if end >= 0 else None
    trace = parse_tagged(text[start : end if end >= 0 else len(text)], schema, answer)
    return with_tokens(trace, offsets_of_pieces(pieces), start)


def thinking_tokens(pieces: Sequence[str]) -> int:
    """Tokens up to the closing tag, with it; all where it is missing, 0 where nothing was thought.

    >>> thinking_tokens(["<think>", "a", "</think>", "b"]), thinking_tokens(["<think>", "a"])
    (3, 2)
    >>> thinking_tokens(["a", "b"])
    0
    """
    text = "".join(pieces)
    if split_thinking(text, TAGS).thinking is None:
        return 0
    before, close, _ = text.partition(TAGS.close)
    return token_span(Span(0, len(before + close)), offsets_of_pieces(pieces)).end


def reflections(trace: Trace, prompt: str, name: str) -> list[ScorableReflection]:
    """Every reflection of a trace that has a draft to speak of, in order.

    A reflection without a draft, or without a token, cannot be scored and is left out; its span
    earns nothing, as an invalid score would.
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
    """Spans with their scores in [-1, 1], for the mapping to advantages: a scorer without bounds
    must not outweigh the outcome (specification: r2write, section 6.2).
    """
    return tuple(
        SegmentScore(one.span.start, one.span.end, _clipped(score))
        for one, score in zip(found, scores, strict=True)
    )


def _clipped(score: float | None) -> float | None:
    return None if score is None else max(-1.0, min(1.0, score))


def prompt_text(prompt: Any) -> str:
    """The last user turn of a conversation, or the text itself."""
    if isinstance(prompt, str):
        return prompt
    return next((str(m["content"]) for m in reversed(prompt) if m["role"] == "user"), "")
