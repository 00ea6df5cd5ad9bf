"""Adaptive concurrency of one address: growth, cuts, pauses."""

from __future__ import annotations

import pytest

from r2w_eval.models.limiter import Limiter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def clean_round(limiter: Limiter, latency_s: float = 0.0) -> int:
    for _ in range(int(limiter.limit)):
        limiter.succeeded(latency_s)
    return int(limiter.limit)


def test_it_quadruples_a_round_while_replies_stay_fast_and_doubles_it_else() -> None:
    limiter = Limiter(500)
    assert [clean_round(limiter, s) for s in (1.0, 1.0, 1.0)] == [80, 320, 500]
    limiter = Limiter(500)
    assert [clean_round(limiter, s) for s in (1.0, 1.6, 1.4)] == [80, 160, 500]


def test_the_first_refusal_halves_what_has_just_grown_and_growth_is_slow_after() -> None:
    limiter = Limiter(100)
    clean_round(limiter)
    limiter.refused()
    assert limiter.limit == 40
    assert clean_round(limiter) == 42
    limiter = Limiter(80)
    assert [clean_round(limiter) for _ in range(2)] == [80, 80]
    limiter.refused()
    assert limiter.limit == 64


def test_a_refusal_cuts_once_in_fifteen_seconds() -> None:
    clock = Clock()
    limiter = Limiter(100, clock=clock)
    limiter.refused()
    limiter.refused()
    assert limiter.limit == 10 and limiter.cuts == 1
    clock.now = 16
    limiter.refused()
    assert limiter.limit == 8 and limiter.cuts == 2


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


def test_a_pause_is_capped_and_the_longest_counts() -> None:
    clock = Clock()
    limiter = Limiter(4, clock=clock)
    limiter.pause(10_000)
    limiter.pause(1)
    clock.now = 299
    assert limiter.is_paused and not limiter.has_room
    clock.now = 300
    assert not limiter.is_paused and limiter.has_room
    limiter.pause(-5)
    limiter.pause(float("nan"))
    assert not limiter.is_paused


def test_a_tenth_of_a_round_out_of_time_halves_once_for_all_that_were_on_the_way() -> None:
    clock = Clock()
    limiter = Limiter(64, timeout_s=600, clock=clock)
    clock.now = 600
    limiter.timed_out(0, 1000)
    assert limiter.limit == 20, "one that hangs says nothing about the rest"
    for sent_at in (0, 0, 5, 600):
        limiter.timed_out(sent_at, 1000)
    assert limiter.limit == 10 and limiter.cuts == 1
    clock.now = 1200
    limiter.timed_out(601, 1000)
    assert limiter.limit == 5


@pytest.mark.parametrize(("answered", "limit"), [(0, 10), (1, 1), (2, 2), (4, 3), (14, 10)])
def test_a_slow_server_is_cut_to_what_it_answers_in_time(answered: int, limit: int) -> None:
    limiter = Limiter(64, timeout_s=600)
    for _ in range(2):
        limiter.timed_out(float("inf"), answered)
    assert limiter.limit == limit


def test_hangs_in_different_rounds_do_not_add_up() -> None:
    limiter = Limiter(20, timeout_s=600)
    for _ in range(9):
        limiter.timed_out(float("inf"), 20)
        clean_round(limiter)
    assert limiter.limit == 20 and limiter.cuts == 0


def test_growth_slows_and_ends_as_replies_come_near_the_time_limit() -> None:
    limiter = Limiter(256, timeout_s=600)
    for latency_s, expected in ((1.0, 80), (200.0, 120), (400.0, 126), (500.0, 126), (1.0, 256)):
        assert clean_round(limiter, latency_s) == expected
