"""From a run folder to numbers: per task and judge, streaming, without any call.

Reads responses.jsonl and judgements.jsonl, gives the suite's aggregator one `ItemVerdicts` per
answer, measures every estimate, and counts every loss by cause. The same two files always give the
same bytes (specification: harness R2, R3, T4, sections 6 and 7).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from r2w_eval.collect import Question, Written, latest_judgements, latest_responses
from r2w_eval.hashing import content_hash
from r2w_eval.noise import NoiseSplit, Observation, noise_split
from r2w_eval.plan import NO_JUDGE, TaskPlan
from r2w_eval.stats import measure
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

TRUNCATION_WARNING = 0.02


@dataclass(frozen=True, slots=True)
class WriterSummary:
    """What the writer did in one task. Rates are shares of `n_expected`."""

    n_expected: int
    n_answered: int
    statuses: Mapping[str, int]
    models_returned: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    mean_answer_chars: float | None
    mean_thinking_chars: float | None


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """What one judge did in one task: EvalScope's fields, and ours (harness section 7)."""

    judge: str
    status: str
    n_valid: int
    n_total: int
    coverage: float
    failures: Mapping[str, int]
    failures_by_criterion: Mapping[str, int]
    n_reasked: int
    n_parsed_first: int
    models_returned: tuple[str, ...]
    histogram: Mapping[str, int]
    share_at_floor: float | None
    share_at_ceiling: float | None
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Performance:
    """What differs between two runs of the same work, and so stands apart from every result."""

    task: str
    judge: str
    writer_latency_mean_s: float | None
    judge_latency_p50_s: float | None
    judge_latency_p95_s: float | None
    n_responses_cached: int
    n_judgements_cached: int


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One answer in the tables and plots: `value` is its mean verdict, None when it is not
    scored.
    """

    sample_id: str
    repeat: int
    language: str
    status: str
    value: float | None
    n_verdicts: int
    answer_chars: int
    thinking_chars: int | None
    response_key: str


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
    warnings: tuple[str, ...]
    estimate: Estimate = field(repr=False)
    performance: Performance = field(repr=False)
    noise: NoiseSplit | None = None
    samples: tuple[SampleRow, ...] = field(default=(), repr=False)

    @property
    def headline(self) -> Metric:
        """The suite's published figure."""
        return next(metric for metric in self.metrics if metric.is_headline)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the manifest knows and the aggregation needs."""

    writer_identity: Mapping[str, Any]
    n_repeats: int
    judges: Mapping[str, Mapping[str, Any]]
    n_judge_repeats: int


def summarise(folder: RunFolder, plans: Sequence[TaskPlan], facts: RunFacts) -> list[TaskResult]:
    """One result per task and judge, in plan order."""
    responses = latest_responses(folder.responses(), plans)
    verdicts = latest_judgements(folder.judgements())
    return [
        _summarise_task(plan, judge, facts, responses[plan.info.name], verdicts)
        for plan in plans
        for judge in facts.judges
    ]


def _summarise_task(
    plan: TaskPlan,
    judge: str,
    facts: RunFacts,
    written: Mapping[tuple[str, int], Written],
    verdicts: Mapping[tuple[str, str], Mapping[Question, Judgement]],
) -> TaskResult:
    items: list[ItemVerdicts] = []
    floored: list[ItemVerdicts] = []
    rows: list[SampleRow] = []
    judgements: list[Judgement] = []
    absent: Counter[str] = Counter()
    is_verdict = plan.suite.is_verdict
    for sample in plan.samples():
        names = tuple(plan.suite.criteria(sample))
        for repeat in range(facts.n_repeats):
            entry = written.get((sample.id, repeat))
            key = entry.response.key if entry else ""
            own = sorted(verdicts.get((key, judge), {}).values(), key=_verdict_order)
            status = _writer_status(entry, plan.suite.n_turns)
            item = ItemVerdicts(
                sample_id=sample.id,
                language=sample.language,
                meta=sample.meta,
                status=status,
                scores=_group_scores(own),
                repeat=repeat,
                measures=entry.measures if entry else {},
            )
            items.append(item)
            floored.append(_at_floor(item, names, plan.info.score_range[0]))
            rows.append(_row(item, entry, [j for j in own if is_verdict(j.criterion)]))
            judgements.extend(own)
            n_own = 0 if judge == NO_JUDGE else len(names) * facts.n_judge_repeats
            # a verdict on an answer that exists was not asked for yet; without one there is none
            why = JudgeStatus.NO_ANSWER if status.cause else JudgeStatus.NOT_SENT
            absent[why] += max(0, n_own - len(own))
    estimates = _estimate_all(plan, items)
    bounds = plan.info.score_range
    headline, *others = [measure_within(estimate, bounds) for estimate in estimates]
    floor = measure_within(_estimate_all(plan, floored)[0], bounds)
    floor = replace(
        floor,
        name=f"{headline.name}:floor",
        note="model failures at the lowest value",
        is_headline=False,
    )
    judging = summarise_judge(judge, judgements, absent, plan.info.score_range, is_verdict)
    writer = summarise_writer(rows, written)
    identity = score_identity(plan, judge, facts)
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
        warnings=(*plan.notes, *_warnings(writer, judging)),
        estimate=estimates[0],
        noise=split_noise(j for j in judgements if is_verdict(j.criterion))
        if facts.n_judge_repeats > 1
        else None,
        performance=_performance(plan.info.name, judge, written.values(), judgements),
        samples=tuple(rows),
    )


def _writer_status(entry: Written | None, n_turns: int) -> WriterStatus:
    """What became of the answer; a conversation that is not at its end has none yet."""
    if entry is None:
        return WriterStatus.NOT_SENT
    unfinished = entry.response.status.cause is None and entry.response.turn + 1 < n_turns
    return WriterStatus.NOT_SENT if unfinished else entry.response.status


def _estimate_all(plan: TaskPlan, items: Sequence[ItemVerdicts]) -> list[Estimate]:
    """All estimates of the suite, the headline first."""
    estimates = plan.suite.aggregate(items, plan.mode)
    return sorted(estimates, key=lambda estimate: not estimate.is_headline)


def split_noise(judgements: Iterable[Judgement]) -> NoiseSplit | None:
    """Item, sample and repeat variance of an answer's mean verdict; None under two items."""
    repeats: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for judgement in judgements:
        if judgement.score.value is not None:
            place = (judgement.sample_id, judgement.sample_repeat, judgement.repeat)
            repeats[place].append(judgement.score.value)
    rows = [
        Observation(item, sum(values) / len(values), sample)
        for (item, sample, _), values in repeats.items()
    ]
    return noise_split(rows) if len({row.item for row in rows}) > 1 else None


