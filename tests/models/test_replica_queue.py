"""The queue over all addresses: order, pauses, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import EndpointDown
from r2w_eval.models.limiter import Limiter
from r2w_eval.models.replicas import Replicas


def queue_over(*places: int) -> Replicas:
    """Addresses a, b, … with so many places each."""
    return Replicas({url: Limiter(n, fixed=True) for url, n in zip("abc", places, strict=False)})


def in_flight(queue: Replicas) -> list[int]:
    return [limiter.in_flight for limiter in queue.limiters.values()]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 40))
def test_no_more_than_the_limits_run_and_all_run(places: list[int], tasks: int) -> None:
    done: list[str] = []
    queue = queue_over(*places)

    async def work() -> None:
        url = await queue.take()
        assert all(n <= limit for n, limit in zip(in_flight(queue), places, strict=True))
        await asyncio.sleep(0)
        queue.release(url)
        done.append(url)

    async def job() -> None:
        await asyncio.gather(*(work() for _ in range(tasks)))

    asyncio.run(job())
    assert len(done) == tasks and sum(in_flight(queue)) == 0


def test_who_waits_goes_to_the_address_that_is_free_first() -> None:
    async def job() -> list[str]:
        queue = queue_over(1, 1)
        assert {await queue.take(), await queue.take()} == {"a", "b"}
        waiting = [asyncio.create_task(queue.take()) for _ in range(3)]
        await settle()
        # b answers thrice while a takes its time
        for _ in waiting:
            queue.release("b")
            await settle()
        return await asyncio.gather(*waiting)

    assert asyncio.run(job()) == ["b", "b", "b"]


def test_who_must_not_go_to_an_address_lets_others_pass() -> None:
    async def job() -> tuple[str, str]:
        queue = queue_over(1, 1)
        await queue.take()
        await queue.take()
        first = asyncio.create_task(queue.take(avoid={"a"}))
        await settle()
        second = asyncio.create_task(queue.take())
        await settle()
        queue.release("a")
        await settle()
        assert not first.done()
        queue.release("b")
        return await first, await second

    assert asyncio.run(job()) == ("b", "a")


def test_an_address_that_failed_gets_nothing_while_another_works() -> None:
    async def job() -> str:
        queue = queue_over(1, 1)
        queue.failed("b")
        assert await queue.take() == "a"
        waiting = asyncio.create_task(queue.take())
        await settle()
        assert not waiting.done(), "a is full, and b failed a moment ago"
        queue.failed("a")
        queue.release("a")
        return await waiting

    assert asyncio.run(job()) in ("a", "b")


def test_all_waiting_requests_fail_when_the_last_address_is_out() -> None:
    async def job() -> list[str | BaseException]:
        queue = queue_over(1, 1)
        await queue.take()
        await queue.take()
        waiting = [asyncio.create_task(queue.take()) for _ in range(2)]
        await settle()
        queue.put_out("a", "a serves 'x'")
        await settle()
        assert not any(one.done() for one in waiting)
        queue.put_out("b", "b serves 'y'")
        return await asyncio.gather(*waiting, return_exceptions=True)

    found = asyncio.run(job())
    assert [type(one) for one in found] == [EndpointDown] * 2
    with pytest.raises(EndpointDown, match="a serves 'x'; b serves 'y'"):
        raise found[0] if isinstance(found[0], BaseException) else AssertionError


def test_cancelled_waiters_do_not_block_the_others() -> None:
    async def job() -> None:
        queue = queue_over(1)
        await queue.take()
        waiting = [asyncio.create_task(queue.take()) for _ in range(3)]
        await settle()
        waiting[0].cancel()
        await settle()
        for one in waiting[1:]:
            queue.release("a")
            await asyncio.wait_for(one, 1)

    asyncio.run(job())


def test_a_waiter_that_is_woken_and_cancelled_at_once_passes_the_place_on() -> None:
    async def job() -> list[int]:
        queue = queue_over(1)
        await queue.take()
        first, second = (asyncio.create_task(queue.take()) for _ in range(2))
        await settle()
        # the release wakes `first`, which is cancelled before it runs
        queue.release("a")
        first.cancel()
        await asyncio.wait_for(second, 1)
        return in_flight(queue)

    assert asyncio.run(job()) == [1]


@given(st.randoms(use_true_random=False))
def test_cancellations_at_any_moment_lose_no_place(moments: random.Random) -> None:
    async def work(queue: Replicas) -> None:
        url = await queue.take()
        try:
            await asyncio.sleep(0)
        finally:
            queue.release(url)

    async def job() -> int:
        queue = queue_over(moments.randint(1, 3), moments.randint(1, 2))
        tasks = [asyncio.create_task(work(queue)) for _ in range(12)]
        for _ in range(8):
            await asyncio.sleep(0)
            moments.choice(tasks).cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
        return sum(in_flight(queue))

    assert asyncio.run(job()) == 0


def test_a_pause_delays_the_requests_to_one_address_only_while_it_lasts() -> None:
    async def job() -> tuple[list[int], list[int]]:
        queue = queue_over(4, 1)
        queue.pause("a", 0.05)
        tasks = [asyncio.create_task(queue.take()) for _ in range(5)]
        await asyncio.sleep(0.01)
        during = in_flight(queue)
        await asyncio.wait_for(asyncio.gather(*tasks), 1)
        return during, in_flight(queue)

    assert asyncio.run(job()) == ([0, 1], [4, 1])


def test_places_go_to_those_who_came_first_and_what_is_urgent_before_them() -> None:
    served: list[str] = []
    queue = Replicas({"a": Limiter(2)})

    async def work(name: str, is_urgent: bool = False) -> None:
        url = await queue.take(is_urgent=is_urgent)
        served.append(name)
        await asyncio.sleep(0)
        queue.release(url)
        # growth between two hand-outs is where a newcomer could slip in
        queue.limiters[url].succeeded()
        queue.hand_out()

    async def job() -> None:
        tasks = [asyncio.create_task(work(str(n))) for n in range(9)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(work("again", is_urgent=True))]
        await asyncio.gather(*tasks)

    asyncio.run(job())
    assert served == ["0", "1", "2", "3", "again", *map(str, range(4, 9))]
