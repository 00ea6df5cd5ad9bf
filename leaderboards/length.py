"""The effect of answer length on a board's scores, and scores adjusted to equal length.

score(m, i) = system m + item i + slope * log2(characters), fitted by least squares over all scored
answers of a board. The fixed effects for systems and items keep hard prompts and good systems from
looking like an effect of length. The interval is clustered by item, with residuals enlarged for the
leverage of their item (HC3; Long & Ervin 2000); null baselines are left out. (Specification:
harness B2; cf. AlpacaEval's length-controlled win rate, Dubois et al. 2024.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from r2w_eval.stats.resampling import FloatArray

# in doublings, a standard deviation: a slope from lengths more alike than these is extrapolated
MIN_SPREAD = 0.1
_ROUNDS = 200
_CONVERGED = 1e-10
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class ScoredItems:
    """One system's scored items; arrays of shape (n,), lengths as log2 of the mean characters."""

    items: tuple[str, ...]
    values: FloatArray
    log2_chars: FloatArray


@dataclass(frozen=True, slots=True)
class LengthSlope:
    """Score units per doubling of the answer's length, with a 95 % interval."""

    per_doubling: float
    low: float
    high: float
    mean_log2: float
    """Mean of log2(characters) over the answers of the fit: the length adjusted to."""
    n_items: int
    """Items that two systems or more answered: one alone says nothing of an item."""
    n_systems: int


def fit_slope(scores: Mapping[str, ScoredItems]) -> LengthSlope | None:
    """Slope over all systems; None for under two of them, under three items that two answered, or
    lengths too alike.
    """
    own = [scores[system] for system in sorted(scores) if scores[system].items]
    index = {item: i for i, item in enumerate(sorted({item for s in own for item in s.items}))}
    n_systems = len(own)
    if n_systems < 2:
        return None
    systems = np.repeat(np.arange(n_systems), [len(s.items) for s in own])
    groups = (systems, np.array([index[item] for s in own for item in s.items]))
    log2 = np.concatenate([s.log2_chars for s in own])
    x = _remove_means(log2, groups)
    y = _remove_means(np.concatenate([s.values for s in own]), groups)
    spread = float(x @ x)
    if spread < len(x) * MIN_SPREAD**2:
        return None
    slope = float(x @ y) / spread
    per_item = np.bincount(groups[1], x * (y - slope * x))
    leverage = np.bincount(groups[1], x * x) / spread
    shared = np.bincount(groups[1]) > 1
    n_items = int(shared.sum())
    if n_items < 3:
        return None
    # what the item takes of the slope, and of the means of the systems
    left = np.maximum(1 - leverage[shared] - 1 / n_items, _ROUNDING)
    moved = per_item[shared] / left
    variance = (n_items - 1) / n_items * float(moved @ moved) / spread**2
    half = float(stdtrit(n_items - 2, 0.975)) * math.sqrt(variance)
    return LengthSlope(slope, slope - half, slope + half, float(log2.mean()), n_items, n_systems)


def adjust(value: float, scored: ScoredItems, slope: LengthSlope) -> float | None:
    """The value that the fit gives to answers of the board's mean length."""
    if not scored.items:
        return None
    return value - slope.per_doubling * (float(scored.log2_chars.mean()) - slope.mean_log2)


def _remove_means(values: FloatArray, groups: Sequence[NDArray[np.int_]]) -> FloatArray:
    """Residuals after taking out group means, in turn until nothing moves (Gauss-Seidel)."""
    residual: FloatArray = values - values.mean()
    for _ in range(_ROUNDS):
        before = residual
        for group in groups:
            means = np.bincount(group, residual) / np.bincount(group)
            residual = residual - means[group]
        if float(np.abs(residual - before).max()) < _CONVERGED:
            break
    return residual
