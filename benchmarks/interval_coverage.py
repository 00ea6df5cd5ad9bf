"""Do the 95 % intervals hold the truth 95 % of the time, and is the paired test honest?

Simulates suites with a known mean (discrete, skewed, ceiling, clustered, pooled, stratified), puts
`r2w_eval.stats` to work on each and counts (harness A1, A2). Prints tables and writes
benchmarks/results/interval_coverage.json. Run: python benchmarks/interval_coverage.py
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from r2w_eval.stats.inference import all_intervals, compare_scores, measure
from r2w_eval.stats.resampling import Interval
from r2w_eval.store import write_json
from r2w_eval.types import Estimate, Stratum

Generator = np.random.Generator
METHODS = ("default", "bootstrap_t", "bca", "percentile", "t")
# Fewer draws than the 10,000 of a report: the simulation's own error is larger than the difference.
DRAWS = 1_000
LABELS = np.arange(1.0, 11.0)
DISCRETE = np.array([1, 1, 2, 4, 7, 12, 22, 30, 16, 5]) / 100
CEILING = np.array([2, 1, 1, 1, 2, 3, 5, 10, 15, 60]) / 100
STRATA_WEIGHTS = (0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of simulated runs, in percent; `runs` gives their precision."""

    distribution: str
    n: int
    runs: int
    covered: dict[str, float]
    """Interval holds the true mean, by method."""
    missed_low: float
    """Default interval lies wholly below the truth."""
    missed_high: float
    """Default interval lies wholly above the truth."""


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """Share of runs, in percent, in which two equal models differed at the 5 % level."""

    distribution: str
    n: int
    runs: int
    permutation: float
    """Sign-flip p <= .05."""
    interval: float
    """Interval of the difference leaves 0 out."""
    bootstrap: float
    """Percentile bootstrap interval of the difference leaves 0 out."""


@dataclass(frozen=True, slots=True)
class Case:
    """A way to draw suites with a known true value."""

    truth: float
    draw: Callable[[Generator, int], Estimate]


def mean_over(clusters: list[str], values: np.ndarray) -> Estimate:
    """The estimate of a plain mean of values, one or more per cluster."""
    stratum = Stratum(tuple(clusters), tuple(values.tolist()), (1.0,) * len(values))
    return Estimate("mean", (stratum,), len(values))


def names(n: int) -> list[str]:
    """Ids of `n` items."""
    return [f"q{i}" for i in range(n)]


def of_labels(shares: np.ndarray) -> Case:
    """One integer score 1 to 10 per item."""
    return Case(
        float(shares @ LABELS),
        lambda rng, n: mean_over(names(n), rng.choice(LABELS, size=n, p=shares)),
    )


def skewed(rng: Generator, n: int) -> Estimate:
    """Exponential penalties: the hardest shape that a score list shows (skewness 2)."""
    return mean_over(names(n), rng.exponential(1.0, size=n))


def bounded(rng: Generator, n: int) -> Estimate:
    """Continuous scores between 0 and 1, mean .6."""
    return mean_over(names(n), rng.beta(3.0, 2.0, size=n))


def clustered(rng: Generator, n: int) -> Estimate:
    """Three samples per item; half of the variance is between items."""
    items = rng.normal(7.0, 1.0, size=(n, 1))
    values = items + rng.normal(0.0, 1.0, size=(n, 3))
    return mean_over([name for name in names(n) for _ in range(3)], values.ravel())


def pooled(rng: Generator, n: int) -> Estimate:
    """Micro mean of pass rates: 1 to about 60 checks per report, rates differ between reports."""
    checks = 1 + rng.negative_binomial(2, 0.15, size=n)
    passed = rng.binomial(checks, rng.beta(6.0, 2.0, size=n))
    stratum = Stratum(tuple(names(n)), tuple(map(float, passed)), tuple(map(float, checks)))
    return Estimate("pooled", (stratum,), n)


