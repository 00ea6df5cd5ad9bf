"""The bootstrap's parts: each against its definition written out, or scipy's own."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from r2w_eval.stats.resampling import (
    _BATCH_ELEMENTS,
    Draws,
    FloatArray,
    Influence,
    Interval,
    Spread,
    _bca,
    _bootstrap_t,
    _percentile,
    _t,
    batches,
    cluster_sums,
    draw,
    influence,
    intervals,
    linked_groups,
    resampled_moments,
    spread,
)
from r2w_eval.types import Estimate, Stratum

ROWS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(-9, 9), st.sampled_from([0.0, 0.5, 1, 4])),
    min_size=1,
    max_size=14,
)


def stratum(rows: list[tuple[str, float, float]], weight: float = 1.0) -> Stratum:
    names, tops, bottoms = zip(*rows, strict=True)
    return Stratum(names, tuple(map(float, tops)), tuple(map(float, bottoms)), weight)


def summed(rows: list[tuple[str, float, float]]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for name, top, bottom in rows:
        if top or bottom:
            above, below = found.get(name, (0.0, 0.0))
            found[name] = (above + top, below + bottom)
    return found


def left_out(rows: list[tuple[str, float, float]]) -> dict[str, float]:
    """What the ratio loses without each cluster, shrunk as a mean's deviation is."""
    own = summed(rows)
    above, below = (sum(row[k] for row in own.values()) for k in (0, 1))
    moved = {}
    for name, (top, bottom) in own.items():
        rest = below - bottom
        without = (above - top) / rest if rest > 0 else above / below
        moved[name] = (1 - 1 / len(own)) * (above / below - without)
    return moved


@given(ROWS)
def test_sums_are_those_of_each_cluster_and_rows_without_weight_are_no_row(
    rows: list[tuple[str, float, float]],
) -> None:
    table, own = cluster_sums(stratum(rows)), summed(rows)
    assert table.rows == own
    assert table.scored == {name for name, (_, below) in own.items() if below > 0}
    assert table.numerator == sum(top for top, _ in own.values())
    assert table.denominator == sum(below for _, below in own.values())


@given(ROWS, ROWS, st.sampled_from([0.25, -2.0]), st.sampled_from([0.5, 10.0]))
def test_influence_is_what_leaving_a_cluster_out_changes(
    first: list[tuple[str, float, float]],
    second: list[tuple[str, float, float]],
    weight: float,
    scale: float,
) -> None:
    """Two strata that share a cluster are one block; its sum is taken away from every member."""
    first, second = [("a", 1.0, 1.0), *first], [("a", 2.0, 0.5), *second]
    estimate = Estimate("m", (stratum(first, 0.75), stratum(second, weight)), 9, scale=scale)
    moved = influence(estimate)
    assert moved is not None and len(moved.blocks) == 1
    total: defaultdict[str, float] = defaultdict(float)
    shares: defaultdict[str, float] = defaultdict(float)
    for rows, factor in ((first, 0.75 * scale), (second, weight * scale)):
        below = sum(bottom for _, bottom in summed(rows).values())
        for name, gap in left_out(rows).items():
            total[name] += factor * gap
            shares[name] += abs(factor) * summed(rows)[name][1] / below
    by_hand = np.array(sorted(total.values()))
    np.testing.assert_allclose(moved.blocks[0], by_hand - by_hand.mean(), atol=1e-9)
    effective = sum(shares.values()) ** 2 / sum(share**2 for share in shares.values())
    assert moved.degrees == (pytest.approx(max(1.0, effective - 1)),)


def test_strata_without_a_shared_cluster_are_blocks_of_their_own() -> None:
    halves = (stratum([("a", 1, 1), ("b", 3, 1)]), stratum([("c", 2, 1), ("d", 8, 1)], 0.5))
    moved = influence(Estimate("m", halves, 4))
    assert moved is not None and moved.degrees == (1.0, 1.0)
    np.testing.assert_allclose(np.concatenate(moved.blocks), [-0.5, 0.5, -0.75, 0.75])
    assert influence(Estimate("m", (halves[0], stratum([("e", 1, 0)])), 4)) is None
    assert influence(Estimate("m", (), 4)) is None


