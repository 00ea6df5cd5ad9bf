"""Where the spread of scores comes from: items, samples, judges, repeats - and what to buy next.

In: one `Observation` per verdict. Out: variance components, the share of the judge in the squared
standard error, and which extra work narrows it most; unbalanced data are fine. Harness E3, E4;
Henderson 1953, method 1 (equal to the ANOVA estimator when balanced, unbiased always).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r2w_eval.errors import UsageError

_Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Observation:
    """One scored verdict: the judge's value of one sample of one item, in one repeat."""

    item: str
    value: float
    sample: int = 0
    judge: str = ""


@dataclass(frozen=True, slots=True)
class NoiseSplit:
    """y = mean + item + sample + repeat for one judge; variances in squared score units.

    A component is None when the data cannot tell it apart (no item has two samples, no sample two
    repeats); it is then part of the component above it. Unbiased estimates can be negative.
    """

    var_item: float
    var_sample: float | None
    var_repeat: float | None
    n_items: int
    samples_per_item: float
    """Harmonic mean over items."""
    repeats_per_sample: float
    """Harmonic mean over samples, items weighing alike."""

    @property
    def clipped(self) -> tuple[float, float, float]:
        """Item, sample and repeat variance for further use: negative or unknown ones are 0."""
        return _positive(self.var_item), _positive(self.var_sample), _positive(self.var_repeat)

    @property
    def standard_error(self) -> float:
        """Of the mean over items, from the clipped components."""
        return math.sqrt(sum(self._terms()))

    @property
    def judge_noise_share(self) -> float | None:
        """Share of the squared standard error that repeating verdicts would remove (0 to 1)."""
        total = sum(self._terms())
        if self.var_repeat is None or total == 0:
            return None
        return self._terms()[2] / total

    def _terms(self) -> tuple[float, float, float]:
        item, sample, repeat = self.clipped
        verdicts = self.n_items * self.samples_per_item
        return item / self.n_items, sample / verdicts, repeat / (verdicts * self.repeats_per_sample)


@dataclass(frozen=True, slots=True)
class JudgeSplit:
    """y = mean + item + judge + item x judge + repeat; variances in squared score units.

    `var_judge` is leniency, `var_item_judge` is disagreement about single items. None as above.
    """

    var_item: float
    var_judge: float | None
    var_item_judge: float | None
    var_repeat: float | None
    n_items: int
    n_judges: int


@dataclass(frozen=True, slots=True)
class Prices:
    """Cost of one more of each, in any one unit (money, tokens, seconds)."""

    item: float = 0.0
    """Writing or obtaining one new query; answers and verdicts are priced below."""
    sample: float = 1.0
    """One answer of the writer."""
    repeat: float = 1.0
    """One verdict of the judge on one answer."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Fall of the squared standard error per unit of cost, at the margin, for each kind of work."""

    per_item: float
    per_sample: float
    per_repeat: float

    @property
    def best(self) -> str:
        """What to buy next: items, samples or repeats."""
        gains = {"items": self.per_item, "samples": self.per_sample, "repeats": self.per_repeat}
        return max(gains, key=lambda name: gains[name])

    @property
    def best_on_same_items(self) -> str:
        """What to buy next where the suite's items are given: samples or repeats."""
        return "samples" if self.per_sample >= self.per_repeat else "repeats"


def noise_split(observations: Iterable[Observation]) -> NoiseSplit:
    """Item, sample and repeat variance of one judge's verdicts; needs two items."""
    rows = list(observations)
    counts = _verdict_counts(rows)
    if len(counts) < 2:
        raise UsageError(f"{len(counts)} scored item(s): variance components need at least 2 items")
    parts = variance_components(
        [row.value for row in rows],
        {
            "item": [row.item for row in rows],
            "sample": [(row.item, row.sample) for row in rows],
        },
    )
    samples = _harmonic([len(own) for own in counts.values()])
    # Noise in an item: mean over its samples of 1 / repeats, over the number of samples.
    shares = [sum(1 / n for n in own) / len(own) ** 2 for own in counts.values()]
    return NoiseSplit(
        parts["item"] or 0.0,
        parts["sample"],
        parts["residual"],
        len(counts),
        samples,
        len(shares) / (sum(shares) * samples),
    )


