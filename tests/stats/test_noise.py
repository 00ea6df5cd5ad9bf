"""Variance components against dense matrices and the ANOVA table, advice against differences."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from r2w_eval.errors import UsageError
from r2w_eval.stats.noise import (
    Advice,
    JudgeSplit,
    NoiseSplit,
    Observation,
    Prices,
    advise,
    judge_split,
    noise_split,
    variance_components,
)

Matrix = NDArray[np.float64]


def dense(values: list[float], factors: dict[str, list[str]]) -> dict[str, float]:
    """Henderson's first method with the projections written out; no factor repeats another."""
    y, n = np.array(values) - np.mean(values), len(values)
    designs = {
        name: np.array([[float(own == level) for level in sorted(set(labels))] for own in labels])
        for name, labels in factors.items()
    }
    designs["residual"] = np.eye(n)

    def projection(design: Matrix) -> Matrix:
        found: Matrix = design @ np.linalg.inv(design.T @ design) @ design.T
        return found

    mean = projection(np.ones((n, 1)))
    expected = [
        [np.trace((projection(rows) - mean) @ cols @ cols.T) for cols in designs.values()]
        for rows in designs.values()
    ]
    sums = [y @ projection(rows) @ y for rows in designs.values()]
    return dict(zip(designs, np.linalg.solve(expected, sums), strict=True))


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_components_of_unbalanced_rows_are_hendersons(seed: int) -> None:
    draw = random.Random(seed)
    rows = [(i, s, r) for i in range(4) for s in range(3) for r in range(2)]
    kept = [row for row in rows if draw.random() < 0.8 or row < (1, 0, 0)]
    values = [draw.gauss(0, 1) + item for item, _, _ in kept]
    factors = {"item": [f"{i}" for i, _, _ in kept], "sample": [f"{i}.{s}" for i, s, _ in kept]}
    if len(set(factors["item"])) in (1, len(kept)) or len(set(factors["sample"])) == len(kept):
        return
    if len(set(factors["sample"])) == len(set(factors["item"])):
        return
    assert variance_components(values, factors) == pytest.approx(dense(values, factors))


def balanced(
    seed: int, n_items: int, samples: int, repeats: int
) -> tuple[Matrix, list[Observation]]:
    values = np.random.default_rng(seed).normal(size=(n_items, samples, repeats))
    values += np.arange(n_items)[:, None, None] + np.arange(samples)[:, None] % 2
    return values, [
        Observation(f"q{i}", float(values[i, s, r]), s)
        for i in range(n_items)
        for s in range(samples)
        for r in range(repeats)
    ]


@pytest.mark.parametrize(("samples", "repeats"), [(2, 2), (3, 2), (2, 4)])
def test_a_balanced_split_is_the_anova_table(samples: int, repeats: int) -> None:
    values, rows = balanced(1, 5, samples, repeats)
    within = values.var(axis=2, ddof=1).mean()
    between = values.mean(axis=2).var(axis=1, ddof=1).mean()
    items = values.mean(axis=(1, 2)).var(ddof=1)
    split = noise_split(rows)
    assert split.var_repeat == pytest.approx(within)
    assert split.var_sample == pytest.approx(between - within / repeats)
    assert split.var_item == pytest.approx(items - between / samples)
    assert (split.n_items, split.samples_per_item) == (5, pytest.approx(samples))
    assert split.repeats_per_sample == pytest.approx(repeats)
    assert split.standard_error == pytest.approx(math.sqrt(items / 5))
    assert split.judge_noise_share == pytest.approx(within / (samples * repeats) / items)


def test_work_per_item_is_averaged_so_that_the_noise_of_the_mean_is_right() -> None:
    counts = {"a": [1, 2], "b": [4], "c": [2, 2, 3]}
    rows = [
        Observation(item, float(len(item) + k * s + ord(item)), s)
        for item, own in counts.items()
        for s, n in enumerate(own)
        for k in range(n)
    ]
    split = noise_split(rows)
    assert split.samples_per_item == pytest.approx(3 / (1 / 2 + 1 + 1 / 3))
    noise = fmean(sum(1 / n for n in own) / len(own) ** 2 for own in counts.values())
    assert 1 / (split.samples_per_item * split.repeats_per_sample) == pytest.approx(noise)


def test_what_the_rows_cannot_separate_is_none() -> None:
    _, once = balanced(2, 4, 3, 1)
    split = noise_split(once)
    assert split.var_repeat is None and split.var_sample is not None
    assert split.judge_noise_share is None and split.clipped[2] == 0
    _, single = balanced(2, 4, 1, 3)
    assert noise_split(single).var_sample is None and noise_split(single).var_repeat is not None
    _, bare = balanced(2, 4, 1, 1)
    alone = noise_split(bare)
    assert (alone.var_sample, alone.var_repeat) == (None, None) and alone.var_item > 0
    for rows in ([], once[:3]):
        with pytest.raises(UsageError, match=rf"{len(rows) // 3} scored item\(s\)"):
            noise_split(rows)
        with pytest.raises(UsageError, match="at least 2 items"):
            judge_split(rows)


