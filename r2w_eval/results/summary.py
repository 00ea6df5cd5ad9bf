"""From a run folder to numbers: per task and judge, streaming, without any call.

Reads responses.jsonl and judgements.jsonl, gives the suite's aggregator one `ItemVerdicts` per
answer, measures every estimate, and counts every loss by cause. The same two files always give the
same bytes (specification: harness R2, R3, T4, sections 6 and 7).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from r2w_eval.hashing import content_hash
from r2w_eval.judge.own_scorer import stated_range
from r2w_eval.models.cost import Price
from r2w_eval.records.collect import QuestionKey, Written, latest_judgements, latest_responses
from r2w_eval.records.plan import NO_JUDGE, TaskPlan
from r2w_eval.reflection.measures import ReflectionSummary
from r2w_eval.results.counts import (
    JudgeSummary,
    Performance,
    SampleRow,
    WriterSummary,
    measure_performance,
    run_length_slope,
    split_noise,
    summarise_judge,
    summarise_writer,
)
from r2w_eval.results.coverage import Scored, count_answers, scored_of
from r2w_eval.results.ensembles import (
    EnsembleSpec,
    EnsembleSummary,
    LeftOut,
    combine_verdicts,
    summarise_ensemble,
)
from r2w_eval.results.notices import Notice, notices, tell_apart
from r2w_eval.stats.inference import measure
from r2w_eval.stats.noise import NoiseSplit
from r2w_eval.store import RunFolder
from r2w_eval.types import (
    Cause,
    Estimate,
    ItemVerdicts,
    Judgement,
    JudgeStatus,
    Metric,
    Score,
    WriterStatus,
)
from r2w_eval.web.pages import PageCounts


@dataclass(frozen=True, slots=True)
class TaskResult:
    """All numbers of one task under one judge.

    `score_key` says what they may be compared with; `estimate` is the headline with the parts of
    every item, which is what paired tests need. `noise` splits the variance of the verdicts when
    questions were asked more than once.
    """

    task: str
    version: str
    mode: str
    judge: str
    score_key: str
    identity: Mapping[str, Any]
    metrics: tuple[Metric, ...]
    writer: WriterSummary
    judging: JudgeSummary
    warnings: tuple[Notice, ...]
    estimate: Estimate = field(repr=False)
    performance: Performance = field(repr=False, compare=False)
    noise: NoiseSplit | None = None
    ensemble: EnsembleSummary | None = None
    reflection: ReflectionSummary | None = None
    pages: PageCounts | None = None
    groups: tuple[Estimate, ...] = field(default=(), repr=False)
    """Domains, criteria and other parts, with the terms that paired tests need."""
    samples: tuple[SampleRow, ...] = field(default=(), repr=False)

    @property
    def headline(self) -> Metric:
        """The suite's published figure."""
        return next(metric for metric in self.metrics if metric.is_headline)

    @property
    def scored(self) -> Scored:
        """What the headline stands for."""
        return scored_of(self.headline, self.judging.answers)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the manifest knows and the aggregation needs."""

    writer_identity: Mapping[str, Any]
    n_repeats: int
    judges: Mapping[str, Mapping[str, Any]]
    n_judge_repeats: int
    ensemble: EnsembleSpec | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    returned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Returned model ids by judge, where an endpoint returned another id than the one requested."""

    @property
    def writer(self) -> str:
        """The writer's name."""
        return str(self.writer_identity.get("model", ""))


Answers = Mapping[tuple[str, int], Written]
Verdicts = Mapping[tuple[str, str], Mapping[QuestionKey, Judgement]]


@dataclass(frozen=True)
class _Task:
    """One suite of a run: its plan and its newest records, with what the manifest knows."""

    plan: TaskPlan
    facts: RunFacts
    written: Answers
    verdicts: Verdicts


