"""Waiting for several coroutines: after an error none of them is left behind."""

from __future__ import annotations

import asyncio

import pytest

from r2w_eval.waiting import gather


async def double(number: int) -> int:
    await asyncio.sleep(0.001 * (3 - number))
    return 2 * number


@pytest.mark.parametrize("numbers", [[], [1], [0, 1, 2]])
def test_results_come_in_order(numbers: list[int]) -> None:
    results = asyncio.run(gather([double(number) for number in numbers]))
    assert results == [2 * number for number in numbers]


def test_an_error_comes_as_itself_when_all_others_have_ended() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("slow")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError("disk full")

    async def nested() -> None:
        await gather([slow(), fail()])

    async def wait() -> None:
        with pytest.raises(OSError, match="disk full"):
            await gather([slow(), nested()])
        assert ended == ["slow", "slow"]

    asyncio.run(wait())
