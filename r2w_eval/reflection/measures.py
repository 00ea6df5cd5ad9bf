"""Measures of reflection: each a pure function from analysed traces to an `Estimate`.

Definitions stand in docs/reflection.md under the same names. Intervals resample prompts. A measure
without data has no value; it is never 0. Source: specification r2write, section 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from r2w_eval.models.thinking_tokens import TokenSource
from r2w_eval.reflection.analysis import (
    Analysis,
    Effect,
    Outcome,
    last_useful,
    own_outcomes,
)
from r2w_eval.stats.inference import measure
from r2w_eval.trace.levels import Level
from r2w_eval.trace.links import ReflectionLink
from r2w_eval.trace.types import Kind
from r2w_eval.types import Estimate, Metric, Stratum

Analyses = Sequence[Analysis]


def _ratio(
    name: str,
    analyses: Analyses,
    rows: Iterable[tuple[str, float, float]],
    is_share: bool = False,
) -> Estimate:
    """Sum of numerators over sum of denominators; rows are (prompt, above, below).

    A row with nothing below holds no data. Expected are all prompts of `analyses`, since prompts
    are what is resampled: several samples and turns of one are one.
    """
    n_prompts = len({analysis.source.cluster for analysis in analyses})
    return _quotient(name, [row for row in rows if row[2]], n_prompts, is_share)


def _quotient(
    name: str, rows: Sequence[tuple[str, float, float]], n: int, is_share: bool = False
) -> Estimate:
    """The same over all rows: a gain of 0 was measured too."""
    prompts, above, below = zip(*rows, strict=True) if rows else ((), (), ())
    return Estimate(name, (Stratum(prompts, above, below),), n, bounded=False, is_share=is_share)


def _thinking(analyses: Analyses) -> list[Analysis]:
    return [analysis for analysis in analyses if analysis.trace is not None]


def _over_responses(
    name: str, analyses: Analyses, value: Callable[[Analysis], float], is_share: bool = False
) -> Estimate:
    """Mean of one value a response."""
    rows = [(analysis.source.cluster, float(value(analysis)), 1.0) for analysis in analyses]
    return _ratio(name, analyses, rows, is_share)


def _over_links(
    name: str,
    analyses: Analyses,
    value: Callable[[ReflectionLink], float | None],
    is_share: bool = False,
) -> Estimate:
    """Mean over all reflections for which there is a value."""
    thinking = _thinking(analyses)
    rows = [
        (analysis.source.cluster, own, 1.0)
        for analysis in thinking
        for link in analysis.links
        if (own := value(link)) is not None
    ]
    return _ratio(name, thinking, rows, is_share)


def thinking_share(analyses: Analyses) -> Estimate:
    """Responses with any thinking, of all responses."""
    return _over_responses("thinking_share", analyses, lambda a: a.trace is not None, True)


def thinking_tokens(analyses: Analyses) -> Estimate:
    """Mean thinking tokens of a response, those without thinking included."""
    return _over_responses("thinking_tokens", analyses, lambda a: a.thinking_tokens)


def answer_tokens(analyses: Analyses) -> Estimate:
    """Mean answer tokens of a response."""
    return _over_responses("answer_tokens", analyses, lambda a: a.answer_tokens)


def reflections_per_trace(analyses: Analyses) -> Estimate:
    """Mean number of reflections of a trace."""
    return _over_responses("reflections_per_trace", _thinking(analyses), lambda a: len(a.links))


def without_reflection(analyses: Analyses) -> Estimate:
    """Traces that hold no reflection, of all traces."""
    return _over_responses(
        "without_reflection", _thinking(analyses), lambda a: not a.links, is_share=True
    )


def density(analyses: Analyses) -> Estimate:
    """Reflections per 1,000 thinking tokens, pooled over all traces."""
    thinking = _thinking(analyses)
    rows = [(a.source.cluster, 1000.0 * len(a.links), float(a.thinking_tokens)) for a in thinking]
    return _ratio("reflections_per_1000_tokens", thinking, rows)


def uptake_lift(analyses: Analyses) -> Estimate:
    """Mean of (share changed inside the targets - share changed elsewhere)."""
    return _over_links("uptake_lift", analyses, lambda link: link.uptake.lift)


def not_taken_up(analyses: Analyses) -> Estimate:
    """Reflections with a target in which the next text changed nothing."""

    def ignored(link: ReflectionLink) -> float | None:
        taken = link.uptake.is_taken_up
        return None if taken is None else float(not taken)

    return _over_links("not_taken_up", analyses, ignored, is_share=True)


def targeted(analyses: Analyses) -> Estimate:
    """Reflections that quote or name a stretch of the text before them."""

    def has_target(link: ReflectionLink) -> float | None:
        return None if link.base is None else float(bool(link.targets))

    return _over_links("targeted", analyses, has_target, is_share=True)


def redundancy(analyses: Analyses) -> Estimate:
    """Reflections more than 80 % of whose word 3-grams stand in an earlier one of their trace."""
    return _over_links("repeats", analyses, lambda link: float(link.is_repeat), is_share=True)


def mean_similarity(analyses: Analyses) -> Estimate:
    """Mean of the highest 3-gram containment in an earlier reflection; first ones left out."""
    return _over_links(
        "similarity", analyses, lambda link: link.similarity if link.step.earlier else None, True
    )


def specificity(analyses: Analyses) -> Estimate:
    """Mean share of: a target is found, a problem is named, a change is stated."""
    return _over_links("specificity", analyses, lambda link: link.specificity, is_share=True)


def praise_only(analyses: Analyses) -> Estimate:
    """Reflections that only praise."""
    return _over_links("praise_only", analyses, lambda link: float(link.is_praise), is_share=True)


def restating(analyses: Analyses) -> Estimate:
    """Mean share of a reflection's word 4-grams that stand in the prompt."""
    thinking = _thinking(analyses)
    rows = [(a.source.cluster, share, 1.0) for a in thinking for share in a.restated]
    return _ratio("restates_prompt", thinking, rows, is_share=True)


