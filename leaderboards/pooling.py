"""Pools several runs of one system into one row.

Items remain the unit of resampling, so that all answers to a prompt are drawn together. Runs are
pooled only on request, and only if system and score key agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from r2w_eval.leaderboards.collect import Entry
from r2w_eval.leaderboards.rows import (
    Evidence,
    ItemColumns,
    Losses,
    Row,
    Tokens,
    measure_headline,
    sign,
)

from r2w_eval.errors import UsageError
from r2w_eval.types import Estimate, Metric, Stratum

T = TypeVar("T")


def pool_entries(entries: Iterable[Entry]) -> list[Entry]:
    """Rows of one system and score key become one; all others stay."""
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.row.system_key, entry.row.score_key].append(entry)
    return [own[0] if len(own) == 1 else _pool_entries(own) for own in groups.values()]


def _pool_entries(entries: Sequence[Entry]) -> Entry:
    return Entry(
        pool([entry.row for entry in entries]),
        tuple(run for entry in entries for run in entry.runs),
        has_raw=all(entry.has_raw for entry in entries),
    )


def pool(rows: Sequence[Row]) -> Row:
    """Pool rows into one. Raises UsageError if systems or score keys differ."""
    first = rows[0]
    if len({(row.system_key, row.score_key) for row in rows}) > 1:
        raise UsageError(
            f"rows of {first.model!r:.100} differ in system or score key and cannot be pooled. "
            f"Try: r2w-eval leaderboard without --pool"
        )
    estimate = pool_estimates([row.estimate for row in rows])
    thinking = [row.tokens.thinking for row in rows if row.tokens.thinking is not None]
    return sign(
        replace(
            first,
            headline=replace(measure_headline(first, estimate), note=f"{len(rows)} runs pooled"),
            metrics=pool_metrics(rows),
            estimate=estimate,
            items=pool_items([row.items for row in rows]),
            losses=Losses(
                *(_sum_counts(getattr(row.losses, f.name) for row in rows) for f in fields(Losses))
            ),
            tokens=Tokens(
                sum(row.tokens.prompt for row in rows),
                sum(row.tokens.completion for row in rows),
                sum(thinking) if thinking else None,
            ),
            judging={**pool_judging([row.judging for row in rows]), "answers": _answers(rows)},
            is_smoke_test=any(row.is_smoke_test for row in rows),
            changed_settings=_distinct(row.changed_settings for row in rows),
            warnings=_distinct(row.warnings for row in rows),
            models_returned=_distinct(row.models_returned for row in rows),
            created=max(row.created for row in rows),
            evidence=Evidence(
                {
                    f"{r.id}/{name}": digest
                    for r in rows
                    for name, digest in r.evidence.files.items()
                }
            ),
            seed=None,
            noise=None,
            reflection=None,
            n_pooled=len(rows),
        )
    )


def pool_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """The terms of all runs in one set of strata; `n_expected` is that of one run."""
    shapes = {tuple(stratum.weight for stratum in e.strata) for e in estimates}
    if len(shapes) > 1:
        raise UsageError("runs of one system have different strata and cannot be pooled")
    strata = tuple(
        Stratum(
            tuple(name for part in parts for name in part.clusters),
            tuple(value for part in parts for value in part.numerators),
            tuple(value for part in parts for value in part.denominators),
            parts[0].weight,
        )
        for parts in zip(*(estimate.strata for estimate in estimates), strict=True)
    )
    expected = max(estimate.n_expected for estimate in estimates)
    return replace(estimates[0], strata=strata, n_expected=expected)


def pool_metrics(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """Means over the runs, weighted by scored items, with conservative intervals."""
    by_name: dict[str, list[Metric]] = defaultdict(list)
    for row in rows:
        for metric in row.metrics:
            by_name[metric.name].append(metric)
    return tuple(_pool_metric(own) for own in by_name.values())


def _pool_metric(metrics: Sequence[Metric]) -> Metric:
    """Weighted mean of a metric over runs; its bounds are the weighted means of their bounds.

    The runs share prompts, and a row does not hold what is needed to compute their correlation. The
    standard error of a mean never exceeds the mean standard error: the bounds are conservative.
    """
    weights = [m.n_scored if m.value is not None else 0 for m in metrics]

    def mean(values: Sequence[float | None]) -> float | None:
        pairs = [(v, w) for v, w in zip(values, weights, strict=True) if w]
        known = [v * w for v, w in pairs if v is not None]
        return sum(known) / sum(weights) if pairs and len(known) == len(pairs) else None

    return replace(
        metrics[0],
        value=mean([m.value for m in metrics]),
        low=mean([m.low for m in metrics]),
        high=mean([m.high for m in metrics]),
        note=f"{len(metrics)} runs pooled; the interval is the mean of theirs",
    )


def pool_items(columns: Sequence[ItemColumns]) -> ItemColumns:
    """All answers, run after run; `repeats` are renumbered so that none occurs twice."""
    step = 1 + max((repeat for own in columns for repeat in own.repeats), default=0)
    joined = {
        f.name: tuple(entry for own in columns for entry in getattr(own, f.name))
        for f in fields(ItemColumns)
    }
    shifted = tuple(r + step * i for i, own in enumerate(columns) for r in own.repeats)
    return ItemColumns(**{**joined, "repeats": shifted})


def pool_judging(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One judge over all runs: counts are added, shares are weighted by usable verdicts.

    Figures that need the single verdicts (disagreement, slopes) are left out.
    """
    n_valid = sum(block["n_valid"] for block in blocks)
    n_total = sum(block["n_total"] for block in blocks)

    def share(name: str) -> float | None:
        known = [(block[name], block["n_valid"]) for block in blocks if block[name] is not None]
        weight = sum(n for _, n in known)
        return sum(value * n for value, n in known) / weight if weight else None

    return {
        "judge": blocks[0].get("judge"),
        "status": "success" if n_valid == n_total else "degraded" if n_valid else "excluded",
        "n_valid": n_valid,
        "n_total": n_total,
        "coverage": n_valid / n_total if n_total else 1.0,
        "n_parsed_first": sum(block["n_parsed_first"] for block in blocks),
        "failures": _sum_counts(block["failures"] for block in blocks),
        "histogram": _sum_counts(block["histogram"] for block in blocks),
        "share_at_floor": share("share_at_floor"),
        "share_at_ceiling": share("share_at_ceiling"),
        "models_returned": _distinct(block["models_returned"] for block in blocks),
    }


def _answers(rows: Iterable[Row]) -> dict[str, int]:
    """Coverage summed over the runs, so that no run makes up for the losses of another."""
    scored = [row.scored for row in rows]
    return {
        "n_scored": sum(own.n_scored for own in scored),
        "n_expected": sum(own.n_expected for own in scored),
    }


def _distinct(parts: Iterable[Iterable[T]]) -> tuple[T, ...]:
    """Distinct values in order of first appearance."""
    return tuple(dict.fromkeys(entry for part in parts for entry in part))


def _sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for own in counts:
        total.update(own)
    return dict(sorted(total.items()))
