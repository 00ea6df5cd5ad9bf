"""Segments a trace by asking a scorer for a label per line: the optional way beside the rules.

Any `Scorer` can be the segmenter. A reply without exactly one known label a line is a failure with
a status: there is no trace then, and the caller decides whether the rules take over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r2w_eval.judge.parsing import iter_objects
from r2w_eval.judge.scorers import ScoreItem, Scorer
from r2w_eval.template import fence_mark, load_prompt
from r2w_eval.trace.links import split_units
from r2w_eval.trace.types import LETTERS, Form, Kind, Segment, Span, Trace
from r2w_eval.types import Decoding, JudgeRequest, JudgeStatus, Message, Score

# Lines of one question; a longer trace is asked about in pieces
LINES_PER_QUESTION = 60


@dataclass(frozen=True, slots=True)
class Labelling:
    """The trace, or None with the score of the question that failed."""

    trace: Trace | None
    score: Score


async def segment_by_scorer(text: str, scorer: Scorer) -> Labelling:
    """Ask for all lines of a trace; neighbouring lines of one kind are one segment."""
    lines = split_units(text, "line")
    parts = [lines[i : i + LINES_PER_QUESTION] for i in range(0, len(lines), LINES_PER_QUESTION)]
    verdicts = await scorer.score([_question(text, part) for part in parts])
    scores = [verdict.score for verdict in verdicts]
    lost = next((score for score in scores if score.value is None), None)
    if lost is None and any("labels" not in score.parts for score in scores):
        reason = "a value without labels: only a judge that writes them can segment a trace"
        lost = Score(None, JudgeStatus.PARSE_ERROR, reason)
    if lost is not None:
        return Labelling(None, lost)
    labels = [label for score in scores for label in score.parts["labels"]]
    segments = merge_lines(lines, [LETTERS[label] for label in labels])
    return Labelling(Trace(text, segments, Form.PROSE), Score(1.0))


def _question(text: str, lines: Sequence[Span]) -> ScoreItem:
    numbered = "\n".join(f"{i}. {line.cut(text)}" for i, line in enumerate(lines, 1))
    prompt = load_prompt("segment_user").fill(
        lines=numbered, n=str(len(lines)), mark=fence_mark(numbered)
    )
    request = JudgeRequest("segments", (Message("user", prompt),))
    decoding = Decoding(max_tokens=20 * len(lines) + 100, temperature=0.0)
    return ScoreItem(request, decoding, lambda _, reply: read_labels(reply, len(lines)))


def read_labels(reply: str, n: int) -> Score:
    """The labels of the last JSON object that has any; `value` is 1, they stand in `parts`.

    >>> read_labels('{"labels": ["p", "d"]}', 2).parts["labels"]
    ['p', 'd']
    >>> str(read_labels('{"labels": ["p"]}', 2).status)
    'criteria_mismatch'
    """
    found = [value["labels"] for value in iter_objects(reply) if "labels" in value]
    if not found or not isinstance(found[-1], list):
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object with a list of labels")
    labels = found[-1]
    if any(label not in LETTERS for label in map(str, labels)):
        return Score(None, JudgeStatus.UNKNOWN_LABEL, f"labels other than {', '.join(LETTERS)}")
    if len(labels) != n:
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, f"{len(labels)} labels for {n} lines")
    return Score(1.0, parts={"labels": labels})


def merge_lines(lines: Sequence[Span], kinds: Sequence[Kind]) -> tuple[Segment, ...]:
    """Runs of lines of one kind as segments."""
    found: list[Segment] = []
    for line, kind in zip(lines, kinds, strict=True):
        span = line
        if found and found[-1].kind is kind:
            span = Span(found.pop().span.start, line.end)
        found.append(Segment(kind, span, span))
    return tuple(found)