def judge_split(observations: Iterable[Observation]) -> JudgeSplit:
    """Task, judge and repeat variance of several judges on the same items; needs two items."""
    rows = list(observations)
    items, judges = {row.item for row in rows}, {row.judge for row in rows}
    if len(items) < 2:
        raise UsageError(f"{len(items)} scored item(s): variance components need at least 2 items")
    parts = variance_components(
        [row.value for row in rows],
        {
            "item": [row.item for row in rows],
            "judge": [row.judge for row in rows],
            "item_judge": [(row.item, row.judge) for row in rows],
        },
    )
    return JudgeSplit(
        parts["item"] or 0.0,
        parts["judge"],
        parts["item_judge"],
        parts["residual"],
        len(items),
        len(judges),
    )


def variance_components(
    values: Sequence[float], factors: Mapping[str, Sequence[Hashable]]
) -> dict[str, float | None]:
    """Variance of each random factor and of the residual; None where the data cannot tell it.

    Coarse factors first. A factor that splits the rows as an earlier one does, has a single level,
    or has one row per level (it is then the residual, which becomes None) cannot be told apart.
    """
    y = np.asarray(values, dtype=np.float64)
    y = y - y.mean()
    known: dict[str, _Codes] = {}
    partitions: list[_Codes] = [np.zeros(len(y), np.int64)]
    for name, labels in factors.items():
        codes = _codes(labels)
        if not any(_same_partition(codes, other) for other in partitions):
            known[name] = codes
            partitions.append(codes)
    rows = np.arange(len(y))
    is_told = any(_same_partition(own, rows) for own in partitions)
    residual = {} if is_told else {"residual": rows}
    solved = _solve(y, {**known, **residual})
    return {name: solved.get(name) for name in (*factors, "residual")}


def _solve(y: NDArray[np.float64], groupings: Mapping[str, _Codes]) -> dict[str, float]:
    """Equate each uncorrected sum of squares with its expectation under random effects.

    E[sum over g of y_g^2 / n_g] has coefficient sum over g and l of n_gl^2 / n_g for a factor with
    levels l, and N for the squared mean, which the correction term removes (y is centred: it is 0).
    """
    codes = list(groupings.values())
    sums = np.array([_sum_of_squares(y, own) for own in codes])
    whole = np.zeros(len(y), np.int64)
    expected = np.array(
        [[_overlap(rows, cols) - _overlap(whole, cols) for cols in codes] for rows in codes]
    )
    return dict(zip(groupings, np.linalg.solve(expected, sums).tolist(), strict=True))


def _sum_of_squares(y: NDArray[np.float64], codes: _Codes) -> float:
    return float((np.bincount(codes, weights=y) ** 2 / np.bincount(codes)).sum())


def _overlap(groups: _Codes, levels: _Codes) -> float:
    cells, counts = np.unique(groups * (int(levels.max()) + 1) + levels, return_counts=True)
    return float((counts**2 / np.bincount(groups)[cells // (int(levels.max()) + 1)]).sum())


def _codes(labels: Sequence[Hashable]) -> _Codes:
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(label, len(index)) for label in labels], dtype=np.int64)


def _same_partition(first: _Codes, second: _Codes) -> bool:
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    return len(pairs) == len(np.unique(first)) == len(np.unique(second))


def advise(split: NoiseSplit, prices: Prices = Prices()) -> Advice:
    """Derivative of the squared standard error by each number, over the cost of one more.

    SE^2 = (item + sample / G + repeat / (G R)) / Q for Q items, G samples each, R repeats each.
    """
    item, sample, repeat = split.clipped
    n, samples, repeats = split.n_items, split.samples_per_item, split.repeats_per_sample
    answer = prices.sample + repeats * prices.repeat
    within = sample / samples + repeat / (samples * repeats)
    return Advice(
        _per_cost((item + within) / n**2, prices.item + samples * answer),
        _per_cost(within / (n * samples), n * answer),
        _per_cost(repeat / (n * samples * repeats**2), n * samples * prices.repeat),
    )


def _per_cost(gain: float, cost: float) -> float:
    if cost > 0:
        return gain / cost
    return math.inf if gain > 0 else 0.0


def _verdict_counts(rows: Iterable[Observation]) -> dict[str, list[int]]:
    """Verdicts per sample, by item."""
    counts: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        counts[row.item][row.sample] += 1
    return {item: list(own.values()) for item, own in counts.items()}


def _harmonic(counts: Sequence[int]) -> float:
    return len(counts) / sum(1 / count for count in counts)


def _positive(variance: float | None) -> float:
    return max(0.0, variance or 0.0)