def summarise(folder: RunFolder, plans: Sequence[TaskPlan], facts: RunFacts) -> list[TaskResult]:
    """One result per task and judge, in plan order; one per task where no judge is asked."""
    responses = latest_responses(folder.responses(), plans)
    verdicts = latest_judgements(folder.judgements())
    results = []
    for plan in plans:
        written = responses[plan.info.name]
        own = replace(facts, returned=_returned(facts.judges, written, verdicts))
        spec = own.ensemble if plan.info.asks_judges else None
        scales = {judge: score_range(plan, judge, own) for judge in spec.judges} if spec else {}
        if spec and (why := tell_apart(plan.asks_alike, scales)):
            plan, spec = replace(plan, notes=(*plan.notes, why)), None
        task = _Task(plan, own, written, verdicts)
        for judge in own.judges if plan.info.asks_judges else (NO_JUDGE,):
            results.append(_summarise_task(task, judge, _collect(task, judge)))
        if spec is not None:
            results.append(_summarise_ensemble(task, spec))
    return results


def _returned(
    judges: Iterable[str], written: Answers, verdicts: Verdicts
) -> dict[str, tuple[str, ...]]:
    """Model ids that the endpoint returned, by judge, where any differs from the requested id."""
    found = {}
    for judge in judges:
        own = (verdicts.get((entry.response.key, judge), {}) for entry in written.values())
        ids = {j.model_returned for one in own for j in one.values() if j.model_returned}
        if is_another_judge(judge, ids):
            found[judge] = tuple(sorted(ids))
    return found


def is_another_judge(judge: str, returned: Iterable[str]) -> bool:
    """Whether an endpoint returned another model id than the requested judge's.

    >>> is_another_judge("gpt", ["gpt-2026"]), is_another_judge("smollm2+expected", ["smollm2"])
    (True, False)
    """
    return not {judge, judge.removesuffix("+expected")}.issuperset(returned)


@dataclass(frozen=True)
class _Collected:
    """One judge's verdicts on one task, and (`absent`) how many have no record, by status."""

    items: list[ItemVerdicts]
    floored: list[ItemVerdicts]
    rows: list[SampleRow]
    judgements: list[Judgement]
    absent: Counter[str]


def _collect(task: _Task, judge: str) -> _Collected:
    plan, facts = task.plan, task.facts
    found = _Collected([], [], [], [], Counter())
    is_verdict = plan.suite.is_verdict
    for sample in plan.samples():
        names = tuple(plan.suite.criteria(sample))
        for repeat in range(facts.n_repeats):
            entry = task.written.get((sample.id, repeat))
            key = entry.response.key if entry else ""
            own = sorted(task.verdicts.get((key, judge), {}).values(), key=_verdict_order)
            status = _writer_status(entry, plan.suite.n_turns)
            item = ItemVerdicts(
                sample_id=sample.id,
                language=sample.language,
                meta=sample.meta,
                status=status,
                scores=group_scores(own),
                repeat=repeat,
                measures=entry.measures if entry else {},
                is_judged=judge != NO_JUDGE,
            )
            found.items.append(item)
            lowest = (Score(score_range(plan, judge, facts)[0]),) * facts.n_judge_repeats
            found.floored.append(put_at_floor(item, names, lowest))
            found.rows.append(_row(item, entry, [j for j in own if is_verdict(j.criterion)]))
            found.judgements.extend(own)
            n_own = 0 if judge == NO_JUDGE else len(names) * facts.n_judge_repeats
            # a verdict on an answer that exists was not asked for yet; without one there is none
            why = JudgeStatus.NO_ANSWER if status.cause else JudgeStatus.NOT_SENT
            found.absent[why] += max(0, n_own - len(own))
    return found