def stratified(rng: Generator, n: int) -> Estimate:
    """Four domains with own means and weights, n / 4 items each."""
    strata = []
    for index, weight in enumerate(STRATA_WEIGHTS):
        values = 6.0 + index + rng.choice(LABELS - float(DISCRETE @ LABELS), n // 4, p=DISCRETE)
        clusters = tuple(f"{index}/{name}" for name in names(n // 4))
        strata.append(Stratum(clusters, tuple(values.tolist()), (1.0,) * len(values), weight))
    return Estimate("weighted", tuple(strata), n)


def passes(rng: Generator, n: int) -> Estimate:
    """Pass or fail with 90 % passes."""
    return replace(mean_over(names(n), (rng.random(n) < 0.9).astype(float)), is_share=True)


CASES: dict[str, Case] = {
    "discrete 1-10": of_labels(DISCRETE),
    "ceiling (60 % at 10)": of_labels(CEILING),
    "skewed (exponential)": Case(1.0, skewed),
    "bounded (beta)": Case(0.6, bounded),
    "3 samples per item": Case(7.0, clustered),
    "pooled ratio": Case(0.75, pooled),
    "4 weighted strata": Case(sum(w * (6 + i) for i, w in enumerate(STRATA_WEIGHTS)), stratified),
    "pass rate 90 %": Case(0.9, passes),
}
PAIRED = ("discrete 1-10", "mean of 5 criteria", "ceiling (60 % at 10)", "skewed (lognormal)")
RUNS = {8: 2000, 20: 3000, 50: 2000, 200: 2000, 1000: 1000}


def coverage(name: str, n: int, runs: int, seed: int) -> Coverage:
    """Share of runs whose interval holds the truth, for every method."""
    case, rng = CASES[name], np.random.default_rng(seed)
    hits = dict.fromkeys(METHODS, 0)
    below = above = 0
    for run in range(runs):
        estimate = case.draw(rng, n)
        bounds = all_intervals(estimate, DRAWS, seed=run)
        shown = measure(estimate, DRAWS, seed=run) if estimate.is_share else None
        if bounds is None:
            raise RuntimeError(f"{name}: no interval at n = {n}")
        default = bounds.default
        if shown is not None and shown.low is not None and shown.high is not None:
            default = Interval(shown.low, shown.high)
        by_method: dict[str, Interval] = {
            "default": default,
            "bootstrap_t": bounds.bootstrap_t,
            "bca": bounds.bca,
            "percentile": bounds.percentile,
            "t": bounds.t,
        }
        for method, interval in by_method.items():
            # Rounding of an all-equal sample must not decide.
            hits[method] += interval.low - 1e-9 <= case.truth <= interval.high + 1e-9
        below += default.high < case.truth
        above += default.low > case.truth
    shares = {method: percent(count, runs) for method, count in hits.items()}
    return Coverage(name, n, runs, shares, percent(below, runs), percent(above, runs))


def false_positives(name: str, n: int, runs: int, seed: int) -> FalsePositives:
    """Two models with the same score distribution per item, correlated through the item."""
    rng = np.random.default_rng(seed)
    rejected = excluded = outside = 0
    for run in range(runs):
        first, second = paired_scores(rng, name, n)
        items = names(n)
        result = compare_scores(
            dict(zip(items, first.tolist(), strict=True)),
            dict(zip(items, second.tolist(), strict=True)),
            DRAWS,
            seed=run,
        )
        plain = result.bootstrap
        if result.p_value is None or result.low is None or result.high is None or plain is None:
            raise RuntimeError(f"{name}: no comparison at n = {n}")
        rejected += result.p_value <= 0.05
        excluded += not result.low <= 0.0 <= result.high
        outside += not plain.low <= 0.0 <= plain.high
    shares = (percent(count, runs) for count in (rejected, excluded, outside))
    return FalsePositives(name, n, runs, *shares)


def paired_scores(rng: Generator, name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Equal on average, not on items: item difficulty is shared, noise is not."""
    item = rng.normal(0.0, 1.0, size=(n, 1))
    latent = (item + rng.normal(0.0, 1.0, size=(n, 2))) / math.sqrt(2)
    if name == "discrete 1-10":
        scores = np.clip(np.rint(7.0 + 1.6 * latent), 1, 10)
    elif name == "ceiling (60 % at 10)":
        scores = np.clip(np.rint(10.3 + 2.2 * latent), 1, 10)
    elif name == "mean of 5 criteria":
        noise = rng.normal(0.0, 1.2, size=(n, 2, 5))
        scores = np.clip(np.rint(7.0 + 1.6 * latent[:, :, None] + noise), 1, 10).mean(axis=2)
    else:
        scores = np.exp(latent)
    return scores[:, 0], scores[:, 1]


def percent(count: int, runs: int) -> float:
    """Share in percent, one decimal."""
    return round(100 * count / runs, 1)


def print_tables(covered: list[Coverage], errors: list[FalsePositives]) -> None:
    """Markdown, as in docs/statistics.md."""
    print("| scores | n | " + " | ".join(METHODS) + " | default below / above truth |")
    print("|---" * (len(METHODS) + 3) + "|")
    for row in covered:
        shares = " | ".join(f"{row.covered[method]:.1f}" for method in METHODS)
        print(f"| {row.distribution} | {row.n} | {shares} | {row.missed_low} / {row.missed_high} |")
    print("\n| scores | n | sign-flip p <= .05 | interval leaves 0 out | percentile bootstrap |")
    print("|---|---|---|---|---|")
    for error in errors:
        print(
            f"| {error.distribution} | {error.n} | {error.permutation:.1f} | "
            f"{error.interval:.1f} | {error.bootstrap:.1f} |"
        )


@click.command()
@click.option("--only", multiple=True, help="Only cases whose name contains this.")
@click.option("--items", multiple=True, type=int, help="Only these numbers of items.")
@click.option(
    "--part", type=click.Choice(["coverage", "tests", "all"]), default="all", show_default=True
)
@click.option("--scale", default=1.0, help="Factor on the number of simulated runs.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent / "results" / "interval_coverage.json",
    help="File for the figures.",
)
def main(only: tuple[str, ...], items: tuple[int, ...], part: str, scale: float, out: Path) -> None:
    """Simulate, print, write. With --only, --items or --part the other rows of the file stay."""
    start = time.perf_counter()
    runs = {
        n: max(10, round(count * scale)) for n, count in RUNS.items() if n in items or not items
    }
    cases = [name for name in CASES if wanted(name, only)] if part != "tests" else []
    pairs = [name for name in PAIRED if wanted(name, only)] if part != "coverage" else []
    covered = [coverage(name, n, runs[n], seed=1000 + n) for name in cases for n in runs]
    errors = [
        false_positives(name, n, runs[n], seed=2000 + n) for name in pairs for n in runs if n >= 20
    ]
    print_tables(covered, errors)
    figures = {
        "command": "python benchmarks/interval_coverage.py",
        "draws": DRAWS,
        "coverage": [asdict(row) for row in covered],
        "false_positives": [asdict(row) for row in errors],
    }
    if (only or items or part != "all") and out.exists():
        before = json.loads(out.read_bytes())
        for name, order in (("coverage", list(CASES)), ("false_positives", list(PAIRED))):
            figures[name] = merge(before[name], figures[name], order)
    write_json(out, figures)
    print(f"\n{time.perf_counter() - start:.0f} s; written to {out}")


def wanted(name: str, only: tuple[str, ...]) -> bool:
    """Whether a name contains one of the filters, or there are none."""
    return not only or any(part in name for part in only)


def merge(before: list[Any], now: list[Any], order: list[str]) -> list[Any]:
    """New rows in place of old ones of the same case and number of items."""
    rows = {(row["distribution"], row["n"]): row for row in [*before, *now]}
    return [rows[key] for key in sorted(rows, key=lambda key: (order.index(key[0]), key[1]))]


if __name__ == "__main__":
    main()
