"""Reads tagged traces. Linear in the text; faults are reported, nothing is repaired.

Rules (docs/reflection.md): a tag is one exact string, and one in backticks is only mentioned. The
last opening tag takes the next closing tag of its kind. An inner segment wins over the outer one,
which is cut into the pieces around it. A segment without its end stops at the next tag. A patch
that does not fit the text before it changes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from r2w_eval.trace.patches import versions
from r2w_eval.trace.types import Fault, Form, Kind, Segment, Span, TagSchema, Trace


class _Tag(NamedTuple):
    kind: Kind
    start: int
    end: int
    is_open: bool


def has_tags(text: str, schema: TagSchema) -> bool:
    """At least one opening tag stands in the text (one that is only mentioned does not count)."""
    return any(tag.is_open for tag in _find_tags(text, schema))


def parse_tagged(text: str, schema: TagSchema, answer: str | None = None) -> Trace:
    """Segments of a tagged trace; text outside the tags is `other`.

    >>> trace = parse_tagged("<draft>Rain.</draft> Hm. <reflection>Flat", TagSchema())
    >>> [(str(s.kind), trace.text_of(s)) for s in trace.segments]
    [('draft', 'Rain.'), ('other', 'Hm.'), ('reflection', 'Flat')]
    >>> trace.segments[-1].faults
    (<Fault.UNCLOSED: 'unclosed'>,)
    """
    tags = list(_find_tags(text, schema))
    partner = _match(tags)
    segments = _cut(text, tags, partner)
    n_open = sum(tag.is_open for tag in tags)
    faults = [Fault.STRAY_CLOSE] if len(tags) - n_open > len(partner) else []
    if answer is not None and any(_find_tags(answer, schema)):
        faults.append(Fault.TAG_IN_ANSWER)
    return Trace(text, _checked(text, segments), Form.TAGGED, tuple(faults), answer)


def _checked(text: str, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments, with a fault on each patch that does not fit the text before it."""
    after = versions([(segment.kind, segment.span.cut(text)) for segment in segments])
    return tuple(
        own if one.fits else own._replace(faults=(*own.faults, Fault.UNFIT_PATCH))
        for own, one in zip(segments, after, strict=True)
    )


def _find_tags(text: str, schema: TagSchema) -> Iterator[_Tag]:
    """All tags in order, but for those that stand in backticks."""
    names = {pair.open: (pair.kind, True) for pair in schema.pairs}
    names |= {pair.close: (pair.kind, False) for pair in schema.pairs}
    # the longest first, so that no tag hides one that begins alike
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    for found in re.finditer(pattern, text):
        start, end = found.span()
        if text[start - 1 : start] != "`" or text[end : end + 1] != "`":
            kind, is_open = names[found[0]]
            yield _Tag(kind, start, end, is_open)


def _match(tags: Sequence[_Tag]) -> dict[int, int]:
    """Opening tag -> its closing tag, by index. Each tag is pushed and popped at most once."""
    partner: dict[int, int] = {}
    stack: list[int] = []
    waiting: Counter[Kind] = Counter()
    for index, tag in enumerate(tags):
        if tag.is_open:
            stack.append(index)
            waiting[tag.kind] += 1
        elif waiting[tag.kind]:
            while True:
                top = stack.pop()
                waiting[tags[top].kind] -= 1
                if tags[top].kind is tag.kind:
                    break
            partner[top] = index
    return partner


def _cut(text: str, tags: Sequence[_Tag], partner: Mapping[int, int]) -> list[Segment]:
    """Walk the tags: every piece of text belongs to the innermost segment that is open there."""
    segments: list[Segment] = []
    stack: list[int] = []
    ends = set(partner.values())
    position = 0
    owner: int | None = None
    for index, tag in enumerate([*tags, None]):
        end = len(text) if tag is None else tag.start
        close = None if owner is None or (at := partner.get(owner)) is None else tags[at]
        own = None if owner is None else tags[owner]
        if (found := _segment(text, own, close, position, end)) is not None:
            segments.append(found)
        if tag is None:
            break
        if index in partner:
            stack.append(index)
        elif index in ends:
            stack.pop()
        position = tag.end
        # one without its end owns the text up to the next tag only
        is_unclosed = tag.is_open and index not in partner
        owner = index if is_unclosed else stack[-1] if stack else None
    return segments


def _segment(
    text: str, own: _Tag | None, close: _Tag | None, start: int, end: int
) -> Segment | None:
    """The segment of one piece between the tags of its owner, if it is one: blank text is none."""
    is_blank = not text[start:end].strip()
    if own is None:
        if is_blank:
            return None
        inner = stripped(text, Span(start, end))
        return Segment(Kind.OTHER, inner, inner)
    opens = own.end == start
    closes = close is not None and close.start == end
    if is_blank and not (opens and (closes or close is None)):
        return None
    faults = (Fault.UNCLOSED,) if close is None else () if opens and closes else (Fault.NESTED,)
    outer = Span(own.start if opens else start, close.end if close is not None and closes else end)
    found = (*faults, Fault.EMPTY) if is_blank else faults
    return Segment(own.kind, Span(start, end), outer, found)


def stripped(text: str, span: Span) -> Span:
    """The span without the white space at its ends."""
    body = span.cut(text)
    start = span.start + len(body) - len(body.lstrip())
    return Span(start, start + len(body.strip()))
