"""Paired tests on arrays: equal to `stats.compare`, and never too sure of many pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r2w_eval.leaderboards.pairs import (
    RandomSigns,
    compare_pair,
    flip_signs,
    line_up,
    pair_tests,
)

from r2w_eval.stats.inference import compare, mean_estimate, sign_flip_p
from r2w_eval.stats.sign_bounds import hoeffding_bound
from r2w_eval.types import Estimate, Stratum

scores = st.floats(1, 10, allow_nan=False).map(lambda v: round(v, 1))


@settings(max_examples=40)
@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=14))
def test_a_pair_has_the_figures_of_stats_compare(rows: list[tuple[float, float]]) -> None:
    first = mean_estimate({f"i{n}": a for n, (a, _) in enumerate(rows)})
    second = mean_estimate({f"i{n}": b for n, (_, b) in enumerate(rows)})
    expected = compare(first, second, draws=50)
    (test,) = pair_tests({"a": first, "b": second})
    assert test.difference == pytest.approx(expected.difference, abs=1e-9)
    assert test.p_value == pytest.approx(expected.p_value, abs=1e-12)
    assert test.n_common == expected.n_common
    if expected.standard_error:
        assert test.low == pytest.approx(expected.low, abs=1e-6)
        assert test.high == pytest.approx(expected.high, abs=1e-6)


@pytest.mark.parametrize("gap", [0.1, 1.0, 0.0])
def test_equal_differences_show_no_spread_and_so_no_interval(gap: float) -> None:
    base = {"i0": 3.1, "i1": 6.7}
    first, second = mean_estimate({k: v + gap for k, v in base.items()}), mean_estimate(base)
    (test,) = pair_tests({"a": first, "b": second})
    found = compare(first, second, draws=50)
    assert (test.low, test.high, found.low, found.high, found.standard_error) == (None,) * 5
    assert found.p_value == test.p_value == (0.5 if gap else 1.0)


def stratified(values: list[float], counts: list[float], missing: int) -> Estimate:
    """Two strata that share items, ratios of sums, one item missing."""
    names = [f"i{n}" for n in range(len(values)) if n != missing]
    kept = [(v, c) for n, (v, c) in enumerate(zip(values, counts, strict=True)) if n != missing]
    tops, bottoms = tuple(v * c for v, c in kept), tuple(c for _, c in kept)
    half = len(names) // 2
    return Estimate(
        "overall",
        (
            Stratum(tuple(names), tops, bottoms, 0.7),
            Stratum(tuple(names[:half]), tops[:half], bottoms[:half], 0.3),
        ),
        len(values),
        scale=10.0,
    )


def test_strata_with_weights_counts_and_missing_items_agree_too() -> None:
    generator = np.random.default_rng(3)
    estimates = {
        name: stratified(
            generator.uniform(1, 10, 16).round(2).tolist(),
            generator.integers(1, 5, 16).astype(float).tolist(),
            missing,
        )
        for name, missing in (("a", 3), ("b", 7), ("c", 99))
    }
    for test in pair_tests(estimates):
        expected = compare(estimates[test.first], estimates[test.second], draws=50)
        assert test.difference == pytest.approx(expected.difference, abs=1e-9)
        assert (test.low, test.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
        assert test.p_value == pytest.approx(expected.p_value, abs=1e-12)
        assert test.n_common == expected.n_common


def test_strata_that_share_items_with_other_models_only_are_drawn_apart() -> None:
    """Item i4 is in both strata, but the pair a and b lacks it in one."""

    def made(second: str, shift: float) -> Estimate:
        first = Stratum(tuple("abcde"), (1.0, 2.0 + shift, 3.0, 5.0, 4.0 - shift), (1.0,) * 5)
        other = Stratum(tuple(second), tuple(shift * i * i for i in range(len(second))), (1.0,) * 4)
        return Estimate("overall", (first, other), 9)

    estimates = {"a": made("vwxy", 0.5), "b": made("vwxz", 0.2), "c": made("axyz", 0.1)}
    (test, *_) = pair_tests(estimates)
    expected = compare(estimates["a"], estimates["b"], draws=50)
    assert (test.first, test.second) == ("a", "b")
    assert (test.low, test.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_models_without_a_common_item_have_no_test_and_spoil_no_correction() -> None:
    apart = {
        "a": mean_estimate({"x": 1.0, "y": 2.0}),
        "b": mean_estimate({"x": 4.0, "y": 5.0}),
        "c": mean_estimate({"z": 3.0, "w": 3.5}),
    }
    tests = {(t.first, t.second): t for t in pair_tests(apart)}
    assert tests["a", "c"].p_value is None and tests["a", "c"].n_common == 0
    assert tests["a", "b"].p_holm == tests["a", "b"].p_value == 0.5


def test_sampled_p_values_are_those_of_the_sampled_test() -> None:
    generator = np.random.default_rng(1)
    parts = [generator.normal(shift, 1, 60) for shift in (0.0, 0.1, 0.25)]
    for p, own in zip(flip_signs(parts, RandomSigns(60)), parts, strict=True):
        assert p == pytest.approx(sign_flip_p(own, seed=9), abs=0.02)


def test_a_board_and_a_comparison_give_one_p() -> None:
    generator = np.random.default_rng(3)
    estimates = {
        model: mean_estimate({f"i{n}": float(generator.normal(shift)) for n in range(n_items)})
        for model, shift, n_items in (("a", 0.0, 300), ("b", 0.1, 300), ("c", 0.3, 25))
    }
    for test in pair_tests(estimates):
        for first, second in ((test.first, test.second), (test.second, test.first)):
            alone = compare(estimates[first], estimates[second])
            # a board counts in single precision, to which some sums are equal
            assert not alone.is_exact and alone.p_value == pytest.approx(test.p_value, abs=2e-4)


def test_a_clear_difference_over_many_items_passes_holm_over_thousands_of_pairs() -> None:
    (p,) = flip_signs([np.full(200, 0.5)], RandomSigns(200))
    assert p < 0.05 / 19_900
    # sampling alone could not say so
    assert 1 / 10_001 > 0.05 / 19_900


@given(st.lists(st.floats(-5, 5).filter(lambda v: abs(v) > 1e-3), min_size=1, max_size=14))
def test_the_bound_never_understates_p(differences: list[float]) -> None:
    own = np.array(differences)
    assert hoeffding_bound(own) >= sign_flip_p(own) - 1e-9


def test_swapping_the_sides_turns_the_sign() -> None:
    terms = line_up({"a": mean_estimate({"x": 1, "y": 5}), "b": mean_estimate({"x": 2, "y": 2})})
    there, back = compare_pair(terms, 0, 1), compare_pair(terms, 1, 0)
    assert there.difference == -(back.difference or math.nan)
    assert (there.low, there.high) == (-(back.high or 0), -(back.low or 0))