def measure_within(estimate: Estimate, score_range: tuple[float, float]) -> Metric:
    """Value and interval; the interval of a few items is cut at what the scale allows."""
    metric = measure(estimate)
    if metric.low is None or metric.high is None or not estimate.bounded:
        return metric
    weight = sum(stratum.weight for stratum in estimate.strata)
    low, high = (estimate.offset + estimate.scale * weight * bound for bound in score_range)
    return replace(metric, low=max(low, metric.low), high=min(high, metric.high))


def _verdict_order(judgement: Judgement) -> tuple[int, str]:
    return judgement.repeat, judgement.order


def _group_scores(judgements: Iterable[Judgement]) -> dict[str, tuple[Score, ...]]:
    grouped: dict[str, list[Score]] = defaultdict(list)
    for judgement in judgements:
        grouped[judgement.criterion].append(judgement.score)
    return {name: tuple(scores) for name, scores in grouped.items()}


def _at_floor(item: ItemVerdicts, names: Sequence[str], floor: float) -> ItemVerdicts:
    """Model-caused failures at the suite's lowest value; all others unchanged (harness R3)."""
    if item.status.cause is not Cause.MODEL:
        return item
    return replace(item, scores={name: (Score(floor),) for name in names})


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
    return {
        "suite": plan.info.name,
        "version": plan.info.version,
        "items": content_hash([sample.id for sample in plan.samples()], 12),
        "mode": str(plan.mode),
        "judge": judge,
        "judge_facts": facts.judges[judge],
        "judge_decoding": plan.info.judge_decoding.sent(),
        "judge_prompts": sorted(template.id for template in plan.templates.values()),
        "judge_repeats": facts.n_judge_repeats,
        "inputs": plan.inputs,
        "aggregator": "published",
    }


