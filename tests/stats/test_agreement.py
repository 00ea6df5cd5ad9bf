"""Agreement coefficients against krippendorff, scipy, statsmodels and scikit-learn."""

from __future__ import annotations

import random

import krippendorff
import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import UsageError
from r2w_eval.stats.agreement import (
    Alpha,
    JudgedPair,
    Level,
    Method,
    TieRule,
    associate,
    coefficient,
    human_ceiling,
    krippendorff_alpha,
    mean_by_system,
    pair_accuracy,
)
from r2w_eval.stats.inference import measure
from r2w_eval.stats.length_slope import LengthPoint, length_slope, overall_length_slope

RATINGS = st.lists(
    st.lists(st.one_of(st.none(), st.integers(1, 5).map(float)), min_size=3, max_size=3),
    min_size=3,
    max_size=12,
)


def ratings(n: int = 60, seed: int = 0, missing: float = 0.15) -> list[list[float | None]]:
    """Three raters who share a truth; some ratings are missing."""
    draw = random.Random(seed)
    table = []
    for _ in range(n):
        truth = draw.uniform(1, 5)
        table.append(
            [
                None if draw.random() < missing else float(round(truth + draw.gauss(0, 0.7)))
                for _ in range(3)
            ]
        )
    return table


def columns(n: int = 80, seed: int = 1) -> tuple[list[float], list[float]]:
    draw = random.Random(seed)
    first = [float(draw.randint(1, 10)) for _ in range(n)]
    return first, [float(round(0.6 * v + draw.gauss(2, 2))) for v in first]


def widened(value: float, drawn: list[float], n: int) -> tuple[float, float]:
    """Percentiles that hold the value, longer by what the t interval of n has over the normal's."""
    ends = np.quantile(drawn, [0.025, 0.975])
    factor = scipy.stats.t(n - 1).ppf(0.975) / scipy.stats.norm.ppf(0.975) * np.sqrt(n / (n - 1))
    low, high = min(value, ends[0]), max(value, ends[1])
    return max(-1.0, value + factor * (low - value)), min(1.0, value + factor * (high - value))


@pytest.mark.parametrize("level", list(Level))
def test_alpha_equals_the_krippendorff_package(level: Level) -> None:
    table = ratings()
    found = krippendorff_alpha(table, level, draws=50)
    by_rater = np.array([[np.nan if v is None else v for v in unit] for unit in table]).T
    expected = krippendorff.alpha(reliability_data=by_rater, level_of_measurement=level.value)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.low is not None and found.high is not None
    assert found.low <= found.value <= found.high  # type: ignore[operator]
    assert found.n_units == sum(sum(v is not None for v in unit) > 1 for unit in table)


@given(RATINGS)
def test_alpha_of_any_small_table_equals_the_package(table: list[list[float | None]]) -> None:
    found = krippendorff_alpha(table, Level.INTERVAL, draws=1)
    pairable = {v for unit in table if sum(x is not None for x in unit) > 1 for v in unit} - {None}
    if len(pairable) < 2:
        assert found.value is None
        return
    by_rater = np.array([[np.nan if v is None else v for v in unit] for unit in table]).T
    expected = krippendorff.alpha(reliability_data=by_rater, level_of_measurement="interval")
    assert found.value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("method", "oracle"),
    [
        (Method.SPEARMAN, lambda a, b: scipy.stats.spearmanr(a, b).statistic),
        (Method.KENDALL, lambda a, b: scipy.stats.kendalltau(a, b).statistic),
        (Method.PEARSON, lambda a, b: scipy.stats.pearsonr(a, b).statistic),
    ],
)
def test_coefficients_equal_scipy(method: Method, oracle: object) -> None:
    first, second = columns()
    found = associate(first, second, method, draws=100)
    assert found.value == pytest.approx(oracle(first, second))  # type: ignore[operator]
    assert found.low is not None and found.low < found.value < found.high  # type: ignore[operator]


