"""Rollouts as rows of rewards: nothing is lost on the way, and the sum is what verl may show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.cluster.rows import MARK, dense_row, from_runs, read_row, to_runs
from r2w_eval.training.rl.advantages import Rollout, SegmentScore, valid_scores

SCORES = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-1, 1, width=32))


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    """Reflections from the second token on; some touch each other, or the end."""
    lengths = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), SCORES), max_size=6))
    segments, at = [], 1
    for gap, length, score in lengths:
        segments.append(SegmentScore(at + gap, at + gap + length, score))
        at += gap + length
    n_tokens = at + draw(st.integers(0, 3))
    return Rollout(n_tokens, draw(st.floats(-1, 1, width=32)), tuple(segments))


@given(rollouts(), st.integers(0, 4))
def test_a_row_of_32_bit_floats_gives_the_rollout_back(rollout: Rollout, padding: int) -> None:
    sent = from_runs(to_runs(dense_row(rollout)), rollout.n_tokens + padding).astype(np.float32)
    found = read_row(sent, rollout.n_tokens)
    assert (found.n_tokens, found.outcome) == (rollout.n_tokens, rollout.outcome)
    valid = valid_scores(rollout)
    assert [(s.start, s.end) for s in found.segments] == [(s.start, s.end) for s in valid]
    # what is nearer to 0 than 2^-100 is 0
    assert [s.score for s in found.segments] == [
        s.score if abs(s.score or 0.0) > MARK else 0.0 for s in valid
    ]
    total = (rollout.outcome or 0.0) + sum(s.score or 0.0 for s in valid)
    assert sent.sum() == pytest.approx(total, abs=1e-5)


def test_a_row_without_a_token_or_an_outcome_says_so() -> None:
    assert read_row(np.zeros(3), 0).outcome is None
    assert not dense_row(Rollout(3, None, (SegmentScore(1, 2, 1.0),))).any()
