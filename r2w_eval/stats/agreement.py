"""Agreement between judges, and with human labels.

In: ratings of the same units by several raters, or two columns of values. Out: coefficients with
bootstrap intervals over units. Undefined coefficients (no spread) are None, never 0. Sources:
harness A7, A8; Krippendorff 2011 (alpha); Kendall 1945 (tau-b); Cohen 1968 (weighted kappa).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from r2w_eval.estimates import share_of
from r2w_eval.stats.resampling import FloatArray, few_items_factor
from r2w_eval.types import Estimate

AGREEMENT_DRAWS = 1_000


class Level(StrEnum):
    """The level of measurement of the ratings, which sets how alpha weighs a difference."""

    NOMINAL = "nominal"
    ORDINAL = "ordinal"
    INTERVAL = "interval"


class Method(StrEnum):
    """A coefficient for two columns of numbers."""

    SPEARMAN = "spearman"
    KENDALL = "kendall_tau_b"
    PEARSON = "pearson"
    KAPPA = "quadratic_kappa"
    """Agreement of the values themselves, on one scale: Cohen's kappa with quadratic weights, which
    for continuous values is Lin's concordance.
    """


class TieRule(StrEnum):
    """How pairs without a clear winner count towards accuracy."""

    HALF = "half"
    """Pairs that people tied are left out; on the others a tie of the judge counts one half."""
    THREE_WAY = "three_way"
    """Win, tie and loss are three classes that must match."""


@dataclass(frozen=True, slots=True)
class Alpha:
    """Krippendorff's alpha: 1 perfect, 0 chance; None when all values are the same."""

    value: float | None
    low: float | None
    high: float | None
    level: Level
    n_units: int
    """Units with at least two ratings; others cannot disagree."""
    n_ratings: int
    """Ratings in those units."""


@dataclass(frozen=True, slots=True)
class Association:
    """A coefficient of two columns, over the rows that have both values."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """Preference of people and of a judge about one pair: positive = first better, 0 = tie."""

    item: str
    human: float
    judge: float | None
    """None: no usable verdict."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A judge beside the people it is measured by, both against the mean of the other people."""

    human: Association
    """Mean over people of the agreement of one with the mean of the others."""
    judge: Association
    """Mean over the same left-out sets of the agreement of the judge."""
    n_humans: int
    """People that could be left out."""


def krippendorff_alpha(
    units: Sequence[Sequence[float | None]],
    level: Level = Level.INTERVAL,
    draws: int = AGREEMENT_DRAWS,
    clusters: Sequence[str] | None = None,
) -> Alpha:
    """Alpha of ratings [unit][rater] with None for missing; 95 % interval by resampling units, or
    whole clusters of units.
    """
    names = clusters if clusters is not None else [str(i) for i in range(len(units))]
    grouped: defaultdict[str, list[list[float]]] = defaultdict(list)
    for name, unit in zip(names, units, strict=True):
        if len(present := sorted(v for v in unit if v is not None)) > 1:
            grouped[name].append(present)
    # sorted by content, so that neither the order of the rows nor the names affect the draws
    groups = sorted(sorted(own) for own in grouped.values())
    pairable = [unit for own in groups for unit in own]
    if not pairable:
        return Alpha(None, None, None, level, 0, 0)
    values = np.array(sorted({v for unit in pairable for v in unit}))
    counts = np.array([[unit.count(v) for v in values.tolist()] for unit in pairable], dtype=float)
    value = _alpha(counts, np.ones(len(counts)), values, level)
    n = len(groups)
    owner = np.repeat(np.arange(n), [len(own) for own in groups])
    times = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    drawn = [_alpha(counts, row[owner], values, level) for row in times] if n > 2 else []
    low, high = _bounds(value, drawn, n)
    return Alpha(value, low, high, level, len(counts), sum(map(len, pairable)))


def _alpha(counts: FloatArray, times: FloatArray, values: FloatArray, level: Level) -> float | None:
    """1 - observed / expected disagreement; `counts` [unit, value], `times` repeats units."""
    sizes = counts.sum(axis=1)
    totals = times @ counts
    n = float(totals.sum())
    weights = times / (sizes - 1)
    if level is Level.NOMINAL:
        observed = float(weights @ (sizes**2 - (counts**2).sum(axis=1)))
        expected = (n * n - float((totals**2).sum())) / (n - 1)
    else:
        # The ordinal metric is the interval metric on mid-ranks of all pairable values.
        scale = values - values.mean()
        if level is Level.ORDINAL:
            scale = np.cumsum(totals) - totals / 2
        first, second = counts @ scale, counts @ scale**2
        observed = float(weights @ (2 * (sizes * second - first**2)))
        expected = 2 * (n * float(totals @ scale**2) - float(totals @ scale) ** 2) / (n - 1)
    if np.count_nonzero(totals) < 2:
        return None
    return 1 - observed / expected


def _bounds(
    value: float | None, drawn: Iterable[float | None], n: int
) -> tuple[float | None, float | None]:
    """95 % percentiles of the defined draws of n clusters, widened to hold the value and for the
    spread that few clusters hide; cut at -1 and 1, where coefficients end.
    """
    defined = [v for v in drawn if v is not None]
    if value is None or not defined:
        return None, None
    low, high = np.quantile(defined, (0.025, 0.975))
    factor = few_items_factor(n)
    below, above = max(0.0, value - float(low)), max(0.0, float(high) - value)
    return max(-1.0, value - factor * below), min(1.0, value + factor * above)