def test_quadratic_kappa_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = ([int(v) for v in column] for column in columns())
    scale = list(range(-8, 16))
    expected = metrics.cohen_kappa_score(first, second, weights="quadratic", labels=scale)
    whole = coefficient(np.array(first, float), np.array(second, float), Method.KAPPA)
    assert whole == pytest.approx(expected)


def test_no_spread_means_no_coefficient() -> None:
    flat = np.array([2.0, 2.0, 2.0])
    rising = np.array([1.0, 2.0, 3.0])
    assert all(coefficient(flat, rising, method) is None for method in Method)
    assert associate([1.0, None], [2.0, 3.0]).n == 1


def test_the_interval_of_clustered_rows_is_wider_than_that_of_free_ones() -> None:
    first, second = columns(20)
    copies = 5
    clusters = [str(i) for i in range(20) for _ in range(copies)]
    repeated = ([v for v in column for _ in range(copies)] for column in (first, second))
    a, b = repeated
    clustered, free = associate(a, b, clusters=clusters), associate(a, b)
    assert clustered.value == pytest.approx(free.value)
    assert clustered.high - clustered.low > 1.5 * (free.high - free.low)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("rule", "value", "n"),
    [(TieRule.HALF, (1 + 0 + 0.5) / 3, 3), (TieRule.THREE_WAY, 0.5, 4)],
)
def test_pair_accuracy_follows_its_tie_rule(rule: TieRule, value: float, n: int) -> None:
    pairs = [
        JudgedPair("a", 1, 3.0),
        JudgedPair("b", -1, 3.0),
        JudgedPair("c", 1, 0.0),
        JudgedPair("d", 0, 0.0),
    ]
    found = measure(pair_accuracy(pairs, rule))
    assert found.value == pytest.approx(value) and found.n_scored == n
    assert rule.value in found.note


def test_a_lost_verdict_is_expected_and_not_scored() -> None:
    found = measure(pair_accuracy([JudgedPair("a", 1, 1.0), JudgedPair("b", 1, None)]))
    assert (found.value, found.n_scored, found.n_expected) == (1.0, 1, 2)


