"""The nouns of a reasoning trace: what a stretch of thinking is, where it stands, what it led to.

A trace is cut into disjoint segments (plan, draft, reflection, revision, verification, other), each
with a span in characters and, once mapped, in policy tokens. A step is one reflection with the text
it looks back at and the text it led to: the tuple that reward models score (specification:
reward-model section 3; r2write sections 3.4 and 8). No numerics, no heavy import.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from r2w_eval.errors import UsageError


class Kind(StrEnum):
    """What a segment does."""

    PLAN = "plan"
    DRAFT = "draft"
    REFLECTION = "reflection"
    REVISION = "revision"
    VERIFICATION = "verification"
    OTHER = "other"


WRITTEN = (Kind.DRAFT, Kind.REVISION)
"""The kinds that hold a text of the piece."""
# Reflections that a step remembers: a trace of 10^5 of them must not become quadratic
MAX_EARLIER = 50


class Fault(StrEnum):
    """What is wrong with the tags of a trace. Faults are data: nothing is repaired silently."""

    UNCLOSED = "unclosed"
    NESTED = "nested"
    STRAY_CLOSE = "stray_close"
    EMPTY = "empty"
    TAG_IN_ANSWER = "tag_in_answer"
    UNCLOSED_THINK = "unclosed_think"
    UNFIT_PATCH = "unfit_patch"


class Form(StrEnum):
    """How a trace marks its segments."""

    TAGGED = "tagged"
    PROSE = "prose"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Half-open range `start <= i < end`, of characters or of tokens."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def cut(self, text: str) -> str:
        """The characters of `text` in this range."""
        return text[self.start : self.end]


class Segment(NamedTuple):
    """One stretch of a trace (a named tuple, which is made several times faster than a dataclass).

    `span` is its content, `outer` the content with its tags (equal to `span` in prose); both in
    characters of the trace's text. `tokens` and `outer_tokens` are the same in policy tokens of the
    response, None until `tokens.with_tokens` has mapped them. Segments never overlap.
    """

    kind: Kind
    span: Span
    outer: Span
    faults: tuple[Fault, ...] = ()
    tokens: Span | None = None
    outer_tokens: Span | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """A thinking text with its segments, in order; `faults` are those of no single segment.

    `answer` is the text after the thinking, where it is known: a reflection that no revision
    follows is answered by it.
    """

    text: str
    segments: tuple[Segment, ...]
    form: Form
    faults: tuple[Fault, ...] = ()
    answer: str | None = None

    def text_of(self, segment: Segment) -> str:
        """The content of a segment, without its tags."""
        return segment.span.cut(self.text)


@dataclass(frozen=True, slots=True)
class TagPair:
    """The two fixed strings around one kind of segment."""

    kind: Kind
    open: str
    close: str


def _pair(kind: Kind) -> TagPair:
    return TagPair(kind, f"<{kind}>", f"</{kind}>")


@dataclass(frozen=True, slots=True)
class TagSchema:
    """The tags of a trace. Every tag is one fixed string: no attributes, no other spelling."""

    pairs: tuple[TagPair, ...] = (
        _pair(Kind.PLAN),
        _pair(Kind.DRAFT),
        _pair(Kind.REFLECTION),
        _pair(Kind.REVISION),
    )

    def __post_init__(self) -> None:
        tags = [tag for pair in self.pairs for tag in (pair.open, pair.close)]
        kinds = {pair.kind for pair in self.pairs}
        if not tags or "" in tags or len(set(tags)) < len(tags) or len(kinds) < len(self.pairs):
            raise UsageError(
                f"tag schema {tags!r:.300}: expected one pair per kind of segment, all tags "
                f"different and not empty. Try: TagSchema()"
            )

    @classmethod
    def parse(cls, text: str) -> TagSchema:
        """From `kind=OPEN,CLOSE;kind=OPEN,CLOSE`. Raises UsageError.

        >>> TagSchema.parse("draft=[D],[/D]").pairs[0].close
        '[/D]'
        """
        pairs = []
        for part in filter(None, (piece.strip() for piece in text.split(";"))):
            kind, _, tags = part.partition("=")
            opening, _, closing = tags.partition(",")
            if kind not in set(Kind) or not opening or not closing:
                raise UsageError(
                    f"--trace-tags {part!r:.200}: expected KIND=OPEN,CLOSE with KIND one of "
                    f"{', '.join(Kind)}. Try: --trace-tags 'draft=<draft>,</draft>'"
                )
            pairs.append(TagPair(Kind(kind), opening, closing))
        return cls(tuple(pairs))

    def pair(self, kind: Kind) -> TagPair:
        """The tags of a kind. Raises UsageError when the schema has none for it."""
        for pair in self.pairs:
            if pair.kind is kind:
                return pair
        raise UsageError(
            f"tag schema has no tags for {str(kind)!r}; it knows "
            f"{', '.join(pair.kind for pair in self.pairs)}. Add a TagPair for it"
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One reflection, what it looks back at, and what came of it.

    `base` is the last draft or revision before it, `outcome` the first revision (or new draft)
    after it; reflections that follow each other share their outcome. None where the trace has no
    such segment. `earlier` are the reflections before it, oldest first.
    """

    index: int
    reflection: Segment
    base: Segment | None
    outcome: Segment | None
    earlier: tuple[Segment, ...]


def steps(trace: Trace) -> tuple[Step, ...]:
    """All reflections of a trace with their base and outcome; linear in the segments."""
    outcomes: list[Segment | None] = []
    following: Segment | None = None
    for segment in reversed(trace.segments):
        outcomes.append(following)
        if segment.kind in WRITTEN:
            following = segment
    found: list[Step] = []
    seen: tuple[Segment, ...] = ()
    base: Segment | None = None
    for segment, outcome in zip(trace.segments, reversed(outcomes), strict=True):
        if segment.kind in WRITTEN:
            base = segment
        elif segment.kind is Kind.REFLECTION:
            found.append(Step(len(found), segment, base, outcome, seen))
            seen = (*seen[-MAX_EARLIER + 1 :], segment)
    return tuple(found)
