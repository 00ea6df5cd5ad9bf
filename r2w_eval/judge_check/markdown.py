"""An evaluator card as Markdown, for people. Names from outside are escaped, never interpreted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from r2w_eval.judge_check.card import EvaluatorCard, NullFigures, SetFigures
from r2w_eval.terminal import difference, interval, number
from r2w_eval.types import Metric

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
SIGNALS = {
    "none": "no signal: better than a trivial rule on no labelled set",
    "partial": "partial: better than the trivial rules on some sets, or null answers get by",
    "clear": "clear: better than the trivial rules on every set, and no null answer gets by",
}


def escape(text: object) -> str:
    """Plain text in Markdown: no markup, one line.

    >>> escape("a|b <i>")
    'a\\\\|b \\\\<i\\\\>'
    """
    return _SPECIAL.sub(r"\\\1", _CONTROL.sub(" ", str(text)))


def card_markdown(card: EvaluatorCard) -> str:
    """The whole card."""
    return "\n".join([*_head(card), *_sets(card), *_nulls(card), *_behaviour(card), *_tail(card)])


def _head(card: EvaluatorCard) -> Iterator[str]:
    yield f"# Evaluator card: {escape(card.judge)}\n"
    if card.is_smoke_test:
        yield "The embedded model is a smoke test of the pipeline, not a judge of writing.\n"
    yield f"**Signal: {SIGNALS[card.signal]}.**\n"
    yield from (f"* {escape(sentence)}" for sentence in card.verdict)
    if card.flags:
        yield "\n## Red flags\n"
        yield from (f"* {escape(flag)}" for flag in card.flags)
    yield (
        f"\nMade {card.created} with r2w-eval {card.r2w_eval}, key `{card.key}`. Intervals are "
        f"95 % over requests; *n* is scored / expected."
    )


def _sets(card: EvaluatorCard) -> Iterator[str]:
    yield "\n## Agreement with people, beside trivial rules\n"
    for figures in card.sets:
        yield from _one_set(figures)
    yield "By language, over all sets:\n"
    yield from metric_table(card.languages)


def _one_set(figures: SetFigures) -> Iterator[str]:
    yield (
        f"### {escape(figures.name)}\n\n{figures.language}, {figures.kind}, {figures.n_prompts} "
        f"requests, {figures.n_texts} texts, {figures.n_pairs} pairs that people told apart. "
        f"Licence: {escape(figures.licence)}.\n"
    )
    yield from metric_table(figures.metrics, "judge")
    yield from metric_table((*figures.baselines, figures.lift), "trivial rule")
    if figures.notes:
        yield f"{escape('; '.join(figures.notes))}.\n"


def _nulls(card: EvaluatorCard) -> Iterator[str]:
    yield "\n## Null answers\n"
    yield "Each must score below the real answers to the same requests.\n"
    yield "| null answer | is | mean | real | share below | real minus null | n | below? |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from (_null_row(null) for null in card.nulls)
    weakest = next((n.weakest_system for n in card.nulls if n.weakest_system is not None), None)
    if weakest is not None:
        yield f"\nThe weakest real writer on these requests has a mean of {weakest:.2f}."


def _null_row(null: NullFigures) -> str:
    cells = (
        null.name.replace("_", " "),
        null.description,
        number(null.mean),
        number(null.real_mean),
        number(null.below.value),
        with_interval(null.gap),
        f"{null.gap.n_scored}/{null.gap.n_expected}",
        "yes" if null.survives else "**not shown**",
    )
    return "| " + " | ".join(cells) + " |"


def _behaviour(card: EvaluatorCard) -> Iterator[str]:
    yield "\n## How it scores\n"
    yield from metric_table(card.behaviour)


def _tail(card: EvaluatorCard) -> Iterator[str]:
    used = card.consumption
    lost = ", ".join(f"{status} {n}" for status, n in used.failures.items()) or "none"
    yield "## Cost\n"
    yield (
        f"{used.n_usable} of {used.n_verdicts} verdicts usable (lost: {lost}); tokens in/out "
        f"{used.prompt_tokens:,}/{used.completion_tokens:,}; per 1,000 verdicts "
        f"{number(used.seconds_per_1000, ',.0f')} s on one connection and "
        f"{'$' + number(used.usd_per_1000) if used.usd_per_1000 is not None else 'n/a'} in money."
    )
    if card.notes:
        yield "\n## Notes\n"
        yield from (f"* {escape(note)}" for note in card.notes)
    yield "\n## Identity\n"
    yield f"* model ids returned: {escape(', '.join(card.models_returned) or 'none')}"
    facts = {**card.judge_facts, **card.judge_decoding}
    yield from (f"* {escape(name)}: {escape(value)}" for name, value in facts.items())
    yield from (
        f"* {escape(name)}: {escape(value)}"
        for name, value in card.identity.items()
        if name not in ("judges", "decoding")
    )
    yield ""


def metric_table(metrics: Iterable[Metric], title: str = "measure") -> Iterator[str]:
    """A table of metrics with interval and n."""
    rows: Sequence[Metric] = list(metrics)
    if not rows:
        return
    yield f"| {title} | value | 95 % | n | |"
    yield "|---|---|---|---|---|"
    for metric in rows:
        yield (
            f"| {escape(metric.name)} | {number(metric.value)} | "
            f"{interval(metric.low, metric.high)} | {metric.n_scored}/{metric.n_expected} | "
            f"{escape(metric.note)} |"
        )
    yield ""


def with_interval(metric: Metric) -> str:
    """A difference with its sign, and its interval."""
    return difference(metric.value, metric.low, metric.high)
