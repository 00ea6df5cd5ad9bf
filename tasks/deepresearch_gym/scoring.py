"""Key point recall and contradiction, report quality (eval_kpr_async.py, eval_quality_async.py).

Values are shares in [0, 1]; estimates are scaled to upstream's 0 to 100. With several verdicts on a
question its value is their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from r2w_eval.tasks.deepresearch_gym import citations

from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.types import Estimate, ItemVerdicts, Mode, Score

CRITERIA = ("Clarity", "Depth", "Balance", "Breadth", "Support", "Insightfulness")
PAPER_CRITERIA = ("Clarity", "Insightfulness")
PUBLISHED_DIVISOR = "queries without key points count 0, as published"


@dataclass(frozen=True, slots=True)
class Report:
    """One judged answer; None: lost, or not asked."""

    item: ItemVerdicts
    supported: float | None
    contradicted: float | None
    ratings: dict[str, float]

    @property
    def has_points(self) -> bool:
        """Whether the query has key points."""
        return bool(self.item.meta["points"])

    @property
    def quality(self) -> float | None:
        """Mean rating; None unless every criterion has one."""
        return mean_rating(self.ratings, self.item.meta["quality"])


def mean_rating(ratings: dict[str, float], names: Sequence[str]) -> float | None:
    """Mean of the named ratings; None when one is missing.

    >>> mean_rating({"Clarity": 0.8, "Depth": 0.6}, ["Clarity", "Depth"])
    0.7
    """
    if not names or not set(names) <= ratings.keys():
        return None
    return sum(ratings[name] for name in names) / len(names)


def read_report(item: ItemVerdicts) -> Report:
    """Shares of the key points, and the ratings; one lost point loses the query, as upstream."""
    points = [item.scores.get(f"point:{number}", ()) for number in item.meta["points"]]
    named = {name: item.scores.get(f"quality:{name}", ()) for name in item.meta["quality"]}
    rated = {name: _mean(scores, _value) for name, scores in named.items()}
    return Report(
        item,
        _share(points, _value),
        _share(points, _contradicted),
        {name: value for name, value in rated.items() if value is not None},
    )


def _value(score: Score) -> float | None:
    return score.value


def _contradicted(score: Score) -> float | None:
    found = score.parts.get("contradicted")
    return None if score.value is None or found is None else float(found)


def _mean(scores: Iterable[Score], of: Callable[[Score], float | None]) -> float | None:
    values = [value for score in scores if (value := of(score)) is not None]
    return sum(values) / len(values) if values else None


def _share(points: Sequence[Sequence[Score]], of: Callable[[Score], float | None]) -> float | None:
    means = [_mean(scores, of) for scores in points]
    known = [mean for mean in means if mean is not None]
    return sum(known) / len(known) if known and len(known) == len(means) else None


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """KPR, KPC, quality and their variants; citations where a run judged them."""
    reports = [read_report(item) for item in items]
    with_points = sum(report.has_points for report in reports)
    recall, conflict = _supported(reports), _contradictions(reports)
    return [
        as_headline(
            _percent("kpr", recall + _without_points(reports), len(items), PUBLISHED_DIVISOR)
        ),
        _percent("kpr:scored", recall, with_points, "over queries with key points"),
        _percent("kpc", conflict + _without_points(reports), len(items), PUBLISHED_DIVISOR),
        _percent("kpc:scored", conflict, with_points, "over queries with key points"),
        *_quality(reports),
        *_citations(reports, mode),
    ]


def _supported(reports: Iterable[Report]) -> list[tuple[str, float]]:
    return [(r.item.sample_id, r.supported) for r in reports if r.supported is not None]


def _contradictions(reports: Iterable[Report]) -> list[tuple[str, float]]:
    return [(r.item.sample_id, r.contradicted) for r in reports if r.contradicted is not None]


def _without_points(reports: Iterable[Report]) -> list[tuple[str, float]]:
    """Answered queries without key points: upstream adds nothing for them and divides by them."""
    judged = (r for r in reports if r.item.status.cause is None or r.item.scores)
    return [(report.item.sample_id, 0.0) for report in judged if not report.has_points]


def _quality(reports: Sequence[Report]) -> Iterable[Estimate]:
    names = list(dict.fromkeys(name for r in reports for name in r.item.meta["quality"]))
    scored = [(r.item.sample_id, r.quality) for r in reports]
    yield _percent("quality", _known(scored), len(reports))
    paper = [(r.item.sample_id, mean_rating(r.ratings, PAPER_CRITERIA)) for r in reports]
    yield _percent("quality:clarity_insight", _known(paper), len(reports), "as the paper plots")
    for name in names:
        own = _known([(r.item.sample_id, r.ratings.get(name)) for r in reports])
        yield replace(mean_of(f"quality/{name}", own, len(reports)), scale=10.0)


def _citations(reports: Sequence[Report], mode: Mode) -> Iterable[Estimate]:
    """Nothing in a run that did not judge citations."""
    if any("claims" in report.item.scores for report in reports):
        found = [(r, citations.precision(r.item, mode)) for r in reports]
        pairs = _known([(r.item.sample_id, value) for r, value in found])
        yield _percent("citation_precision", pairs, len(reports))
        joined = [(r.item.sample_id, _with_citations(r, value)) for r, value in found]
        note = "precision as one more criterion, as in April 2025"
        yield _percent("quality:with_citations", _known(joined), len(reports), note)
    if any("recall" in report.item.scores for report in reports):
        shares = _known([(r.item.sample_id, citations.recall(r.item)) for r in reports])
        yield _percent("citation_recall", shares, len(reports))


def _with_citations(report: Report, precision: float | None) -> float | None:
    if report.quality is None or precision is None:
        return None
    n = len(report.item.meta["quality"])
    return (report.quality * n + precision) / (n + 1)


def _known(pairs: Iterable[tuple[str, float | None]]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in pairs if value is not None]


def _percent(
    name: str, values: Sequence[tuple[str, float]], n_expected: int, note: str = ""
) -> Estimate:
    return replace(mean_of(name, values, n_expected, note=note), scale=100.0)
