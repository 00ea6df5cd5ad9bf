"""Labelled traces, and how well a segmenter agrees with them.

A labelled trace is marked-up text: `[p]`, `[d]`, `[r]`, `[v]`, `[c]`, `[o]` begin a segment (plan,
draft, reflection, revision, verification, other), `[-]` begins text that belongs to none. The spans
follow from the marks, without the white space at their ends (annotation guide: docs/reflection.md).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2w_eval.stats.inference import measure
from r2w_eval.store import iter_jsonl
from r2w_eval.trace.tags import stripped
from r2w_eval.trace.types import Kind, Segment, Span, Trace
from r2w_eval.types import Estimate, Metric, Stratum

# A found segment is the labelled one when they share this much of what they cover together
MIN_OVERLAP = 0.5

_MARK = re.compile(r"\[([pdrvco-])\]")
_KINDS = {
    "p": Kind.PLAN,
    "d": Kind.DRAFT,
    "r": Kind.REFLECTION,
    "v": Kind.REVISION,
    "c": Kind.VERIFICATION,
    "o": Kind.OTHER,
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A trace with the segments that a person marked."""

    id: str
    language: str
    form: str
    trait: str
    text: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A labelled segment and the found one matched with it."""

    gold: Segment
    found: Segment


def read_marked(marked: str) -> tuple[str, tuple[Segment, ...]]:
    """The plain text and its segments.

    >>> text, segments = read_marked('[p]Rain.\\n"[d]It fell.[-]"')
    >>> text, [(str(s.kind), s.span.cut(text)) for s in segments]
    ('Rain.\\n"It fell."', [('plan', 'Rain.\\n"'), ('draft', 'It fell.')])
    """
    pieces = _MARK.split(marked)
    text, segments = pieces[0], []
    for mark, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        span = Span(len(text), len(text) + len(piece))
        text += piece
        if mark != "-":
            inner = stripped(text, span)
            segments.append(Segment(_KINDS[mark], inner, inner))
    return text, tuple(segments)


def read_labelled(path: Path) -> Iterator[Labelled]:
    """All traces of a file of {id, language, form, trait, marked} lines."""
    for row in iter_jsonl(path):
        text, segments = read_marked(row["marked"])
        yield Labelled(row["id"], row["language"], row["form"], row["trait"], text, segments)


def overlap(a: Span, b: Span) -> float:
    """Intersection over union of two spans; 1 for two empty ones at the same place."""
    shared = min(a.end, b.end) - max(a.start, b.start)
    union = max(a.end, b.end) - min(a.start, b.start)
    return 1.0 if union == 0 else max(0, shared) / union


def match_segments(gold: Sequence[Segment], found: Sequence[Segment]) -> list[Pair]:
    """One-to-one pairs of equal kind that overlap by half or more, best first."""
    candidates = sorted(
        (-overlap(a.span, b.span), i, j)
        for i, a in enumerate(gold)
        for j, b in enumerate(found)
        if a.kind is b.kind and overlap(a.span, b.span) >= MIN_OVERLAP
    )
    pairs, used_gold, used_found = [], set(), set()
    for _, i, j in candidates:
        if i not in used_gold and j not in used_found:
            used_gold.add(i)
            used_found.add(j)
            pairs.append(Pair(gold[i], found[j]))
    return pairs


@dataclass(slots=True)
class _Counts:
    """Sums per trace: one list entry each."""

    ids: list[str]
    matched: list[int]
    total: list[int]
    distance: list[int]


def agreement(traces: Iterable[Labelled], segment: Callable[[str], Trace]) -> list[Metric]:
    """F1 and boundary error per kind and over all kinds, with intervals over traces.

    F1 = 2 matched / (labelled + found). Boundary error = mean distance in characters of the two
    ends of matched segments.
    """
    counts: dict[str, _Counts] = defaultdict(lambda: _Counts([], [], [], []))
    n_traces = 0
    for labelled in traces:
        n_traces += 1
        found = segment(labelled.text).segments
        pairs = match_segments(labelled.segments, found)
        for kind in (None, *Kind):
            _count(counts[str(kind or "all")], labelled, found, pairs, kind)
    return [
        metric
        for kind, count in counts.items()
        if sum(count.total)
        for metric in _metrics(kind, count, n_traces)
    ]


def _count(
    count: _Counts,
    labelled: Labelled,
    found: Sequence[Segment],
    pairs: Sequence[Pair],
    kind: Kind | None,
) -> None:
    def wanted(segments: Iterable[Segment]) -> int:
        return sum(kind in (None, segment.kind) for segment in segments)

    own = [pair for pair in pairs if kind in (None, pair.gold.kind)]
    count.ids.append(labelled.id)
    count.matched.append(len(own))
    count.total.append(wanted(labelled.segments) + wanted(found))
    count.distance.append(
        sum(
            abs(p.gold.span.start - p.found.span.start) + abs(p.gold.span.end - p.found.span.end)
            for p in own
        )
    )


def _metrics(name: str, count: _Counts, n: int) -> list[Metric]:
    def ratio(what: str, above: Sequence[float], below: Sequence[float]) -> Metric:
        stratum = Stratum(tuple(count.ids), tuple(above), tuple(below))
        return measure(Estimate(f"{name}/{what}", (stratum,), n))

    return [
        ratio("f1", [2.0 * m for m in count.matched], [float(t) for t in count.total]),
        ratio("boundary", [float(d) for d in count.distance], [2.0 * m for m in count.matched]),
    ]
