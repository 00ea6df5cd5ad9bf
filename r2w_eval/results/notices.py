"""Warnings about a result: partial coverage, cut answers, several models behind one name, ….

Each has a stable code, which is compared, and a sentence for people, which may be reworded
(specification: harness R2, section 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from r2w_eval.judge.families import is_own_family
from r2w_eval.records.plan import NO_JUDGE
from r2w_eval.results.counts import JudgeSummary, WriterSummary
from r2w_eval.results.coverage import Scored, scored_of
from r2w_eval.types import Metric, WriterStatus

TRUNCATION_WARNING = 0.02


@dataclass(frozen=True, slots=True, order=True)
class Notice:
    """One warning: `code` is stable and compared, `text` is for people."""

    code: str
    text: str


def notices(
    left_out: Iterable[str],
    writer: WriterSummary,
    judging: JudgeSummary,
    headline: Metric,
    name: str,
) -> tuple[Notice, ...]:
    """All warnings about one result; `left_out` are the plan's notes, `name` is the writer's."""
    return (
        *(Notice("left_out", text) for text in left_out),
        *partial(scored_of(headline, judging.answers), judging),
        *cut_answers(writer),
        *odd_ends(writer),
        *several_models(writer, judging),
        *doubtful_verdicts(judging),
        *own_family(name, judging.judge),
    )


def tell_apart(asks_alike: bool, scales: Mapping[str, tuple[float, float]]) -> str:
    """Why judges are not combined; "" where they are. `scales` are their lowest and highest values.

    >>> tell_apart(True, {"a": (0.0, 1.0), "b": (1.0, 10.0)})
    'the judges are not combined, for their scales differ: a 0 to 1, b 1 to 10'
    """
    if not asks_alike:
        return (
            "the judges are not combined: what each is asked here follows from its own replies, so "
            "that every judge's result stands alone"
        )
    if len(set(scales.values())) < 2:
        return ""
    told = ", ".join(f"{judge} {low:g} to {high:g}" for judge, (low, high) in scales.items())
    return f"the judges are not combined, for their scales differ: {told}"


def partial(scored: Scored, judging: JudgeSummary) -> Iterable[Notice]:
    """A score that stands for fewer samples, or answers to them, than were asked for."""
    if scored.is_partial:
        n, of = scored.n_scored, scored.n_expected
        what = "answers" if scored == judging.answers else "samples"
        told = f"{n} of {of} {what} are scored, and the score is that of these {n} alone"
        yield Notice(
            "partial", told if judging.judge == NO_JUDGE else f"judge {judging.judge}: {told}"
        )


def cut_answers(writer: WriterSummary) -> Iterable[Notice]:
    """More than 2 % of the answers ended at the token limit."""
    for status in (WriterStatus.TRUNCATED, WriterStatus.UNCLOSED_THINK):
        count = writer.statuses.get(status, 0)
        if writer.n_expected and count / writer.n_expected > TRUNCATION_WARNING:
            yield Notice(
                str(status),
                f"{count} of {writer.n_expected} answers are {status}: raise "
                f"--gen-kwargs max_tokens=N, or read the scores as those of cut texts",
            )


def odd_ends(writer: WriterSummary) -> Iterable[Notice]:
    """Answers that ended for a reason that is not known to mean a whole or a cut text."""
    if writer.odd_ends:
        told = ", ".join(f"{end[:60]!r} {count}" for end, count in writer.odd_ends.items())
        yield Notice(
            "odd_ends",
            f"answers ended for reasons that may mean a text broken off: {told}. They are judged "
            f"as they are: look at them before trusting the score",
        )


def several_models(writer: WriterSummary, judging: JudgeSummary) -> Iterable[Notice]:
    """One name, several models behind it."""
    for who, models in (("writer", writer.models_returned), ("judge", judging.models_returned)):
        if len(models) > 1:
            told = f"the {who} endpoint returned {len(models)} model ids: {', '.join(models)}"
            yield Notice(f"several_{who}s", told)
    if len(judging.means_by_model) > 1:
        means = judging.means_by_model.items()
        split = ", ".join(f"{m} {mean:.2f} (n {n})" for m, (n, mean) in means)
        yield Notice("means_by_model", f"mean verdict by returned model id: {split}")


def doubtful_verdicts(judging: JudgeSummary) -> Iterable[Notice]:
    """Verdicts that may have been copied from the judged text, and verdicts that are missing."""
    if judging.n_echoed:
        yield Notice(
            "echoed",
            f"{judging.n_echoed} verdicts are on texts that hold a verdict of their own: look at "
            f"them before trusting the score",
        )
    if judging.failures:
        lost = ", ".join(f"{status} {count}" for status, count in judging.failures.items())
        n, of = judging.n_total - judging.n_valid, judging.n_total
        yield Notice("verdicts_lost", f"{n} of {of} verdicts lost: {lost}")


def own_family(writer: str, judge: str) -> Iterable[Notice]:
    """A judge and a writer of one family."""
    if is_own_family(writer, judge):
        yield Notice(
            "own_family",
            f"{judge} judges {writer}, a model of its own family, which judges tend to favour: "
            f"name another --judge",
        )
