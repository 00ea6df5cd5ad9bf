"""Adaptive concurrency: growth, cuts, pauses, and that no slot is ever lost."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.limiter import Limiter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def clean_round(limiter: Limiter) -> None:
    for _ in range(int(limiter.limit)):
        limiter.succeeded()


def test_it_doubles_a_clean_round_until_the_ceiling() -> None:
    limiter = Limiter(100)
    seen = []
    for _ in range(4):
        seen.append(int(limiter.limit))
        clean_round(limiter)
    assert seen == [20, 40, 80, 100]


def test_congestion_cuts_once_in_fifteen_seconds_and_growth_is_slow_after() -> None:
    clock = Clock()
    limiter = Limiter(100, clock=clock)
    clean_round(limiter)
    limiter.congested()
    limiter.congested()
    assert limiter.limit == 32 and limiter.cuts == 1
    clean_round(limiter)
    assert 33 <= limiter.limit < 34
    clock.now = 16
    limiter.congested()
    assert limiter.cuts == 2


def test_a_fixed_limit_never_moves() -> None:
    limiter = Limiter(7, fixed=True)
    clean_round(limiter)
    limiter.congested()
    assert limiter.limit == 7


def test_it_never_falls_under_one() -> None:
    clock = Clock()
    limiter = Limiter(1, clock=clock)
    for step in range(20):
        clock.now = 20.0 * step
        limiter.congested()
    assert limiter.limit == 1


@given(st.integers(1, 8), st.integers(1, 40))
def test_no_more_than_the_limit_run_and_all_run(ceiling: int, tasks: int) -> None:
    peak = running = done = 0

    async def work(limiter: Limiter) -> None:
        nonlocal peak, running, done
        await limiter.acquire()
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1
        done += 1
        limiter.release()

    async def job() -> None:
        limiter = Limiter(ceiling, fixed=True)
        await asyncio.gather(*(work(limiter) for _ in range(tasks)))

    asyncio.run(job())
    assert done == tasks and peak <= ceiling


def test_cancelled_waiters_do_not_block_the_others() -> None:
    async def job() -> bool:
        limiter = Limiter(1, fixed=True)
        await limiter.acquire()
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        limiter.release()
        await asyncio.wait_for(waiting[1], 1)
        limiter.release()
        await asyncio.wait_for(waiting[2], 1)
        return True

    assert asyncio.run(job())


def test_a_waiter_that_is_woken_and_cancelled_at_once_passes_the_slot_on() -> None:
    async def job() -> bool:
        limiter = Limiter(1, fixed=True)
        await limiter.acquire()
        first, second = (asyncio.create_task(limiter.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        # the release wakes `first`, which is cancelled before it runs
        limiter.release()
        first.cancel()
        await asyncio.wait_for(second, 1)
        return limiter.in_flight == 1

    assert asyncio.run(job())


@given(st.randoms(use_true_random=False))
def test_cancellations_at_any_moment_lose_no_slot(moments: random.Random) -> None:
    async def work(limiter: Limiter) -> None:
        await limiter.acquire()
        try:
            await asyncio.sleep(0)
        finally:
            limiter.release()

    async def job() -> int:
        limiter = Limiter(moments.randint(1, 3), fixed=True)
        tasks = [asyncio.create_task(work(limiter)) for _ in range(12)]
        for _ in range(8):
            await asyncio.sleep(0)
            moments.choice(tasks).cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
        return limiter.in_flight

    assert asyncio.run(job()) == 0


def test_a_pause_holds_everybody_and_then_nobody() -> None:
    async def job() -> tuple[int, int]:
        limiter = Limiter(4, fixed=True)
        limiter.pause(0.05)
        assert limiter.is_paused
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
        await asyncio.sleep(0.01)
        during = limiter.in_flight
        await asyncio.wait_for(asyncio.gather(*tasks), 1)
        return during, limiter.in_flight

    assert asyncio.run(job()) == (0, 4)


def test_a_pause_is_capped_and_the_longest_counts() -> None:
    clock = Clock()
    limiter = Limiter(4, clock=clock)
    limiter.pause(10_000)
    limiter.pause(1)
    clock.now = 299
    assert limiter.is_paused
    clock.now = 300
    assert not limiter.is_paused
    limiter.pause(-5)
    limiter.pause(float("nan"))
    assert not limiter.is_paused