@pytest.mark.parametrize("n", [3, 7, 11, 30])
@pytest.mark.parametrize("score", [0.1, 0.7, 1 / 3, -0.7])
def test_equal_scores_have_no_spread_at_all(n: int, score: float) -> None:
    """Also where their mean is not the score itself, for rounding."""
    moved = influence(Estimate("m", (stratum([(f"q{i}", score, 1) for i in range(n)]),), n))
    assert moved is not None and spread(moved) == Spread(0.0, n - 1)


def test_a_cluster_at_the_mean_moves_nothing_and_one_with_all_the_weight_neither() -> None:
    moved = influence(Estimate("m", (stratum([("a", 0.1, 1), ("b", 0.2, 1), ("c", 0.3, 1)]),), 3))
    assert moved is not None and moved.blocks[0].tolist() == pytest.approx([-1 / 30, 0, 1 / 30])
    alone = influence(Estimate("m", (stratum([("a", 1, 1), ("b", 1, 0), ("c", -1, 0)]),), 3))
    assert alone is not None and alone.blocks[0].tolist() == pytest.approx([-2 / 3, 0, 2 / 3])


@pytest.mark.parametrize(
    ("sizes", "can_vary"), [((), False), ((2,), True), ((1,), False), ((2, 1), False)]
)
def test_a_block_of_one_cluster_cannot_vary(sizes: tuple[int, ...], can_vary: bool) -> None:
    blocks = tuple(np.zeros(n) for n in sizes)
    assert Influence(blocks, (1.0,) * len(sizes)).can_vary is can_vary


@given(st.lists(st.frozensets(st.integers(0, 9), max_size=3), min_size=1, max_size=8))
def test_linked_groups_are_connected_components(sets: list[frozenset[int]]) -> None:
    from scipy.sparse.csgraph import connected_components

    links = np.array([[bool(a & b) for b in sets] for a in sets])
    _, labels = connected_components(links)
    wanted: defaultdict[int, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        wanted[int(label)].append(place)
    named = [frozenset(map(str, own)) for own in sets]
    assert sorted(linked_groups(named)) == sorted(wanted.values())


def block(seed: int, n: int) -> FloatArray:
    values: FloatArray = np.random.default_rng(seed).normal(size=n)
    return np.sort(values - values.mean())


def test_the_spread_of_blocks_is_welchs() -> None:
    first, second = block(0, 5), block(1, 9)
    own = spread(Influence((first, second), (4.0, 8.0)))
    # a deviation from the mean, divided by n, is a cluster's influence on it
    oracle = scipy.stats.ttest_ind(first * 5, second * 9, equal_var=False)
    low, high = oracle.confidence_interval(0.95)
    assert own.df == pytest.approx(oracle.df)
    assert own.standard_error == pytest.approx((high - low) / 2 / scipy.stats.t.ppf(0.975, own.df))


def test_a_draw_holds_resampled_sums_and_their_own_standard_errors() -> None:
    blocks = (block(0, 5), block(1, 9))
    found, generator = draw(Influence(blocks, (4.0, 8.0)), 50, 3), np.random.default_rng(3)
    picked = [own[generator.integers(0, len(own), size=(50, len(own)))] for own in blocks]
    np.testing.assert_allclose(found.deviation, sum(own.sum(1) for own in picked))
    variance = sum(own.shape[1] * own.var(axis=1, ddof=1) for own in picked)
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance), atol=1e-9)


@pytest.mark.parametrize(("n", "few"), [(15, False), (16, True), (17, True)])
def test_few_distinct_values_are_drawn_by_their_counts(n: int, few: bool) -> None:
    """Which stream is read is part of a published interval."""
    values = np.array([0.5] * 6 + [2.0] * (n - 6))
    sums, squares = resampled_moments(values, 7, np.random.default_rng(1))
    generator = np.random.default_rng(1)
    if few:
        times = generator.multinomial(n, [6 / n, (n - 6) / n], size=7)
        picked = [np.repeat([0.5, 2.0], own) for own in times]
    else:
        picked = list(values[generator.integers(0, n, size=(7, n))])
    np.testing.assert_allclose(sums, [own.sum() for own in picked])
    np.testing.assert_allclose(squares, [(own**2).sum() for own in picked])


