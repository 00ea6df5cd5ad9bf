"""From deductions to points, and the averages over answers (calculate_score of upstream)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from r2w_eval.tasks.discox.aspects import ASPECTS, GATE

from r2w_eval.estimates import as_headline, group_means, mean_of
from r2w_eval.types import Cause, Estimate, ItemVerdicts, Mode

PARTS = {"accuracy": 60, "fluency": 20, "appropriateness": 20}


@dataclass(frozen=True, slots=True)
class Points:
    """What one answer has: accuracy of 60, fluency of 20, appropriateness of 20."""

    accuracy: float
    fluency: float
    appropriateness: float

    @property
    def total(self) -> float:
        """0 to 100."""
        return self.accuracy + self.fluency + self.appropriateness


def calculate(lost: Mapping[str, float]) -> Points:
    """Points from the deductions; wrong check points count against accuracy."""
    return Points(
        max(0.0, 60 - lost["accuracy"] - lost["checkpoints"]),
        max(0.0, 20 - lost["fluency"]),
        max(0.0, 20 - lost["appropriateness"]),
    )


def read_item(item: ItemVerdicts) -> Points | None:
    """The item's mean points over the judge's repeats; None if no repeat is complete."""
    repeats = [
        points
        for place in range(len(item.scores.get(GATE, ())))
        if (points := _read_repeat(item, place))
    ]
    if not repeats:
        return None
    n = len(repeats)
    return Points(
        sum(points.accuracy for points in repeats) / n,
        sum(points.fluency for points in repeats) / n,
        sum(points.appropriateness for points in repeats) / n,
    )


def _read_repeat(item: ItemVerdicts, place: int) -> Points | None:
    gate = item.scores[GATE][place]
    if gate.value is None:
        return None
    if gate.value == 0:
        return Points(0.0, 0.0, 0.0)
    lost = {}
    for name in ASPECTS:
        own = item.scores.get(name, ())
        if place >= len(own) or own[place].value is None:
            return None
        lost[name] = float(own[place].parts["lost"])
    return calculate(lost)


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Means over the answers with points, as upstream leaves out failed records."""
    scored = [(item, points) for item in items if (points := read_item(item))]
    totals = [(item, points.total / 100) for item, points in scored]

    def mean(name: str, of: str, points: int) -> Estimate:
        values = [(item.sample_id, getattr(own, of) / points) for item, own in scored]
        return mean_of(name, values, len(items))

    shares = [mean(f"{of}:share", of, n) for of, n in PARTS.items()]
    own_points = [replace(mean(of, of, n), scale=float(n)) for of, n in PARTS.items()]
    total = mean_of("total", [(item.sample_id, share) for item, share in totals], len(items))
    failed = [(item.sample_id, 0.0) for item in items if item.status.cause is Cause.MODEL]
    complete = mean_of(
        "total:all",
        [*((item.sample_id, share) for item, share in totals), *failed],
        len(items),
        note="answers that failed for the writer's own fault count 0",
    )
    groups = [
        *group_means("direction", lambda item: str(item.meta["direction"]), items, totals),
        *group_means("domain", lambda item: str(item.meta["domain"]), items, totals),
    ]
    gates = [
        (item.sample_id, 1 - score.value)
        for item in items
        for score in item.scores.get(GATE, ())
        if score.value is not None
    ]
    return [
        as_headline(_percent(total)),
        _percent(complete),
        *own_points,
        *shares,
        mean_of("not_translated", gates, len(items), note="share that the gate refused"),
        *(_percent(group) for group in groups),
    ]


def _percent(estimate: Estimate) -> Estimate:
    return replace(estimate, scale=100.0)
