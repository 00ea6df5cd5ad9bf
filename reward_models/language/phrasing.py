"""Words first-person reflections from a frame, a category of problem and a quoted span.

Positives and negatives use the same frames, so that the wording does not reveal the label
(specification: reward-model.md section 5). The texts are in `phrases.yaml`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from r2w_eval.reward_models.language.levels import load_yaml

Frame = Literal["frames", "without_change", "without_quote"]
MAX_QUOTE_CHARS = 240


@cache
def _phrases(lang: str) -> dict[str, Any]:
    found: dict[str, Any] = load_yaml("phrases.yaml")[lang]
    return found


def phrase(
    category: str,
    span: str,
    lang: str,
    rng: random.Random,
    frame: Frame = "frames",
    reserved: bool = False,
) -> str:
    """A reflection that criticises `span` for a problem of `category`.

    The last third of all phrasings is `reserved` for tests and never trained on.
    """
    texts = _phrases(lang)
    entry = texts["categories"][category]
    filled: str = rng.choice(share(texts[frame], reserved))
    # replaced one by one: the span is model text and may hold braces
    filled = filled.replace("{problem}", rng.choice(share(entry["problem"], reserved)))
    filled = filled.replace("{change}", rng.choice(share(entry["change"], reserved)))
    filled = filled.replace("{span}", _quoted(span))
    return filled[0].upper() + filled[1:]


def share(texts: Sequence[str], reserved: bool) -> Sequence[str]:
    """The first two thirds, or the last third, which is reserved for tests."""
    cut = len(texts) - max(1, len(texts) // 3)
    return texts[cut:] if reserved else texts[:cut]


def say(kind: Literal["praise", "generic"], lang: str, rng: random.Random) -> str:
    """Praise, or generic advice that fits any text."""
    text: str = rng.choice(_phrases(lang)[kind])
    return text


def join_quoted(parts: Sequence[str], lang: str) -> str:
    """Join sentences that are quoted one by one, but for the outer quotation marks."""
    return ("”、“" if lang == "zh" else '", "').join(parts)


def _quoted(span: str) -> str:
    span = " ".join(span.split())
    return span if len(span) <= MAX_QUOTE_CHARS else span[:MAX_QUOTE_CHARS].rstrip() + "…"
