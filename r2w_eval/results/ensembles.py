"""Several judges as one: combined verdict by verdict, each judge's own numbers beside it.

An ensemble is combined from stored verdicts, so that another combination costs no call. It stands
in results as a judge of its own, with an identity of its own (specification: harness E1, E2, A7).
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.judge.families import is_own_family
from r2w_eval.judge.scorers import add_usage
from r2w_eval.records.collect import QuestionKey
from r2w_eval.stats.agreement import Alpha, Association, associate, krippendorff_alpha
from r2w_eval.stats.noise import JudgeSplit, Observation, judge_split
from r2w_eval.types import Judgement, JudgeStatus, Metric, Score, Usage, is_number

PAIR_DRAWS = 200
MIN_TRIMMED = 3


class Combine(StrEnum):
    """How the values of several judges become one."""

    MEAN = "mean"
    MEDIAN = "median"
    TRIMMED = "trimmed"
    """Mean without the highest and the lowest value."""
    MAJORITY = "majority"
    """The value that more than half of the judges gave."""


@dataclass(frozen=True, slots=True)
class EnsembleSpec:
    """Which judges are combined, and how. `min_valid` usable verdicts make a combined one."""

    judges: tuple[str, ...]
    combine: Combine
    min_valid: int
    excluded: tuple[str, ...] = ()
    """Judges of the writer's own family that were left out on request."""

    @property
    def id(self) -> str:
        """The name under which the ensemble's results stand."""
        return f"{self.combine}({', '.join(self.judges)})"

    def describe(self, judges: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Identity: the rule, and every member with its own facts; the range is that of all."""
        scale = judges[self.judges[0]].get("range")
        return {
            **({} if scale is None else {"range": scale}),
            "combine": str(self.combine),
            "min_valid_judges": self.min_valid,
            # what the rule is applied to; before 0.1.0 it was every question of any judge
            "questions": "put to all judges",
            "judges": {name: judges[name] for name in self.judges},
        }

    def without(self, judge: str) -> EnsembleSpec:
        """The same rule over the other judges; the mean where too few are left to trim."""
        rest = tuple(name for name in self.judges if name != judge)
        trimmed = self.combine is Combine.TRIMMED and len(rest) < MIN_TRIMMED
        combine = Combine.MEAN if trimmed else self.combine
        return EnsembleSpec(rest, combine, min(self.min_valid, len(rest)))


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Rank correlation of two judges over the verdicts that both gave."""

    first: str
    second: str
    spearman: Association


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The headline without one of the judges: how much the result depends on that judge."""

    judge: str
    headline: Metric


@dataclass(frozen=True, slots=True)
class EnsembleSummary:
    """Agreement of the members, and the combined result without each of them."""

    judges: tuple[str, ...]
    combine: str
    min_valid: int
    alpha: Alpha
    """Krippendorff, interval level, over single verdicts."""
    pairs: tuple[PairAgreement, ...]
    split: JudgeSplit | None
    """Variance by item, judge, item x judge and repeat."""
    left_out: tuple[LeftOut, ...]
    """Empty for two judges: leaving one out leaves the other's own table."""
    own_family: tuple[str, ...]
    excluded: tuple[str, ...]


def make_spec(
    judges: Sequence[str],
    combine: str,
    min_valid: int | None,
    writer: str = "",
    exclude_self: bool = False,
) -> EnsembleSpec:
    """Check and complete what the user asked for. Raises UsageError, UnknownName."""
    if combine not in list(Combine):
        raise UnknownName("--combine", combine, "combination", list(Combine), "--combine mean")
    out = tuple(j for j in judges if exclude_self and is_own_family(writer, j))
    kept = tuple(j for j in judges if j not in out)
    if len(kept) < 2:
        left = f" after --exclude-self left out {', '.join(out)}" if out else ""
        raise UsageError(
            f"--combine {combine}: an ensemble of {len(kept)} judge(s) ({', '.join(kept)}){left} "
            f"combines nothing. Name two judges or more, --judge A --judge B, or leave --combine "
            f"out"
        )
    least = MIN_TRIMMED if combine == Combine.TRIMMED else 2
    if len(kept) < least:
        raise UsageError(
            f"--combine trimmed needs {least} judges, {len(kept)} are given: it leaves out the "
            f"highest and the lowest value. Use --combine mean"
        )
    floor = MIN_TRIMMED if combine == Combine.TRIMMED else 1
    wanted = len(kept) if min_valid is None else min_valid
    if not floor <= wanted <= len(kept):
        raise UsageError(
            f"--min-valid-judges {wanted}: expected {floor} to {len(kept)}, the number of judges"
        )
    return EnsembleSpec(kept, Combine(combine), wanted, out)


def combine_values(values: Sequence[float], combine: Combine) -> float | None:
    """One value from several; None where no value has a majority.

    >>> [combine_values([1, 2, 2, 9], c) for c in Combine]
    [3.5, 2.0, 2.0, None]
    """
    if combine is Combine.MEDIAN:
        return float(statistics.median(values))
    if combine is Combine.MAJORITY:
        value, count = Counter(values).most_common(1)[0]
        return value if 2 * count > len(values) else None
    kept = sorted(values)[1:-1] if combine is Combine.TRIMMED else values
    return sum(kept) / len(kept)


def combine_scores(scores: Sequence[Score], spec: EnsembleSpec) -> Score:
    """One score from the judges' scores on the same question."""
    valid = [score for score in scores if score.value is not None]
    if len(valid) < spec.min_valid:
        lost = Counter(str(score.status) for score in scores if score.value is None)
        told = ", ".join(f"{status} {n}" for status, n in sorted(lost.items()))
        return Score(
            None,
            JudgeStatus.TOO_FEW_JUDGES,
            f"{len(valid)} of {len(spec.judges)} judges, {spec.min_valid} needed ({told})",
        )
    value = combine_values([s.value for s in valid if s.value is not None], spec.combine)
    if value is None:
        return Score(None, JudgeStatus.NO_MAJORITY, f"no value of {len(valid)} judges in majority")
    return Score(value, parts=combine_parts([score.parts for score in valid], spec.combine))


def combine_parts(parts: Sequence[Mapping[str, Any]], combine: Combine) -> dict[str, Any]:
    """Numbers that all judges gave, also those inside mappings and lists of one length, combined
    alike; whole numbers stay whole.

    >>> combine_parts([{"weight": 1, "label": "A", "marks": [0.0]}, {"weight": 3, "marks": [1.0]}],
    ...               Combine.MEAN)
    {'weight': 2, 'marks': [0.5]}
    """
    found = {name: _combine_part([part.get(name) for part in parts], combine) for name in parts[0]}
    return {name: value for name, value in found.items() if value is not None}


def _combine_part(values: Sequence[Any], combine: Combine) -> Any:
    """One part of all judges; None where it cannot be combined."""
    if all(isinstance(value, Mapping) for value in values):
        return combine_parts(values, combine)
    if all(isinstance(value, list) for value in values) and len(set(map(len, values))) == 1:
        return [_combine_part(place, combine) for place in zip(*values, strict=True)]
    if not all(map(is_number, values)):
        return None
    value = combine_values(values, combine)
    value = statistics.median(values) if value is None else value
    return round(value) if all(isinstance(v, int) for v in values) else value


def combine_verdicts(
    by_judge: Mapping[str, Mapping[QuestionKey, Judgement]],
    spec: EnsembleSpec,
    is_verdict: Callable[[str], bool] = lambda _: True,
) -> dict[QuestionKey, Judgement]:
    """The ensemble's verdicts on one answer: one for every question that any member was asked."""
    asked = {question: None for own in by_judge.values() for question in own}
    return {
        question: _combine_one([by_judge[j].get(question) for j in spec.judges], spec, is_verdict)
        for question in asked
    }


def _combine_one(
    found: Sequence[Judgement | None], spec: EnsembleSpec, is_verdict: Callable[[str], bool]
) -> Judgement:
    given = [judgement for judgement in found if judgement is not None]
    first = given[0]
    missing = Score(None, JudgeStatus.NOT_SENT, "not asked")
    scores = [judgement.score if judgement else missing for judgement in found]
    rule = spec
    if not is_verdict(first.criterion):
        # a reply that only feeds later questions has no meaningful value
        rule = EnsembleSpec(spec.judges, Combine.MEAN, 1)
    usage = Usage()
    for judgement in given:
        usage = add_usage(usage, judgement.usage)
    return Judgement(
        key="",
        response_key=first.response_key,
        task=first.task,
        sample_id=first.sample_id,
        judge=spec.id,
        criterion=first.criterion,
        score=combine_scores(scores, rule),
        repeat=first.repeat,
        order=first.order,
        sample_repeat=first.sample_repeat,
        usage=usage,
    )


def summarise_ensemble(
    judgements: Mapping[str, Iterable[Judgement]],
    spec: EnsembleSpec,
    left_out: Sequence[LeftOut],
    writer: str,
) -> EnsembleSummary:
    """Agreement of the members; `judgements` are each member's verdicts on one task."""
    table: defaultdict[tuple[str, str, str, str, int], dict[str, float]] = defaultdict(dict)
    rows = []
    for judge, own in judgements.items():
        for j in own:
            if j.score.value is not None:
                place = (j.sample_id, j.response_key, j.criterion, j.order, j.repeat)
                table[place][judge] = j.score.value
                rows.append(Observation(f"{j.response_key}/{j.criterion}", j.score.value, 0, judge))
    columns = {judge: [own.get(judge) for own in table.values()] for judge in spec.judges}
    queries = [query for query, *_ in table]
    pairs = [(a, b) for i, a in enumerate(spec.judges) for b in spec.judges[i + 1 :]]
    return EnsembleSummary(
        judges=spec.judges,
        combine=str(spec.combine),
        min_valid=spec.min_valid,
        alpha=krippendorff_alpha(list(zip(*columns.values(), strict=True)), clusters=queries),
        pairs=tuple(
            PairAgreement(
                a, b, associate(columns[a], columns[b], draws=PAIR_DRAWS, clusters=queries)
            )
            for a, b in pairs
        ),
        split=judge_split(rows) if len({row.item for row in rows}) > 1 else None,
        left_out=tuple(left_out),
        own_family=tuple(j for j in spec.judges if is_own_family(writer, j)),
        excluded=spec.excluded,
    )