def test_the_ceiling_is_one_person_against_the_others() -> None:
    table = ratings(200, seed=3, missing=0.0)
    truth = [sum(v for v in unit if v is not None) / 3 for unit in table]
    judge = [None if i % 9 == 0 else t for i, t in enumerate(truth)]
    found = human_ceiling(table, judge, draws=200)
    kept = [i for i in range(len(table)) if i % 9]
    expected = np.mean(
        [
            scipy.stats.spearmanr(
                [table[i][left] for i in kept],
                [np.mean([table[i][o] for o in range(3) if o != left]) for i in kept],  # type: ignore[arg-type]
            ).statistic
            for left in range(3)
        ]
    )
    assert found.human.value == pytest.approx(expected) and found.n_humans == 3
    assert found.human.low is not None and found.human.high is not None
    assert found.human.low < found.human.value < found.human.high < found.human.low + 0.2  # type: ignore[operator]
    assert found.judge.low is not None and found.judge.low > found.human.value  # type: ignore[operator]
    assert found.human.n == len(kept)
    whole = [str(i // 50) for i in range(200)]
    clustered = human_ceiling(table, truth, clusters=whole, draws=50)
    assert clustered.human.value == human_ceiling(table, truth, draws=50).human.value


def test_the_slope_of_a_run_is_least_squares_with_a_robust_interval() -> None:
    draw = random.Random(6)
    points = [
        LengthPoint(str(item), 3 + 0.4 * x + draw.gauss(0, 0.2 * x), 2**x)
        for item in range(150)
        for x in [draw.uniform(5, 12)]
    ]
    found = overall_length_slope(points)
    design = sm.add_constant(np.log2([p.length for p in points]))
    fitted = sm.OLS([p.score for p in points], design).fit(cov_type="HC1")
    low, high = fitted.conf_int()[1]
    assert found.value == pytest.approx(fitted.params[1]) and found.n_scored == 150
    assert found.low == pytest.approx(low, abs=0.03) and found.high == pytest.approx(high, abs=0.03)


def test_the_length_slope_equals_a_fixed_effects_regression() -> None:
    draw = random.Random(5)
    points = [
        LengthPoint(str(item), 5 + item / 10 + 0.8 * x + draw.gauss(0, 0.5), 2**x)
        for item in range(40)
        for x in (draw.uniform(5, 12) for _ in range(3))
    ]
    found = length_slope(points)
    design = np.array(
        [[np.log2(p.length), *(1.0 * (p.item == str(item)) for item in range(40))] for p in points]
    )
    fitted = sm.OLS([p.score for p in points], design).fit()
    assert found.value == pytest.approx(fitted.params[0])
    assert found.low is not None and found.high is not None and found.low < 0.8 < found.high
    with pytest.raises(UsageError, match="leave empty answers out"):
        length_slope([LengthPoint("a", 1.0, 0)])


def test_items_whose_answers_are_of_one_length_tell_no_slope() -> None:
    """Slopes of 1 and of 3 a doubling; the second over twice the squared distance."""
    told = [LengthPoint("a", 1.0, 1), LengthPoint("a", 2.0, 2),
            LengthPoint("b", 0.0, 32), LengthPoint("b", 3.0 * 2**0.5, 32 * 2**2**0.5)]  # fmt: skip
    silent = [LengthPoint("c", 9.0, 500), LengthPoint("d", 7.0, 90), LengthPoint("d", 8.0, 90)]
    found, alone = length_slope(told + silent), length_slope(told)
    assert found.value == pytest.approx((1 * 0.5 + 3 * 1) / 1.5)
    assert (found.n_scored, found.n_expected) == (2, 4)
    assert (found.value, found.low, found.high) == (alone.value, alone.low, alone.high)
    assert length_slope(silent).value is None
    assert overall_length_slope(silent[:1]).value is None
    assert overall_length_slope([]).n_expected == 0


def test_the_mean_of_each_system() -> None:
    assert mean_by_system([("a", 1.0), ("b", 5.0), ("a", 3.0)]) == {"a": 2.0, "b": 5.0}


@pytest.mark.parametrize("level", list(Level))
def test_the_interval_of_alpha_is_that_of_repeated_units(level: Level) -> None:
    table = [[1.0, 1.0, None], [2.0, 3.0, 3.0], [4.0, None, None], [5.0, 4.0, 5.0], [1.0, 2.0, 1.0]]
    found = krippendorff_alpha(table, level, draws=15)
    assert (found.n_units, found.n_ratings) == (4, 11)
    units = sorted(sorted(v for v in unit if v is not None) for unit in table if unit != table[2])
    drawn = []
    for times in np.random.default_rng(0).multinomial(4, np.full(4, 0.25), size=15):
        repeated = [unit for unit, n in zip(units, times, strict=True) for _ in range(n)]
        padded = np.array([[*unit, *[np.nan] * (3 - len(unit))] for unit in repeated]).T
        if len(set(padded[~np.isnan(padded)])) > 1:
            alpha = krippendorff.alpha(reliability_data=padded, level_of_measurement=level.value)
            drawn.append(alpha)
    assert found.value is not None
    assert (found.low, found.high) == pytest.approx(widened(found.value, drawn, 4))


def rated_queries(rng: np.random.Generator, n: int) -> tuple[list[list[float]], list[str]]:
    """Five criteria a query and three judges, who differ about queries more than about criteria."""
    of_query = rng.normal(7, 1, (n, 1, 1)) + rng.normal(0, 0.7, (n, 1, 3))
    scores = np.rint(of_query + rng.normal(0, 0.4, (n, 5, 1)) + rng.normal(0, 0.4, (n, 5, 3)))
    return scores.reshape(-1, 3).tolist(), [f"q{i}" for i in range(n) for _ in range(5)]


def test_the_interval_of_alpha_holds_the_truth_where_a_query_has_several_units() -> None:
    rng = np.random.default_rng(0)
    truth = krippendorff_alpha(rated_queries(rng, 4000)[0], draws=1).value
    assert truth is not None
    held = {"whole": 0, "single": 0}
    for _ in range(60):
        units, queries = rated_queries(rng, 20)
        for name, clusters in (("whole", queries), ("single", None)):
            found = krippendorff_alpha(units, draws=150, clusters=clusters)
            assert found.low is not None and found.high is not None
            held[name] += found.low <= truth <= found.high
    assert held["whole"] >= 48 and held["single"] <= 40


def test_neither_order_nor_names_of_clusters_matter_and_two_are_too_few_for_an_interval() -> None:
    units, queries = rated_queries(np.random.default_rng(1), 4)
    whole = krippendorff_alpha(units, draws=20, clusters=queries)
    other = [f"z{9 - int(name[1:])}" for name in queries]
    assert krippendorff_alpha(units[::-1], draws=20, clusters=other[::-1]) == whole
    few = krippendorff_alpha(units[:10], clusters=queries[:10])
    assert few.value is not None and (few.low, few.high, few.n_units) == (None, None, 10)


def test_ratings_that_cannot_disagree_have_no_alpha() -> None:
    assert krippendorff_alpha([[1.0, None], [None, 2.0]]) == Alpha(
        None, None, None, Level.INTERVAL, 0, 0
    )
    same = krippendorff_alpha([[3.0, 3.0], [3.0, 3.0]], Level.NOMINAL)
    assert same == Alpha(None, None, None, Level.NOMINAL, 2, 4)


@pytest.mark.parametrize("method", list(Method))
def test_an_association_resamples_whole_clusters(method: Method) -> None:
    first, second = (np.array(column[:12]) for column in columns())
    names = [f"q{i % 3}" for i in range(12)]
    gone: list[float | None] = [None if i == 4 else v for i, v in enumerate(second.tolist())]
    found = associate(first.tolist(), gone, method, draws=9, clusters=names)
    groups = [[i for i in range(12) if i % 3 == k and i != 4] for k in range(3)]
    generator = np.random.default_rng(0)
    picks = [generator.integers(0, 3, size=3) for _ in range(9)]
    rows = [[i for k in picked for i in groups[k]] for picked in picks]
    drawn = [coefficient(first[own], second[own], method) for own in rows]
    assert found.n == 11 and found.value is not None
    known = [v for v in drawn if v is not None]
    assert (found.low, found.high) == pytest.approx(widened(found.value, known, 3))
    two = associate(first.tolist(), second.tolist(), method, clusters=["a"] * 6 + ["b"] * 6)
    assert two.value is not None and (two.low, two.high) == (None, None)
    flat = associate([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], method)
    assert (flat.value, flat.low, flat.high, flat.n) == (None, None, None, 3)


def test_two_rows_have_a_coefficient_and_one_has_none() -> None:
    rising = np.array([1.0, 2.0])
    for method in (Method.SPEARMAN, Method.KENDALL, Method.PEARSON):
        assert coefficient(rising, -rising, method) == pytest.approx(-1.0)
    assert coefficient(rising, rising, Method.KAPPA) == 1.0
    assert coefficient(rising, rising + 1, Method.KAPPA) == pytest.approx(1 / 3)
    assert coefficient(rising[:1], rising[:1], Method.PEARSON) is None
    assert coefficient(rising, np.array([3.0, 3.0]), Method.KAPPA) is None


@pytest.mark.parametrize("method", [Method.PEARSON, Method.SPEARMAN])
def test_rounding_leads_no_correlation_beyond_one(method: Method) -> None:
    """Of these lines a tenth would have 1 + 2e-16."""
    for column in np.random.default_rng(0).normal(size=(200, 5)):
        for slope in (3.0, -3.0):
            found = coefficient(column, slope * column + 1, method)
            assert found is not None and abs(found) <= 1 == pytest.approx(abs(found))


SIGN = st.sampled_from([-2.0, -0.5, 0.0, 1.0, 3.0])


@given(st.lists(st.tuples(SIGN, st.none() | SIGN), min_size=1, max_size=8))
def test_pair_accuracy_by_its_definition(rows: list[tuple[float, float | None]]) -> None:
    pairs = [JudgedPair(f"q{i // 2}", *row) for i, row in enumerate(rows)]
    for rule in TieRule:
        kept = [p for p in pairs if p.human or rule is TieRule.THREE_WAY]
        credits = [
            0.5 if p.judge == 0 and rule is TieRule.HALF else float(np.sign(p.human) == np.sign(j))
            for p in kept if (j := p.judge) is not None
        ]  # fmt: skip
        (stratum,) = (own := pair_accuracy(pairs, rule)).strata
        assert list(stratum.numerators) == credits
        assert stratum.denominators == (1.0,) * len(credits)
        assert stratum.clusters == tuple(p.item for p in kept if p.judge is not None)
        assert (own.n_expected, own.is_share) == (len({p.item for p in kept}), True)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=9))
