"""Order for servers that cache prefixes: one of several questions that begin alike goes first.

Servers and paid APIs keep the beginning of a prompt once a reply to it has begun; questions sent
all at once find nothing kept. So one leads; when it is back, the others follow, before other
leaders, because a server of few places would have forgotten the beginning by then.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TypeVar

from r2w_eval.cost import estimate_tokens

T = TypeVar("T")
R = TypeVar("R")

# Below this the large APIs keep nothing (OpenAI and Anthropic, prompt caching)
MIN_SHARED_TOKENS = 1024
FOLLOWS: ContextVar[bool] = ContextVar("follows", default=False)
"""The request at hand finds its beginning kept: it goes before those that lead."""


def group_by_prefix(texts: Sequence[str], min_tokens: int = MIN_SHARED_TOKENS) -> list[list[int]]:
    """Places of the texts, sorted; those that begin with as many equal tokens stand together.

    >>> group_by_prefix(["a long beginning: x", "b", "a long beginning: y"], min_tokens=4)
    [[0, 2], [1]]
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(texts)), key=lambda place: texts[place]):
        if groups and _shared(texts[groups[-1][0]], texts[place]) >= min_tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _shared(first: str, second: str) -> int:
    return estimate_tokens(os.path.commonprefix([first, second]))


async def ask_by_prefix(
    items: Sequence[T], text_of: Callable[[T], str], ask: Callable[[T], Awaitable[R]]
) -> list[R]:
    """What `ask` gives for every item, in the order of the items."""
    found: dict[int, R] = {}

    async def follow(place: int) -> None:
        FOLLOWS.set(True)
        found[place] = await ask(items[place])

    async def lead(group: Sequence[int]) -> None:
        found[group[0]] = await ask(items[group[0]])
        await asyncio.gather(*map(follow, group[1:]))

    await asyncio.gather(*map(lead, group_by_prefix([text_of(item) for item in items])))
    return [found[place] for place in range(len(items))]