def _summarise_task(task: _Task, judge: str, found: _Collected) -> TaskResult:
    plan, facts = task.plan, task.facts
    is_verdict, bounds = plan.suite.is_verdict, score_range(plan, judge, facts)
    estimates = _estimate_all(plan, found.items)
    headline, *others = [measure_within(estimate, bounds) for estimate in estimates]
    floor = replace(
        measure_within(_estimate_all(plan, found.floored)[0], bounds),
        name=f"{headline.name}:floor",
        note="model failures at the lowest value",
        is_headline=False,
    )
    judging = replace(
        summarise_judge(
            judge, found.judgements, found.absent, bounds, is_verdict, plan.suite.orders
        ),
        answers=count_answers(plan, found.items),
        length_slope=run_length_slope(found.rows),
    )
    writer = summarise_writer(found.rows, task.written)
    identity = score_identity(plan, judge, facts)
    has_repeats = facts.n_judge_repeats > 1 or facts.n_repeats > 1
    return TaskResult(
        task=plan.info.name,
        version=plan.info.version,
        mode=plan.mode,
        judge=judge,
        score_key=content_hash(identity, 12),
        identity=identity,
        metrics=(headline, floor, *others),
        writer=writer,
        judging=judging,
        warnings=notices(plan.notes, writer, judging, headline, facts.writer),
        estimate=estimates[0],
        groups=tuple(estimate for estimate in estimates if "/" in estimate.name),
        noise=split_noise(j for j in found.judgements if is_verdict(j.criterion))
        if has_repeats
        else None,
        performance=measure_performance(
            plan.info.name, judge, task.written.values(), found.judgements, facts.prices.get(judge)
        ),
        samples=tuple(found.rows),
    )


def _summarise_ensemble(task: _Task, spec: EnsembleSpec) -> TaskResult:
    """The combined result of one task, with its members' agreement and each one left out.

    Questions that follow from a judge's own replies are no one else's: they are left out.
    """
    plan, facts, is_verdict = task.plan, task.facts, task.plan.suite.is_verdict
    shared = {sample.id: plan.suite.criteria(sample) for sample in plan.samples()}
    found: dict[str, dict[str, dict[QuestionKey, Judgement]]] = {}
    for response in (entry.response for entry in task.written.values()):
        names = shared.get(response.sample_id, ())
        found[response.key] = {
            judge: {
                q: j
                for q, j in task.verdicts.get((response.key, judge), {}).items()
                if q[0] in names
            }
            for judge in spec.judges
        }

    facts = replace(facts, judges={**facts.judges, spec.id: spec.describe(facts.judges)})
    task = replace(task, facts=facts)

    def combined(rule: EnsembleSpec) -> _Collected:
        own = {
            (key, rule.id): combine_verdicts({j: own[j] for j in rule.judges}, rule, is_verdict)
            for key, own in found.items()
        }
        return _collect(replace(task, verdicts=own), rule.id)

    result = _summarise_task(task, spec.id, combined(spec))
    left_out = []
    for judge in spec.judges if len(spec.judges) > 2 else ():
        head = _estimate_all(plan, combined(spec.without(judge)).items)[0]
        left_out.append(LeftOut(judge, measure_within(head, score_range(plan, spec.id, facts))))
    members = {
        judge: [j for own in found.values() for j in own[judge].values() if is_verdict(j.criterion)]
        for judge in spec.judges
    }
    return replace(result, ensemble=summarise_ensemble(members, spec, left_out, facts.writer))


def _writer_status(entry: Written | None, n_turns: int) -> WriterStatus:
    """Status of the answer; `NOT_SENT` while its conversation is unfinished."""
    response = entry.response if entry else None
    if response is None or (response.status.cause is None and response.turn + 1 < n_turns):
        return WriterStatus.NOT_SENT
    return response.status


