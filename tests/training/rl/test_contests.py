"""Answers compared in pairs: points of both orders, contests within a group, and the drawn one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.rl.contests import InGroup, Pairwise, circle, draw, points, shares
from r2w_eval.training.rl.outcomes import JudgedOutcome
from strengths import Strengths, text_of

from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.endpoint import ClientSettings
from r2w_eval.run.opening import ModelOptions
from r2w_eval.run.patient import PatientJudge

QUICK = ModelOptions(client=ClientSettings(backoff_s=0.01, timeout_s=5.0))
MARGINS = st.sampled_from([None, -2.0, -1.0, 0.0, 1.0, 2.0])
STRENGTHS = st.lists(st.none() | st.integers(0, 3), max_size=6)


def answers_of(strengths: list[int | None]) -> list[str | None]:
    return [None if one is None else text_of(one) for one in strengths]


def in_group(judge: Any, strengths: list[int | None], step: int = 0) -> list[float | None]:
    return asyncio.run(InGroup(judge, 7)("p", answers_of(strengths), step))


@given(st.integers(0, 9), st.integers(0, 12))
def test_everyone_meets_equally_many(n: int, opponents: int) -> None:
    pairs = circle(range(n), opponents)
    assert len(set(pairs)) == len(pairs) and all(a < b for a, b in pairs)
    met = [sum(i in pair for pair in pairs) for i in range(n)]
    assert len(set(met)) <= 1 and (not met or met[0] == min(2 * opponents, n - 1))


@given(st.lists(MARGINS, min_size=12, max_size=12))
def test_a_contest_gives_out_one_point_or_none(margins: list[float | None]) -> None:
    pairs = circle(range(4), 3)
    won = points(margins)
    found = shares(pairs, won, 4)
    scored = [pair for pair, own in zip(pairs, won, strict=True) if own is not None]
    assert len(scored) == sum(None not in margins[i : i + 2] for i in range(0, 12, 2))
    played = [sum(i in pair for pair in scored) for i in range(4)]
    assert [share is None for share in found] == [n == 0 for n in played]
    total = sum((share or 0.0) * n for share, n in zip(found, played, strict=True))
    assert total == pytest.approx(len(scored))


@given(MARGINS, MARGINS)
def test_points_of_both_texts_add_up_to_one(forwards: float | None, back: float | None) -> None:
    (first,), (second,) = points([forwards, back]), points([back, forwards])
    assert (first is None) == (second is None) == (forwards is None or back is None)
    if first is not None and second is not None:
        assert first + second == 1.0


@given(STRENGTHS, st.integers(0, 50))
def test_all_answers_meet_the_one_that_was_drawn(strengths: list[int | None], step: int) -> None:
    judge = Strengths()
    found = in_group(judge, strengths, step)
    known = [i for i, one in enumerate(strengths) if one is not None]
    if len(known) < 2:
        assert found == [None] * len(strengths) and not judge.asked
        return
    drawn = draw(known, 7, step, "p")
    own = strengths[drawn] or 0
    expected = [None if s is None else (1 + (s > own) - (s < own)) / 2 for s in strengths]
    assert found == expected and found[drawn] == 0.5
    # every other answer in both orders, and the drawn one never against itself
    others = [strengths[i] for i in known if i != drawn]
    both = [pair for other in others for pair in ((other, own), (own, other))]
    assert sorted(judge.shown) == sorted(both)


def test_the_draw_depends_on_seed_step_and_prompt_alone() -> None:
    members = [1, 4, 6]
    drawn = [draw(members, 0, step, "p") for step in range(60)]
    assert drawn == [draw(members, 0, step, "p") for step in range(60)]
    assert {*drawn} == {*members} and all(drawn.count(one) > 10 for one in members)
    assert drawn != [draw(members, 1, step, "p") for step in range(60)]
    assert drawn != [draw(members, 0, step, "q") for step in range(60)]


def test_orders_that_disagree_are_ties_in_a_group() -> None:
    assert in_group(Strengths(first_wins=True), [1, 2, 3]) == [0.5, 0.5, 0.5]


def test_an_answer_that_lost_a_verdict_has_no_reward_and_the_drawn_one_needs_one() -> None:
    strengths: list[int | None] = [1, 2, 3]
    drawn = draw([0, 1, 2], 7, 0, "p")
    one, other = (i for i in range(3) if i != drawn)
    lost = in_group(Strengths(frozenset([strengths[one] or 0])), strengths)
    assert lost[one] is None and lost[other] in (0.0, 1.0) and lost[drawn] == 0.5
    # nobody was judged in both orders: nothing is known of the drawn one either
    assert in_group(Strengths(frozenset([1, 2, 3])), strengths) == [None] * 3


def test_the_judge_is_asked_ahead_with_the_draw_of_the_same_step() -> None:
    texts = ["The sea was calm.", "A door opened.", "Nobody came.", "It rained."]
    prompts = ["p"] * 4

    def at(step: int) -> Any:
        return SimpleNamespace(global_step=step)

    with FakeServer() as server:
        judge = PatientJudge(f"{server.base_url}#judge-0", QUICK)
        outcome = JudgedOutcome(judge, InGroup(judge, 0), 4)
        plain = {step: outcome(prompts, texts, trainer_state=at(step)) for step in range(4)}
        assert judge.asked == 4 * 2 * 3
        for step, expected in plain.items():
            outcome.begin(prompts, texts, step)
            assert outcome(prompts, texts, trainer_state=at(step)) == expected
        assert judge.asked == 2 * 4 * 2 * 3  # what was begun was not asked for again
        ties = {
            step: [i for i, own in enumerate(found) if own == 0.5] for step, found in plain.items()
        }
        assert all(draw(range(4), 0, step, "p") in own for step, own in ties.items())
        outcome.run(judge.close())


def test_pairs_that_lost_an_order_are_left_out_of_the_share() -> None:
    judge: Any = Strengths(frozenset([3]))
    found = asyncio.run(Pairwise(judge, 2)("p", answers_of([1, 2, 3])))
    assert found == [0.0, 1.0, None]
