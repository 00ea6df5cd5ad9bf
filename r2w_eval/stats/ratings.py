"""Ratings and ranks: Bradley-Terry strengths, rank ranges from paired tests, rank probabilities.

In: battles (see `orders`), or the same metric of several runs. Out: strengths with intervals, and
for each model the range of ranks that the data do not exclude. Sources: harness A5, A6, W4; Bradley
& Terry 1952; Hunter 2004 (when the maximum exists).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from r2w_eval.errors import UsageError
from r2w_eval.stats.inference import PairedComparison, compare, evaluate, holm
from r2w_eval.stats.orders import Battle
from r2w_eval.stats.resampling import FloatArray, batches, few_items_factor, linked_groups
from r2w_eval.types import Estimate

BT_DRAWS = 2_000
# Newton steps are never longer than this (logits): unbeaten models have very flat likelihoods.
_MAX_STEP = 2.0
_MAX_ROUNDS = 100
_CONVERGED = 1e-10


@dataclass(frozen=True, slots=True)
class Rating:
    """One model's Bradley-Terry strength; the bounds always contain it."""

    model: str
    strength: float
    """Natural log-odds, mean 0 over the models."""
    low: float
    high: float
    win_share: float
    """Weighted share of battles won, ties as half: the cross-check that needs no model."""
    n_battles: int
    rank_upper_bound: int
    """1 + models whose lower bound lies above this one's upper bound."""


@dataclass(frozen=True, slots=True)
class Ratings:
    """Models from strongest to weakest, with their chances of each rank."""

    rows: tuple[Rating, ...]
    rank_probabilities: tuple[tuple[float, ...], ...]
    """[i][r]: share of the draws in which row i has rank r + 1 (equal strengths share a rank)."""


@dataclass(frozen=True, slots=True)
class PairTest:
    """A paired test between two models: difference of the first over the second, corrected p."""

    first: str
    second: str
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: float | None
    n_common: int


