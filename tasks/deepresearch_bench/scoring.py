"""RACE's arithmetic (utils/score_calculator.py, deepresearch_bench_race.py), and its averages.

Within a dimension scores are averaged by the weights of the criteria that the judge returned; the
dimensions by those of the task. The value of a report is T / (T + R), its weighted total beside the
reference's: 0.5 for equal texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r2w_eval.tasks.deepresearch_bench.reading import DIMENSIONS, PAIR

from r2w_eval.estimates import as_headline, group_means, mean_of
from r2w_eval.types import Estimate, ItemVerdicts, JudgeStatus, Mode, Score

SINGLE = "target_score"


@dataclass(frozen=True, slots=True)
class Weighted:
    """Weighted means, 0 to 10, of the report and of the reference, by dimension."""

    target: Mapping[str, float]
    reference: Mapping[str, float]
    weights: Mapping[str, float]

    @property
    def totals(self) -> tuple[float, float]:
        """T and R."""
        first, second = (
            sum(means[name] * self.weights[name] for name in means)
            for means in (self.target, self.reference)
        )
        return first, second


def weigh(
    verdict: Mapping[str, Any],
    weights: Mapping[str, float],
    criteria: Mapping[str, Mapping[str, float]],
) -> Weighted:
    """What upstream makes of any verdict; dimensions without a list or a weight are left out."""
    target: dict[str, float] = {}
    reference: dict[str, float] = {}
    last: float | None = None
    for dimension, entries in verdict.items():
        if isinstance(entries, list) and dimension in weights and criteria.get(dimension):
            rows, last = _read_rows(entries, criteria[dimension], last)
            total = sum(weight for weight, _, _ in rows)
            sums = (sum(w * first for w, first, _ in rows), sum(w * s for w, _, s in rows))
            target[dimension] = sums[0] / total if total > 0 else 0.0
            # upstream asks only the last entry whether there is a reference
            reference[dimension] = sums[1] / total if total > 0 and last is not None else 0.0
    return Weighted(target, reference, weights)


def _read_rows(
    entries: Sequence[Any], official: Mapping[str, float], last: float | None
) -> tuple[list[tuple[float, float, float]], float | None]:
    """Weight and both scores of each entry that counts, and the last second score that was read."""
    rows = []
    for entry in entries:
        if not isinstance(entry, dict) or (scores := _read_scores(entry)) is None:
            continue
        first, last = scores
        name = entry.get("criterion")
        if isinstance(name, str) and name.strip() and first is not None:
            rows.append((look_up_weight(name.strip(), official), first, last or 0.0))
    return rows, last


def _read_scores(entry: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    """Both scores; None for an entry whose scores are no numbers."""
    first, second = (entry.get(key) for key in PAIR)
    first = entry.get(SINGLE) if first is None else first
    try:
        return (
            None if first is None else float(first),
            None if second is None else float(second),
        )
    except (ValueError, TypeError, OverflowError):
        return None


def look_up_weight(name: str, official: Mapping[str, float]) -> float:
    """Exact, then without case, then one inside the other, else the mean weight.

    >>> look_up_weight("BREADTH", {"Breadth": 0.4, "Depth": 0.6})
    0.4
    >>> look_up_weight("Style", {"Breadth": 0.4, "Depth": 0.6})
    0.5
    """
    if name in official:
        return official[name]
    low = name.lower()
    for key, weight in official.items():
        if key.lower() == low:
            return weight
    for key, weight in official.items():
        if low in key.lower() or key.lower() in low:
            return weight
    return sum(official.values()) / len(official)


def share(target: float, reference: float) -> float:
    """T / (T + R); 0 where both are nothing, as upstream has it.

    >>> share(6.0, 4.0), share(0.0, 0.0)
    (0.6, 0)
    """
    return target / (target + reference) if target + reference > 0 else 0


def compare_score(weighted: Weighted) -> Score:
    """The value T / (T + R), with the same share for every dimension in `parts`."""
    target, reference = weighted.totals
    shares = {
        name: share(weighted.target[name], weighted.reference[name])
        if name in weighted.target
        else 0.0
        for name in DIMENSIONS
    }
    totals = {"target_total": target, "reference_total": reference}
    return _finite(share(target, reference), {**shares, **totals})


def single_score(weighted: Weighted) -> Score:
    """The value T / 10: with one article the comparison would give 1 to every report."""
    shares = {name: weighted.target.get(name, 0.0) / 10 for name in DIMENSIONS}
    return _finite(weighted.totals[0] / 10, shares)


def _finite(value: float, parts: Mapping[str, float]) -> Score:
    if not all(map(math.isfinite, (value, *parts.values()))):
        return Score(None, JudgeStatus.OUT_OF_RANGE, "NaN or infinite")
    return Score(float(value), parts=dict(parts))


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Means over the tasks that have a score; a lost task is left out, as upstream."""
    scored = [(item, valued) for item in items if (valued := item.valued("score"))]
    means = [(item, sum(value for _, value in own) / len(own)) for item, own in scored]
    pairs = [(item.sample_id, value) for item, value in means]
    overall = mean_of("overall", pairs, len(items))
    return [
        as_headline(overall),
        replace(overall, name="overall_x100", scale=100.0, note="leaderboard scale"),
        *_dimensions(scored, len(items)),
        *group_means("language", lambda item: item.language, items, means),
        *group_means("topic", lambda item: str(item.meta["topic"]), items, means),
    ]


def _dimensions(
    scored: Iterable[tuple[ItemVerdicts, Sequence[tuple[Score, float]]]], n_expected: int
) -> Iterable[Estimate]:
    found = [(item.sample_id, [score.parts for score, _ in own]) for item, own in scored]
    for name in DIMENSIONS:
        known = [(key, [p[name] for p in parts if name in p]) for key, parts in found]
        means = [(key, sum(values) / len(values)) for key, values in known if values]
        if means:
            yield mean_of(name, means, n_expected)
