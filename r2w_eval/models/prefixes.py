"""Order of requests for servers with a prefix cache.

Servers and paid APIs can reuse the beginning of a prompt once a reply to it has begun, but not
among requests sent at the same time. Of several questions with a common prefix one is therefore
sent first, and the others when its reply is there. These have priority over first questions of
other groups, because a server of few slots would evict the prefix in the meantime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from r2w_eval.models.cost import LATIN_CHARS_PER_TOKEN, estimate_tokens
from r2w_eval.waiting import gather

T = TypeVar("T")
R = TypeVar("R")

# Below this the large APIs keep nothing (OpenAI and Anthropic, prompt caching)
MIN_SHARED_TOKENS = 1024
FOLLOWS: ContextVar[bool] = ContextVar("follows", default=False)
"""Whether the current request reuses a cached prefix, which gives it priority in the queue."""


def group_by_prefix(texts: Sequence[str], min_tokens: int = MIN_SHARED_TOKENS) -> list[list[int]]:
    """Indices of the texts, in groups that share a prefix of at least `min_tokens` tokens.

    >>> group_by_prefix(["a long beginning: x", "b", "a long beginning: y"], min_tokens=4)
    [[0, 2], [1]]
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(texts)), key=lambda place: texts[place]):
        if groups and _begin_alike(texts[groups[-1][0]], texts[place], min_tokens):
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _begin_alike(first: str, second: str, min_tokens: int) -> bool:
    # so many characters are enough in any script; what follows them need not be compared
    enough = math.ceil(min_tokens * LATIN_CHARS_PER_TOKEN)
    shared = _shared_length(first[:enough], second[:enough])
    return shared >= enough or estimate_tokens(first[:shared]) >= min_tokens


def _shared_length(first: str, second: str) -> int:
    """Length of the common beginning, by halving: whole slices are compared, not characters."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


async def ask_by_prefix(
    items: Sequence[T], text_of: Callable[[T], str], ask: Callable[[T], Coroutine[Any, Any, R]]
) -> list[R]:
    """What `ask` gives for every item, in the order of the items."""
    found: dict[int, R] = {}

    async def follow(place: int) -> None:
        token = FOLLOWS.set(True)
        try:
            found[place] = await ask(items[place])
        finally:
            FOLLOWS.reset(token)

    async def lead(group: Sequence[int]) -> None:
        found[group[0]] = await ask(items[group[0]])
        await gather([follow(place) for place in group[1:]])

    await gather([lead(group) for group in group_by_prefix([text_of(item) for item in items])])
    return [found[place] for place in range(len(items))]
