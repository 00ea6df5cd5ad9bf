"""Writes traces from their parts, by tags or in prose, with the places of all segments.

Written traces can be parsed back: `parse_tagged` gives the same trace except for blank parts and
patches that do not fit; `parse_prose` does so as long as no part contains a cue of another kind (a
plan that says "Opening: …"), which callers have to check. In prose each part gets a cue:
reflections begin with one, texts of the piece are announced, and an announcement belongs to the
thought before it (docs/reflection.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from r2w_eval.errors import UsageError
from r2w_eval.trace.tags import stripped
from r2w_eval.trace.types import WRITTEN, Form, Kind, Segment, Span, TagSchema, Trace

Parts = Sequence[tuple[Kind, str]]

DEFAULT_TAGS = TagSchema()
# In turn, so that a trace does not say the same each time. Reflections name the text: a line that
# only quotes it would be read as more of it
OPENINGS: Mapping[str, Mapping[Kind, tuple[str, ...]]] = {
    "en": {
        Kind.DRAFT: ("Draft:\n",),
        Kind.REFLECTION: (
            "Rereading the text. ",
            "Wait, the text is not there yet. ",
            "Looking back at the text. ",
        ),
        Kind.REVISION: ("Revised version:\n", "Better version:\n"),
        Kind.VERIFICATION: ("Checking the requirements: ",),
    },
    "zh": {
        Kind.DRAFT: ("初稿：\n",),
        Kind.REFLECTION: ("再读一遍这段文字。", "等等，这段文字还不够好。", "回头看这段文字。"),
        Kind.REVISION: ("修改后：\n", "修改版：\n"),
        Kind.VERIFICATION: ("检查一下要求：",),
    },
}


def write_trace(parts: Parts, form: Form, language: str) -> Trace:
    """The parts in one of the two forms, with the default tags. Raises UsageError."""
    if form is Form.TAGGED:
        return write_tagged(parts, DEFAULT_TAGS)
    return write_prose(parts, language)


def write_tagged(parts: Parts, schema: TagSchema) -> Trace:
    """The parts one under the other; `other` stands outside the tags, and not twice in a row.

    Raises UsageError for a text that holds a tag itself.

    >>> write_tagged([(Kind.DRAFT, "Rain."), (Kind.OTHER, "Hm.")], TagSchema()).text
    '<draft>Rain.</draft>\\nHm.'
    """
    _refuse_tags(parts, schema)
    lines: list[str] = []
    segments = []
    position = 0
    for kind, text in parts:
        if kind is Kind.OTHER:
            line, span = text, Span(position, position + len(text))
        else:
            pair = schema.pair(kind)
            line = f"{pair.open}{text}{pair.close}"
            start = position + len(pair.open)
            span = Span(start, start + len(text))
        lines.append(line)
        segments.append(Segment(kind, span, Span(position, position + len(line))))
        position += len(line) + 1
    whole = "\n".join(lines)
    return Trace(whole, tuple(_as_read(whole, segment) for segment in segments), Form.TAGGED)


def _as_read(text: str, segment: Segment) -> Segment:
    """Text outside of tags ends where its white space begins."""
    if segment.kind is not Kind.OTHER:
        return segment
    inner = stripped(text, segment.span)
    return Segment(Kind.OTHER, inner, inner)


def write_prose(parts: Parts, language: str) -> Trace:
    """The parts as paragraphs, with a cue each (`language` zh…, any other as en).

    Raises UsageError for a text with a tag: the whole would be read by its tags.

    >>> trace = write_prose([(Kind.PLAN, "Two lines."), (Kind.DRAFT, "Rain fell.")], "en")
    >>> [trace.text_of(segment) for segment in trace.segments]
    ['Two lines.\\n\\nDraft:', 'Rain fell.']
    """
    _refuse_tags(parts, DEFAULT_TAGS)
    openings = OPENINGS["zh" if language.startswith("zh") else "en"]
    said: Counter[Kind] = Counter()
    segments: list[Segment] = []
    text = ""
    for kind, own in parts:
        cues = openings.get(kind, ("",))
        cue = cues[said[kind] % len(cues)]
        said[kind] += 1
        start = len(text) + 2 * bool(text)
        text = f"{text}\n\n{cue}{own}" if text else f"{cue}{own}"
        if kind in WRITTEN:
            _announce(segments, Span(start, start + len(cue.rstrip())))
            start += len(cue)
        segments.append(_untagged(kind, Span(start, len(text))))
    return Trace(text, tuple(segments), Form.PROSE)


def _announce(segments: list[Segment], cue: Span) -> None:
    """Add the announcement of a text to the thought before it; without one it is a plan."""
    if not segments:
        segments.append(_untagged(Kind.PLAN, cue))
    elif segments[-1].kind not in WRITTEN:
        segments[-1] = _untagged(segments[-1].kind, Span(segments[-1].span.start, cue.end))


def _untagged(kind: Kind, span: Span) -> Segment:
    return Segment(kind, span, span)


def _refuse_tags(parts: Parts, schema: TagSchema) -> None:
    tags = [tag for pair in schema.pairs for tag in (pair.open, pair.close)]
    for kind, text in parts:
        if any(tag in text for tag in tags):
            raise UsageError(
                f"a {kind} segment holds a tag of the schema: {text[:120]!r}. Choose other tags "
                f"(TagSchema) or drop the trace"
            )
