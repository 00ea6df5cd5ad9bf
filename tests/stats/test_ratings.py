"""Ratings against choix, and what rank ranges and order effects must say."""

from __future__ import annotations

import random
from itertools import combinations

import choix
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import UsageError
from r2w_eval.stats.inference import compare, holm, mean_estimate
from r2w_eval.stats.orders import Battle, OrderPair, combined_label, combined_margin, positions
from r2w_eval.stats.ratings import (
    PairTest,
    bradley_terry,
    fit_strengths,
    rank_by_paired_tests,
    rank_probabilities,
    rank_ranges,
    upper_bound_ranks,
)
from r2w_eval.stats.resampling import FloatArray

STRENGTHS = {"a": 1.2, "b": 0.4, "c": -0.2, "d": -1.4}


def battles(n: int = 600, seed: int = 0) -> list[Battle]:
    draw = random.Random(seed)
    made = []
    for item in range(n):
        first, second = draw.sample(sorted(STRENGTHS), 2)
        chance = 1 / (1 + np.exp(STRENGTHS[second] - STRENGTHS[first]))
        made.append(Battle(str(item), first, second, float(draw.random() < chance)))
    return made


def test_strengths_equal_choix() -> None:
    rows = battles()
    names = sorted(STRENGTHS)
    wins = [
        (names.index(b.first), names.index(b.second))
        if b.share
        else (names.index(b.second), names.index(b.first))
        for b in rows
    ]
    oracle = choix.ilsr_pairwise(4, wins, alpha=1e-4)
    found = {row.model: row.strength for row in bradley_terry(rows, draws=50, ridge=1e-4).rows}
    centred = oracle - oracle.mean()
    assert [found[name] for name in names] == pytest.approx(centred, abs=0.01)


def test_every_rating_lies_inside_its_interval_and_ranks_are_ordered() -> None:
    ratings = bradley_terry(battles(120, seed=3), draws=300)
    assert [row.model for row in ratings.rows][0] == "a"
    for row in ratings.rows:
        assert row.low <= row.strength <= row.high
    for chances in ratings.rank_probabilities:
        assert sum(chances) == pytest.approx(1.0)


def test_an_unbeaten_model_stays_finite() -> None:
    rows = [Battle(str(i), "winner", "loser", 1.0) for i in range(10)]
    assert all(np.isfinite(row.strength) for row in bradley_terry(rows, draws=50).rows)


def test_the_interval_of_an_unbeaten_model_among_three_holds_what_its_battles_leave_open() -> None:
    """All eight won from both others, as a chance of .7 does once in 300 times: log-odds .85."""
    rows = [Battle(str(i), "a", other, 1.0) for i in range(8) for other in ("b", "c")]
    rows += [Battle(str(i), "b", "c", float(i % 2)) for i in range(8)]
    found = {row.model: row for row in bradley_terry(rows, draws=200).rows}
    assert found["a"].low < 1.5 < found["a"].strength < found["a"].high
    assert all(found[name].high > -0.75 for name in "bc")
    beaten = [*rows, Battle("8", "a", "b", 0.5), Battle("8", "a", "c", 0.5)]
    seen = {row.model: row for row in bradley_terry(beaten, draws=200).rows}
    assert seen["a"].low < seen["a"].strength < found["a"].strength


@pytest.mark.parametrize(("n", "won"), [(10, 0.5), (10, 1.0), (40, 1.0)])
def test_battles_that_all_end_alike_leave_doubt(n: int, won: float) -> None:
    rows = [
        Battle(str(item), *models, share)
        for item in range(n)
        for models, share in ((("a", "b"), won), (("b", "a"), 1 - won))
    ]
    first = bradley_terry(rows, draws=50).rows[0]
    wilson = scipy.stats.binomtest(round(won * n), n).proportion_ci(method="wilson").low
    lead_of_half = np.log(wilson / (1 - wilson)) / 2
    assert first.low <= first.strength <= first.high
    assert first.low == pytest.approx(lead_of_half, abs=0.4) and first.high - first.low > 0.5


def test_unlinked_models_are_named() -> None:
    rows = [Battle("1", "a", "b", 1.0), Battle("2", "c", "d", 0.0)]
    with pytest.raises(UsageError, match="[abcd]"):
        bradley_terry(rows)


def test_two_orders_are_combined_and_a_lost_one_is_unscored() -> None:
    assert combined_margin(OrderPair("1", "x", "y", 2.0, 1.0)) == 1.5
    assert combined_label(OrderPair("1", "x", "y", 1.0, -1.0)) == 0
    assert combined_margin(OrderPair("1", "x", "y", 1.0, None)) is None


def test_a_judge_that_prefers_the_first_is_found_out() -> None:
    pairs = [OrderPair(str(i), "x", "y", 1.0, -1.0) for i in range(20)]
    found = positions(pairs)
    assert found.first_wins.value == 1.0 and found.flip_rate.value == 1.0
    assert found.side_bias.value == 1.0 and found.consistency.value == 0.0


