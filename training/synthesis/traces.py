"""Turns episodes of the loop into training traces, filters them, and counts the losses.

The thinking of a trace holds the plan, the draft and the improving (reflection, revision) steps;
the answer is the best text. Every dropped episode has a reason (specification: r2write.md sections
3.4 and 3.5). Other steps are not part of a trace: its row has their marks and labels, and their
texts go to reward models (steps.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from r2w_eval.reward_models.language.words import ngrams, words
from r2w_eval.training.contamination import tokenise
from r2w_eval.training.synthesis.leaks import shows_a_judge
from r2w_eval.training.synthesis.loop import Episode, SynthStep
from r2w_eval.training.synthesis.steps import step_leaks

from r2w_eval.errors import UsageError
from r2w_eval.models.thinking import ThinkTags
from r2w_eval.trace import segment_trace
from r2w_eval.trace.types import Form, Kind, Trace
from r2w_eval.trace.units import units
from r2w_eval.trace.writing import Parts, write_trace

THINK = ThinkTags()
MAX_REPETITION = 0.2
MAX_PROMPT_JACCARD = 0.6
_BEFORE = (Kind.PLAN, Kind.DRAFT)
# a first line that hands the piece over: "Sure! Here is the revised piece:", 以下是修改后的正文：
_HANDING_OVER = re.compile(
    r"\W*(?:(?:sure|certainly|of course|absolutely|okay)\b[^\n]{0,60})?"
    r"(?:here(?:'s|’s| is| are)|below is)\b[^\n]{0,80}"
    r"\b(?:the piece|draft|rewrite|revision|revised|rewritten|updated|improved|edited|polished)\b"
    r"[^\n]{0,80}:\W*(?:\n|$)"
    r"|\W*(?:(?:好的|当然)[，,。!！]?)?(?:以下|下面|这)是?[^\n]{0,20}"
    r"(?:修改|修订|改写|润色|初稿|正文)[^\n]{0,20}[:：]\W*(?:\n|$)",
    re.IGNORECASE,
)


class Dropped(StrEnum):
    """Why an episode gives no trace."""

    UNFINISHED = "unfinished"
    NO_GAIN = "no_gain"
    REPETITIVE = "repetitive"
    LEAK = "leak"
    REMARK = "remark"
    TAG_IN_TEXT = "tag_in_text"
    ONE_LEVEL = "one_level"
    READS_OTHERWISE = "reads_otherwise"


@dataclass(frozen=True, slots=True)
class TracePart:
    """A segment of the thinking by character offsets; plan and draft have `round` 0."""

    kind: str
    start: int
    end: int
    round: int
    level: str


@dataclass(frozen=True, slots=True)
class TrainingTrace:
    """One training example: thinking and answer for `prompt`. `source` says how it was made."""

    id: str
    lang: str
    domain: str
    prompt: str
    thinking: str
    answer: str
    segments: tuple[TracePart, ...]
    source: str
    gain: float | None
    facts: Mapping[str, Any]


def stitch(episode: Episode, form: Form = Form.TAGGED) -> TrainingTrace | Dropped:
    """The trace of an episode, or the reason why it gives none."""
    if reason := unfit(episode):
        return reason
    prompt = episode.prompt
    parts: list[tuple[Kind, str]] = [(Kind.PLAN, episode.plan), (Kind.DRAFT, episode.draft)]
    places = []
    for step in episode.chain:
        parts += [(Kind.REFLECTION, step.reflection), (Kind.REVISION, step.written)]
        places += [(step.round, step.level)] * 2
    trace = write_readable(parts, form, prompt.lang)
    if isinstance(trace, Dropped):
        return trace
    read = [(own.draft, own.revision) for own in units(trace)]
    if read != [(step.base, step.text) for step in episode.chain]:
        return Dropped.READS_OTHERWISE
    if _leaks(episode):
        return Dropped.LEAK
    return TrainingTrace(
        id=prompt.id,
        lang=prompt.lang,
        domain=prompt.domain,
        prompt=prompt.prompt,
        thinking=trace.text,
        answer=episode.best,
        segments=place_parts(trace, places),
        source="loop",
        gain=episode.fresh_gain,
        facts={
            "stop": episode.stop,
            "rubric": episode.rubric,
            "steps": [step_facts(step) for step in episode.steps],
            "mean_first": episode.mean_first,
            "mean_best": episode.mean_best,
        },
    )


def write_readable(parts: Parts, form: Form, language: str) -> Trace | Dropped:
    """A trace of these parts that is parsed into the same parts again, or why there is none.

    A tag of thinking in one of them would end or begin the thinking there (`to_row`).
    """
    if any(tag in text for _, text in parts for tag in (THINK.open, THINK.close)):
        return Dropped.TAG_IN_TEXT
    try:
        trace = write_trace(parts, form, language)
    except UsageError:
        return Dropped.TAG_IN_TEXT
    return trace if segment_trace(trace.text) == trace else Dropped.READS_OTHERWISE


def place_parts(trace: Trace, places: Sequence[tuple[int, str]]) -> tuple[TracePart, ...]:
    """The segments; `places` are the round and level of each one after the draft."""
    following = iter(places)
    return tuple(
        TracePart(
            str(segment.kind),
            segment.span.start,
            segment.span.end,
            *((0, "") if segment.kind in _BEFORE else next(following)),
        )
        for segment in trace.segments
    )


def step_facts(step: SynthStep) -> dict[str, Any]:
    """Marks and labels of a step, without its texts."""
    return {
        "round": step.round,
        "label": step.label,
        "gain": step.gain,
        "level": step.level,
        "before": step.before,
        "after": step.after,
    }


def unfit(episode: Episode) -> Dropped | None:
    """The first filter that an episode fails; None if it passes all."""
    if not episode.chain or episode.mean_first is None or episode.mean_best is None:
        return Dropped.UNFINISHED
    if episode.mean_best <= episode.mean_first:
        return Dropped.NO_GAIN
    if repetition(episode.best) > MAX_REPETITION:
        return Dropped.REPETITIVE
    written = (episode.draft, *(step.written for step in episode.chain))
    if any(map(hands_over, written)):
        return Dropped.REMARK
    if len(episode.chain) > 1 and len({step.level for step in episode.chain}) < 2:
        return Dropped.ONE_LEVEL
    return None


def _leaks(episode: Episode) -> bool:
    """Whether the trace or its answer reveals the judge; the first draft is not checked."""
    parts = [part for step in episode.chain for part in (step.reflection, step.written)]
    whole = (episode.plan, *parts, episode.best)
    prompt = episode.prompt
    return shows_a_judge(whole, prompt.lang, prompt.prompt, episode.draft)


def hands_over(text: str) -> bool:
    """The text begins with a remark to whoever asked for it, which the answer would keep.

    >>> hands_over("Here is the revised piece:\\n\\nRain."), hands_over("Here is rain: much.")
    (True, False)
    """
    return _HANDING_OVER.match(text) is not None


def repetition(text: str) -> float:
    """Share of 4-grams that occurred earlier in the text.

    >>> repetition("a a a a a a a")
    0.75
    """
    own = words(text)
    count = len(own) - 3
    return 1 - len(ngrams(own, 4)) / count if count > 0 else 0.0


def near_duplicates(prompts: Sequence[str]) -> set[int]:
    """Indices of prompts that nearly repeat an earlier one, by the Jaccard index of 8-grams.

    >>> near_duplicates(["about a cat in the rain", "write about a dog", "Ｗrite about a dog!"])
    {2}
    """
    seen: dict[tuple[str, ...], list[int]] = {}
    grams = [_shingles(prompt) for prompt in prompts]
    found: set[int] = set()
    for place, own in enumerate(grams):
        shared = Counter(other for gram in own for other in seen.get(gram, ()))
        if any(
            n > MAX_PROMPT_JACCARD * (len(own) + len(grams[other]) - n)
            for other, n in shared.items()
        ):
            found.add(place)
            continue
        for gram in own:
            seen.setdefault(gram, []).append(place)
    return found


def _shingles(prompt: str) -> set[tuple[str, ...]]:
    own = tokenise(prompt)
    return ngrams(own, min(8, len(own))) if own else set()


@dataclass(frozen=True)
class Census:
    """Counts of a synthesis: ends of episodes, labels and levels of all steps, losses by reason.

    gain_judge: whose fresh assessments measured the gain
    n_fresh_gains, mean_fresh_gain: of the kept traces whose fresh assessments succeeded
    """

    stops: Mapping[str, int]
    labels: Mapping[str, int]
    dropped: Mapping[str, int]
    leaks: Mapping[str, int]
    n_leaking_steps: int
    levels: Mapping[str, int]
    n_kept: int
    n_discarded_quotes: int
    gain_judge: str
    n_fresh_gains: int
    mean_fresh_gain: float | None


def take_census(
    episodes: Sequence[Episode], results: Iterable[TrainingTrace | Dropped], gain_judge: str
) -> Census:
    """The census of all episodes and their `results`."""
    found = list(results)
    kept = [trace for trace in found if isinstance(trace, TrainingTrace)]
    gains = [trace.gain for trace in kept if trace.gain is not None]
    steps = [step for episode in episodes for step in episode.steps]
    return Census(
        stops=_count(str(episode.stop) for episode in episodes),
        labels=_count(str(step.label) for step in steps),
        dropped=_count(str(result) for result in found if isinstance(result, Dropped)),
        leaks=_count(str(leak) for episode in episodes for leak in episode.leaks),
        n_leaking_steps=sum(
            step_leaks(episode, step) for episode in episodes for step in episode.steps
        ),
        levels=_count(step.level for step in steps),
        n_kept=len(kept),
        n_discarded_quotes=sum(episode.n_discarded for episode in episodes),
        gain_judge=gain_judge,
        n_fresh_gains=len(gains),
        mean_fresh_gain=sum(gains) / len(gains) if gains else None,
    )


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
