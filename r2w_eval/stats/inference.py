"""The statistics behind every table: value, interval, paired test, corrections.

In: `Estimate`s, or scores per item. Out: frozen dataclasses. Pure functions, seeded, independent of
row order. Sources: harness A1-A3; Holm 1979; Benjamini & Hochberg 1995; Phipson & Smyth 2010 (p
from drawn patterns is never 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri

from r2w_eval.errors import UsageError
from r2w_eval.estimates import ALIKE, SINGLE, mean_of
from r2w_eval.stats.resampling import (
    FloatArray,
    Interval,
    Intervals,
    cluster_sums,
    effective_number,
    influence,
    intervals,
)
from r2w_eval.stats.sign_bounds import hoeffding_bound
from r2w_eval.types import NO_QUERY, Estimate, Metric, Stratum

DRAWS = 10_000
_EXACT_ITEMS = 20
_SIGN_BLOCK = 256
# Permuted sums that differ from the observed one by rounding only count as equal.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """First minus second, on the queries that both have scored (units of the score)."""

    difference: float | None
    low: float | None
    """t interval: the most exact for differences, which are nearly symmetric. None where all
    queries differ by the same: no spread is seen, and so none can be told.
    """
    high: float | None
    standard_error: float | None
    p_value: float | None
    """Two-sided, by random sign flips (`sign_flip_p`); None without common queries."""
    is_exact: bool
    """All sign patterns were counted (at most 20 queries that differ), none sampled."""
    n_common: int
    n_only_first: int
    n_only_second: int
    bootstrap: Interval | None = None
    """Paired percentile bootstrap, for comparison with other tools."""


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact test of two pass/fail outcomes on the same items."""

    n_both: int
    n_only_first: int
    n_only_second: int
    n_neither: int
    n_missing: int
    """Items that one of the two lacks."""
    p_value: float


def evaluate(estimate: Estimate) -> float | None:
    """The value, summed left to right as upstream scripts do; None if a denominator is 0.

    >>> evaluate(Estimate("mean", (Stratum(("a", "b"), (7.0, 8.0), (1.0, 1.0)),), 2))
    7.5
    """
    if not estimate.strata:
        return None
    terms = []
    for stratum in estimate.strata:
        below = _left_to_right(stratum.denominators)
        if below == 0:
            return None
        terms.append(stratum.weight * (_left_to_right(stratum.numerators) / below))
    return estimate.offset + estimate.scale * _left_to_right(terms)


def _left_to_right(values: Iterable[float]) -> float:
    # The built-in sum compensates rounding from Python 3.12 on, and so changes published digits.
    return reduce(add, values, 0.0)


def measure(estimate: Estimate, draws: int = DRAWS, seed: int = 0, level: float = 0.95) -> Metric:
    """Value with its default interval; no bounds where a resampled group has a single query."""
    value, moved = evaluate(estimate), influence(estimate)
    low = high = None
    note = estimate.note
    if estimate.is_share and value is not None:
        low, high = _share_bounds(estimate, draws, seed, level)
    elif value is not None and moved is not None and moved.can_vary:
        bounds = intervals(value, moved, draws, seed, level)
        low, high = bounds.default.low, bounds.default.high
        if bounds.spread.standard_error == 0:
            note = _joined(note, ALIKE)
    elif value is not None:
        note = _joined(note, SINGLE)
    return Metric(
        name=estimate.name,
        value=value,
        low=low,
        high=high,
        n_scored=count_scored(estimate),
        n_expected=estimate.n_expected,
        is_headline=estimate.is_headline,
        note=note,
    )


def _share_bounds(estimate: Estimate, draws: int, seed: int, level: float) -> tuple[float, float]:
    """Bounds of a proportion: Wilson's for 0/1 outcomes and where all items agree, with Kish's
    effective number of queries; else the bootstrap's cut at 0 and 1.

    The bootstrap cannot see what a few equal outcomes leave open. Values between 0 and 1 vary less
    than 0/1 outcomes of the same mean, so that Wilson's bounds are safe for them. Wilson 1927.
    """
    plain = replace(estimate, scale=1.0, offset=0.0)
    value, moved = evaluate(plain), influence(plain)
    if value is None or moved is None:
        raise ValueError(f"{estimate.name}: bounds of a share without a value")
    outcomes = {v for s in plain.strata for v in item_ratios(s)}
    if len(plain.strata) == 1 and (outcomes <= {0.0, 1.0} or len(outcomes) == 1):
        tries = (below for _, below in cluster_sums(plain.strata[0]).rows.values())
        low, high = wilson(value, effective_number(tries), level)
    elif moved.can_vary:
        bounds = intervals(value, moved, draws, seed, level).default
        low, high = max(0.0, bounds.low), min(1.0, bounds.high)
    else:
        low, high = 0.0, 1.0
    ends = [estimate.offset + estimate.scale * bound for bound in (low, high)]
    return min(ends), max(ends)