def test_rank_ranges_come_from_the_paired_tests() -> None:
    draw = random.Random(1)
    base = {str(i): draw.gauss(5, 1) for i in range(200)}
    estimates = {
        "best": mean_estimate({k: v + 1 for k, v in base.items()}),
        "same": mean_estimate({k: v + draw.gauss(0, 0.5) for k, v in base.items()}),
        "base": mean_estimate(dict(base)),
    }
    rows = {row.model: row for row in rank_by_paired_tests(estimates).rows}
    assert (rows["best"].best, rows["best"].worst) == (1, 1)
    assert (rows["same"].best, rows["same"].worst) == (2, 3)
    assert rows["base"].tied_with == ("same",) and not rows["base"].is_tied_with_best


def test_a_run_scored_on_easy_items_alone_does_not_stand_first() -> None:
    draw = random.Random(3)
    base = {str(i): 9.0 if i < 12 else 3.0 for i in range(40)}
    easy = {k: v + draw.uniform(0, 0.2) if v > 8 else None for k, v in base.items()}
    better = {k: v + draw.uniform(0.3, 0.5) for k, v in base.items()}
    ranking = rank_by_paired_tests({"a": mean_estimate(better), "b": mean_estimate(easy)})
    shown = [(row.model, row.best, row.is_tied_with_best) for row in ranking.rows]
    assert shown == [("a", 1, True), ("b", 2, False)] and ranking.rows[1].value > 9


WINS = st.lists(st.integers(0, 4).map(float), min_size=9, max_size=9)


def slopes(table: FloatArray, strengths: FloatArray, ridge: float) -> FloatArray:
    """Of the penalised log-likelihood, by its definition."""
    chance = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
    found: FloatArray = (table - (table + table.T) * chance).sum(1) - ridge * strengths
    return found


@given(WINS, st.sampled_from([0.01, 0.5]))
def test_strengths_are_where_the_penalised_likelihood_has_no_slope(
    wins: list[float], ridge: float
) -> None:
    table = np.array(wins).reshape(3, 3) * (1 - np.eye(3))
    (found,) = fit_strengths(table[None], ridge)
    assert np.abs(slopes(table, found, ridge)).max() < 1e-7
    assert abs(found.sum()) < 1e-9


def test_a_likelihood_that_full_newton_steps_leave_is_climbed_in_short_ones() -> None:
    table = np.zeros((5, 5))
    table[[0, 2, 4], [1, 1, 0]] = 1e5
    table[[1, 2, 2, 3, 4], [3, 3, 4, 4, 1]] = 1, 10, 0.01, 1000, 0.01
    found, even = fit_strengths(np.array([table, np.ones((5, 5))]), 0.1)
    assert np.abs(slopes(table, found, 0.1)).max() < 1e-5
    assert np.abs(even).max() == 0 and found.argmax() == 2


def test_ratings_are_strengths_of_weighted_wins_with_bounds_from_resampled_items() -> None:
    draw = random.Random(4)
    rows = [
        Battle(f"q{i % 12}", *draw.sample("abc", 2), draw.choice([0, 0.5, 1]), draw.choice([1, 3]))
        for i in range(40)
    ]
    found = bradley_terry(rows, draws=60, seed=5, level=0.8, ridge=0.1)
    items = sorted({row.item for row in rows})
    wins = np.zeros((12, 3, 3))
    for row in rows:
        i, j = "abc".index(row.first), "abc".index(row.second)
        wins[items.index(row.item), i, j] += row.weight * row.share
        wins[items.index(row.item), j, i] += row.weight * (1 - row.share)
    whole = fit_strengths(wins.sum(0)[None], 0.1)[0]
    times = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=60)
    drawn = fit_strengths(np.einsum("di,ijk->djk", times, wins), 0.1)
    factor = scipy.stats.t.ppf(0.9, 11) / scipy.stats.norm.ppf(0.9) * np.sqrt(12 / 11)
    middle = np.median(drawn, axis=0)
    bounds = [whole + (np.quantile(drawn, q, axis=0) - middle) * factor for q in (0.1, 0.9)]
    order = sorted(range(3), key=lambda i: -whole[i])
    assert [row.model for row in found.rows] == ["abc"[i] for i in order]
    for row, i in zip(found.rows, order, strict=True):
        assert row.strength == pytest.approx(whole[i])
        assert (row.low, row.high) == pytest.approx((bounds[0][i], bounds[1][i]))
        own = [b for b in rows if row.model in (b.first, b.second)]
        assert row.n_battles == len(own)
        won = [b.weight * (b.share if b.first == row.model else 1 - b.share) for b in own]
        assert row.win_share == pytest.approx(sum(won) / sum(b.weight for b in own))
        assert row.rank_upper_bound == 1 + sum(bounds[0] > bounds[1][i])
    assert found.rank_probabilities == rank_probabilities(drawn[:, order])


