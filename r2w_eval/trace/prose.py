"""Segments free prose of reasoning models by rules; English and Chinese; linear in the text.

One pass over lines and sentences. A draft or revision begins after a sentence that announces it (a
colon, a quotation, or a new line) and holds the text of the piece only; it ends at a line that
speaks about the writing. Everything else is deliberation, told apart by `phrases`.
Definitions and the annotation guide: docs/reflection.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from r2w_eval.trace import phrases
from r2w_eval.trace.cues import QUOTES, WINDOW, Head, lowered
from r2w_eval.trace.lines import (
    CHECK,
    CJK,
    COLON,
    SELF,
    Memory,
    introduced,
    is_comment,
    is_work,
    labelled,
    last_quotation,
    leaves_text,
    relabels,
    speaks_of_work,
    whole_quotation,
)
from r2w_eval.trace.types import Form, Kind, Segment, Span, Trace

# A line of text that nothing announces is at least this long (characters)
MIN_TEXT = {True: 12, False: 40}
# a line without the white space at its ends
_LINE = re.compile(r"\S(?:[^\n]*\S)?")
# one class first: the search for it is what a sentence costs
_END = re.compile(
    r"[.!?…。！？；](?:(?<=[.!?…])[\"'”’)\]*_]*(?:\s+|$)|(?<=[。！？；])[。！？；]*[”’」』）]*\s*)"
)
_RULE = re.compile(r"\s*(?:-{3,}|\*{3,}|={3,}|—{3,}|_{3,}|```\w*)\s*$")
_AFTER_QUOTE = re.compile(r"[\"”」』.。,，;；!！*_\s]*")


class _Scanner:
    """The state of one pass: what is being said, and what has been written."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lower = lowered(text)
        self.found: list[tuple[Kind, int, int]] = []
        self.body: Kind | None = None
        self.awaits: Kind | None = None
        self.written: Memory | None = None
        self.thought = Kind.PLAN
        self.just_wrote = False
        self.after_blank = False
        self.is_one_paragraph = False

    def scan(self) -> list[tuple[Kind, int, int]]:
        """All segments as (kind, start, end)."""
        end = -1
        for found in _LINE.finditer(self.text):
            start = found.start()
            self.after_blank = (
                start - end > 1 and end >= 0 and self.text.count("\n", end, start) > 1
            )
            end = found.end()
            self._read_line(start, end)
        return self.found

    def _read_line(self, start: int, end: int) -> None:
        """One line, without the white space at its ends."""
        is_rule = self.text[start] in "-*=—_`" and _RULE.match(self.text, start, end)
        head = Head(self.lower, start, end)
        if self.body is not None:
            ends = is_rule or (self.is_one_paragraph and self.after_blank) or self._leaves(head)
            if not ends:
                return self._write(self.body, start, end)
            self.body, self.just_wrote = None, True
        if is_rule:
            return None
        kind = self._unmarked_text(head)
        if kind is not None:
            return self._begin(kind, start, end)
        position = self._read_sentence(start, end, head)
        while position < end:
            position = self._read_sentence(position, end)
        return None

    def _leaves(self, head: Head) -> bool:
        """A line inside a text speaks about the writing, so the text ended before it."""
        assert self.written is not None
        is_excerpt = self.written.is_quoted_in(head.text)
        steps_out = self.after_blank and not self.written.has_self and SELF.search(head.text)
        if (is_excerpt or steps_out) and (
            phrases.JUDGEMENT.occur(head) or phrases.META.occur(head)
        ):
            return True
        return leaves_text(head, self.after_blank)

    def _unmarked_text(self, head: Head) -> Kind | None:
        """A line that is text although it stands where thinking is, or was announced before it."""
        if self.awaits is not None:
            kind, self.awaits = self.awaits, None
            if kind is Kind.DRAFT and self.written and self.thought is Kind.REFLECTION:
                kind = Kind.REVISION
            return None if speaks_of_work(head) else kind
        if self.written is None:
            is_text = self.after_blank and not is_work(head)
            return Kind.DRAFT if is_text else None
        if head.text[0] not in QUOTES and (is_work(head) or relabels(head)):
            return None
        if self.written.repeats(head.text) and not self.written.is_quoted_in(head.text):
            return Kind.REVISION
        is_bare = whole_quotation(head.text) and self.after_blank or self._is_bare_text(head)
        return Kind.REVISION if is_bare and self.thought is Kind.REFLECTION else None

    def _is_bare_text(self, head: Head) -> bool:
        """A line after a reflection that neither speaks of the text nor judges it."""
        long = len(head.text) >= MIN_TEXT[CJK.search(head.text) is not None]
        if not long or self.just_wrote or head.text[0] in QUOTES:
            return False
        weak = head.cues & phrases.REFLECTION_WEAK or phrases.JUDGEMENT.occur(head)
        return not weak and not SELF.search(head.text) and not COLON.search(head.text)

    def _begin(self, kind: Kind, start: int, end: int) -> None:
        """A text that begins with this line; a line that is one quotation is all of it."""
        following = self.lower[end : end + 2].lstrip("\n")[:1]
        inside = whole_quotation(self.text[start:end])
        if inside and (following not in QUOTES or self.lower[end : end + 2] == "\n\n"):
            self._begin_body(kind, start + 1, start + inside)
            self.body, self.just_wrote = None, True
        else:
            self._begin_body(kind, start, end)

    def _read_sentence(self, start: int, line_end: int, line: Head | None = None) -> int:
        """Take one sentence, the first one with its `line`; returns where reading goes on."""
        found = _END.search(self.text, start, line_end)
        end = found.end() if found else line_end
        opens = line is not None
        is_whole = end == line_end or end - start >= WINDOW
        head = line if line is not None and is_whole else Head(self.lower, start, end)
        intro = introduced(head)
        is_label = intro is None and opens
        colon = COLON.search(self.text, start, end) if intro or opens else None
        if colon is not None and is_label:
            intro = labelled(self.lower[start : colon.start()], head)
        if intro is not None:
            text_at = self._text_after(start, end, line_end, colon)
            if text_at is not None:
                resume = self._take_text(intro, start, text_at, line_end)
                self.is_one_paragraph = is_label
                return resume
            if end == line_end:
                self.awaits = intro
                self._announce(start, end)
                return end
        self._think(start, end, head, opens)
        return end

    def _announce(self, start: int, end: int) -> None:
        """An announcement belongs to the thought before it; behind a text it belongs to none."""
        if self.found and self.found[-1][0] in (Kind.DRAFT, Kind.REVISION):
            return
        self._add(self.thought, start, end)

    def _text_after(
        self, start: int, end: int, line_end: int, colon: re.Match[str] | None
    ) -> Span | None:
        """Where the announced text stands in the line; None when it is not in this line."""
        quote = last_quotation(self.text, Span(start, end), line_end)
        if quote is not None:
            return quote
        if colon is None or not self.text[colon.end() : line_end].strip(" *_"):
            return None
        return Span(colon.end(), line_end)

    def _take_text(self, kind: Kind, start: int, at: Span, line_end: int) -> int:
        """The announcement is thinking, the text behind it a draft or revision."""
        lead = start + len(self.text[start : at.start].rstrip(' "“「『*_'))
        if lead > start:
            self._announce(start, lead)
        if kind is Kind.DRAFT and self.written and self.written.repeats(at.cut(self.lower)):
            kind = Kind.REVISION
        if self.text[at.start - 1] in QUOTES:
            self._begin_body(kind, at.start, at.end)
            self.body, self.just_wrote = None, True
            # the closing quote and the full stop behind it belong to nothing
            rest = _AFTER_QUOTE.match(self.text, at.end, line_end)
            return rest.end() if rest else at.end
        self._begin_body(kind, at.start, line_end)
        return line_end

    def _begin_body(self, kind: Kind, start: int, end: int) -> None:
        self.written = Memory()
        self.body, self.is_one_paragraph = kind, False
        self._write(kind, start, end, is_new=True)

    def _write(self, kind: Kind, start: int, end: int, is_new: bool = False) -> None:
        assert self.written is not None
        self.written.add(self.lower[start:end])
        self._add(kind, start, end, is_new)

    def _think(self, start: int, end: int, head: Head, opens: bool) -> None:
        self.thought, is_new = self._thought_of(head, opens, start)
        self._add(self.thought, start, end, is_new)
        self.just_wrote = False

    def _thought_of(self, head: Head, opens: bool, start: int) -> tuple[Kind, bool]:
        """The kind of a sentence of deliberation, and whether it begins another segment."""
        if self.written is None:
            return self._before_any_text(head, opens), False
        if head.cues & phrases.VERIFICATION or (opens and CHECK.match(self.lower, start)):
            return Kind.VERIFICATION, False
        if head.cues & phrases.DONE and opens and not phrases.RESERVATION.occur(head):
            return Kind.OTHER, False
        if self._looks_back(head, opens):
            return Kind.REFLECTION, opens
        if self.just_wrote or (opens and self.thought in (Kind.VERIFICATION, Kind.OTHER)):
            return (Kind.PLAN if head.cues & phrases.PLAN else Kind.REFLECTION), opens
        if self.thought is Kind.PLAN or not opens:
            return self.thought, False
        return (Kind.PLAN if head.cues & phrases.PLAN else self.thought), self.after_blank

    def _before_any_text(self, head: Head, opens: bool) -> Kind:
        if head.cues & phrases.REFLECTION_STRONG and self.found:
            return Kind.REFLECTION if is_comment(head) else Kind.PLAN
        if opens and self.thought is not Kind.PLAN and head.cues & phrases.PLAN:
            return Kind.PLAN
        return self.thought

    def _looks_back(self, head: Head, opens: bool) -> bool:
        assert self.written is not None
        if head.cues & phrases.REFLECTION_STRONG:
            return True
        if not opens and self.thought in (Kind.REFLECTION, Kind.VERIFICATION):
            return self.thought is Kind.REFLECTION
        if opens and self.written.is_quoted_in(head.text):
            return True
        is_about = head.cues & (phrases.DEICTIC | phrases.REFLECTION_WEAK) != 0
        return is_about and phrases.JUDGEMENT.occur(head)

    def _add(self, kind: Kind, start: int, end: int, is_new: bool = False) -> None:
        """Add a piece, or lengthen the last segment when it says the same."""
        text = self.text
        while end > start and text[end - 1].isspace():
            end -= 1
        while start < end and text[start].isspace():
            start += 1
        if start == end:
            return
        if self.found and not is_new and self.found[-1][0] is kind:
            self.found[-1] = (kind, self.found[-1][1], end)
        else:
            self.found.append((kind, start, end))


