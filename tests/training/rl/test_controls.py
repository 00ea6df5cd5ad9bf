"""Shuffled process scores: the same scores of every group, on other reflections, drawn alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.rl.advantages import (
    MAPPINGS,
    LocalMapping,
    Rollout,
    SegmentScore,
    outcome_advantages,
    process_terms,
    valid_scores,
)
from r2w_eval.training.rl.controls import shuffle_scores

SCORES = st.none() | st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0])
PLACES = st.tuples(st.integers(0, 5), st.integers(0, 99), st.integers(0, 7))


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    """With invalid scores, reflections without a token, and invalid outcomes among them."""
    scores = draw(st.lists(SCORES, max_size=4))
    lengths = [draw(st.integers(0, 3)) for _ in scores]
    segments = tuple(
        SegmentScore(10 * i, 10 * i + n, score)
        for i, (n, score) in enumerate(zip(lengths, scores, strict=True))
    )
    return Rollout(50, draw(st.none() | st.sampled_from([0.0, 0.5, 1.0])), segments)


GROUPS = st.lists(rollouts(), max_size=6)


def all_scores(group: list[Rollout]) -> Counter[float | None]:
    return Counter(segment.score for rollout in group for segment in valid_scores(rollout))


@given(GROUPS, PLACES)
def test_the_scores_of_a_group_are_the_same_and_nothing_else_moves(
    group: list[Rollout], place: tuple[int, ...]
) -> None:
    shuffled = shuffle_scores(group, place)
    assert all_scores(shuffled) == all_scores(group)
    for before, after in zip(group, shuffled, strict=True):
        assert replace(after, segments=before.segments) == before
        valid = valid_scores(before)
        for own, new in zip(before.segments, after.segments, strict=True):
            assert (new.start, new.end) == (own.start, own.end)
            # without a score, a token or an outcome it is left alone
            assert own in valid or new == own


@given(GROUPS, PLACES)
def test_a_place_always_draws_the_same(group: list[Rollout], place: tuple[int, ...]) -> None:
    assert shuffle_scores(group, place) == shuffle_scores(group, place)


@given(GROUPS, PLACES, st.sampled_from(["local", *MAPPINGS]))
def test_with_lambda_0_it_changes_nothing(
    group: list[Rollout], place: tuple[int, ...], form: str
) -> None:
    mapping = LocalMapping(form, weight=0.0)  # type: ignore[arg-type]
    advantages = outcome_advantages(group)
    own, other = (
        process_terms(g, advantages, mapping) for g in (group, shuffle_scores(group, place))
    )
    assert all(np.array_equal(a, b) for a, b in zip(own, other, strict=True))


def test_every_reflection_is_as_likely_to_get_each_score() -> None:
    one = Rollout(30, 1.0, (SegmentScore(0, 9, 1.0), SegmentScore(10, 19, -1.0)))
    group = [one, Rollout(30, 0.0, (SegmentScore(0, 9, 0.0),))]
    seen = Counter(
        tuple(s.score for r in shuffle_scores(group, (3, step, number)) for s in r.segments)
        for step in range(200)
        for number in range(3)
    )
    # six orders, 100 times each; four standard deviations
    assert len(seen) == 6 and all(64 <= n <= 136 for n in seen.values())
    # another seed, another order
    assert any(
        shuffle_scores(group, (3, n, 0)) != shuffle_scores(group, (4, n, 0)) for n in range(9)
    )