def test_equal_strengths_stand_by_name_and_share_the_better_rank() -> None:
    rows = [Battle(str(i), "b", "a", 0.5) for i in range(4)]
    found = bradley_terry(rows, draws=20)
    assert [row.model for row in found.rows] == ["a", "b"]
    drawn = np.array([[1.0, 1.0, 0.0], [3.0, 2.0, 4.0], [0.0, 1.0, 2.0], [5.0, 1.0, 1.0]])
    chances = rank_probabilities(drawn)
    assert upper_bound_ranks([1.0, 0.0, -1.0], [2.0, 1.0, 0.5]) == [1, 1, 2]
    assert chances == ((0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.5, 0.25, 0.25))


def test_two_models_on_two_items_can_be_rated_and_less_cannot() -> None:
    rows = [Battle("1", "a", "b", 1.0), Battle("2", "a", "b", 0.0)]
    assert len(bradley_terry(rows, draws=5).rows) == 2
    with pytest.raises(UsageError, match=r"2 model\(s\) on 1 item\(s\)"):
        bradley_terry(rows[:1])
    with pytest.raises(UsageError, match=r"0 model\(s\) on 0"):
        bradley_terry([])


def paired(first: str, second: str, gap: float | None, p: float | None) -> PairTest:
    return PairTest(first, second, gap, None, None, p, p, 9)


def test_ranks_are_what_significant_tests_leave_open() -> None:
    values = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 1.0}
    tests = [
        paired("a", "b", 1.0, 0.06), paired("a", "c", 2.0, 0.05), paired("b", "c", 1.0, None),
        paired("d", "a", -4.0, 0.01), paired("d", "b", -3.0, 0.001), paired("c", "d", None, 0.001),
    ]  # fmt: skip
    rows = {row.model: row for row in rank_ranges(values, tests)}
    assert list(rows) == ["a", "b", "c", "d"]
    assert [(row.best, row.worst) for row in rows.values()] == [(1, 2), (1, 3), (2, 4), (3, 4)]
    assert [row.is_tied_with_best for row in rows.values()] == [True, True, False, False]
    assert [row.tied_with for row in rows.values()] == [("b",), ("a", "c"), ("b", "d"), ("c",)]
    assert [row.value for row in rows.values()] == [5.0, 4.0, 3.0, 1.0]
    assert all(row.best == 1 for row in rank_ranges(values, tests, alpha=0.0001))


def test_models_stand_by_their_paired_leads_then_values_then_names() -> None:
    values = {"x": 1.0, "z": 2.0, "y": 2.0, "w": 1.0}
    even = [paired(a, b, 0.0, 1.0) for a, b in combinations(sorted(values), 2)]
    assert [row.model for row in rank_ranges(values, even)] == ["y", "z", "w", "x"]
    led = [*even[:-1], paired("y", "z", -0.5, 1.0)]
    assert [row.model for row in rank_ranges(values, led)][0] == "z"
    gone = [paired(a, b, None, None) for a, b in combinations(sorted(values), 2)]
    assert [row.model for row in rank_ranges(values, gone)] == ["y", "z", "w", "x"]
    lone = [paired("w", "x", None, None), *even[1:]]
    assert [row.model for row in rank_ranges({**values, "w": 1.5}, lone)][0] == "w"
    rounded = [*even[:-1], paired("y", "z", -2e-10, 1.0)]
    assert [row.model for row in rank_ranges(values, rounded)][0] == "y"
    third = [paired("w", "x", 0.1 + 0.2 - 0.3, 1.0), *even[1:]]
    assert [row.model for row in rank_ranges(dict.fromkeys(values, 0.0), third)][0] == "w"
    assert rank_ranges({}, []) == ()


def test_paired_tests_are_corrected_over_those_that_could_be_made() -> None:
    draw = random.Random(8)
    base = {str(i): draw.gauss(5, 1) for i in range(30)}
    near = {k: v + draw.gauss(0.3, 0.5) for k, v in base.items()}
    other: dict[str, float | None] = {f"z{i}": draw.gauss(5, 1) for i in range(30)}
    estimates = {"b": mean_estimate(dict(base)), "a": mean_estimate(dict(near)),
                 "c": mean_estimate(other), "d": mean_estimate({**near, "0": 9.0})}  # fmt: skip
    ranking = rank_by_paired_tests(estimates)
    tests = ranking.tests
    assert [(t.first, t.second) for t in tests] == list(combinations("abcd", 2))
    made = [t for t in tests if t.p_value is not None]
    assert {(t.first, t.second) for t in made} == {("a", "b"), ("a", "d"), ("b", "d")}
    assert tuple(t.p_holm for t in made) == holm([t.p_value or 0.0 for t in made])
    assert all(t.p_holm is None and t.n_common == 0 for t in tests if "c" in (t.first, t.second))
    first = made[0]
    alone = compare(estimates["a"], estimates["b"])
    assert (first.difference, first.low, first.high) == (alone.difference, alone.low, alone.high)
    assert ranking.standard_errors[0] == alone.standard_error
    with pytest.raises(UsageError, match="'e' has no value"):
        rank_by_paired_tests({"e": mean_estimate({"0": None}), "a": estimates["a"]})
