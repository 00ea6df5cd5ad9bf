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


def test_a_refusal_cuts_once_in_fifteen_seconds_and_growth_is_slow_after() -> None:
    clock = Clock()
    limiter = Limiter(100, clock=clock)
    clean_round(limiter)
    limiter.refused()
    limiter.refused()
    assert limiter.limit == 32 and limiter.cuts == 1
    clean_round(limiter)
    assert 33 <= limiter.limit < 34
    clock.now = 16
    limiter.refused()
    assert limiter.cuts == 2


def test_a_fixed_limit_never_moves() -> None:
    limiter = Limiter(7, fixed=True)
    clean_round(limiter)
    limiter.refused()
    assert limiter.limit == 7


def test_it_never_falls_under_one() -> None:
    clock = Clock()
    limiter = Limiter(1, clock=clock)
    for step in range(20):
        clock.now = 20.0 * step
        limiter.refused()
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
    async def job() -> None:
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

    asyncio.run(job())


def test_slots_go_to_those_who_came_first_and_what_is_urgent_before_them() -> None:
    served: list[str] = []

    async def work(limiter: Limiter, name: str, is_urgent: bool = False) -> None:
        await limiter.acquire(is_urgent=is_urgent)
        served.append(name)
        await asyncio.sleep(0)
        limiter.release()
        # growth between two hand-outs is where a newcomer could slip in
        limiter.succeeded()

    async def job() -> None:
        limiter = Limiter(2)
        tasks = [asyncio.create_task(work(limiter, str(n))) for n in range(9)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(work(limiter, "again", is_urgent=True))]
        await asyncio.gather(*tasks)

    asyncio.run(job())
    assert served == ["0", "1", "2", "3", "again", *map(str, range(4, 9))]


def test_a_tenth_of_a_round_out_of_time_halves_once_for_all_that_were_on_the_way() -> None:
    clock = Clock()
    limiter = Limiter(64, timeout_s=600, clock=clock)
    clock.now = 600
    limiter.timed_out(0)
    assert limiter.limit == 20, "one that hangs says nothing about the rest"
    for sent_at in (0, 0, 5, 599):
        limiter.timed_out(sent_at)
    assert limiter.limit == 10 and limiter.cuts == 1
    clock.now = 1200
    limiter.timed_out(600)
    assert limiter.limit == 5


def test_hangs_in_different_rounds_do_not_add_up() -> None:
    limiter = Limiter(20, timeout_s=600)
    for _ in range(9):
        limiter.timed_out(float("inf"))
        clean_round(limiter)
    assert limiter.limit == 20 and limiter.cuts == 0


def test_growth_slows_and_ends_as_replies_come_near_the_time_limit() -> None:
    limiter = Limiter(256, timeout_s=600)
    for latency_s, expected in ((1.0, 40), (200.0, 60), (400.0, 63), (500.0, 63), (1.0, 126)):
        for _ in range(int(limiter.limit)):
            limiter.succeeded(latency_s)
        assert limiter.limit == expected
