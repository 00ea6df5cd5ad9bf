"""Cluster bootstrap of an `Estimate`: what each query adds to it, the draws, four intervals.

In: an `Estimate` (ratios of sums over strata). Out: bounds. Each cluster's jackknife influence is
resampled: exact for means, first order for ratios whose clusters carry different weights.
Sources: harness A1; Efron & Tibshirani 1993, chapters 12-14 (bootstrap-t, percentile, BCa);
Lohr 2021, chapter 9 (jackknife for ratios); Satterthwaite 1946 (degrees of freedom).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from r2w_eval.types import Estimate, Stratum

FloatArray = NDArray[np.float64]

# Elements held at once by a batch of draws: 16 MiB per float array.
_BATCH_ELEMENTS = 1 << 21
# A draw in which nearly all clusters score alike has almost no spread and would blow up the
# studentised statistic; a quarter of the sample's standard error is the floor (docs/statistics.md).
_SE_FLOOR = 0.25
# Below this many degrees of freedom bootstrap-t alone is too short (docs/statistics.md).
_SMALL_DF = 15.0
# A cluster this close to the mean, relative to its sum, differs from it by rounding only.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class ClusterSums:
    """One stratum, one row a cluster: sums of numerators and denominators, exactly rounded."""

    rows: dict[str, tuple[float, float]]
    numerator: float
    denominator: float

    @property
    def scored(self) -> frozenset[str]:
        """Clusters with a positive denominator."""
        return frozenset(name for name, (_, below) in self.rows.items() if below > 0)


@dataclass(frozen=True, slots=True)
class Influence:
    """Jackknife influence of each cluster on an estimate, in units of the estimate.

    Strata that share a cluster form one block, whose values sum to about 0; blocks are resampled
    independently. Values are sorted inside a block, so that neither the order of rows nor the names
    of clusters affect the draws.
    """

    blocks: tuple[FloatArray, ...]
    degrees: tuple[float, ...]
    """Degrees of freedom of each block: effective number of clusters (Kish 1965) minus one."""

    @property
    def can_vary(self) -> bool:
        """At least two clusters in every block: less has no measurable spread."""
        return bool(self.blocks) and all(len(block) > 1 for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Spread:
    """Cluster-robust standard error (units of the estimate) and its degrees of freedom."""

    standard_error: float
    df: float


@dataclass(frozen=True, slots=True)
class Draws:
    """Bootstrap draws: deviation from the value, and the standard error inside each draw."""

    deviation: FloatArray
    standard_error: FloatArray


@dataclass(frozen=True, slots=True)
class Interval:
    """Lower and upper bound in units of the estimate."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Intervals:
    """The same uncertainty by four methods; `default` is the one with the measured coverage."""

    percentile: Interval
    bca: Interval
    t: Interval
    bootstrap_t: Interval
    default: Interval
    spread: Spread


def cluster_sums(stratum: Stratum) -> ClusterSums:
    """Sums per cluster, rows without any weight left out."""
    above: defaultdict[str, list[float]] = defaultdict(list)
    below: defaultdict[str, list[float]] = defaultdict(list)
    for name, top, bottom in zip(
        stratum.clusters, stratum.numerators, stratum.denominators, strict=True
    ):
        if top or bottom:
            above[name].append(top)
            below[name].append(bottom)
    rows = {name: (math.fsum(above[name]), math.fsum(below[name])) for name in above}
    return ClusterSums(
        rows,
        math.fsum(top for top, _ in rows.values()),
        math.fsum(bottom for _, bottom in rows.values()),
    )


def linked_groups(memberships: Sequence[frozenset[str]]) -> list[list[int]]:
    """Indices of sets that are connected by shared members, directly or through others.

    >>> linked_groups([frozenset("ab"), frozenset("c"), frozenset("bd")])
    [[0, 2], [1]]
    """
    root = list(range(len(memberships)))

    def find(index: int) -> int:
        while root[index] != index:
            index = root[index]
        return index

    first_seen: dict[str, int] = {}
    for index, members in enumerate(memberships):
        for member in members:
            low, high = sorted((find(index), find(first_seen.setdefault(member, index))))
            root[high] = low
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(memberships)):
        groups[find(index)].append(index)
    return list(groups.values())


def influence(estimate: Estimate) -> Influence | None:
    """The influence of every cluster: how much the estimate changes without it. None where the
    estimate has no value.
    """
    tables = [cluster_sums(stratum) for stratum in estimate.strata]
    if not tables or any(table.denominator == 0 for table in tables):
        return None
    blocks, degrees = [], []
    for group in linked_groups([frozenset(table.rows) for table in tables]):
        parts: defaultdict[str, list[float]] = defaultdict(list)
        weights: defaultdict[str, list[float]] = defaultdict(list)
        for index in group:
            factor, table = estimate.scale * estimate.strata[index].weight, tables[index]
            for name, gap in _jackknife(table).items():
                parts[name].append(factor * gap)
                weights[name].append(abs(factor) * table.rows[name][1] / table.denominator)
        block = np.array(sorted(math.fsum(terms) for terms in parts.values()))
        blocks.append(block - math.fsum(block.tolist()) / len(block))
        degrees.append(max(1.0, effective_number(map(math.fsum, weights.values())) - 1))
    return Influence(tuple(blocks), tuple(degrees))


def effective_number(weights: Iterable[float]) -> float:
    """Kish: how many clusters of equal weight would carry as much.

    >>> effective_number([1, 1, 1, 1]), effective_number([3, 1])
    (4.0, 1.6)
    """
    own = list(weights)
    squares = math.fsum(weight * weight for weight in own)
    return math.fsum(own) ** 2 / squares if squares else float(len(own))