def parse_prose(text: str, answer: str | None = None) -> Trace:
    """Segments of a trace without tags.

    >>> trace = parse_prose("The user wants rain.\\nDraft: Rain fell.\\nHmm, the line is flat.")
    >>> [(str(s.kind), trace.text_of(s)) for s in trace.segments]
    [('plan', 'The user wants rain.\\nDraft:'), ('draft', 'Rain fell.'), \
('reflection', 'Hmm, the line is flat.')]
    """
    found = _Scanner(text).scan()
    spans = [(kind, Span(start, end)) for kind, start, end in found]
    segments = tuple(Segment(kind, span, span) for kind, span in spans)
    return Trace(text, segments, Form.PROSE, (), answer)


# How `write_prose` announces each kind; `parse_prose` reads these cues back
OPENINGS = {
    "en": {
        Kind.PLAN: "",
        Kind.DRAFT: "Draft:\n",
        Kind.REFLECTION: "Rereading this, ",
        Kind.REVISION: "Revised version:\n",
        Kind.VERIFICATION: "Checking the requirements: ",
        Kind.OTHER: "",
    },
    "zh": {
        Kind.PLAN: "",
        Kind.DRAFT: "初稿：\n",
        Kind.REFLECTION: "再读一遍，",
        Kind.REVISION: "修改后：\n",
        Kind.VERIFICATION: "检查一下要求：",
        Kind.OTHER: "",
    },
}


def write_prose(parts: Sequence[tuple[Kind, str]], language: str) -> str:
    """A trace in prose with an opening cue per segment (`language` en or zh)."""
    openings = OPENINGS["zh" if language.startswith("zh") else "en"]
    return "\n\n".join(openings[kind] + text for kind, text in parts)