def census(analyses: Analyses, kind: Kind) -> Estimate:
    """Share of the thinking tokens in segments of one kind."""
    thinking, rows = _thinking(analyses), []
    for analysis in thinking:
        assert analysis.trace is not None
        pairs = zip(analysis.trace.segments, analysis.segment_tokens, strict=True)
        own = sum(tokens for segment, tokens in pairs if segment.kind is kind)
        rows.append((analysis.source.cluster, own, sum(analysis.segment_tokens)))
    return _ratio(f"tokens/{kind}", thinking, rows, is_share=True)


def level_share(analyses: Analyses, level: Level | None) -> Estimate:
    """Share of the reflections at one level; None: those at no known level."""
    return _over_links(
        f"level/{level or 'unknown'}", analyses, lambda link: float(link.level is level), True
    )


def _effects(analysis: Analysis) -> list[Effect]:
    """The effect of each step that a scorer was asked about, in order."""
    steps = (index for index, _ in own_outcomes(analysis))
    return [analysis.effects[index] for index in steps if index in analysis.effects]


def outcome_share(analyses: Analyses, outcome: Outcome) -> Estimate:
    """Steps with this outcome, of all scored steps; `improved` is the effective-reflection rate.

    Reflections that share a revision are one step.
    """
    thinking, rows = _thinking(analyses), []
    for analysis in thinking:
        scored = [e for e in _effects(analysis) if e.outcome is not Outcome.UNSCORED]
        hits = sum(effect.outcome is outcome for effect in scored)
        rows.append((analysis.source.cluster, float(hits), float(len(scored))))
    return _ratio(f"steps/{outcome}", thinking, rows, is_share=True)


def unscored_share(analyses: Analyses) -> Estimate:
    """Steps that a judge was asked about and that have no score, of all steps asked about."""
    thinking, rows = _thinking(analyses), []
    for analysis in thinking:
        effects = _effects(analysis)
        lost = sum(effect.outcome is Outcome.UNSCORED for effect in effects)
        rows.append((analysis.source.cluster, float(lost), float(len(effects))))
    return _ratio("steps/unscored", thinking, rows, is_share=True)


def mean_gain(analyses: Analyses) -> Estimate:
    """Mean gain of a scored step, in points of the judge."""
    thinking = _thinking(analyses)
    rows = [
        (analysis.source.cluster, effect.gain, 1.0)
        for analysis in thinking
        for effect in _effects(analysis)
        if effect.gain is not None
    ]
    return _ratio("mean_gain", thinking, rows)


