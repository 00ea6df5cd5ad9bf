"""Statistics against independent libraries, and the laws they must obey."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as oracle_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from r2w_eval.errors import UsageError
from r2w_eval.stats.inference import (
    all_intervals,
    benjamini_hochberg,
    compare_scores,
    evaluate,
    holm,
    items_needed,
    mcnemar,
    mean_estimate,
    measure,
    minimum_detectable_effect,
    sign_flip_p,
)
from r2w_eval.types import Estimate, Stratum

FLOATS = st.floats(-100, 100).map(lambda x: round(x, 3))
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def scores(n: int, seed: int = 0, shift: float = 0.0) -> dict[str, float | None]:
    draw = random.Random(seed)
    return {f"q{i}": draw.gauss(5.0 + shift, 1.5) for i in range(n)}


def values(found: dict[str, float | None]) -> list[float]:
    return [value for value in found.values() if value is not None]


def test_a_mean_and_its_t_interval_equal_scipy() -> None:
    own = scores(40)
    found = all_intervals(mean_estimate(own))
    assert found is not None
    expected = scipy.stats.t.interval(0.95, 39, np.mean(values(own)), scipy.stats.sem(values(own)))
    assert (found.t.low, found.t.high) == pytest.approx(expected, rel=1e-9)
    assert evaluate(mean_estimate(own)) == pytest.approx(np.mean(values(own)))


def test_bca_and_percentile_are_close_to_scipy() -> None:
    own = values(scores(60, seed=3))
    found = all_intervals(mean_estimate(scores(60, seed=3)))
    assert found is not None
    for name, method in (("percentile", "percentile"), ("bca", "BCa")):
        oracle = scipy.stats.bootstrap(
            (own,), np.mean, n_resamples=10_000, method=method, random_state=1
        ).confidence_interval
        interval = getattr(found, name)
        assert interval.low == pytest.approx(oracle.low, abs=0.05)
        assert interval.high == pytest.approx(oracle.high, abs=0.05)


def test_clusters_move_together() -> None:
    """Four equal values a query tell no more than one."""
    single = mean_estimate(scores(30))
    (stratum,) = single.strata
    fourfold = Stratum(stratum.clusters * 4, stratum.numerators * 4, stratum.denominators * 4)
    repeated = Estimate("mean", (fourfold,), 30)
    a, b = measure(single), measure(repeated)
    assert a.value == pytest.approx(b.value)
    assert (a.low, a.high) == pytest.approx((b.low, b.high))
    assert b.n_scored == 30


def test_pooled_values_weigh_by_their_number() -> None:
    stratum = Stratum(("a", "b"), (10.0, 2.0), (5.0, 1.0))
    assert evaluate(Estimate("pooled", (stratum,), 2)) == 2.0
    halves = (Stratum(("a",), (6.0,), (1.0,), 0.5), Stratum(("b",), (2.0,), (1.0,), 0.5))
    assert evaluate(Estimate("macro", halves, 2, scale=10.0, offset=1.0)) == 41.0


def test_nothing_scored_has_no_value_and_one_query_no_interval() -> None:
    empty = measure(mean_estimate({"a": None}))
    assert (empty.value, empty.low, empty.n_scored, empty.n_expected) == (None, None, 0, 1)
    one = measure(mean_estimate({"a": 3.0}))
    assert (one.value, one.low, one.high) == (3.0, None, None)


@given(st.lists(FLOATS, min_size=2, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_items_changes_no_bound(found: list[float], shuffler: random.Random) -> None:
    pairs = [(f"q{i}", value) for i, value in enumerate(found)]
    first = measure(mean_estimate(dict(pairs)), draws=200)
    shuffler.shuffle(pairs)
    second = measure(mean_estimate(dict(pairs)), draws=200)
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-9)


@given(st.lists(FLOATS, min_size=2, max_size=20))
@settings(max_examples=25, deadline=None)
def test_an_unscored_row_changes_only_what_was_expected(found: list[float]) -> None:
    own: dict[str, float | None] = {f"q{i}": value for i, value in enumerate(found)}
    before = measure(mean_estimate(own), draws=200)
    after = measure(mean_estimate({**own, "lost": None}), draws=200)
    assert (before.value, before.low, before.high) == (after.value, after.low, after.high)
    assert after.n_expected == before.n_expected + 1 and after.n_scored == before.n_scored


def test_the_paired_test_equals_scipys_permutation_test() -> None:
    first, second = scores(12, seed=1), scores(12, seed=2, shift=0.8)
    found = compare_scores(first, second)
    differences = np.subtract(values(first), values(second))
    oracle = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    # scipy counts sums as large as the observed one whole, a mid-p counts them half
    ties = np.isclose(np.abs(oracle.null_distribution), abs(oracle.statistic))
    assert found.is_exact
    assert found.p_value == pytest.approx(oracle.pvalue - ties.mean() / 2)
    assert found.difference == pytest.approx(differences.mean())


@pytest.mark.parametrize("unit", [1.0, 0.1, -1 / 3, 7e8 / 9])
def test_sums_that_are_equal_but_for_rounding_are_ties(unit: float) -> None:
    assert sign_flip_p(unit * np.array([1.0, 2.0, 3.0])) == 0.125
    assert sign_flip_p(unit * np.array([1.0, 1.0, -1.0, 2.0])) == pytest.approx(5 / 16)


def test_equal_differences_have_the_binomial_mid_p_exact_and_drawn() -> None:
    for n, k in ((20, 14), (40, 26)):
        below, above = (scipy.stats.binom.sf(k - 1 + end, n, 0.5) for end in (0, 1))
        found = sign_flip_p(0.1 * np.array([1.0] * k + [-1.0] * (n - k)), draws=40_000)
        assert found == pytest.approx(below + above, rel=1e-9 if n <= 20 else 0.1)


def test_a_real_difference_is_found_and_none_is_not() -> None:
    base = scores(300, seed=5)
    better = {k: (v or 0) + 0.4 + 0.3 * math.sin(i) for i, (k, v) in enumerate(base.items())}
    found = compare_scores(better, base)
    assert found.low is not None and found.low > 0 and (found.p_value or 1) < 0.001
    assert (compare_scores(base, base).p_value or 0) == 1.0


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=2, max_size=15))
@settings(max_examples=20, deadline=None)
def test_swapping_the_sides_flips_the_sign(pairs: list[tuple[float, float]]) -> None:
    first = {str(i): a for i, (a, _) in enumerate(pairs)}
    second = {str(i): b for i, (_, b) in enumerate(pairs)}
    one, two = compare_scores(first, second, 200), compare_scores(second, first, 200)
    assert one.difference == pytest.approx(-(two.difference or 0.0))
    assert one.p_value == pytest.approx(two.p_value)


def test_missing_items_are_counted() -> None:
    found = compare_scores({"a": 1.0, "b": 2.0, "c": None}, {"b": 1.0, "c": 1.0, "d": 1.0})
    assert (found.n_common, found.n_only_first, found.n_only_second) == (1, 1, 2)


@given(P_VALUES)
def test_corrections_equal_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert benjamini_hochberg(p_values) == pytest.approx(
        multipletests(p_values, method="fdr_bh")[1]
    )


def test_mcnemar_equals_statsmodels() -> None:
    first = {str(i): i % 3 != 0 for i in range(60)}
    second = {str(i): i % 4 != 0 for i in range(60)}
    found = mcnemar(first, second)
    table = [[found.n_both, found.n_only_first], [found.n_only_second, found.n_neither]]
    assert found.p_value == pytest.approx(oracle_mcnemar(table, exact=True).pvalue)


def test_the_detectable_effect_is_that_of_a_power_analysis() -> None:
    n = items_needed(0.3, 1.0)
    assert n == pytest.approx(TTestPower().solve_power(0.3, power=0.8, alpha=0.05), abs=3)
    assert minimum_detectable_effect(1.0 / math.sqrt(n)) == pytest.approx(0.3, abs=0.005)
    with pytest.raises(UsageError):
        items_needed(0.0, 1.0)