@dataclass(frozen=True, slots=True)
class RankRange:
    """The range of ranks of a model that the paired tests do not exclude."""

    model: str
    value: float
    best: int
    worst: int
    is_tied_with_best: bool
    tied_with: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Models from best to worst on the items they share, and the tests behind their ranks."""

    rows: tuple[RankRange, ...]
    tests: tuple[PairTest, ...]
    standard_errors: tuple[float | None, ...]
    """Of the difference of each test; None where it has no interval."""


def bradley_terry(
    battles: Iterable[Battle],
    draws: int = BT_DRAWS,
    seed: int = 0,
    level: float = 0.95,
    ridge: float = 0.01,
) -> Ratings:
    """Strengths with intervals from resampled items; ties are half wins.

    `ridge` is the penalty ridge / 2 * sum(strength^2): it keeps unbeaten models finite. Bounds are
    percentiles of the draws moved so that their median is the estimate, which thus lies inside.
    Where the draws cannot tell (all are equal, or some models lost nothing to the others, so that
    only the ridge keeps them near), the bounds are those of Agresti & Coull (1998) where wider.
    Raises UsageError when some models were never linked to the others.
    """
    rows = sorted(battles, key=lambda b: (b.item, b.first, b.second, b.share, b.weight))
    models = sorted({name for row in rows for name in (row.first, row.second)})
    _require_connected(rows, models)
    wins, n_battles = _item_wins(rows, models)
    total = wins.sum(axis=0)
    strengths = fit_strengths(total[None], ridge)[0]
    drawn = _strength_draws(wins, draws, seed, ridge)
    tails = ((1 - level) / 2, (1 + level) / 2)
    shift = np.quantile(drawn, tails, axis=0) - np.median(drawn, axis=0)
    low, high = strengths + shift * few_items_factor(len(wins), level)
    if _is_one_sided(total) or float(np.ptp(drawn, axis=0).min()) < _CONVERGED:
        least, most = _smoothed_bounds(wins, level, ridge)
        low, high = np.minimum(low, least), np.maximum(high, most)
    ranks = upper_bound_ranks(low.tolist(), high.tolist())
    order = sorted(range(len(models)), key=lambda i: (-strengths[i], models[i]))
    won, lost = total.sum(axis=1), total.sum(axis=0)
    ratings = tuple(
        Rating(
            models[i],
            float(strengths[i]),
            float(low[i]),
            float(high[i]),
            float(won[i] / (won[i] + lost[i])),
            n_battles[i],
            ranks[i],
        )
        for i in order
    )
    return Ratings(ratings, rank_probabilities(drawn[:, order]))


def _is_one_sided(wins: FloatArray) -> bool:
    """Whether some models never lost a point to the rest: the likelihood then has no maximum."""
    k = len(wins)
    return not bool(np.linalg.matrix_power((wins > 0) | np.eye(k, dtype=bool), k).all())


def _smoothed_bounds(wins: FloatArray, level: float, ridge: float) -> tuple[FloatArray, FloatArray]:
    """Normal bounds (models,) with z^2 / 2 wins and losses more between any two that met.

    An item counts once for a pair, in however many orders and with whatever weight it was judged.
    """
    z = float(ndtri((1 + level) / 2))
    games = wins + wins.transpose(0, 2, 1)
    shares = np.divide(wins, games, out=np.zeros_like(wins), where=games > 0).sum(axis=0)
    smoothed = shares + z**2 / 2 * (games.sum(axis=0) > 0)
    centre = fit_strengths(smoothed[None], ridge)[0]
    expected = 0.5 * (1 + np.tanh((centre[:, None] - centre[None]) / 2))
    information = (smoothed + smoothed.T) * expected * (1 - expected)
    # strengths have mean 0: the pseudo-inverse leaves their common level out
    covariance = np.linalg.pinv(np.diag(information.sum(axis=1)) - information, hermitian=True)
    reach = z * np.sqrt(np.diag(covariance))
    return centre - reach, centre + reach


def _require_connected(rows: Sequence[Battle], models: Sequence[str]) -> None:
    n_items = len({row.item for row in rows})
    if len(models) < 2 or n_items < 2:
        raise UsageError(
            f"{len(models)} model(s) on {n_items} item(s) in the battles: ratings need at least 2 "
            "of each. Try: r2w-eval compare RUN RUN without --limit"
        )
    edges = sorted({frozenset((row.first, row.second)) for row in rows}, key=sorted)
    groups = [
        sorted(frozenset[str]().union(*(edges[index] for index in group)))
        for group in linked_groups(edges)
    ]
    if len(groups) > 1:
        listed = "; ".join(", ".join(group) for group in groups)
        raise UsageError(
            f"ratings need all models linked by battles; these groups are not: {listed}. "
            "Try: r2w-eval compare with a run of one group against a run of another"
        )


def _item_wins(rows: Sequence[Battle], models: Sequence[str]) -> tuple[FloatArray, list[int]]:
    """Weighted wins [item, winner, loser] and battles per model."""
    index = {name: i for i, name in enumerate(models)}
    items = {name: i for i, name in enumerate(sorted({row.item for row in rows}))}
    wins = np.zeros((len(items), len(models), len(models)))
    n_battles = [0] * len(models)
    for row in rows:
        first, second = index[row.first], index[row.second]
        wins[items[row.item], first, second] += row.weight * row.share
        wins[items[row.item], second, first] += row.weight * (1 - row.share)
        n_battles[first] += 1
        n_battles[second] += 1
    return wins, n_battles


def _strength_draws(wins: FloatArray, draws: int, seed: int, ridge: float) -> FloatArray:
    """Strengths (draws, models) of resampled items."""
    generator = np.random.default_rng(seed)
    n, k = wins.shape[:2]
    flat = wins.reshape(n, k * k)
    parts = []
    for size in batches(draws, max(n, 4 * k * k)):
        times = generator.multinomial(n, np.full(n, 1 / n), size=size)
        parts.append(fit_strengths((times @ flat).reshape(size, k, k), ridge))
    return np.concatenate(parts)


def fit_strengths(wins: FloatArray, ridge: float) -> FloatArray:
    """Penalised maximum likelihood by Newton's method for many win tables at once.

    `wins` is (draws, winner, loser); the result (draws, model) has mean 0. The ridge makes the
    problem strictly concave, so that there is one maximum.
    """
    draws, k, _ = wins.shape
    games = wins + wins.transpose(0, 2, 1)
    strengths = np.zeros((draws, k))
    identity = np.eye(k)
    for _ in range(_MAX_ROUNDS):
        gap = strengths[:, :, None] - strengths[:, None, :]
        expected = 0.5 * (1 + np.tanh(gap / 2))
        gradient = (wins - games * expected).sum(axis=2) - ridge * strengths
        curvature = games * expected * (1 - expected)
        hessian = (curvature.sum(axis=2) + ridge)[:, :, None] * identity - curvature
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        strengths += step * np.minimum(1.0, _MAX_STEP / np.maximum(longest, _MAX_STEP))
        if float(longest.max()) < _CONVERGED:
            break
    centred: FloatArray = strengths - strengths.mean(axis=1, keepdims=True)
    return centred


def upper_bound_ranks(low: Sequence[float], high: Sequence[float]) -> list[int]:
    """Rank(UB) = 1 + #{j: low_j > high_i} (A5).

    >>> upper_bound_ranks([2.0, 1.0, -1.0], [3.0, 2.5, 0.0])
    [1, 1, 3]
    """
    return [1 + sum(other > bound for other in low) for bound in high]


def rank_probabilities(drawn: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    """Chances [model][rank - 1] from draws (draws, model); equal values share the better rank."""
    k = drawn.shape[1]
    ranks = np.stack([1 + (drawn > drawn[:, [i]]).sum(axis=1) for i in range(k)], axis=1)
    return tuple(
        tuple(float(np.mean(ranks[:, i] == rank)) for rank in range(1, k + 1)) for i in range(k)
    )


def rank_by_paired_tests(estimates: Mapping[str, Estimate]) -> Ranking:
    """Rank ranges of models from the paired tests of every two on their common items, with p
    corrected by Holm's method (A3, A5). Raises UsageError for a model without a value.
    """
    values = {}
    for model, estimate in estimates.items():
        value = evaluate(estimate)
        if value is None:
            raise UsageError(f"{model!r} has no value for {estimate.name!r} and cannot be ranked")
        values[model] = value
    found = [
        (first, second, compare(estimates[first], estimates[second]))
        for first, second in combinations(sorted(estimates), 2)
    ]
    tests = _correct(found)
    errors = tuple(comparison.standard_error for _, _, comparison in found)
    return Ranking(rank_ranges(values, tests), tests, errors)


def _correct(found: Sequence[tuple[str, str, PairedComparison]]) -> tuple[PairTest, ...]:
    """The comparisons with p corrected over all pairs that have common items."""
    corrected = iter(holm([c.p_value for _, _, c in found if c.p_value is not None]))
    return tuple(
        PairTest(
            first,
            second,
            c.difference,
            c.low,
            c.high,
            c.p_value,
            next(corrected) if c.p_value is not None else None,
            c.n_common,
        )
        for first, second, c in found
    )


def rank_ranges(
    values: Mapping[str, float], tests: Iterable[PairTest], alpha: float = 0.05
) -> tuple[RankRange, ...]:
    """Best rank = 1 + models significantly better; worst = all but those significantly worse.

    Models stand in order of their mean paired difference from all others: the order of the values
    where all were scored on the same items, and a fair one where they were not. Tied with best is
    measured at the first of those with the best rank.
    """
    tests = tuple(tests)
    better: dict[str, set[str]] = {model: set() for model in values}
    worse: dict[str, set[str]] = {model: set() for model in values}
    for test in tests:
        if test.p_holm is None or test.difference is None or test.p_holm > alpha:
            continue
        pair = (test.first, test.second)
        winner, loser = pair if test.difference > 0 else pair[::-1]
        better[loser].add(winner)
        worse[winner].add(loser)
    lead = _paired_leads(values, tests)
    order = sorted(values, key=lambda model: (-lead[model], -values[model], model))
    leader = min(order, key=lambda model: len(better[model]), default="")
    return tuple(
        RankRange(
            model,
            values[model],
            1 + len(better[model]),
            len(values) - len(worse[model]),
            model not in worse[leader],
            tuple(m for m in order if m != model and m not in better[model] | worse[model]),
        )
        for model in order
    )


def _paired_leads(values: Mapping[str, float], tests: Iterable[PairTest]) -> dict[str, float]:
    """Sum of each model's paired differences from the others, in the unit of the values.

    For a pair without common items it is the difference of their values. Rounded, so that equal
    models remain equal.
    """
    lead = dict.fromkeys(values, 0.0)
    for test in tests:
        gap = test.difference
        if gap is None:
            gap = values[test.first] - values[test.second]
        lead[test.first] += gap
        lead[test.second] -= gap
    return {model: round(total, 9) for model, total in lead.items()}
