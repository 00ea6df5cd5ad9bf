"""Statistics against independent libraries, and the laws they must obey."""

from __future__ import annotations

import math
import random
from itertools import combinations

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
    _exchangeable,
    all_intervals,
    benjamini_hochberg,
    compare,
    compare_scores,
    evaluate,
    holm,
    mcnemar,
    mean_estimate,
    measure,
    sign_flip_p,
    wilson,
)
from r2w_eval.stats.power import items_needed, minimum_detectable_effect
from r2w_eval.stats.sign_bounds import hoeffding_bound, least_p
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
    # scipy counts all sums as large as the observed one whole; here only the observed one and its
    # mirror are, the others half
    ties = np.isclose(np.abs(oracle.null_distribution), abs(oracle.statistic))
    assert found.is_exact
    assert found.p_value == pytest.approx(oracle.pvalue - ties.mean() / 2 + 2.0**-12)
    assert found.difference == pytest.approx(differences.mean())


@pytest.mark.parametrize("unit", [1.0, 0.1, -1 / 3, 7e8 / 9, 1e-9 / 3])
def test_sums_that_are_equal_but_for_rounding_are_ties(unit: float) -> None:
    assert sign_flip_p(unit * np.array([1.0, 2.0, 3.0])) == 0.25
    assert sign_flip_p(unit * np.array([1.0, 1.0, -1.0, 2.0])) == pytest.approx(6 / 16)


def test_equal_differences_have_the_binomial_mid_p_exact_and_drawn() -> None:
    for n, k in ((20, 14), (40, 26), (80, 50)):
        below, above = (scipy.stats.binom.sf(k - 1 + end, n, 0.5) for end in (0, 1))
        found = sign_flip_p(0.1 * np.array([1.0] * k + [-1.0] * (n - k)), draws=40_000)
        observed = 2.0**-n if n <= 20 else 0.0
        assert found == pytest.approx(below + above + observed, rel=1e-9 if n <= 20 else 0.1)


