"""Several checked judges as one: the card of their combination, from verdicts already given.

Named and described as in results of runs, so that a ranking of combined scores finds its card
(specification: harness B3, E1).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r2w_eval.config import RunConfig
from r2w_eval.errors import UsageError
from r2w_eval.judge_check.card import Consumption
from r2w_eval.records.collect import QuestionKey
from r2w_eval.results.ensembles import EnsembleSpec, combine_verdicts
from r2w_eval.run.manifest import plan_ensemble
from r2w_eval.types import Judgement


@dataclass(frozen=True)
class CheckedJudge:
    """A judge as its card sees it. `scale` is None where its scores have no fixed scale."""

    id: str
    facts: Mapping[str, Any]
    scale: tuple[float, float] | None
    sees_pairs: bool


def plan_combination(
    config: RunConfig, judges: Sequence[CheckedJudge]
) -> tuple[EnsembleSpec, CheckedJudge] | None:
    """The rule and the judge that stands for it; None for one judge that nobody asked to combine.

    Raises UsageError when the judges' scales differ and the user asked for a combination.
    """
    spec = plan_ensemble(config, tuple(judge.id for judge in judges), "")
    if spec is None:
        return None
    scales = {judge.scale for judge in judges}
    if len(scales) > 1:
        if config.combine is None:
            return None
        told = ", ".join(f"{judge.id} {judge.scale}" for judge in judges)
        raise UsageError(
            f"--combine {config.combine}: the judges' scales differ ({told}), so their scores have "
            f"no mean. Use --combine none, or judges of one scale"
        )
    facts = spec.describe({judge.id: judge.facts for judge in judges})
    sees_pairs = all(judge.sees_pairs for judge in judges)
    return spec, CheckedJudge(spec.id, facts, next(iter(scales)), sees_pairs)


def combine_check(
    found: Mapping[str, Sequence[Judgement]], spec: EnsembleSpec, sees_pairs: bool
) -> list[Judgement]:
    """One verdict for every question that all members were asked."""
    places: defaultdict[tuple[str, str], dict[str, dict[QuestionKey, Judgement]]]
    places = defaultdict(lambda: {judge: {} for judge in spec.judges})
    for judge in spec.judges:
        for j in found[judge]:
            if sees_pairs or not j.order:
                places[j.task, j.sample_id][judge][j.criterion, j.order, j.repeat] = j
    return [verdict for own in places.values() for verdict in combine_verdicts(own, spec).values()]


def add_consumption(combined: Consumption, members: Sequence[Consumption]) -> Consumption:
    """Time and money of a combined verdict are those of all members, unknown if one of them is."""
    seconds = [member.seconds_per_1000 for member in members]
    dollars = [member.usd_per_1000 for member in members]
    return replace(combined, seconds_per_1000=_sum(seconds), usd_per_1000=_sum(dollars))


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
