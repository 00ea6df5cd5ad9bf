"""Precision and recall of references; share of cited statements that their source supports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from r2w_eval.estimates import as_headline, mean_of, pooled
from r2w_eval.types import Estimate, ItemVerdicts, Mode, Score


@dataclass(frozen=True, slots=True)
class References:
    """Titles of one report: how many it names, the expert names, both name."""

    sample_id: str
    named: int
    wanted: int
    common: int

    @property
    def precision(self) -> float:
        """Share of the named titles that the expert has; 0 without any."""
        return self.common / self.named if self.named else 0.0

    @property
    def recall(self) -> float:
        """Share of the expert's titles that are named."""
        return self.common / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 when nothing is common."""
        return 2 * self.common / (self.named + self.wanted) if self.common else 0.0


def read_references(item: ItemVerdicts, mode: Mode) -> References | None:
    """None for a report of which no page could be asked about (upstream leaves it out), and in
    strict mode for one with a lost verdict. A report at the floor names nothing.
    """
    if item.at_floor:
        return References(item.sample_id, 0, len(set(item.meta["references"])), 0)
    verdicts = _of_stage(item, "reference")
    if not verdicts or (mode is Mode.STRICT and any(score.value is None for score in verdicts)):
        return None
    named = {score.parts["title_key"] for score in verdicts if "title_key" in score.parts}
    wanted = set(item.meta["references"])
    return References(item.sample_id, len(named), len(wanted), len(named & wanted))


def read_matches(item: ItemVerdicts, mode: Mode) -> list[float] | None:
    """Whether each cited statement fits its passage, where both were read.

    None if the statements are unknown; in strict mode also if a verdict is lost.
    """
    cited = _of_stage(item, "cited")
    repeats = [len(own) for name, own in item.scores.items() if name.startswith("cited:")]
    matches = _of_stage(item, "match", max(repeats, default=1) - 1)
    lost = [score for score in (*cited, *matches) if score.value is None]
    if not cited or all(score.value is None for score in cited) or (lost and mode is Mode.STRICT):
        return None
    return [score.value for score in matches if score.value is not None]


def _of_stage(item: ItemVerdicts, stage: str, least: int = 0) -> list[Score]:
    """The last verdict on each question of a stage that has more than `least` of them."""
    named = item.scores.items()
    return [own[-1] for name, own in named if name.startswith(f"{stage}:") and len(own) > least]


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """References macro (over reports) and micro (titles pooled); cited statements likewise."""
    found = [read for item in items if (read := read_references(item, mode))]
    return [*_references(found, len(items)), *_statements(items, mode)]


def _references(found: Sequence[References], n: int) -> Iterable[Estimate]:
    yield as_headline(mean_of("precision", [(r.sample_id, r.precision) for r in found], n))
    yield mean_of("recall", [(r.sample_id, r.recall) for r in found], n)
    yield mean_of("f1", [(r.sample_id, r.f1) for r in found], n)
    yield _ratio("precision:micro", [(r.sample_id, r.common, r.named) for r in found], n)
    yield _ratio("recall:micro", [(r.sample_id, r.common, r.wanted) for r in found], n)
    both = [(r.sample_id, 2 * r.common, r.named + r.wanted) for r in found]
    yield _ratio("f1:micro", both, n)
    count = mean_of("references", [(r.sample_id, float(r.named)) for r in found], n)
    yield replace(count, bounded=False, note="different titles of papers a report")


def _ratio(name: str, rows: Sequence[tuple[str, int, int]], n_expected: int) -> Estimate:
    estimate = pooled(name, [(sample, []) for sample, _, _ in rows], n_expected)
    (stratum,) = estimate.strata
    return replace(
        estimate,
        strata=(
            replace(
                stratum,
                numerators=tuple(float(top) for _, top, _ in rows),
                denominators=tuple(float(bottom) for _, _, bottom in rows),
            ),
        ),
    )


def _statements(items: Sequence[ItemVerdicts], mode: Mode) -> Iterable[Estimate]:
    known = [(i.sample_id, matches) for i in items if (matches := read_matches(i, mode))]
    yield pooled("cited_match_rate", known, len(items), note="over all statements with a page")
    rates = [(sample, sum(matches) / len(matches)) for sample, matches in known]
    yield mean_of("cited_match_rate:macro", rates, len(items), note="mean of the reports' rates")
