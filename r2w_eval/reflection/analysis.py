"""One analysed trace: its segments, links, token counts and, with a judge, the effect of each step.

`analyse` needs no model. `Effect` is what a scorer said about the text before and after a step; a
score that failed leaves the step unscored and counted (specification: r2write sections 3.1 and 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from r2w_eval.models.cost import estimate_tokens
from r2w_eval.models.thinking_tokens import TokenSource, count_tokens
from r2w_eval.trace.links import ReflectionLink, link_reflections, similarity_to, word_grams
from r2w_eval.trace.segmentation import segment_trace
from r2w_eval.trace.types import Fault, Segment, TagSchema, Trace
from r2w_eval.types import Score, Usage

# Smallest gain that counts, in points of the judge's scale
DEAD_BAND = 0.25


class Outcome(StrEnum):
    """What a step did to the text, by a scorer."""

    IMPROVED = "improved"
    NEUTRAL = "neutral"
    DEGRADED = "degraded"
    UNSCORED = "unscored"


@dataclass(frozen=True, slots=True)
class TraceInput:
    """A response as the analysis needs it. `cluster` is the prompt that intervals resample."""

    id: str
    thinking: str | None
    answer: str
    prompt: str = ""
    cluster: str = ""
    answer_id: str = ""
    """The answer that this is a turn of: all its turns are scored together."""
    usage: Usage = Usage()
    is_unclosed: bool = False
    score: float | None = None
    """The verdict on the final answer, where there is one."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Score of a text before and after one revision; the steps that led to it share it."""

    before: Score
    after: Score
    dead_band: float = DEAD_BAND

    @property
    def gain(self) -> float | None:
        """After minus before; None when one of them has no score."""
        if self.before.value is None or self.after.value is None:
            return None
        return self.after.value - self.before.value

    @property
    def outcome(self) -> Outcome:
        """Improved from the dead band on, degraded from minus the dead band on.

        >>> str(Effect(Score(5.0), Score(5.2)).outcome)
        'neutral'
        """
        if self.gain is None:
            return Outcome.UNSCORED
        if abs(self.gain) < self.dead_band:
            return Outcome.NEUTRAL
        return Outcome.IMPROVED if self.gain > 0 else Outcome.DEGRADED


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything known about one response's thinking. `trace` is None without any thinking.

    `effects[i]` belongs to link i; it is missing where nothing was scored. Tokens of a segment are
    its share of the thinking tokens (`segment_tokens`). `outcomes` are the indices of the links
    that are steps (`own_outcomes`); `restated[i]` is the share of reflection i that the prompt
    holds.
    """

    source: TraceInput
    trace: Trace | None
    links: tuple[ReflectionLink, ...]
    thinking_tokens: int
    answer_tokens: int
    token_source: TokenSource
    segment_tokens: tuple[float, ...]
    outcomes: tuple[int, ...]
    restated: tuple[float, ...]
    effects: Mapping[int, Effect] = field(default_factory=dict)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All faults of the trace and of its segments."""
        if self.trace is None:
            return ()
        own = [fault for segment in self.trace.segments for fault in segment.faults]
        return (*self.trace.faults, *own)

    def tokens_after(self, segment: Segment | None) -> float:
        """Thinking tokens behind a segment; all of them for None."""
        if self.trace is None or segment is None:
            return float(self.thinking_tokens)
        after = [s.span.start >= segment.outer.end for s in self.trace.segments]
        own = zip(after, self.segment_tokens, strict=True)
        return sum(tokens for is_after, tokens in own if is_after)


def analyse(source: TraceInput, schema: TagSchema | None = None) -> Analysis:
    """Segments, links and tokens of one response; never raises for any text."""
    thinking = source.thinking or ""
    trace = None
    if thinking.strip():
        trace = segment_trace(thinking, source.answer or None, schema)
        if source.is_unclosed:
            trace = replace(trace, faults=(*trace.faults, Fault.UNCLOSED_THINK))
    n_thinking, n_answer, token_source = count_tokens(thinking, source.answer, source.usage)
    links = link_reflections(trace) if trace else ()
    prompt = [word_grams(source.prompt, 4)]
    return Analysis(
        source=source,
        trace=trace,
        links=links,
        thinking_tokens=n_thinking,
        answer_tokens=n_answer,
        token_source=token_source,
        segment_tokens=_segment_tokens(trace, n_thinking) if trace else (),
        outcomes=_last_before_each_outcome(links),
        restated=tuple(similarity_to(word_grams(link.text, 4), prompt) for link in links)
        if source.prompt
        else (),
    )


def _segment_tokens(trace: Trace, n_thinking: int) -> tuple[float, ...]:
    """Each segment's share of the thinking tokens: mapped spans if there are, else by length."""
    if all(segment.tokens is not None for segment in trace.segments):
        return tuple(float(len(s.outer_tokens or ())) for s in trace.segments)
    guess = [estimate_tokens(segment.outer.cut(trace.text)) for segment in trace.segments]
    scale = n_thinking / max(1, estimate_tokens(trace.text))
    return tuple(own * scale for own in guess)


def last_useful(analysis: Analysis) -> Segment | None:
    """The last segment of the last useful step.

    A step is useful when its outcome is `improved`; in a trace without scores, when it changed the
    text. Its last segment is the revision, or the reflection where the final answer followed.
    Where no step was useful it is the first draft. None where there is no step, or where a step
    after the last useful one has no score and may have been useful.
    """
    steps = own_outcomes(analysis)
    found = steps[0][1].step.base if steps else None
    for index, link in steps:
        effect = analysis.effects.get(index)
        if effect is not None and effect.outcome is Outcome.UNSCORED:
            found = None
        elif bool(link.edits) if effect is None else effect.outcome is Outcome.IMPROVED:
            found = link.step.outcome or link.step.reflection
    return found


def own_outcomes(analysis: Analysis) -> list[tuple[int, ReflectionLink]]:
    """The steps: for each outcome the last reflection before it, with its index among the links.

    A revision after three reflections is one step. A step from or to a blank text is left out,
    since nothing can be measured there.
    """
    return [(index, analysis.links[index]) for index in analysis.outcomes]


def _last_before_each_outcome(links: Sequence[ReflectionLink]) -> tuple[int, ...]:
    # by the segment that a step led to; None is the answer
    by_outcome: dict[Segment | None, int] = {}
    for index, link in enumerate(links):
        if (link.outcome or "").strip() and (link.base or "").strip():
            by_outcome[link.step.outcome] = index
    return tuple(by_outcome.values())


def without_texts(analysis: Analysis) -> Analysis:
    """All that the measures read: the texts of a run are many times as large."""
    links = tuple(
        replace(
            link,
            text="",
            base=None if link.base is None else "",
            outcome=None if link.outcome is None else "",
            edits=link.edits[:1],
        )
        for link in analysis.links
    )
    source = replace(analysis.source, thinking=None, answer="", prompt="")
    trace = analysis.trace and replace(analysis.trace, text="", answer=None)
    return replace(analysis, source=source, trace=trace, links=links)


def with_effects(analysis: Analysis, effects: Mapping[int, Effect]) -> Analysis:
    """The analysis with the effect of some of its steps, by index."""
    return replace(analysis, effects=dict(effects))