@given(st.integers(0, 50), st.sampled_from([0, 1, _BATCH_ELEMENTS // 7, 2 * _BATCH_ELEMENTS]))
def test_batches_add_up_and_hold_no_more_than_fits(draws: int, width: int) -> None:
    found = list(batches(draws, width))
    assert sum(found) == draws and all(found)
    most = 1 if width > _BATCH_ELEMENTS else _BATCH_ELEMENTS // max(width, 1)
    assert found == [most] * (draws // most) + [draws % most] * (draws % most > 0)
    assert list(batches(_BATCH_ELEMENTS + 5, min(width, 1))) == [_BATCH_ELEMENTS, 5]


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_t_and_percentile_are_scipys_quantiles(level: float) -> None:
    low, high = scipy.stats.t.interval(level, 4.5, loc=3.0, scale=0.7)
    found = _t(3.0, Spread(0.7, 4.5), level)
    assert (found.low, found.high) == pytest.approx((low, high))
    drawn = Draws(block(4, 99) - 0.3, np.ones(99))
    ends = np.quantile(drawn.deviation, [(1 - level) / 2, (1 + level) / 2])
    found = _percentile(3.0, drawn, level)
    assert (found.low, found.high) == pytest.approx(tuple(3.0 + ends))


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("shift", [-4.0, 0.0, 4.0])
@pytest.mark.parametrize("error", [1.0, 2.0])
def test_bootstrap_t_studentises_with_a_floor_and_holds_the_value(
    level: float, shift: float, error: float
) -> None:
    errors = np.geomspace(0.01, 3, 99)
    drawn = Draws(block(4, 99) + shift, errors)
    ratios = (block(4, 99) + shift) / np.where(errors < error / 4, error / 4, errors)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    found = _bootstrap_t(3.0, Spread(error, 9.0), drawn, level)
    ends = (3 - error * max(high, 0), 3 - error * min(low, 0))
    assert (found.low, found.high) == pytest.approx(ends)
    assert found.low <= 3.0 <= found.high
    assert _bootstrap_t(3.0, Spread(0.0, 9.0), drawn, level) == Interval(3.0, 3.0)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("shift", [-9.0, -0.2, 0.0, 9.0])
def test_bca_is_efrons_formula(level: float, shift: float) -> None:
    own = np.array([-1.0, -1.0, -0.5, 0.0, 2.5])
    # draws that are the value itself but for rounding count half; here all on one side but them
    deviation = block(4, 101) + shift
    deviation[:2] = (0.0, 1e-15) if abs(shift) < 9 else deviation[:2]
    share = np.mean(deviation < -1e-9) + np.mean(abs(deviation) < 1e-9) / 2
    bias = norm.ppf(np.clip(share, 1 / 101, 1 - 1 / 101))
    skew = (own**3).sum() / (6 * (own**2).sum() ** 1.5)
    tails = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    ends = np.quantile(deviation, norm.cdf(bias + tails / (1 - skew * tails)))
    drawn = Draws(deviation, np.ones(101))
    found = _bca(3.0, Influence((own,), (4.0,)), drawn, level)
    assert (found.low, found.high) == pytest.approx(tuple(3.0 + ends))
    tiny = _bca(0.0, Influence((own / 1e9,), (4.0,)), Draws(deviation / 1e9, np.ones(101)), level)
    assert (tiny.low * 1e9, tiny.high * 1e9) == pytest.approx(tuple(ends))
    flat = Influence((np.zeros(3),), (2.0,))
    assert _bca(3.0, flat, drawn, level) == Interval(3.0, 3.0)


@pytest.mark.parametrize(("n", "is_hull"), [(15, True), (16, False)])
def test_the_default_is_the_hull_with_t_below_fifteen_degrees(n: int, is_hull: bool) -> None:
    moved = Influence((block(2, n) / n,), (n - 1.0,))
    found = intervals(5.0, moved, 400, 7, 0.9)
    drawn = draw(moved, 400, 7)
    assert found.spread == spread(moved) and found.t == _t(5.0, spread(moved), 0.9)
    assert found.bootstrap_t == _bootstrap_t(5.0, spread(moved), drawn, 0.9)
    assert found.percentile == _percentile(5.0, drawn, 0.9)
    assert found.bca == _bca(5.0, moved, drawn, 0.9)
    ends = (found.t, found.bootstrap_t)
    hull = Interval(min(own.low for own in ends), max(own.high for own in ends))
    assert hull != found.bootstrap_t
    assert found.default == (hull if is_hull else found.bootstrap_t)
    assert math.isfinite(found.default.low)
