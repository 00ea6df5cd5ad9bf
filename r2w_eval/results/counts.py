"""Counts of one task in one run: what became of every answer and of every verdict.

In: slim records (see `collect`). Out: summaries without any text. What differs between two runs of
the same work stands apart, in `Performance` (specification: harness R2, T4, section 7).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from r2w_eval.models.chat import KNOWN_ENDS
from r2w_eval.models.cost import Price
from r2w_eval.records.collect import Written
from r2w_eval.results.coverage import Scored
from r2w_eval.stats.length_slope import LengthPoint, overall_length_slope
from r2w_eval.stats.noise import NoiseSplit, Observation, noise_split
from r2w_eval.types import Judgement, JudgeStatus, Metric, Response

# more criteria than this are those of single queries, and none of them has a distribution
MAX_HISTOGRAMS = 30
# the number of a question that is another one for every query: point:3, match:0.2
_PLACE = re.compile(r":\d+(?:\.\d+)?$")


@dataclass(frozen=True, slots=True)
class WriterSummary:
    """What the writer did in one task. Rates are shares of `n_expected`."""

    n_expected: int
    n_answered: int
    statuses: Mapping[str, int]
    models_returned: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    thinking_tokens: int
    """Of the completion tokens: reported, or their share by length."""
    mean_answer_chars: float | None
    mean_thinking_chars: float | None
    odd_ends: Mapping[str, int]
    """Number of answers by finish reason, for reasons that do not say whether the text is whole."""


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
    failures_by_cause: Mapping[str, int]
    distinct_values: int
    n_echoed: int
    """Verdicts on texts that themselves hold something the parser would accept (harness S3)."""
    disagreement: Disagreement | None
    """Between repeats of a question; None without repeats."""
    means_by_model: Mapping[str, tuple[int, float]]
    """Number and mean of the values, by the model id that the endpoint returned."""
    histograms: Mapping[str, Mapping[str, int]]
    """The histogram of each criterion, where there are a few of them for all queries."""
    answers: Scored | None = None
    """Answers with a score, where a query has several; see `coverage`."""
    length_slope: Metric | None = None
    """Points per doubling of the answer's length; None without scored answers."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How far several values for one question lie apart."""

    n_questions: int
    mean_range: float
    """Highest minus lowest, points."""
    share_unanimous: float
    n_order_pairs: int
    """Questions asked in two orders of showing; values are the writer's, whatever stood first."""
    n_order_flips: int
    """Of these, on opposite sides of the middle of the scale."""


@dataclass(frozen=True, slots=True)
class Performance:
    """What differs between two runs of the same work, and so stands apart from every result."""

    task: str
    judge: str
    writer_latency_mean_s: float | None
    judge_latency_p50_s: float | None
    judge_latency_p95_s: float | None
    judge_latency_p99_s: float | None
    n_responses_cached: int
    n_judgements_requested: int
    n_judgements_sent: int
    """Requests that brought the recorded verdicts, asking again included."""
    n_judgements_cached: int
    judging_started: float | None
    """Unix seconds of the first recorded verdict; None for verdicts of older versions."""
    judging_ended: float | None
    judge_usd: float | None
    """None where a price or a token count is unknown."""


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


def summarise_judge(
    judge: str,
    judgements: Sequence[Judgement],
    absent: Mapping[str, int],
    score_range: tuple[float, float],
    is_verdict: Callable[[str], bool] = lambda _: True,
    orders: Mapping[str, str] = {},
) -> JudgeSummary:
    """Counts of one judge over one task; `absent` counts the verdicts that have no record.

    Every reply is counted as usable or lost; what is made of values has verdicts only. `orders`:
    see `Suite.orders`.
    """
    valid = [j for j in judgements if j.score.value is not None]
    failed = [j for j in judgements if j.score.value is None]
    rated = [j for j in valid if is_verdict(j.criterion)]
    values = [j.score.value for j in rated if j.score.value is not None]
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
        failures_by_cause=_by_cause(failures),
        distinct_values=len(set(values)),
        n_echoed=sum(j.echoed for j in judgements),
        disagreement=disagreement(rated, (low + high) / 2, orders),
        means_by_model=_means_by_model(rated),
        histograms=_by_criterion(rated),
    )


def _by_cause(failures: Mapping[str, int]) -> dict[str, int]:
    """Failures by cause: the judge, the infrastructure, or `answer` for a missing answer."""
    causes: Counter[str] = Counter()
    for status, count in failures.items():
        causes[JudgeStatus(status).cause or "answer"] += count
    return {str(cause): count for cause, count in sorted(causes.items())}


