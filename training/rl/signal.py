"""Measures, before RL is started, whether the rewards would give it a training signal.

Texts of the model that RL would start from are scored as rollouts would be, and the mapping to
advantages is applied: a reward that is equal for all rollouts of a prompt teaches nothing. This
needs neither a GPU nor the policy: characters stand in for tokens, so only shares and ratios are
reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from r2w_eval.training.rl.advantages import (
    LocalMapping,
    Rollout,
    outcome_advantages,
    process_terms,
    valid_scores,
)
from r2w_eval.training.rl.completions import (
    ScorableReflection,
    read_completion,
    reflections,
    to_segments,
)
from r2w_eval.training.rl.outcomes import ScorerOutcome

from r2w_eval.estimates import pooled
from r2w_eval.stats import measure
from r2w_eval.stats.agreement import associate
from r2w_eval.trace.types import TagSchema
from r2w_eval.types import Estimate, Metric, Stratum

# equal but for rounding
SAME = 1e-9
# thresholds of the warnings; choices of this project
FEW, MOST, SMALL = 0.5, 0.9, 0.1


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one policy on one prompt, scored."""

    prompt_id: str
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True)
class Signal:
    """The signal that one RL arm would see.

    weight: lambda of the arm
    measures: in the order of a page
    name: what differs from the usual arm; empty for that one
    """

    weight: float
    n_rollouts: int
    measures: tuple[Metric, ...]
    name: str = ""

    @property
    def title(self) -> str:
        """The arm in words.

        >>> Signal(0.3, 8, (), "sum").title
        'sum, lambda 0.3'
        """
        return f"{self.name}, lambda {self.weight:g}".removeprefix(", ")

    def value(self, name: str) -> float | None:
        """The value of a measure by name; None if there was nothing to measure."""
        return next(metric.value for metric in self.measures if metric.name == name)


def score_groups(
    texts: Iterable[Mapping[str, Any]],
    outcome: Any,
    process: Any,
    unanswered: float | None = None,
) -> list[Group]:
    """Score texts (`rollouts.RolloutText` as JSON, several per prompt) as RL would.

    Texts are grouped by prompt and, if they have it, by the key `policy`.
    """
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for text in texts:
        name = "/".join(filter(None, (text.get("policy"), text["prompt_id"])))
        by_prompt.setdefault(name, []).append(text)
    reward = ScorerOutcome(outcome, unanswered)
    groups = []
    for name, own in by_prompt.items():
        found = [_read(place, text) for place, text in enumerate(own)]
        scores = iter(process.score([one.item for refs in found for one in refs]))
        values = reward([text["prompt"] for text in own], [text["text"] for text in own])
        rollouts = tuple(
            Rollout(len(text["text"]), value, to_segments(refs, [next(scores).value for _ in refs]))
            for text, value, refs in zip(own, values, found, strict=True)
        )
        groups.append(Group(name, rollouts))
    return groups


def _read(place: int, text: Mapping[str, Any]) -> list[ScorableReflection]:
    characters = [ord(character) for character in text["text"]]
    trace = read_completion(characters, lambda ids: "".join(map(chr, ids)), TagSchema())
    return reflections(trace, text["prompt"], str(place))


def read_signal(groups: Sequence[Group], mapping: LocalMapping) -> Signal:
    """All measures with intervals over prompts, at full lambda (after the warm-up)."""
    # a single text has nothing to be compared with
    compared = [group for group in groups if len(group.rollouts) > 1]
    terms = {group.prompt_id: _terms(group, mapping) for group in compared}
    shares = [
        _share("groups whose outcomes differ", compared, lambda g: [_differ(_outcomes(g))]),
        _share("groups whose process terms differ", compared,
               lambda g: [_differ([float(t.sum()) for t in terms[g.prompt_id]])]),
        _share("rollouts with a process term", compared,
               lambda g: [bool(t.any()) for t in terms[g.prompt_id]]),
        _share("rollouts without a scored reflection", groups,
               lambda g: [not valid_scores(one) for one in g.rollouts]),
        _share("rollouts whose own reflections differ in score", groups,
               lambda g: [_differ(_scores(one)) for one in g.rollouts]),
    ]  # fmt: skip
    metrics = [
        *(measure(one) for one in shares),
        *(measure(one) for one in _variances(groups)),
        *(measure(one) for one in _sizes(compared, terms)),
        _correlation(compared),
        measure(_mean_score(groups)),
    ]
    n_rollouts = sum(len(group.rollouts) for group in groups)
    return Signal(mapping.weight, n_rollouts, tuple(metrics))


