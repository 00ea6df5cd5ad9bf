"""Waiting for several coroutines: none of them goes on when the wait is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def gather(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. The first error ends the other coroutines and is raised when all have
    ended, so that none writes to what its caller closes then; `asyncio.gather` lets them go on.

    One alone runs in the task at hand: a task costs about as much as the reading of a verdict.
    """
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as errors:
        raise first_leaf(errors) from errors
    return [task.result() for task in tasks]


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a task group hides in groups of groups."""
    first = group.exceptions[0]
    return first_leaf(first) if isinstance(first, BaseExceptionGroup) else first
