"""What becomes of an item that is longer than a model reads; never silent.

`error`: no value, status `too_long`. `unit`: earlier reflections are left out, oldest first.
`middle`: these, and then the middle of the draft (of a piece of writing: the answer), so that the
prompt, both ends, the reflection and the revision stay. The score says how many tokens were cut
(specification: reward model, section 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from r2w_eval.reward_models.items import Item, ReflectionItem

POLICIES = ("error", "unit", "middle")
GAP = " […] "
TRIES = 6


def fit(item: Item, limit: int, count: Callable[[Item], int], policy: str) -> Item | None:
    """The item, shortened to `limit` tokens by the policy; None where it cannot be."""
    if policy == "error":
        return None
    for shorter in _shorter(item, limit, count, policy):
        if count(shorter) <= limit:
            return shorter
    return None


def _shorter(item: Item, limit: int, count: Callable[[Item], int], policy: str) -> Iterator[Item]:
    if isinstance(item, ReflectionItem):
        for n in range(1, len(item.earlier) + 1):
            yield replace(item, earlier=item.earlier[n:])
        item = replace(item, earlier=())
    if policy != "middle":
        return
    body = item.draft if isinstance(item, ReflectionItem) else item.response
    kept = len(body)
    for _ in range(TRIES):
        size = count(_with_body(item, cut_middle(body, kept)))
        # a tenth more than the share in characters: tokens are not equally long
        excess = (size - limit) / max(1, size) * 1.1 + 0.01
        kept = int(kept * max(0.0, 1.0 - max(0.0, excess)))
        yield _with_body(item, cut_middle(body, kept))


def _with_body(item: Item, text: str) -> Item:
    if isinstance(item, ReflectionItem):
        return replace(item, draft=text)
    return replace(item, response=text)


def cut_middle(text: str, kept: int) -> str:
    """The first and the last `kept` / 2 characters, with a mark between.

    >>> cut_middle("0123456789", 4)
    '01 […] 89'
    """
    if kept >= len(text):
        return text
    head = (kept + 1) // 2
    return text[:head] + GAP + text[len(text) - (kept - head) :]