@pytest.mark.parametrize(("n_items", "n_models"), [(6, 3), (7, 4), (8, 5)])
def test_holm_over_few_items_keeps_the_family_wise_level(n_items: int, n_models: int) -> None:
    """With the observed pattern counted half, one family in eleven of equal models had a winner."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        models = rng.normal(size=(n_models, n_items))
        p_values = [sign_flip_p(a - b) for a, b in combinations(models, 2)]
        found += min(holm(p_values)) <= 0.05
    assert found <= 300 * 0.05


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
    assert least_p(8) == sign_flip_p(np.arange(1.0, 9.0))
    for alpha in (0.05, 0.01, 0.001):
        n = items_needed(100.0, 1.0, alpha)
        assert least_p(n) <= alpha < least_p(n - 1)


def share(*outcomes: tuple[float, float], scale: float = 1.0) -> Estimate:
    """A proportion from (successes, tries) of each query."""
    names = tuple(f"q{i}" for i in range(len(outcomes)))
    tops, tries = zip(*outcomes, strict=True)
    return Estimate("share", (Stratum(names, tops, tries),), len(names), scale, is_share=True)


def test_what_an_interval_cannot_say_is_noted_beside_the_estimates_own_note() -> None:
    assert measure(mean_estimate(scores(5))).note == ""
    assert measure(mean_estimate({"a": None})).note == ""
    alike = Estimate("m", mean_estimate(dict.fromkeys("abc", 2.0)).strata, 3, note="own")
    assert measure(alike).note == "own; all queries score alike: the interval says nothing"
    assert measure(mean_estimate({"a": 3.0})).note.startswith("no interval: a single query")


def test_a_share_of_yes_and_no_has_wilsons_bounds_and_others_the_bootstraps() -> None:
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert all(wilson(1.0, n)[1] <= 1.0 and wilson(0.0, n)[0] >= 0.0 for n in range(1, 400))
    for found, value, n in (
        (share((1, 1), (1, 1), (0, 1), (0, 1)), 0.5, 4),
        (share((2, 2), (0, 2), (2, 2)), 2 / 3, 3),  # two tries a query that agree are one outcome
        (share((1, 2), (1, 2), (1, 2)), 0.5, 3),  # all alike: the bootstrap would see no spread
        (share((98, 98), (1, 1), (1, 1)), 1.0, 100**2 / (98**2 + 2)),  # nearly one query
    ):
        metric = measure(found)
        assert (metric.low, metric.high) == pytest.approx(wilson(value, n))
    mixed = share((1, 2), (2, 2), (1, 2), (0, 2), (1, 2), (1, 2), (1, 2), (1, 2))
    metric = measure(mixed)
    assert (metric.low, metric.high) != pytest.approx(wilson(0.5, 8), abs=1e-3)
    scaled = measure(share((1, 1), (0, 1), scale=-10.0))
    assert (scaled.low, scaled.high) == pytest.approx(sorted(-10 * b for b in wilson(0.5, 2)))


def test_a_share_over_groups_is_not_wilsons_and_single_queries_leave_all_open() -> None:
    halves = [Stratum((f"{n}a", f"{n}b", f"{n}c"), (1, 1, 0), (1, 1, 1), 0.5) for n in range(2)]
    grouped = measure(Estimate("share", tuple(halves), 6, is_share=True))
    assert (grouped.low, grouped.high) != pytest.approx(wilson(2 / 3, 6), abs=1e-3)
    single = [Stratum((name,), (1,), (1,), 0.5) for name in "ab"]
    metric = measure(Estimate("share", tuple(single), 2, is_share=True))
    assert (metric.value, metric.low, metric.high) == (1.0, 0.0, 1.0)


def test_no_interval_and_no_comparison_without_queries() -> None:
    assert all_intervals(mean_estimate({"a": None})) is None
    assert all_intervals(mean_estimate({"a": 1.0})) is None
    none = compare_scores({"a": 1.0}, {"b": 1.0})
    assert (none.difference, none.low, none.p_value, none.is_exact) == (None, None, None, False)
    assert (none.n_common, none.n_only_first, none.n_only_second) == (0, 1, 1)


def test_patterns_are_counted_to_the_twentieth_query_that_differs() -> None:
    for n in (20, 21):
        first = {str(i): float(i + 1) for i in range(n)}
        found = compare_scores(first, dict.fromkeys(first, 0.0), draws=100)
        assert found.is_exact == (n == 20)


def test_only_metrics_of_one_shape_are_compared() -> None:
    first = mean_estimate({"a": 1.0, "b": 2.0})
    with pytest.raises(UsageError, match=r"\(1.0, 0.0, \(1.0,\)\) in one and \(10.0, 0.0"):
        compare(first, Estimate("mean", first.strata, 2, scale=10.0))


def test_what_a_query_adds_to_a_difference_is_measured_from_the_pooled_ratio() -> None:
    """Query a lost one of its samples and kept its ratio; b has another one."""
    left = Estimate("m", (Stratum(("a", "b"), (6.0, 4.0), (2.0, 2.0), 0.5),), 2, scale=10.0)
    right = Estimate("m", (Stratum(("a", "b"), (3.0, 2.0), (1.0, 2.0), 0.5),), 2, scale=10.0)
    pooled = 15 / 7
    a = 5 * ((6 - pooled * 2) / 4 - (3 - pooled * 1) / 3)
    b = 5 * ((4 - pooled * 2) / 4 - (2 - pooled * 2) / 3)
    found = _exchangeable(left, right)
    assert list(found) == pytest.approx(sorted((a, b)))
    assert sum(found) == pytest.approx(evaluate(left) - evaluate(right))  # type: ignore[operator]


def test_the_unit_of_a_score_changes_no_p_value() -> None:
    first = {str(i): float(i * i % 7) for i in range(12)}
    tiny = {name: 1e-12 * value for name, value in first.items()}
    zeros = dict.fromkeys(first, 0.0)
    assert compare_scores(tiny, zeros).p_value == compare_scores(first, zeros).p_value != 1.0


def test_drawn_patterns_count_the_observed_one_and_are_the_same_each_time() -> None:
    # none of 4 patterns of 21 signs is as extreme: one in 5, and less only by Hoeffding's bound
    first = np.arange(1.0, 22.0) * np.where(np.arange(21) % 4 == 3, -1, 1)
    assert sign_flip_p(first, draws=4) == 0.2 < hoeffding_bound(first)
    clear = np.arange(1.0, 41.0)
    assert sign_flip_p(clear, draws=100) == hoeffding_bound(clear) < 1e-6
    # a published p value can be had again from its seed
    values = np.sin(np.arange(30.0)) + 0.25
    assert sign_flip_p(values, draws=2000, seed=7) == pytest.approx(0.030985, abs=1e-6)


def test_mcnemar_counts_each_pattern_and_what_one_of_the_two_lacks() -> None:
    patterns = {(True, True): 1, (True, False): 2, (False, True): 3, (False, False): 4}
    pairs = [pattern for pattern, n in patterns.items() for _ in range(n)]
    first: dict[str, bool | None] = {str(i): a for i, (a, _) in enumerate(pairs)}
    second: dict[str, bool | None] = {str(i): b for i, (_, b) in enumerate(pairs)}
    found = mcnemar({**first, "x": True, "y": None}, {**second, "y": True})
    counts = (found.n_both, found.n_only_first, found.n_only_second, found.n_neither)
    assert (*counts, found.n_missing) == (1, 2, 3, 4, 2)
    for n in (0, 1):  # as many one way as the other: no more than certain
        even = {str(i): i % 2 == 0 for i in range(2 * n)}
        assert mcnemar(even, {k: not v for k, v in even.items()}).p_value == 1.0
