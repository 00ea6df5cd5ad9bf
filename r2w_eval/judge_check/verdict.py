"""What the figures of a card mean in words: signal, plain sentences, and red flags.

Pure functions; every sentence repeats the figures it rests on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from r2w_eval.judge_check.card import EvaluatorCard, NullFigures, SetFigures, Signal
from r2w_eval.judge_check.nulls import LONGEST
from r2w_eval.results.coverage import FULL_COVERAGE
from r2w_eval.types import Metric

# a judge that turns out this far from .5 towards one side is called biased
MAX_SIDE = 0.05


def conclude(card: EvaluatorCard) -> EvaluatorCard:
    """The card with its signal, verdict and flags, from its own figures."""
    return replace(
        card,
        signal=read_signal(card.sets, card.nulls),
        verdict=write_verdict(card.sets, card.nulls),
        flags=find_flags(card),
    )


def beats_rules(figures: SetFigures) -> bool:
    """The interval of the lift over the best trivial rule lies above 0."""
    return figures.lift.low is not None and figures.lift.low > 0


def read_signal(sets: Sequence[SetFigures], nulls: Sequence[NullFigures]) -> Signal:
    """See `Signal`. The longest answer is no null answer, only a bias, and does not count."""
    better = sum(map(beats_rules, sets))
    if not better:
        return Signal.NONE
    all_below = all(null.survives for null in nulls if null.name != LONGEST)
    return Signal.CLEAR if better == len(sets) and all_below else Signal.PARTIAL


def write_verdict(sets: Sequence[SetFigures], nulls: Sequence[NullFigures]) -> tuple[str, ...]:
    """One sentence a set, one for the null answers."""
    return (*map(_about_set, sets), _about_nulls(nulls))


def _about_set(figures: SetFigures) -> str:
    accuracy, rule, lift = figures.accuracy, figures.best_rule, figures.lift
    if accuracy.value is None or lift.value is None:
        return f"{figures.name}: no usable verdicts on pairs."
    if beats_rules(figures):
        shown = "better than"
    elif lift.high is not None and lift.high < 0:
        shown = "worse than"
    else:
        shown = "not shown to be better than"
    return (
        f"{figures.name}: agrees with people on {accuracy.value:.0%} of the pairs "
        f"({_span(accuracy)}, {accuracy.n_scored} requests), {shown} the rule "
        f"'{figures.best_baseline}' with {rule.value or 0:.0%} (difference {lift.value:+.1%}, "
        f"{_span(lift, '+.1%')})."
    )


def _about_nulls(nulls: Sequence[NullFigures]) -> str:
    judged = [null for null in nulls if null.gap.value is not None]
    if not judged:
        return "No null answer has a usable verdict."
    missed = [null.name for null in judged if not null.survives]
    if not missed:
        return f"All {len(judged)} kinds of null answers are shown to score below real ones."
    return (
        f"Of {len(judged)} kinds of null answers, {len(missed)} are not shown to score below real "
        f"ones: {', '.join(missed)}."
    )


def find_flags(card: EvaluatorCard) -> tuple[str, ...]:
    """Red flags, worst first."""
    by_name = {metric.name: metric for metric in card.behaviour}
    return (
        *_null_flags(card.nulls),
        *_set_flags(card.sets),
        *_order_flags(by_name),
        *_length_flags(by_name),
        *_loss_flags(card),
    )


def _null_flags(nulls: Sequence[NullFigures]) -> Iterator[str]:
    """Those shown to do as well as real ones; the verdict names all that are not shown below."""
    for null in nulls:
        above = null.gap.high is not None and null.gap.high < 0
        if above and null.name != LONGEST:
            yield (
                f"null answer {null.name} scores above real answers: gap {null.gap.value:+.2f} "
                f"points ({_span(null.gap, '+.2f')}, {null.n_prompts} requests)"
            )
    for null in nulls:
        if null.beats_a_system:
            yield (
                f"null answer {null.name} scores {null.mean:.2f}, no less than the weakest real "
                f"writer with {null.weakest_system:.2f}"
            )


def _set_flags(sets: Sequence[SetFigures]) -> Iterator[str]:
    for figures in sets:
        if figures.lift.high is not None and figures.lift.high < 0:
            yield f"{figures.name}: worse than the rule '{figures.best_baseline}'"


def _order_flags(by_name: Mapping[str, Metric]) -> Iterator[str]:
    first = by_name.get("first_wins")
    if first is None or first.value is None or first.low is None or first.high is None:
        return
    if abs(first.value - 0.5) > MAX_SIDE and not first.low <= 0.5 <= first.high:
        yield f"the text shown first wins {first.value:.0%} of the time ({_span(first)})"


def _length_flags(by_name: Mapping[str, Metric]) -> Iterator[str]:
    slope, people = by_name.get("length_slope"), by_name.get("length_slope:people")
    if slope is None or slope.value is None or slope.low is None:
        return
    if slope.low > ((people.high if people else None) or 0.0):
        beside = f"; people: {people.value:+.2f}" if people and people.value is not None else ""
        yield (
            f"scores rise with length: {slope.value:+.2f} points per doubling "
            f"({_span(slope, '+.2f')}{beside})"
        )


def _loss_flags(card: EvaluatorCard) -> Iterator[str]:
    used = card.consumption
    if used.n_verdicts and used.n_usable / used.n_verdicts < FULL_COVERAGE:
        lost = ", ".join(f"{status} {n}" for status, n in used.failures.items())
        yield f"{used.n_verdicts - used.n_usable} of {used.n_verdicts} verdicts lost: {lost}"
    if len(card.models_returned) > 1:
        yield f"several model ids answered: {', '.join(card.models_returned)}"


def _span(metric: Metric, form: str = ".0%") -> str:
    if metric.low is None or metric.high is None:
        return "no interval"
    return f"95 % {metric.low:{form}} to {metric.high:{form}}"