def test_two_items_are_enough_and_no_noise_has_no_share() -> None:
    rows = [Observation(item, value) for item, value in (("a", 1.0), ("b", 2.0)) for _ in "xy"]
    split = noise_split(rows)
    assert (split.var_item, split.var_repeat) == (pytest.approx(0.5), pytest.approx(0))
    assert judge_split([replace(row, judge=row.item) for row in rows]).var_judge is None
    flat = noise_split([replace(row, value=3.0) for row in rows])
    two = [replace(row, value=3.0, judge=judge) for row in rows for judge in "pq"]
    assert judge_split(two).var_item == 0
    assert flat.standard_error == 0 and flat.judge_noise_share is None


def test_judges_on_the_same_items_are_split_by_their_two_ways() -> None:
    noise = np.random.default_rng(5).normal(size=(6, 3, 2))
    values = noise + np.arange(6)[:, None, None] + 2 * np.arange(3)[:, None]
    rows = [
        Observation(f"q{i}", float(values[i, j, r]), judge=f"j{j}")
        for i in range(6) for j in range(3) for r in range(2)
    ]  # fmt: skip
    items = [row.item for row in rows]
    judges = [row.judge for row in rows]
    both = [f"{item} {judge}" for item, judge in zip(items, judges, strict=True)]
    own = dense([row.value for row in rows], {"item": items, "judge": judges, "item_judge": both})
    found = judge_split(rows)
    wanted = JudgeSplit(own["item"], own["judge"], own["item_judge"], own["residual"], 6, 3)
    for name in ("var_item", "var_judge", "var_item_judge", "var_repeat", "n_items", "n_judges"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name))
    assert found.var_repeat == pytest.approx(values.var(axis=2, ddof=1).mean())


SPLIT = NoiseSplit(2.0, 0.7, 0.3, 40, 2.0, 3.0)


def squared_error(n: float, samples: float, repeats: float) -> float:
    return (2.0 + 0.7 / samples + 0.3 / (samples * repeats)) / n


def test_terms_and_advice_are_the_derivatives_of_the_squared_error() -> None:
    assert SPLIT.standard_error**2 == pytest.approx(squared_error(40, 2, 3))
    prices = Prices(item=5.0, sample=2.0, repeat=0.5)
    step, at = 1e-4, (40.0, 2.0, 3.0)
    falls = []
    for k in range(3):
        more, less = (tuple(x + d * (k == i) for i, x in enumerate(at)) for d in (step, -step))
        falls.append((squared_error(*less) - squared_error(*more)) / (2 * step))
    # one more item is two answers with three verdicts each; one more sample is one for each item
    costs = (5 + 2 * (2 + 3 * 0.5), 40 * (2 + 3 * 0.5), 40 * 2 * 0.5)
    found = advise(SPLIT, prices)
    got = (found.per_item, found.per_sample, found.per_repeat)
    assert got == pytest.approx([fall / cost for fall, cost in zip(falls, costs, strict=True)])
    cheap = advise(SPLIT, Prices(item=5e-3, sample=2e-3, repeat=5e-4))
    assert (cheap.per_item, cheap.per_repeat) == pytest.approx((1e3 * got[0], 1e3 * got[2]))


def test_what_costs_nothing_and_helps_is_worth_everything() -> None:
    free = advise(SPLIT, Prices(0, 0, 0))
    assert (free.per_item, free.per_sample, free.per_repeat) == (math.inf,) * 3
    sure = advise(NoiseSplit(0.0, -1.0, None, 4, 1.0, 1.0), Prices(0, 0, 0))
    assert (sure.per_item, sure.per_sample, sure.per_repeat) == (0.0, 0.0, 0.0)
    assert NoiseSplit(-1.0, 0.5, None, 4, 1.0, 1.0).clipped == (0.0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("gains", "best", "on_same"),
    [((3, 2, 1), "items", "samples"), ((1, 3, 2), "samples", "samples"),
     ((1, 2, 3), "repeats", "repeats"), ((0, 2, 2), "samples", "samples")],
)  # fmt: skip
def test_the_best_purchase_gains_most(
    gains: tuple[float, float, float], best: str, on_same: str
) -> None:
    advice = Advice(*gains)
    assert (advice.best, advice.best_on_same_items) == (best, on_same)


def test_queries_with_a_single_verdict_each_leave_nothing_to_split_further() -> None:
    """What is left when each answer lost the verdicts of all judges but one."""
    rows = [Observation("a", 3.0, judge="x"), Observation("b", 5.0, judge="y")]
    split = judge_split([*rows, Observation("c", 6.0, judge="x")])
    assert (split.var_item_judge, split.var_repeat) == (None, None)
    assert np.isfinite(split.var_item) and split.var_judge is not None