def disagreement(
    judgements: Sequence[Judgement], middle: float, orders: Mapping[str, str] = {}
) -> Disagreement | None:
    """Spread of the values for each question with two or more; None where there are none."""
    values: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    by_order: defaultdict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
    for j in judgements:
        if j.score.value is not None:
            values[j.response_key, j.criterion, j.order].append(j.score.value)
            if order := j.order or (j.criterion in orders and j.criterion):
                question = orders.get(j.criterion, j.criterion)
                by_order[j.response_key, question, j.repeat][order] = j.score.value
    ranges = [max(own) - min(own) for own in values.values() if len(own) > 1]
    pairs = [list(own.values()) for own in by_order.values() if len(own) == 2]
    if not ranges and not pairs:
        return None
    n = len(ranges)
    return Disagreement(
        n_questions=n,
        mean_range=sum(ranges) / n if n else 0.0,
        share_unanimous=sum(gap == 0 for gap in ranges) / n if n else 1.0,
        n_order_pairs=len(pairs),
        n_order_flips=sum((a - middle) * (b - middle) < 0 for a, b in pairs),
    )


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


def _means_by_model(judgements: Iterable[Judgement]) -> dict[str, tuple[int, float]]:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for j in judgements:
        if j.model_returned and j.score.value is not None:
            values[j.model_returned].append(j.score.value)
    return {name: (len(own), sum(own) / len(own)) for name, own in sorted(values.items())}


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
        prompt_tokens=sum(entry.prompt_tokens for entry in entries),
        completion_tokens=sum(entry.completion_tokens for entry in entries),
        thinking_tokens=sum(entry.thinking_tokens for entry in entries),
        mean_answer_chars=_mean([row.answer_chars for row in answered]),
        mean_thinking_chars=_mean(thinking),
        odd_ends=_count_odd_ends(responses),
    )


def _count_odd_ends(responses: Iterable[Response]) -> dict[str, int]:
    ends = [response.finish_reason for response in responses if response.finish_reason]
    return dict(sorted(Counter(end for end in ends if end not in KNOWN_ENDS).items()))


def measure_performance(
    task: str,
    judge: str,
    written: Iterable[Written],
    judgements: Sequence[Judgement],
    price: Price | None,
) -> Performance:
    """Time, reuse and money of one judge over one task."""
    responses = [entry.response for entry in written]
    latencies = sorted(j.latency_s for j in judgements if not j.cached and j.latency_s > 0)
    times = [j.at for j in judgements if j.at is not None]
    return Performance(
        task=task,
        judge=judge,
        writer_latency_mean_s=_mean([r.latency_s for r in responses if not r.cached]),
        judge_latency_p50_s=_quantile(latencies, 0.5),
        judge_latency_p95_s=_quantile(latencies, 0.95),
        judge_latency_p99_s=_quantile(latencies, 0.99),
        n_responses_cached=sum(r.cached for r in responses),
        n_judgements_requested=len(judgements),
        n_judgements_sent=sum(max(1, len(j.asks)) for j in judgements if not j.cached),
        n_judgements_cached=sum(j.cached for j in judgements),
        judging_started=min(times, default=None),
        judging_ended=max(times, default=None),
        judge_usd=_cost(judgements, price),
    )


def _cost(judgements: Iterable[Judgement], price: Price | None) -> float | None:
    """Dollars of the verdicts that were paid for; one unknown makes the sum unknown, never 0."""
    total = 0.0
    for j in judgements:
        if j.cached:
            continue
        used = j.usage
        if price is None or used.prompt_tokens is None or used.completion_tokens is None:
            return None
        total += price.cost_usd(used.prompt_tokens, used.completion_tokens)
    return total if price is not None else None


def run_length_slope(rows: Iterable[SampleRow]) -> Metric | None:
    """Mean verdict on the length of the answers that have one; None without any."""
    points = [
        LengthPoint(row.sample_id, row.value, row.answer_chars)
        for row in rows
        if row.value is not None and row.answer_chars
    ]
    if not points:
        return None
    return replace(overall_length_slope(points), note="points per doubling, over all answers")


def _by_criterion(valid: Iterable[Judgement]) -> dict[str, dict[str, int]]:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for j in valid:
        if j.score.value is not None:
            values[_PLACE.sub("", j.criterion)].append(j.score.value)
    if not 1 < len(values) <= MAX_HISTOGRAMS:
        return {}
    return {name: _histogram(own) for name, own in sorted(values.items())}


def _histogram(values: Sequence[float]) -> dict[str, int]:
    return {f"{value:g}": n for value, n in sorted(Counter(round(v, 1) for v in values).items())}


def _share(values: Sequence[float], bound: float) -> float | None:
    return sum(value == bound for value in values) / len(values) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The empirical quantile at `share`, which is below 1; None without values."""
    return ordered[int(share * len(ordered))] if ordered else None
