"""How many of a reply's tokens are thinking, as far as the engine says."""

from __future__ import annotations

from enum import StrEnum

from r2w_eval.models.cost import estimate_tokens
from r2w_eval.types import Usage


class TokenSource(StrEnum):
    """Where the number of thinking tokens comes from."""

    REPORTED = "reported"
    SPLIT = "split"
    ESTIMATED = "estimated"


def count_tokens(thinking: str, answer: str, usage: Usage) -> tuple[int, int, TokenSource]:
    """Thinking and answer tokens: reported, else the reported sum split by length, else estimated.

    >>> count_tokens("abcd" * 3, "abcd", Usage(completion_tokens=40))
    (30, 10, <TokenSource.SPLIT: 'split'>)
    """
    total = usage.completion_tokens
    if total is not None and usage.reasoning_tokens:
        return usage.reasoning_tokens, max(0, total - usage.reasoning_tokens), TokenSource.REPORTED
    guess = estimate_tokens(thinking), estimate_tokens(answer)
    if total is None or not sum(guess):
        return *guess, TokenSource.ESTIMATED
    own = round(total * guess[0] / sum(guess))
    return own, total - own, TokenSource.SPLIT