def tokens_after_last_useful(analyses: Analyses) -> Estimate:
    """Share of the thinking tokens behind what was useful last; traces with a step only.

    Useful: called improved by the judge; without a judge: it changed the text. Where no step was
    useful, all behind the first text of the trace. No value where a step without a score may have
    been the last useful one.
    """
    thinking, rows = _thinking(analyses), []
    for analysis in thinking:
        segment = last_useful(analysis)
        if segment is not None:
            total = sum(analysis.segment_tokens)
            rows.append((analysis.source.cluster, analysis.tokens_after(segment), total))
    return _ratio("tokens_after_last_useful", thinking, rows, is_share=True)


def tokens_per_point(analyses: Analyses) -> Metric:
    """Thinking tokens per point that the last text is better than the first draft.

    Without a value where the gain's interval holds 0: the quotient then says nothing.
    """
    thinking, rows = _thinking(analyses), []
    for analysis in thinking:
        effects = _effects(analysis)
        values = [e.before.value for e in effects[:1]] + [e.after.value for e in effects[-1:]]
        if len(values) == 2 and values[0] is not None and values[1] is not None:
            tokens = float(analysis.thinking_tokens)
            rows.append((analysis.source.cluster, tokens, values[1] - values[0]))
    gain = measure(_ratio("gain", thinking, [(name, g, 1.0) for name, _, g in rows]))
    n, n_scored = gain.n_expected, len({name for name, *_ in rows})
    if gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
        note = "undefined: the interval of the gain holds 0" if rows else ""
        return Metric("tokens_per_point", None, None, None, n_scored, n, note=note)
    # prompts that got worse count too
    return replace(measure(_quotient("tokens_per_point", rows, n)), n_scored=n_scored)


SIMPLE: tuple[Callable[[Analyses], Estimate], ...] = (
    thinking_share,
    thinking_tokens,
    answer_tokens,
    reflections_per_trace,
    without_reflection,
    density,
    targeted,
    uptake_lift,
    not_taken_up,
    redundancy,
    mean_similarity,
    specificity,
    praise_only,
    restating,
    tokens_after_last_useful,
)
SIGNED = frozenset({"uptake_lift"})
JUDGED: tuple[Callable[[Analyses], Estimate], ...] = (unscored_share, mean_gain)


@dataclass(frozen=True, slots=True)
class ReflectionSummary:
    """The `reflection` block of results: every measure with n and interval, and plain counts."""

    n_responses: int
    n_traces: int
    n_reflections: int
    n_steps: int
    token_sources: Mapping[str, int]
    forms: Mapping[str, int]
    faults: Mapping[str, int]
    judge: str | None
    metrics: tuple[Metric, ...]


def summarise_reflection(analyses: Analyses, judge: str | None = None) -> ReflectionSummary:
    """All measures of a set of responses; those that need a judge only with one."""
    estimates = [function(analyses) for function in SIMPLE]
    estimates += [census(analyses, kind) for kind in Kind]
    estimates += [level_share(analyses, level) for level in (*Level, None)]
    metrics = [_measure_within(estimate) for estimate in estimates]
    if judge is not None:
        shares = (Outcome.IMPROVED, Outcome.NEUTRAL, Outcome.DEGRADED)
        metrics += [measure(outcome_share(analyses, outcome)) for outcome in shares]
        metrics += [measure(function(analyses)) for function in JUDGED]
        metrics.append(tokens_per_point(analyses))
    thinking = _thinking(analyses)
    return ReflectionSummary(
        n_responses=len(analyses),
        n_traces=len(thinking),
        n_reflections=sum(len(a.links) for a in thinking),
        n_steps=sum(len(own_outcomes(a)) for a in thinking),
        token_sources=_counts(a.token_source for a in thinking),
        forms=_counts(a.trace.form for a in thinking if a.trace),
        faults=_counts(fault for a in thinking for fault in set(a.faults)),
        judge=judge,
        metrics=tuple(metrics),
    )


def _measure_within(estimate: Estimate) -> Metric:
    """With an interval over a few prompts cut at 0, where counts and lengths end."""
    metric = measure(estimate)
    if metric.low is None or estimate.name in SIGNED:
        return metric
    return replace(metric, low=max(0.0, metric.low))


def _counts(values: Iterable[object]) -> dict[str, int]:
    return dict(sorted(Counter(str(value) for value in values).items()))


def is_estimated(summary: ReflectionSummary) -> bool:
    """Some token counts were estimated from lengths."""
    return bool(summary.token_sources.keys() - {str(TokenSource.REPORTED)})
