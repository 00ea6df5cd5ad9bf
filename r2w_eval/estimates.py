"""The averages that all scores are made of, as `Estimate`s: means of items, and pooled values.

The order of the terms is kept, so that a published figure is reproduced to its last digit by
summing in upstream's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from r2w_eval.types import Estimate, ItemVerdicts, Stratum

# how notes of figures begin of which more is not always better
AS_WRITTEN = "as written by the judge"
WORDS = "words"
# how they end where there is something to say of the interval
ALIKE = "all queries score alike: the interval says nothing"
SINGLE = "no interval: a single query in the set or in one of its strata"


def mean_of(
    name: str, values: Iterable[tuple[str, float]], n_expected: int, *, note: str = ""
) -> Estimate:
    """Plain mean of one value per item; pairs are (cluster, value)."""
    pairs = list(values)
    stratum = Stratum(
        tuple(cluster for cluster, _ in pairs),
        tuple(value for _, value in pairs),
        (1.0,) * len(pairs),
    )
    return Estimate(name, (stratum,), n_expected, note=note)


def share_of(
    name: str, values: Iterable[tuple[str, float]], n_expected: int, *, note: str = ""
) -> Estimate:
    """Plain mean of outcomes between 0 and 1, by cluster: its interval stays between 0 and 1."""
    return replace(mean_of(name, values, n_expected, note=note), is_share=True)


def pooled(
    name: str, values: Iterable[tuple[str, Sequence[float]]], n_expected: int, *, note: str = ""
) -> Estimate:
    """Micro mean: all single values of all items in one pot; pairs are (cluster, values)."""
    pairs = list(values)
    stratum = Stratum(
        tuple(cluster for cluster, _ in pairs),
        tuple(float(sum(own)) for _, own in pairs),
        tuple(float(len(own)) for _, own in pairs),
    )
    return Estimate(name, (stratum,), n_expected, note=note)


def group_means(
    title: str,
    group_of: Callable[[ItemVerdicts], str],
    items: Iterable[ItemVerdicts],
    scored: Sequence[tuple[ItemVerdicts, float]],
) -> list[Estimate]:
    """One mean per group, named `title/group`, in order of first appearance among all items."""
    expected = Counter(group_of(item) for item in items)
    return [
        mean_of(
            f"{title}/{name}",
            [(item.sample_id, value) for item, value in scored if group_of(item) == name],
            n,
        )
        for name, n in expected.items()
    ]


def criterion_means(
    title: str,
    names: Iterable[str],
    verdicts: Sequence[tuple[str, Mapping[str, float]]],
    n_expected: int,
) -> list[Estimate]:
    """One mean per criterion, named `title/criterion`, of values as the judge wrote them; pairs
    are (cluster, values by name).
    """
    return [
        mean_of(
            f"{title}/{name}",
            [(cluster, values[name]) for cluster, values in verdicts if name in values],
            n_expected,
            note=f"{AS_WRITTEN}: of a fault, low is good",
        )
        for name in names
    ]


def as_headline(estimate: Estimate) -> Estimate:
    """The same estimate, marked as the figure that stands for the suite."""
    return replace(estimate, is_headline=True)