def _jackknife(table: ClusterSums) -> dict[str, float]:
    """Change of the ratio R = N / D when cluster c is left out: (n - 1)/n (N_c - R D_c)/(D - D_c).

    For clusters of equal weight this is (value - mean) / n. Unlike the plain linearisation it does
    not underestimate the influence of clusters that dominate the denominator.
    """
    ratio = table.numerator / table.denominator
    shrink = 1 - 1 / len(table.rows)
    moved = {}
    for name, (top, bottom) in table.rows.items():
        gap = top - ratio * bottom
        rest = table.denominator - bottom
        is_rounding = abs(gap) <= _ROUNDING * abs(top)
        moved[name] = 0.0 if is_rounding or rest <= 0 else shrink * gap / rest
    return moved


def spread(moved: Influence) -> Spread:
    """Jackknife variance per block, added up; df by Satterthwaite."""
    parts = [_variance(block) for block in moved.blocks]
    total = math.fsum(parts)
    if total == 0:
        return Spread(0.0, math.fsum(moved.degrees))
    df = total**2 / math.fsum(v**2 / n for v, n in zip(parts, moved.degrees, strict=True))
    return Spread(math.sqrt(total), df)


def draw(moved: Influence, draws: int, seed: int) -> Draws:
    """Resample whole clusters with replacement inside each block; memory does not grow with n."""
    generator = np.random.default_rng(seed)
    deviation, variance = np.zeros(draws), np.zeros(draws)
    for block in moved.blocks:
        n = len(block)
        first, second = resampled_moments(block, draws, generator)
        deviation += first
        variance += n / (n - 1) * np.clip(second - first**2 / n, 0.0, None)
    return Draws(deviation, np.sqrt(variance))


def resampled_moments(
    values: FloatArray, draws: int, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Sums and sums of squares of `draws` resamples of `values` (n,) -> two arrays (draws,).

    Scores on a short scale have few distinct values: then counts of the distinct values are drawn,
    which is the same distribution at a fraction of the time.
    """
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    few = len(distinct) * 8 <= n
    sums, squares = [], []
    for size in batches(draws, len(distinct) if few else n):
        if few:
            times = generator.multinomial(n, counts / n, size=size)
            sums.append((times * distinct).sum(axis=1))
            squares.append((times * distinct**2).sum(axis=1))
        else:
            picked = values[generator.integers(0, n, size=(size, n))]
            sums.append(picked.sum(axis=1))
            squares.append(np.square(picked, out=picked).sum(axis=1))
    return np.concatenate(sums), np.concatenate(squares)


def batches(draws: int, width: int) -> Iterator[int]:
    """Sizes that add up to `draws`, each small enough for `width` numbers per draw."""
    size = max(1, _BATCH_ELEMENTS // max(1, width))
    for start in range(0, draws, size):
        yield min(size, draws - start)


def intervals(value: float, moved: Influence, draws: int, seed: int, level: float) -> Intervals:
    """All intervals of one estimate from one set of draws."""
    own, drawn = spread(moved), draw(moved, draws, seed)
    t = _t(value, own, level)
    bootstrap_t = _bootstrap_t(value, own, drawn, level)
    hull = Interval(min(t.low, bootstrap_t.low), max(t.high, bootstrap_t.high))
    return Intervals(
        _percentile(value, drawn, level),
        _bca(value, moved, drawn, level),
        t,
        bootstrap_t,
        hull if own.df < _SMALL_DF else bootstrap_t,
        own,
    )


def _variance(block: FloatArray) -> float:
    n = len(block)
    return n / (n - 1) * math.fsum((block**2).tolist())


def _t(value: float, own: Spread, level: float) -> Interval:
    half = float(stdtrit(own.df, (1 + level) / 2)) * own.standard_error
    return Interval(value - half, value + half)


def _bootstrap_t(value: float, own: Spread, drawn: Draws, level: float) -> Interval:
    if own.standard_error == 0:
        return Interval(value, value)
    floor = _SE_FLOOR * own.standard_error
    studentised = drawn.deviation / np.maximum(drawn.standard_error, floor)
    low, high = np.quantile(studentised, ((1 - level) / 2, (1 + level) / 2))
    return Interval(
        value - max(0.0, float(high)) * own.standard_error,
        value - min(0.0, float(low)) * own.standard_error,
    )


def few_items_factor(n: int, level: float = 0.95) -> float:
    """Widens percentile bounds, which are short by this factor for a plain mean of n items.

    >>> round(few_items_factor(8), 2), round(few_items_factor(60), 2)
    (1.29, 1.03)
    """
    quantile = (1 + level) / 2
    return float(stdtrit(n - 1, quantile) / ndtri(quantile)) * math.sqrt(n / (n - 1))


def _percentile(value: float, drawn: Draws, level: float) -> Interval:
    low, high = np.quantile(drawn.deviation, ((1 - level) / 2, (1 + level) / 2))
    return Interval(value + float(low), value + float(high))


def _bca(value: float, moved: Influence, drawn: Draws, level: float) -> Interval:
    """Bias-corrected and accelerated; the acceleration is a sixth of the influences' skewness."""
    own = np.concatenate(moved.blocks)
    squares = math.fsum((own**2).tolist())
    if squares == 0:
        return Interval(value, value)
    acceleration = math.fsum((own**3).tolist()) / (6 * squares**1.5)
    tolerance = 1e-12 * math.sqrt(squares)
    below = np.mean(drawn.deviation < -tolerance)
    share = float(below + np.mean(np.abs(drawn.deviation) <= tolerance) / 2)
    n = len(drawn.deviation)
    bias = float(ndtri(min(max(share, 1 / n), 1 - 1 / n)))
    tail = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(drawn.deviation, ndtr(bias + tail / (1 - acceleration * tail)))
    return Interval(value + float(low), value + float(high))