def _terms(group: Group, mapping: LocalMapping) -> list[Any]:
    return process_terms(group.rollouts, outcome_advantages(group.rollouts), mapping)


def _outcomes(group: Group) -> list[float]:
    return [one.outcome for one in group.rollouts if one.outcome is not None]


def _scores(rollout: Rollout) -> list[float]:
    return [segment.score for segment in valid_scores(rollout) if segment.score is not None]


def _all_scores(group: Group) -> list[float]:
    return [score for rollout in group.rollouts for score in _scores(rollout)]


def _differ(values: Sequence[float]) -> bool:
    return len(values) > 1 and max(values) - min(values) > SAME


def _share(
    name: str, groups: Sequence[Group], facts: Callable[[Group], Sequence[bool]]
) -> Estimate:
    """Share of the facts of all groups that are true."""
    rows = [(group.prompt_id, [float(fact) for fact in facts(group)]) for group in groups]
    return replace(pooled(name, rows, len(groups)), is_share=True)


def _ratio(name: str, rows: Sequence[tuple[str, float, float]]) -> Estimate:
    """Ratio of two sums; rows are (prompt, numerator, denominator)."""
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    keys, above, below = (tuple(column) for column in columns)
    return Estimate(name, (Stratum(keys, above, below),), len(rows), is_share=True)


def _variances(groups: Sequence[Group]) -> Iterator[Estimate]:
    """Shares of variance within groups, the only place where RL compares, and within traces."""
    compared = [group for group in groups if len(group.rollouts) > 1]
    outcomes = {group.prompt_id: [_outcomes(group)] for group in compared}
    yield _within("variance of outcomes within groups", outcomes)
    scores = {group.prompt_id: [_all_scores(group)] for group in compared}
    yield _within("variance of reflection scores within groups", scores)
    traces = {group.prompt_id: [_scores(one) for one in group.rollouts] for group in groups}
    yield _within("variance of reflection scores within traces", traces)


def _within(name: str, parts: Mapping[str, Sequence[Sequence[float]]]) -> Estimate:
    """Sum of squares within the parts over the total sum of squares; `parts` by prompt."""
    everything = [value for own in parts.values() for part in own for value in part]
    centre = float(np.mean(everything)) if everything else 0.0
    rows = [
        (
            key,
            sum(float(np.var(part)) * len(part) for part in own if part),
            sum((value - centre) ** 2 for part in own for value in part),
        )
        for key, own in parts.items()
    ]
    return _ratio(name, rows)


def _sizes(groups: Sequence[Group], terms: Mapping[str, Sequence[Any]]) -> Iterator[Estimate]:
    """Size of the process term relative to the outcome's, and the share of it below zero."""
    sizes, below = [], []
    for group in groups:
        own = terms[group.prompt_id]
        advantages = outcome_advantages(group.rollouts)
        outcome = sum(
            abs(a or 0.0) * one.n_tokens for a, one in zip(advantages, group.rollouts, strict=True)
        )
        whole = sum(float(np.abs(term).sum()) for term in own)
        sizes.append((group.prompt_id, whole, outcome))
        below.append((group.prompt_id, sum(-float(term.clip(max=0).sum()) for term in own), whole))
    yield replace(_ratio("size of the process term beside the outcome", sizes), is_share=False)
    yield _ratio("part of the process term below zero", below)


