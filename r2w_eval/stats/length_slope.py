"""How scores go with length: points per doubling, with an interval over items (harness B2).

A slope is a ratio of sums over items, so that its interval is the one of every other metric.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from r2w_eval.errors import UsageError
from r2w_eval.stats.inference import measure
from r2w_eval.types import Estimate, Metric, Stratum


@dataclass(frozen=True, slots=True)
class LengthPoint:
    """Score and length of one answer; length in any unit above 0 (characters, words, tokens)."""

    item: str
    score: float
    length: float


def length_slope(points: Iterable[LengthPoint]) -> Metric:
    """Points per doubling of length inside an item, interval clustered by item (B2).

    Regression of score on log2(length) with one intercept per item.
    """
    groups = _by_item(points)
    moments = {item: _moments(own, *_centre(own)) for item, own in groups.items()}
    return _slope(moments)


def overall_length_slope(points: Iterable[LengthPoint]) -> Metric:
    """Points per doubling of length over all answers, interval clustered by item.

    Regression of score on log2(length) with one intercept: what a single run shows. Items that ask
    for long texts and are easy pass for length in it; `length_slope` takes them out.
    """
    groups = _by_item(points)
    centre = _centre([point for own in groups.values() for point in own])
    return _slope({item: _moments(own, *centre) for item, own in groups.items()})


def _by_item(points: Iterable[LengthPoint]) -> dict[str, list[LengthPoint]]:
    groups: defaultdict[str, list[LengthPoint]] = defaultdict(list)
    for point in points:
        if point.length <= 0:
            raise UsageError(
                f"length {point.length} of item {point.item!r}: only lengths above 0 have a "
                "logarithm; leave empty answers out"
            )
        groups[point.item].append(point)
    return dict(sorted(groups.items()))


def _slope(moments: dict[str, tuple[float, float]]) -> Metric:
    usable = {item: own for item, own in moments.items() if own[1] > 0}
    stratum = Stratum(
        tuple(usable),
        tuple(own[0] for own in usable.values()),
        tuple(own[1] for own in usable.values()),
    )
    return measure(Estimate("length_slope", (stratum,), len(moments)))


def _centre(points: Sequence[LengthPoint]) -> tuple[float, float]:
    """Mean of log2(length) and of the scores."""
    n = max(1, len(points))
    return (
        math.fsum(math.log2(point.length) for point in points) / n,
        math.fsum(point.score for point in points) / n,
    )


def _moments(points: Sequence[LengthPoint], centre: float, level: float) -> tuple[float, float]:
    """Sums of (x - centre)(y - level) and (x - centre)^2 with x = log2(length)."""
    gaps = [math.log2(point.length) - centre for point in points]
    return (
        math.fsum(gap * (p.score - level) for gap, p in zip(gaps, points, strict=True)),
        math.fsum(gap * gap for gap in gaps),
    )
