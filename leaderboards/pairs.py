"""All paired tests of a board at once: 200 models are 19,900 pairs.

A vectorised form of `r2w_eval.stats` (difference, t interval, sign-flip p). With up to 20 differing
items all sign patterns are enumerated; beyond that one set of random sign patterns serves all
pairs, or Hoeffding's bound where it is lower: Holm's correction over thousands of pairs needs p
values below one in the number of patterns.

Sources: harness A2, A3, A5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from r2w_eval.stats.inference import (
    DRAWS,
    holm,
    random_signs,
    sign_flip_p,
)
from r2w_eval.stats.ratings import PairTest
from r2w_eval.stats.resampling import FloatArray, cluster_sums, linked_groups
from r2w_eval.stats.sign_bounds import hoeffding_bound
from r2w_eval.types import Estimate, Stratum

EXACT_ITEMS = 20
_ROUNDING = 1e-9
# single precision: a permuted sum this close to the observed one counts as equal
_ROUNDING_32 = 1e-5
_PAIRS_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Terms:
    """One metric of M models over n items: sums per stratum, arrays (M, n); 0 where missing."""

    models: tuple[str, ...]
    tops: tuple[FloatArray, ...]
    bottoms: tuple[FloatArray, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """First minus second on their common items; `parts` change sign when they are swapped."""

    first: int
    second: int
    difference: float | None
    low: float | None
    high: float | None
    parts: FloatArray
    n_common: int


def pair_tests(estimates: Mapping[str, Estimate]) -> tuple[PairTest, ...]:
    """Every pair of models, p corrected by Holm over all pairs that have common items.

    All estimates must come from one aggregator: same number of strata, weights and scale.
    """
    terms = line_up(estimates)
    numbers = combinations(range(len(terms.models)), 2)
    signs = RandomSigns(terms.tops[0].shape[1])
    tests: list[PairTest] = []
    # in chunks: the parts of all pairs would fill the memory
    while chunk := list(islice(numbers, _PAIRS_AT_ONCE)):
        pairs = [compare_pair(terms, a, b) for a, b in chunk]
        p_values = flip_signs([pair.parts for pair in pairs], signs)
        tests += [_uncorrected(terms, pair, p) for pair, p in zip(pairs, p_values, strict=True)]
    tested = [i for i, test in enumerate(tests) if test.p_value is not None]
    corrected = holm([tests[i].p_value or 0.0 for i in tested])
    for i, p_holm in zip(tested, corrected, strict=True):
        tests[i] = replace(tests[i], p_holm=p_holm)
    return tuple(tests)


def _uncorrected(terms: Terms, pair: Pair, p_value: float) -> PairTest:
    """A pair's test before the correction; without common items it has no p."""
    names = terms.models[pair.first], terms.models[pair.second]
    p = None if pair.difference is None else p_value
    return PairTest(*names, pair.difference, pair.low, pair.high, p, None, pair.n_common)


def line_up(estimates: Mapping[str, Estimate]) -> Terms:
    """Estimates as arrays over the union of their items, models and items in sorted order."""
    models = tuple(sorted(estimates))
    strata = [estimates[model].strata for model in models]
    names = sorted({name for own in strata for stratum in own for name in _weighed(stratum)})
    index = {name: i for i, name in enumerate(names)}
    first = estimates[models[0]]
    n_strata = len(first.strata)
    tops = [np.zeros((len(models), len(names))) for _ in range(n_strata)]
    bottoms = [np.zeros((len(models), len(names))) for _ in range(n_strata)]
    for m, own in enumerate(strata):
        for s, stratum in enumerate(own):
            for name, (top, bottom) in cluster_sums(stratum).rows.items():
                tops[s][m, index[name]] = top
                bottoms[s][m, index[name]] = bottom
    return Terms(
        models,
        tuple(tops),
        tuple(bottoms),
        tuple(stratum.weight * first.scale for stratum in first.strata),
    )


def _weighed(stratum: Stratum) -> Iterator[str]:
    """The items that `cluster_sums` keeps."""
    terms = zip(stratum.clusters, stratum.numerators, stratum.denominators, strict=True)
    return (name for name, top, bottom in terms if top or bottom)