def _correlation(groups: Sequence[Group]) -> Metric:
    """Spearman correlation of outcome advantage and mean reflection score centred on the group."""
    rows: list[tuple[str, float | None, float]] = []
    for group in groups:
        advantages = outcome_advantages(group.rollouts)
        means = [float(np.mean(own)) if (own := _scores(one)) else None for one in group.rollouts]
        known = [mean for mean in means if mean is not None]
        rows += [
            (group.prompt_id, advantage, mean - float(np.mean(known)))
            for advantage, mean in zip(advantages, means, strict=True)
            if mean is not None
        ]
    names = [name for name, _, _ in rows]
    found = associate([one for _, one, _ in rows], [own for _, _, own in rows], clusters=names)
    name = "correlation of outcome and process within groups"
    return Metric(name, found.value, found.low, found.high, found.n, len(rows))


def _mean_score(groups: Sequence[Group]) -> Estimate:
    scores = {group.prompt_id: _all_scores(group) for group in groups}
    return pooled("mean score of a reflection", scores.items(), len(groups))


def read_arms(
    groups: Sequence[Group], mapping: LocalMapping, weights: Iterable[float], name: str = ""
) -> list[dict[str, Any]]:
    """The signals of the arms with lambda above 0, as records for a report."""
    mappings = [replace(mapping, weight=one) for one in weights if one]
    signals = [replace(read_signal(groups, one), name=name) for one in mappings]
    return [
        {**asdict(signal), "title": signal.title, "warnings": warnings(signal)}
        for signal in signals
    ]


def tell_warnings(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each warning once; if arms have names, with the arms that it applies to."""
    found: dict[str, list[str]] = {}
    for arm in arms:
        for text in arm["warnings"]:
            found.setdefault(text, []).append(arm["title"])
    if not any(arm["name"] for arm in arms):
        return [*found]
    return [f"{text} ({'; '.join(titles)})" for text, titles in found.items()]


def read_back(record: Mapping[str, Any]) -> Signal:
    """A signal from its record; older records have no name."""
    measures = tuple(Metric(**metric) for metric in record["measures"])
    return Signal(record["weight"], record["n_rollouts"], measures, record.get("name", ""))


def warnings(signal: Signal) -> list[str]:
    """Warnings for the reader of a signal; empty if nothing is wrong."""

    def is_(name: str, low: float, high: float) -> bool:
        value = signal.value(name)
        return value is not None and low <= value <= high

    rules = {
        "most groups have equal outcomes and teach nothing": (
            is_("groups whose outcomes differ", 0, FEW)
        ),
        "most rollouts get no process term": is_("rollouts with a process term", 0, FEW),
        "nearly all of the process term is below zero: it says less reflection before it says "
        "better reflection": is_("part of the process term below zero", MOST, 1),
        "few traces hold reflections of unequal worth: credit goes to the trace, not to the better "
        "reflection in it": is_("rollouts whose own reflections differ in score", 0, SMALL),
        "the process term is small beside the outcome, which decides alone": (
            is_("size of the process term beside the outcome", 0, SMALL)
        ),
    }
    return [text for text, holds in rules.items() if holds]


def tell_signal(signal: Signal) -> Iterator[str]:
    """The signal as lines for a terminal: all measures, then the warnings."""
    yield f"{signal.title}, {signal.n_rollouts} rollouts:"
    for metric in signal.measures:
        yield f"  {metric.name}: {show(metric)}"
    yield from (f"  ! {text}" for text in warnings(signal))


def show(metric: Metric) -> str:
    """A metric as text: value, interval and n, or n/a.

    >>> show(Metric("x", 0.5, 0.25, 0.75, 8, 8)), show(Metric("x", None, None, None, 0, 8))
    ('0.500 (0.250 to 0.750; n 8)', 'n/a (n 0)')
    """
    if metric.value is None:
        return f"n/a (n {metric.n_scored})"
    if metric.low is None or metric.high is None:
        return f"{metric.value:.3f} (n {metric.n_scored})"
    return f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f}; n {metric.n_scored})"
