"""Token advantages: the published fixture to three decimals, laws of the default mapping."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.rl.advantages import (
    MAPPINGS,
    LocalMapping,
    Rollout,
    SegmentScore,
    gae,
    local,
    local_terms,
    outcome_advantages,
    process_terms,
    reward_row,
    step_return,
    valid_scores,
)

STARTS = (10, 25, 40, 55, 70)
GOOD, BAD = 0.6, -0.6
# lambda 1, caps and gate off: the setting of the fixture
BARE = LocalMapping(weight=1.0, token_cap=np.inf, sum_cap=np.inf, gate="always")


def rollout(*scores: float | None, outcome: float | None = 0.5) -> Rollout:
    segments = tuple(SegmentScore(s, s + 10, q) for s, q in zip(STARTS, scores, strict=False))
    return Rollout(100, outcome, segments)


FIXTURE = [rollout(GOOD), rollout(*[GOOD] * 5), rollout(BAD), rollout(GOOD, BAD)]

# mapping: (mean advantage of the four rollouts), (good span, bad span, last token of the fourth)
WANTED = {
    "sum": ((-0.095, 1.426, -0.855, -0.475), (-0.475, -0.475, -0.475)),
    "mean": ((0.783, 0.783, -1.305, -0.261), (-0.261, -0.261, -0.261)),
    "min": ((0.866, 0.866, -0.866, -0.866), (-0.866, -0.866, -0.866)),
    "step_return": ((0.101, 1.260, -0.353, -0.516), (-1.260, -1.764, 0.0)),
    "return_to_go": ((-0.263, 1.297, -0.534, -0.500), (-0.399, -1.077, -0.399)),
    "local_z": ((0.050, 0.252, -0.176, -0.126), (0.504, -1.764, 0.0)),
    "local": ((0.027, 0.027, -0.093, -0.033), (0.133, -0.467, 0.0)),
}


@pytest.mark.parametrize("name", WANTED)
def test_every_mapping_gives_the_published_fixture(name: str) -> None:
    rows = local(FIXTURE, BARE) if name == "local" else MAPPINGS[name](FIXTURE, 1.0)
    means, places = WANTED[name]
    assert [round(float(row.mean()), 3) for row in rows] == pytest.approx(means, abs=6e-4)
    assert [float(rows[3][t]) for t in (12, 27, 99)] == pytest.approx(places, abs=6e-4)


def test_on_a_scale_of_0_to_1_a_sum_pays_for_a_bad_reflection() -> None:
    group = [rollout(0.8), rollout(*[0.8] * 5), rollout(0.2), rollout(0.8, 0.2)]
    means = [float(row.mean()) for row in MAPPINGS["sum"](group, 1.0)]
    assert means == pytest.approx((-0.412, 1.470, -0.764, -0.294), abs=6e-4)


scores = st.floats(-1.0, 1.0, allow_nan=False)
outcomes = st.floats(0.0, 1.0, allow_nan=False)
rollouts = st.builds(
    lambda qs, outcome: rollout(*qs, outcome=outcome),
    st.lists(st.none() | scores, max_size=5),
    st.none() | outcomes,
)
groups = st.lists(rollouts, min_size=2, max_size=6)
mappings = st.builds(
    LocalMapping,
    weight=st.floats(0.0, 2.0),
    gate=st.sampled_from(["acceptable", "always"]),
    baseline=st.sampled_from(["floored_mean", "zero", "mean"]),
)


@given(groups, mappings)
def test_a_lambda_of_0_leaves_the_outcome_alone(
    group: list[Rollout], mapping: LocalMapping
) -> None:
    rows = local(group, replace(mapping, weight=0.0))
    for row, advantage in zip(rows, outcome_advantages(group), strict=True):
        assert np.array_equal(row, np.full(100, advantage or 0.0))


@given(st.integers(1, 5), scores, scores)
def test_more_reflections_of_equal_quality_earn_no_more(n: int, q: float, other: float) -> None:
    def earned(count: int) -> float:
        group = [rollout(*[q] * count, outcome=1.0), rollout(other, outcome=0.0)]
        # the centre is held fixed: the mean of the group moves with the count
        terms = local_terms(group, [1.0, -1.0], replace(BARE, baseline="zero"))
        return float(terms[0].sum())

    assert earned(n) == pytest.approx(earned(1))


@given(scores, scores, scores)
def test_a_worse_reflection_never_raises_the_credit_of_a_better_one(
    good: float, bad: float, worse: float
) -> None:
    bad, worse = max(bad, worse), min(bad, worse)

    def credit(other: float) -> float:
        group = [rollout(good, other, outcome=1.0), rollout(outcome=0.0)]
        return float(local_terms(group, [1.0, -1.0], replace(BARE, baseline="zero"))[0][12])

    assert credit(worse) == credit(bad)


@given(groups, mappings, st.randoms())
def test_the_order_of_a_group_does_not_matter(
    group: list[Rollout], mapping: LocalMapping, shuffler: random.Random
) -> None:
    order = list(range(len(group)))
    shuffler.shuffle(order)
    before = local(group, mapping)
    after = local([group[i] for i in order], mapping)
    for place, i in enumerate(order):
        np.testing.assert_allclose(after[place], before[i], atol=1e-12)


@given(groups, mappings)
def test_an_invalid_score_is_the_same_as_no_reflection(
    group: list[Rollout], mapping: LocalMapping
) -> None:
    def without_invalid(row: Rollout) -> Rollout:
        return replace(row, segments=tuple(s for s in row.segments if s.score is not None))

    for a, b in zip(
        local(group, mapping), local([without_invalid(r) for r in group], mapping), strict=True
    ):
        assert np.array_equal(a, b)


@given(groups, mappings)
def test_an_invalid_rollout_gets_nothing_and_changes_nothing(
    group: list[Rollout], mapping: LocalMapping
) -> None:
    lost = rollout(1.0, -1.0, outcome=None)
    *rest, last = local([*group, lost], mapping)
    assert not last.any()
    for a, b in zip(rest, local(group, mapping), strict=True):
        assert np.array_equal(a, b)


@given(groups, mappings, st.floats(-5, 5))
def test_shifting_all_outcomes_changes_nothing(
    group: list[Rollout], mapping: LocalMapping, shift: float
) -> None:
    known = [r.outcome for r in group if r.outcome is not None]
    # equal outcomes may differ in their last bit once shifted, which the gate would see
    if len({round(value, 6) for value in known}) != len(known):
        return
    moved = [replace(r, outcome=None if r.outcome is None else r.outcome + shift) for r in group]
    for a, b in zip(local(group, mapping), local(moved, mapping), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@given(groups, mappings)
def test_the_process_term_keeps_under_both_caps(
    group: list[Rollout], mapping: LocalMapping
) -> None:
    advantages = outcome_advantages(group)
    known = [a for a in advantages if a is not None]
    rms = float(np.sqrt(np.mean(np.square(known)))) if known else 0.0
    for term in local_terms(group, advantages, mapping):
        assert np.abs(term).max() <= mapping.token_cap * rms + 1e-12
        assert np.abs(term).sum() <= mapping.sum_cap * len(term) * rms + 1e-9


def test_equal_outcomes_give_no_process_gradient() -> None:
    assert not any(row.any() for row in local([rollout(GOOD), rollout(BAD)]))


def test_swapping_two_scores_swaps_their_spans_only() -> None:
    other = rollout(0.1, outcome=0.0)
    a = local([rollout(GOOD, BAD, outcome=1.0), other], BARE)[0]
    b = local([rollout(BAD, GOOD, outcome=1.0), other], BARE)[0]
    assert a[12] == b[27] and a[27] == b[12]
    assert np.array_equal(np.delete(a, np.r_[10:20, 25:35]), np.delete(b, np.r_[10:20, 25:35]))


def test_a_reflection_at_the_baseline_gets_exactly_nothing() -> None:
    terms = local_terms([rollout(0.4, outcome=1.0), rollout(0.4, outcome=0.0)], [1, -1], BARE)
    assert not any(term.any() for term in terms)


def test_less_the_mean_as_it_is_the_better_of_two_bad_ones_is_paid() -> None:
    group = [rollout(-0.2, outcome=1.0), rollout(-0.6, outcome=0.0)]
    floored = local_terms(group, [1.0, -1.0], BARE)
    moved = local_terms(group, [1.0, -1.0], replace(BARE, baseline="mean"))
    assert [float(term[12]) for term in floored] == pytest.approx([-0.2, -0.6])
    assert [float(term[12]) for term in moved] == pytest.approx([0.2, -0.2])


def test_a_reflection_pays_only_in_an_acceptable_answer_and_costs_in_any() -> None:
    gated = replace(BARE, gate="acceptable", baseline="zero")
    group = [rollout(GOOD, outcome=0.0), rollout(BAD, outcome=0.0), rollout(outcome=1.0)]
    group.append(rollout(GOOD, outcome=1.0))
    paid, charged, _, accepted = local_terms(group, outcome_advantages(group), gated)
    assert not paid.any() and charged.min() == BAD and accepted.max() == GOOD


def test_reflections_beyond_the_limit_earn_nothing() -> None:
    group = [rollout(*[GOOD] * 5, outcome=1.0), rollout(BAD, outcome=0.0)]
    row = local(group, replace(BARE, max_segments=2, baseline="zero"))[0]
    assert row[12] > row[45] == row[99]


def test_fewer_than_two_outcomes_compare_nothing() -> None:
    rows = local([rollout(GOOD, outcome=1.0), rollout(BAD, outcome=None)])
    assert not any(row.any() for row in rows)


def test_gae_without_discount_and_critic_is_the_return_to_go() -> None:
    row = reward_row(rollout(GOOD, BAD, outcome=1.0))
    assert gae(row, np.zeros(101), 1.0, 1.0) == pytest.approx(np.cumsum(row[::-1])[::-1])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(0, 1))
def test_gae_with_lambda_0_is_the_temporal_difference(rewards: list[float], gamma: float) -> None:
    row = np.array(rewards)
    values = np.linspace(-1, 1, len(row) + 1)
    assert gae(row, values, gamma, 0.0) == pytest.approx(row + gamma * values[1:] - values[:-1])


def test_gae_by_hand_with_a_discount_a_critic_and_a_lambda_between() -> None:
    rewards, values = np.array([1.0, 2.0]), np.array([0.5, 0.25, 0.0])
    # deltas 1 + 0.9 * 0.25 - 0.5 = 0.725 and 2 - 0.25 = 1.75; 0.725 + 0.9 * 0.5 * 1.75
    assert gae(rewards, values, 0.9, 0.5) == pytest.approx([1.5125, 1.75])


def test_delta_shows_a_token_only_the_reflection_it_leads_to() -> None:
    row = MAPPINGS["delta"]([rollout(GOOD, BAD), rollout(BAD)], 1.0)[0]
    assert row[0] == row[12] > 0 > row[20] == row[27] and row[60] == 0


def test_lambda_warms_up_linearly() -> None:
    mapping = LocalMapping(weight=0.3, warmup_share=0.1)
    assert [mapping.weight_at(p) for p in (0.0, 0.05, 0.1, 1.0)] == pytest.approx(
        [0, 0.15, 0.3, 0.3]
    )


def test_the_default_mapping_is_the_specified_one() -> None:
    # other defaults would train otherwise without a word (r2write.md section 6.3)
    assert LocalMapping() == LocalMapping(
        weight=0.3, warmup_share=0.1, token_cap=1.0, sum_cap=0.5,
        gate="acceptable", baseline="floored_mean", max_segments=8,
    )  # fmt: skip


def test_an_outcome_at_the_median_earns_what_its_reflection_is_worth() -> None:
    group = [rollout(GOOD, outcome=outcome) for outcome in (1.0, 0.5, 0.0)]
    mapping = LocalMapping(weight=1.0, baseline="zero", token_cap=np.inf, sum_cap=np.inf)
    terms = local_terms(group, [1.0, 0.0, -1.0], mapping)
    assert [float(term[12]) for term in terms] == [GOOD, GOOD, 0.0]


def test_one_token_alone_is_whitened_to_nothing() -> None:
    (row,) = MAPPINGS["return_to_go"]([Rollout(1, 0.5)], 1.0)
    assert row.tolist() == [0.0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_credit_of_a_reflection_is_at_most_1(sign: float) -> None:
    group = [rollout(sign, outcome=1.0), rollout(*[-sign] * 3, outcome=0.0)]
    terms = local_terms(group, [1.0, -1.0], replace(BARE, baseline="mean"))
    assert float(terms[0][12]) == sign and float(terms[1][12]) == pytest.approx(-sign / 6)


def test_the_sum_of_a_rollout_is_capped_at_a_share_of_its_tokens() -> None:
    group = [rollout(GOOD, outcome=1.0), rollout(outcome=0.0)]
    mapping = LocalMapping(weight=1.0, baseline="zero", token_cap=np.inf, sum_cap=0.03)
    assert float(local_terms(group, [1.0, -1.0], mapping)[0].sum()) == pytest.approx(3.0)


def test_without_a_warm_up_the_weight_is_the_full_one_from_the_start() -> None:
    assert LocalMapping(weight=0.3, warmup_share=0.0).weight_at(0.0) == 0.3


def test_a_reflection_without_a_token_is_none() -> None:
    assert valid_scores(Rollout(10, 0.5, (SegmentScore(3, 3, 0.5),))) == []


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_score_of_0_is_what_a_tiny_one_is_and_a_lost_outcome_gets_nothing(name: str) -> None:
    def rows(q: float) -> list[np.ndarray]:
        group = [rollout(q, GOOD), rollout(BAD, outcome=0.0), rollout(outcome=1.0)]
        return MAPPINGS[name](group, 1.0)

    for a, b in zip(rows(0.0), rows(1e-13), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    *others, lost = MAPPINGS[name]([*FIXTURE, rollout(GOOD, outcome=None)], 1.0)
    assert not lost.any()
    for own, alone in zip(others, MAPPINGS[name](FIXTURE, 1.0), strict=True):
        np.testing.assert_allclose(own, alone, atol=1e-12)


WITH_OUTCOME = [name for name in MAPPINGS if name != "return_to_go"]


@pytest.mark.parametrize("name", WITH_OUTCOME)
def test_without_reflections_the_outcome_alone_counts(name: str) -> None:
    group = [rollout(outcome=1.0), rollout(outcome=0.25), rollout(outcome=0.0)]
    for row, advantage in zip(MAPPINGS[name](group, 1.0), outcome_advantages(group), strict=True):
        assert advantage and np.array_equal(row, np.full(100, advantage))


@given(groups, st.sampled_from(WITH_OUTCOME), st.floats(0.0, 2.0))
def test_what_a_form_adds_is_its_advantage_less_the_outcomes(
    group: list[Rollout], form: Any, weight: float
) -> None:
    own = outcome_advantages(group)
    terms = process_terms(group, own, LocalMapping(form=form), weight)
    for term, row, a in zip(terms, MAPPINGS[form](group, weight), own, strict=True):
        np.testing.assert_allclose(term, row - a if a is not None else 0.0, atol=1e-12)
    for term in process_terms(group, own, LocalMapping(form=form), 0.0):
        np.testing.assert_allclose(term, 0.0, atol=1e-12)


def test_the_default_form_is_the_local_one() -> None:
    own = outcome_advantages(FIXTURE)
    same = zip(process_terms(FIXTURE, own, BARE), local_terms(FIXTURE, own, BARE), strict=True)
    assert all(np.array_equal(a, b) for a, b in same)


def test_scores_are_normalised_from_two_on() -> None:
    alone, pair = [rollout(GOOD), rollout()], [rollout(GOOD), rollout(BAD)]
    assert not step_return(alone)[0].any()
    # two scores are one sample standard deviation times the square root of a half from their mean
    assert [row[0] for row in step_return(pair)] == pytest.approx([0.7071, -0.7071], abs=1e-3)
    shortest = MAPPINGS["return_to_go"]([Rollout(1, 1e-8), Rollout(1, 0.0)], 1.0)
    assert shortest[0][0] == pytest.approx(0.5 / (0.5**0.5 + 1)) == -shortest[1][0]


def test_rewards_on_tokens_are_weighted_and_need_an_outcome() -> None:
    row = reward_row(rollout(GOOD, BAD, outcome=0.5), 2.0)
    assert {int(t): float(row[t]) for t in row.nonzero()[0]} == {19: 1.2, 34: -1.2, 99: 0.5}
    assert not reward_row(rollout(GOOD, outcome=None)).any()
    assert not len(reward_row(Rollout(0, 1.0)))