def _estimate_all(plan: TaskPlan, items: Sequence[ItemVerdicts]) -> list[Estimate]:
    """All estimates of the suite, the headline first; `n_expected` counts samples."""
    estimates = plan.suite.aggregate(items, plan.mode)
    if any(item.repeat for item in items):
        # several answers to a sample are one of what an interval draws, and of what is scored
        first = [item for item in items if not item.repeat]
        expected = {e.name: e.n_expected for e in plan.suite.aggregate(first, plan.mode)}
        estimates = [replace(e, n_expected=expected.get(e.name, e.n_expected)) for e in estimates]
    return sorted(estimates, key=lambda estimate: not estimate.is_headline)


def score_range(plan: TaskPlan, judge: str, facts: RunFacts) -> tuple[float, float]:
    """The scale of the judge's verdicts: its own where it states one, else the suite's."""
    return stated_range(facts.judges.get(judge, {})) or plan.info.score_range


def measure_within(estimate: Estimate, bounds: tuple[float, float]) -> Metric:
    """Value and interval, with the interval clipped to the scale of the scores.

    Nothing is clipped if the value itself lies outside: the scorer's scale was not stated.
    """
    metric = measure(estimate)
    if metric.value is None or metric.low is None or metric.high is None or not estimate.bounded:
        return metric
    weight = sum(stratum.weight for stratum in estimate.strata)
    low, high = (estimate.offset + estimate.scale * weight * bound for bound in bounds)
    slack = 1e-9 * (high - low)
    if not low - slack <= metric.value <= high + slack:
        return metric
    return replace(metric, low=max(low, metric.low), high=min(high, metric.high))


def _verdict_order(judgement: Judgement) -> tuple[int, str]:
    return judgement.repeat, judgement.order


def group_scores(judgements: Iterable[Judgement]) -> dict[str, tuple[Score, ...]]:
    """Scores by criterion, place n of repeat n; one that was not asked there has no value."""
    grouped: dict[str, list[Score]] = defaultdict(list)
    for judgement in judgements:
        own = grouped[judgement.criterion]
        own += [Score(None, JudgeStatus.NOT_SENT)] * (judgement.repeat - len(own))
        own.append(judgement.score)
    return {name: tuple(scores) for name, scores in grouped.items()}


def put_at_floor(
    item: ItemVerdicts, names: Sequence[str], lowest: tuple[Score, ...]
) -> ItemVerdicts:
    """The item with the suite's lowest score for every verdict that it should have, where the
    model is to blame for having none; any other item unchanged (harness R3).
    """
    if item.status.cause is not Cause.MODEL:
        return item
    return replace(item, scores=dict.fromkeys(names, lowest), at_floor=True)


def _row(item: ItemVerdicts, entry: Written | None, own: Sequence[Judgement]) -> SampleRow:
    values = [j.score.value for j in own if j.score.value is not None]
    return SampleRow(
        sample_id=item.sample_id,
        repeat=item.repeat,
        language=item.language,
        status=str(item.status),
        value=sum(values) / len(values) if values else None,
        n_verdicts=len(values),
        answer_chars=entry.answer_chars if entry else 0,
        thinking_chars=entry.thinking_chars if entry else None,
        response_key=entry.response.key if entry else "",
    )


def score_identity(plan: TaskPlan, judge: str, facts: RunFacts) -> dict[str, Any]:
    """Everything two scores must share to stand in one ranking (harness I2)."""
    rule = facts.ensemble
    members = rule.judges if rule and rule.id == judge else (judge,)
    returned = {name: facts.returned[name] for name in members if name in facts.returned}
    return {
        **({"judge_returned": returned} if returned else {}),
        "suite": plan.info.name,
        "version": plan.info.version,
        "items": content_hash([sample.id for sample in plan.samples()], 12),
        "mode": str(plan.mode),
        "judge": judge,
        "judge_facts": facts.judges.get(judge, {}),
        "judge_decoding": plan.info.judge_decoding.sent(),
        "judge_prompts": sorted(template.id for template in plan.templates.values()),
        "judge_repeats": facts.n_judge_repeats if judge != NO_JUDGE else 1,
        "inputs": plan.inputs,
        "aggregator": "published",
    }