def test_kappa_is_one_minus_observed_over_chance(rows: list[tuple[int, int]]) -> None:
    """Squared distances, over every pairing of the two columns; none without spread in both."""
    first, second = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = coefficient(first, second, Method.KAPPA)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert found is None
        return
    chance = sum((a - b) ** 2 for a, _ in rows for _, b in rows)
    observed = sum((a - b) ** 2 for a, b in rows)
    assert found == pytest.approx(1 - observed * len(rows) / chance)


def test_the_ceiling_of_people_who_rated_different_units() -> None:
    nan = np.nan
    table = np.array([[1, 2, nan], [2, 2, 4], [4, nan, 3], [nan, nan, 5], [5, 4, 3], [3, 1, 2]])
    judge = np.array([1.0, 3.0, 2.0, 4.0, nan, 2.0])
    humans = [[None if np.isnan(v) else float(v) for v in unit] for unit in table]
    given_judge = [None if np.isnan(v) else float(v) for v in judge]
    found = human_ceiling(humans, given_judge, Method.PEARSON, draws=12)

    def means(rows: list[int]) -> tuple[float, float] | None:
        own = []
        for k in range(3):
            others = np.delete(table, k, axis=1)
            kept = [i for i in rows if not np.isnan(table[i, k]) and not np.isnan(judge[i])
                    and not np.isnan(others[i]).all()]  # fmt: skip
            target = np.array([np.nanmean(others[i]) for i in kept])
            person, machine = (
                coefficient(np.array(c), target, Method.PEARSON)
                for c in (table[kept, k], judge[kept])
            )
            if person is not None and machine is not None:
                own.append((person, machine))
        if not own:
            return None
        return float(np.mean([p for p, _ in own])), float(np.mean([m for _, m in own]))

    whole = means(list(range(6)))
    assert whole is not None and (found.human.value, found.judge.value) == pytest.approx(whole)
    assert found.n_humans == 3 and found.human.n == found.judge.n == 4
    rows, generator = np.array([0, 1, 2, 5]), np.random.default_rng(0)
    drawn = [
        own for _ in range(12) if (own := means(rows[generator.integers(0, 4, size=4)].tolist()))
    ]
    for k, side in enumerate((found.human, found.judge)):
        assert side.value is not None
        ends = widened(side.value, [own[k] for own in drawn], 4)
        assert (side.low, side.high) == pytest.approx(ends)
    nobody = human_ceiling([], [])
    assert (nobody.n_humans, nobody.human.value, nobody.human.n) == (0, None, 0)