def compare_pair(terms: Terms, a: int, b: int) -> Pair:
    """One pair: difference of ratios, t interval from the jackknife, flippable parts."""
    n = terms.tops[0].shape[1]
    n_strata = len(terms.weights)
    parts, moves, weights = np.zeros(n), np.zeros((n_strata, n)), np.zeros((n_strata, n))
    masks = [(below[a] > 0) & (below[b] > 0) for below in terms.bottoms]
    shared = np.logical_or.reduce(masks)
    if not all(mask.any() for mask in masks):
        return Pair(a, b, None, None, None, np.zeros(0), int(shared.sum()))
    difference = 0.0
    for s, mask in enumerate(masks):
        top, below = terms.tops[s][:, mask], terms.bottoms[s][:, mask]
        sums = below[a].sum(), below[b].sum()
        ratios = top[a].sum() / sums[0], top[b].sum() / sums[1]
        difference += terms.weights[s] * float(ratios[0] - ratios[1])
        pooled = (top[a].sum() + top[b].sum()) / (sums[0] + sums[1])
        for sign, model, total, ratio in ((1, a, sums[0], ratios[0]), (-1, b, sums[1], ratios[1])):
            weight = sign * terms.weights[s]
            weights[s, mask] += abs(weight) * below[model] / total
            parts[mask] += weight / total * (top[model] - pooled * below[model])
            moves[s, mask] += weight * _jackknife(top[model], below[model], total, ratio)
    blocks = []
    for own in _linked_strata(masks):
        shown = np.logical_or.reduce([masks[s] for s in own])
        blocks.append((moves[own].sum(axis=0)[shown], weights[own].sum(axis=0)[shown]))
    bounds = _t_interval(difference, blocks)
    return Pair(a, b, difference, *bounds, _differing(parts[shared]), int(shared.sum()))


def _linked_strata(masks: Sequence[NDArray[np.bool_]]) -> list[list[int]]:
    """Groups of strata that share items of the pair, which are resampled together."""
    own = np.array(masks, dtype=np.float32)
    shares = own @ own.T > 0
    return linked_groups([frozenset(map(str, np.flatnonzero(row))) for row in shares])


def _jackknife(top: FloatArray, below: FloatArray, total: float, ratio: float) -> FloatArray:
    """(n - 1) / n * (N_c - R D_c) / (D - D_c), as in `resampling`."""
    gap, rest = top - ratio * below, total - below
    moved: FloatArray = np.where(rest > 0, gap / np.where(rest > 0, rest, 1.0), 0.0)
    return moved * (1 - 1 / len(top))


def _t_interval(
    difference: float, blocks: Sequence[tuple[FloatArray, FloatArray]]
) -> tuple[float | None, float | None]:
    """95 % t interval with Satterthwaite's degrees of freedom.

    None if a block has a single item, or all items differ by the same amount. A block holds its
    items' jackknife contributions and weights; items of unequal weight count as fewer (Kish 1965),
    as in `resampling`.
    """
    variances, degrees = [], []
    for moves, weights in blocks:
        if len(moves) < 2:
            return None, None
        own = moves - moves.mean()
        variances.append(len(own) / (len(own) - 1) * float((own**2).sum()))
        effective = float(weights.sum()) ** 2 / float((weights**2).sum())
        degrees.append(max(1.0, effective - 1))
    total = sum(variances)
    if total <= (_ROUNDING * abs(difference)) ** 2:
        return None, None
    df = total**2 / sum(v**2 / n for v, n in zip(variances, degrees, strict=True))
    half = float(stdtrit(df, 0.975)) * math.sqrt(total)
    return difference - half, difference + half


def _differing(parts: FloatArray) -> FloatArray:
    """Drop items that do not differ: flipping them changes nothing."""
    kept: FloatArray = parts[np.abs(parts) > _ROUNDING * np.abs(parts).max(initial=0.0)]
    return kept


class RandomSigns:
    """Random sign patterns over n items, drawn on first use and shared by all pairs."""

    def __init__(self, n_items: int, draws: int = DRAWS) -> None:
        self.draws = draws
        self._shape = (n_items, draws)

    @cached_property
    def table(self) -> NDArray[np.float32]:
        """-1 or 1, array (n_items, draws)."""
        table = np.empty(self._shape, np.float32)
        for start, signs in random_signs(*self._shape):
            table[start : start + len(signs)] = signs
        return table


def flip_signs(parts: Sequence[FloatArray], signs: RandomSigns) -> list[float]:
    """Two-sided p of each pair's sum under random signs of its parts, as `sign_flip_p`."""
    p_values = [
        sign_flip_p(own) if len(own) <= EXACT_ITEMS else hoeffding_bound(own) for own in parts
    ]
    sampled = [
        i
        for i, own in enumerate(parts)
        if len(own) > EXACT_ITEMS and p_values[i] > 1 / (signs.draws + 1)
    ]
    if not sampled:
        return p_values
    table = np.zeros((max(len(parts[i]) for i in sampled), len(sampled)), np.float32)
    for column, i in enumerate(sampled):
        table[: len(parts[i]), column] = np.sort(np.abs(parts[i]))
    observed = np.array([abs(math.fsum(parts[i])) for i in sampled], np.float32)
    rounding = _ROUNDING_32 * table.sum(axis=0)
    sums = np.abs(signs.table[: len(table)].T @ table)
    # equal sums count one half, the observed pattern whole
    counts = (sums > observed + rounding).sum(axis=0) / 2 + 1
    counts += (sums >= observed - rounding).sum(axis=0) / 2
    for i, count in zip(sampled, counts.tolist(), strict=True):
        p_values[i] = min(p_values[i], count / (signs.draws + 1))
    return p_values