def item_ratios(stratum: Stratum) -> list[float]:
    """Each query's own ratio."""
    return [top / below for top, below in cluster_sums(stratum).rows.values() if below]


def wilson(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion from n independent outcomes.

    >>> low, high = wilson(1.0, 10)
    >>> round(low, 3), high
    (0.722, 1.0)
    """
    z2 = float(ndtri((1 + level) / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def _joined(note: str, more: str) -> str:
    return f"{note}; {more}" if note else more


def count_scored(estimate: Estimate) -> int:
    """How many queries any term of the estimate belongs to."""
    found = frozenset[str]().union(*(cluster_sums(s).scored for s in estimate.strata))
    return len(found - {NO_QUERY})


def all_intervals(
    estimate: Estimate, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> Intervals | None:
    """Percentile, BCa, t and bootstrap-t side by side; None where there is no interval."""
    value, moved = evaluate(estimate), influence(estimate)
    if value is None or moved is None or not moved.can_vary:
        return None
    return intervals(value, moved, draws, seed, level)


def mean_estimate(scores: Mapping[str, float | None]) -> Estimate:
    """Plain mean over items; an item without a value is expected, not scored."""
    present = [(item, value) for item, value in scores.items() if value is not None]
    return mean_of("mean", present, len(scores))


def compare_scores(
    first: Mapping[str, float | None],
    second: Mapping[str, float | None],
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> PairedComparison:
    """Paired comparison of one value per item; None values count as missing."""
    return compare(mean_estimate(first), mean_estimate(second), draws, seed, level)


def compare(
    first: Estimate, second: Estimate, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> PairedComparison:
    """Paired comparison of the same metric of two runs, on the queries both have scored.

    Raises UsageError when the two are not made of the same strata.
    """
    left, right, counts = on_common(first, second)
    both = _difference(left, right)
    difference, moved = evaluate(both), influence(both)
    if difference is None or moved is None:
        return PairedComparison(None, None, None, None, None, False, *counts)
    bounds = intervals(difference, moved, draws, seed, level) if moved.can_vary else None
    if bounds is not None and bounds.spread.standard_error <= _ROUNDING * abs(difference):
        bounds = None
    parts = _exchangeable(left, right)
    return PairedComparison(
        difference,
        bounds.t.low if bounds else None,
        bounds.t.high if bounds else None,
        bounds.spread.standard_error if bounds else None,
        sign_flip_p(parts, draws, seed),
        len(parts) <= _EXACT_ITEMS,
        *counts,
        bootstrap=bounds.percentile if bounds else None,
    )


def on_common(first: Estimate, second: Estimate) -> tuple[Estimate, Estimate, tuple[int, int, int]]:
    """Both over the queries that both have scored, and how many these, the first's own and the
    second's own are. Raises UsageError when the two are not made of the same strata.
    """
    _require_same_shape(first, second)
    tables = [
        (cluster_sums(a).scored, cluster_sums(b).scored)
        for a, b in zip(first.strata, second.strata, strict=True)
    ]
    common = [a & b for a, b in tables]
    shared, scored_first, scored_second = (
        frozenset[str]().union(*groups)
        for groups in (common, (a for a, _ in tables), (b for _, b in tables))
    )
    counts = (len(shared), len(scored_first - shared), len(scored_second - shared))
    return _restricted(first, common), _restricted(second, common), counts


def _difference(left: Estimate, right: Estimate) -> Estimate:
    """Left minus right as one estimate, so that shared queries are resampled together."""
    negative = tuple(replace(stratum, weight=-stratum.weight) for stratum in right.strata)
    return Estimate("difference", left.strata + negative, left.n_expected, left.scale)


def _require_same_shape(first: Estimate, second: Estimate) -> None:
    """Weights, scale and number of strata must agree, or the difference has no meaning."""
    shapes = [
        (e.scale, e.offset, tuple(stratum.weight for stratum in e.strata)) for e in (first, second)
    ]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"{first.name!r} and {second.name!r} cannot be compared: (scale, offset, weights) is "
            f"{shapes[0]} in one and {shapes[1]} in the other; both must come from one aggregator "
            "over the same strata. Try: r2w-eval compare with a metric that both runs have"
        )


def _restricted(estimate: Estimate, keep: Sequence[frozenset[str]]) -> Estimate:
    """The same estimate over the named clusters of each stratum only."""
    strata = []
    for stratum, names in zip(estimate.strata, keep, strict=True):
        rows = [i for i, name in enumerate(stratum.clusters) if name in names]
        strata.append(
            Stratum(
                tuple(stratum.clusters[i] for i in rows),
                tuple(stratum.numerators[i] for i in rows),
                tuple(stratum.denominators[i] for i in rows),
                stratum.weight,
            )
        )
    return replace(estimate, strata=tuple(strata))


def _exchangeable(left: Estimate, right: Estimate) -> FloatArray:
    """Per query, what flips its sign when the two runs are swapped; sums to the difference.

    Both sides are measured from their pooled ratio, so that a query that lost one of its samples
    is no difference in itself. Queries without a difference are left out: a flip does not show.
    """
    parts: dict[str, list[float]] = {}
    for a, b in zip(left.strata, right.strata, strict=True):
        x, y = cluster_sums(a), cluster_sums(b)
        pooled = (x.numerator + y.numerator) / (x.denominator + y.denominator)
        for sums, weight in ((x, a.weight * left.scale), (y, -b.weight * right.scale)):
            for name, (top, bottom) in sums.rows.items():
                term = weight / sums.denominator * (top - pooled * bottom)
                parts.setdefault(name, []).append(term)
    values: FloatArray = np.array(sorted(math.fsum(terms) for terms in parts.values()))
    differing: FloatArray = values[np.abs(values) > _ROUNDING * np.abs(values).max(initial=0.0)]
    return differing


def sign_flip_p(differences: FloatArray, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p of the sum under random signs: exact to 20 items, else from `draws` patterns.

    Other patterns with a sum as large as the observed one count one half (Lancaster 1961): scores
    on a short scale tie so often that whole ones would reject too rarely. The observed pattern
    counts whole (Phipson & Smyth 2010), so that small levels, as corrections ask for, are kept.
    Below what can be drawn stands Hoeffding's bound. Order and swapped runs change nothing.

    >>> sign_flip_p(np.array([1.0, 2.0, 3.0]))
    0.25
    """
    if not len(differences):
        return 1.0
    rounding = _ROUNDING * float(np.abs(differences).sum())
    observed = abs(math.fsum(differences))
    if len(differences) <= _EXACT_ITEMS:
        sums = np.zeros(1)
        for value in differences:
            sums = np.concatenate((sums + value, sums - value))
        # the observed pattern and its mirror have half their weight already
        return float(np.mean(_extremity(sums, observed, rounding))) + 1 / len(sums)
    if (bound := hoeffding_bound(differences)) <= 1 / (draws + 1):
        return bound
    sums = np.zeros(draws)
    sizes = np.sort(np.abs(differences))
    for start, signs in random_signs(len(sizes), draws, seed):
        sums += sizes[start : start + len(signs)] @ signs
    return min(bound, (1 + float(_extremity(sums, observed, rounding).sum())) / (draws + 1))


def random_signs(
    n_items: int, draws: int = DRAWS, seed: int = 0
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """-1 or 1 in blocks of items, arrays (items, draws), each with its first item's place. The
    signs of an item are the same however many follow, so that a board and a comparison agree.
    """
    generator = np.random.default_rng(seed)
    for start in range(0, n_items, _SIGN_BLOCK):
        size = (min(_SIGN_BLOCK, n_items - start), -(-draws // 8))
        drawn = generator.integers(0, 256, size=size, dtype=np.uint8)
        signs = np.unpackbits(drawn, axis=1, count=draws).astype(np.float32)
        yield start, 2 * signs - 1


def _extremity(sums: FloatArray, observed: float, rounding: float) -> FloatArray:
    """1 for a larger sum, .5 for an equal one, 0 for a smaller one."""
    sizes = np.abs(sums)
    above = (sizes > observed + rounding).astype(float)
    return (above + (sizes >= observed - rounding)) / 2


def mcnemar(first: Mapping[str, bool | None], second: Mapping[str, bool | None]) -> McNemar:
    """Exact two-sided binomial test on the items where the outcomes differ.

    >>> mcnemar({"a": True, "b": True}, {"a": False, "b": True}).p_value
    1.0
    """
    pairs = [(first.get(item), second.get(item)) for item in {**first, **second}]
    both, only_first, only_second, neither = (
        pairs.count(pattern)
        for pattern in ((True, True), (True, False), (False, True), (False, False))
    )
    n = only_first + only_second
    p = min(1.0, 2.0 * float(bdtr(min(only_first, only_second), n, 0.5))) if n else 1.0
    missing = len(pairs) - both - n - neither
    return McNemar(both, only_first, only_second, neither, missing, p)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Family-wise adjusted p values, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(_ascending(p_values)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return tuple(adjusted)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """False-discovery-rate adjusted p values, in the order given.

    >>> benjamini_hochberg([0.01, 0.02, 0.5])
    (0.03, 0.03, 0.5)
    """
    adjusted = [0.0] * len(p_values)
    running = 1.0
    for rank, index in reversed(list(enumerate(_ascending(p_values), start=1))):
        running = min(running, len(p_values) * p_values[index] / rank)
        adjusted[index] = running
    return tuple(adjusted)


def _ascending(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=p_values.__getitem__)