def associate(
    first: Sequence[float | None],
    second: Sequence[float | None],
    method: Method = Method.SPEARMAN,
    draws: int = AGREEMENT_DRAWS,
    clusters: Sequence[str] | None = None,
) -> Association:
    """Coefficient of two columns; 95 % interval by resampling rows, or whole clusters of rows."""
    names = clusters if clusters is not None else [str(i) for i in range(len(first))]
    rows = [
        (name, a, b)
        for name, a, b in zip(names, first, second, strict=True)
        if a is not None and b is not None
    ]
    pairs = np.array([[a, b] for _, a, b in rows], dtype=float).reshape(-1, 2)
    value = coefficient(pairs[:, 0], pairs[:, 1], method)
    names = [name for name, _, _ in rows]
    drawn = [
        coefficient(pairs[own, 0], pairs[own, 1], method)
        for own in (_resampled(names, draws) if value is not None else ())
    ]
    return Association(value, *_bounds(value, drawn, len(set(names))), len(rows))


def _resampled(names: Sequence[str], draws: int) -> Iterator[NDArray[np.int_]]:
    """Rows of each bootstrap draw, rows of a name together; none for fewer than three names."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        members[name].append(index)
    if len(members) < 3:
        return
    groups = [np.array(own) for _, own in sorted(members.items())]
    generator = np.random.default_rng(0)
    for _ in range(draws):
        picked = generator.integers(0, len(groups), size=len(groups))
        yield np.concatenate([groups[i] for i in picked])


def coefficient(
    first: NDArray[np.float64], second: NDArray[np.float64], method: Method
) -> float | None:
    """The bare coefficient; None when a column has no spread or fewer than two rows."""
    # scipy.stats takes longer to load than a small run takes in all
    from scipy.stats import kendalltau, rankdata

    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    if method is Method.KAPPA:
        apart = float(np.mean((first - second) ** 2))
        by_chance = float(first.var() + second.var() + (first.mean() - second.mean()) ** 2)
        return 1 - apart / by_chance
    if method is Method.KENDALL:
        return float(kendalltau(first, second).statistic)
    if method is Method.SPEARMAN:
        first, second = rankdata(first), rankdata(second)
    x, y = first - first.mean(), second - second.mean()
    return float(np.clip((x @ y) / math.sqrt(float((x @ x) * (y @ y))), -1.0, 1.0))


def pair_accuracy(
    pairs: Iterable[JudgedPair], ties: TieRule = TieRule.HALF, name: str = "pair_accuracy"
) -> Estimate:
    """Share of pairs in which the judge prefers what people prefer, clustered by item.

    `n_expected` counts the items that the tie rule keeps; the rule is named in the note.
    """
    kept = [pair for pair in pairs if pair.human != 0 or ties is TieRule.THREE_WAY]
    scored = [
        (pair.item, _credit(pair.human, pair.judge, ties))
        for pair in kept
        if pair.judge is not None
    ]
    return share_of(name, scored, len({pair.item for pair in kept}), note=f"ties: {ties.value}")


def _credit(human: float, judge: float, ties: TieRule) -> float:
    if judge == 0 and ties is TieRule.HALF:
        return 0.5
    return float((human > 0) - (human < 0) == (judge > 0) - (judge < 0))


def mean_by_system(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Mean value per system, for agreement at system level; rows are (system, value)."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for system, value in rows:
        values[system].append(value)
    return {system: math.fsum(own) / len(own) for system, own in sorted(values.items())}


def human_ceiling(
    humans: Sequence[Sequence[float | None]],
    judge: Sequence[float | None],
    method: Method = Method.SPEARMAN,
    clusters: Sequence[str] | None = None,
    draws: int = AGREEMENT_DRAWS,
) -> Ceiling:
    """Leave one human out: ratings [unit][human], the judge's value per unit.

    Person and judge are compared with the same target on the same units: those that the person,
    the judge and at least one other person rated. Intervals by resampling units, or whole clusters.
    """
    n_humans = max((len(unit) for unit in humans), default=0)
    table = np.array(humans, dtype=float).reshape(len(humans), n_humans)
    judged = np.array(judge, dtype=float)
    person, machine, n_left_out = _leave_each_out(table, judged, method)
    shared = ~np.isnan(judged) & ((~np.isnan(table)).sum(axis=1) > 1)
    rows = np.flatnonzero(shared)
    names = [clusters[i] if clusters is not None else str(i) for i in rows.tolist()]
    n = len(set(names))
    drawn = [
        _leave_each_out(table[rows[own]], judged[rows[own]], method)
        for own in (_resampled(names, draws) if person is not None else ())
    ]
    return Ceiling(
        Association(person, *_bounds(person, [own[0] for own in drawn], n), len(rows)),
        Association(machine, *_bounds(machine, [own[1] for own in drawn], n), len(rows)),
        n_left_out,
    )


def _leave_each_out(
    table: FloatArray, judge: FloatArray, method: Method
) -> tuple[float | None, float | None, int]:
    """Mean coefficient of a person and of the judge with the mean of the others, and of how many.

    `table` [unit, person] and `judge` [unit] with NaN for what is missing.
    """
    rated = ~np.isnan(table)
    filled = np.where(rated, table, 0.0)
    people, judges = [], []
    for column in range(table.shape[1]):
        n_others = rated.sum(axis=1) - rated[:, column]
        kept = rated[:, column] & (n_others > 0) & ~np.isnan(judge)
        target = (filled.sum(axis=1) - filled[:, column])[kept] / n_others[kept]
        person = coefficient(table[kept, column], target, method)
        machine = coefficient(judge[kept], target, method)
        if person is not None and machine is not None:
            people.append(person)
            judges.append(machine)
    if not people:
        return None, None, 0
    return fmean(people), fmean(judges), len(people)