def summarise_judge(
    judge: str,
    judgements: Sequence[Judgement],
    absent: Mapping[str, int],
    score_range: tuple[float, float],
    is_verdict: Callable[[str], bool] = lambda _: True,
) -> JudgeSummary:
    """Counts of one judge over one task; `absent` counts the verdicts that have no record.

    Every reply counts as usable or lost; only verdicts stand in the histogram.
    """
    valid = [j for j in judgements if j.score.value is not None]
    failed = [j for j in judgements if j.score.value is None]
    values = [j.score.value for j in valid if j.score.value is not None and is_verdict(j.criterion)]
    failures = Counter(str(j.score.status) for j in failed)
    failures.update({str(status): count for status, count in absent.items() if count})
    total = len(judgements) + sum(absent.values())
    low, high = score_range
    return JudgeSummary(
        judge=judge,
        status="success" if not failures else "degraded" if valid else "excluded",
        n_valid=len(valid),
        n_total=total,
        coverage=len(valid) / total if total else 1.0,
        failures=dict(sorted(failures.items())),
        failures_by_criterion=dict(sorted(Counter(j.criterion for j in failed).items())),
        n_reasked=sum(len(j.asks) > 1 for j in judgements),
        n_parsed_first=sum(len(j.asks) <= 1 for j in valid),
        models_returned=tuple(sorted({j.model_returned for j in judgements if j.model_returned})),
        histogram=_histogram(values),
        share_at_floor=_share(values, low),
        share_at_ceiling=_share(values, high),
        prompt_tokens=sum(j.usage.prompt_tokens or 0 for j in judgements),
        completion_tokens=sum(j.usage.completion_tokens or 0 for j in judgements),
    )


def summarise_writer(
    rows: Sequence[SampleRow], written: Mapping[tuple[str, int], Written]
) -> WriterSummary:
    """Counts of the writer over one task."""
    wanted = {(row.sample_id, row.repeat) for row in rows}
    entries = [entry for place, entry in written.items() if place in wanted]
    answered = [row for row in rows if row.status in ("ok", "truncated")]
    thinking = [row.thinking_chars for row in answered if row.thinking_chars is not None]
    responses = [entry.response for entry in entries]
    return WriterSummary(
        n_expected=len(rows),
        n_answered=len(answered),
        statuses=dict(sorted(Counter(row.status for row in rows).items())),
        models_returned=tuple(sorted({r.model_returned for r in responses if r.model_returned})),
        prompt_tokens=sum(r.usage.prompt_tokens or 0 for r in responses),
        completion_tokens=sum(r.usage.completion_tokens or 0 for r in responses),
        mean_answer_chars=_mean([row.answer_chars for row in answered]),
        mean_thinking_chars=_mean(thinking),
    )


def _performance(
    task: str, judge: str, written: Iterable[Written], judgements: Sequence[Judgement]
) -> Performance:
    responses = [entry.response for entry in written]
    latencies = sorted(j.latency_s for j in judgements if not j.cached and j.latency_s > 0)
    return Performance(
        task=task,
        judge=judge,
        writer_latency_mean_s=_mean([r.latency_s for r in responses if not r.cached]),
        judge_latency_p50_s=_quantile(latencies, 0.5),
        judge_latency_p95_s=_quantile(latencies, 0.95),
        n_responses_cached=sum(r.cached for r in responses),
        n_judgements_cached=sum(j.cached for j in judgements),
    )


def _warnings(writer: WriterSummary, judging: JudgeSummary) -> Iterable[str]:
    for status in (WriterStatus.TRUNCATED, WriterStatus.UNCLOSED_THINK):
        count = writer.statuses.get(status, 0)
        if writer.n_expected and count / writer.n_expected > TRUNCATION_WARNING:
            yield (
                f"{count} of {writer.n_expected} answers are {status}: raise --max-tokens, "
                f"or read the scores as those of cut texts"
            )
    for who, models in (("writer", writer.models_returned), ("judge", judging.models_returned)):
        if len(models) > 1:
            yield f"the {who} endpoint returned {len(models)} model ids: {', '.join(models)}"
    if judging.failures:
        lost = ", ".join(f"{status} {count}" for status, count in judging.failures.items())
        yield f"{judging.n_total - judging.n_valid} of {judging.n_total} verdicts lost: {lost}"


def _histogram(values: Sequence[float]) -> dict[str, int]:
    return {f"{value:g}": n for value, n in sorted(Counter(round(v, 1) for v in values).items())}


def _share(values: Sequence[float], bound: float) -> float | None:
    return sum(value == bound for value in values) / len(values) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
