"""Segments free prose of reasoning models by rules; English and Chinese; linear in the text.

One pass over lines and sentences. A draft or revision begins after a sentence that announces it (a
colon, a quotation, or a new line) and holds the text of the piece only; it ends at a line that
speaks about the writing. Everything else is deliberation, told apart by `phrases`.
Definitions and the annotation guide: docs/reflection.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from r2w_eval.trace import phrases
from r2w_eval.trace.cues import QUOTES, WINDOW, Head, Lowered
from r2w_eval.trace.lines import (
    CHECK,
    CJK,
    COLON,
    SELF,
    Memory,
    introduced,
    is_comment,
    is_note,
    is_work,
    labelled,
    last_quotation,
    leaves_text,
    relabels,
    speaks_of_work,
    whole_quotation,
)
from r2w_eval.trace.tags import stripped
from r2w_eval.trace.types import WRITTEN, Form, Kind, Segment, Span, Trace

# A line of text that nothing announces is at least this long (characters)
MIN_TEXT = {True: 12, False: 40}
# a line without the white space at its ends
_LINE = re.compile(r"\S(?:[^\n]*\S)?")
# one class first: the search for it is what a sentence costs; a group is where white space begins
_END = re.compile(
    r"[.!?…。！？；](?:(?<=[.!?…])[\"'”’)\]*_]*()(?:\s+|$)"
    r"|(?<=[。！？；])[。！？；]*[”’」』）]*()\s*)"
)
_RULE = re.compile(r"\s*(?:-{3,}|\*{3,}|={3,}|—{3,}|_{3,}|```\w*)\s*$")
_AFTER_QUOTE = re.compile(r"[\"”」』.。,，;；!！*_\s]*")
# Bound here, since looking up a member of an enum is a call in Python 3.11
PLAN, DRAFT, REFLECTION, REVISION, VERIFICATION, OTHER = Kind
INTRO = phrases.DRAFT_INTRO | phrases.REVISION_INTRO


class _Scanner:
    """The state of one pass: what is being said, and what has been written."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lowered = Lowered(text)
        self.lower = self.lowered.text
        self.begins: list[tuple[Kind, int]] = []
        self.ends: list[int] = []
        self.last: Kind | None = None
        self.body: Kind | None = None
        self.awaits: Kind | None = None
        self.written: Memory | None = None
        self.thought = PLAN
        self.just_wrote = False
        self.after_blank = False
        self.is_one_paragraph = False

    def scan(self) -> Iterator[tuple[Kind, Span]]:
        """The kind and span of each segment."""
        text = self.text
        # no line stands before the first
        before = len(text)
        for found in _LINE.finditer(text):
            start, end = found.span()
            self.after_blank = start > before + 1 and text.count("\n", before, start) > 1
            self._read_line(start, end)
            before = end
        for (kind, start), end in zip(self.begins, self.ends, strict=True):
            yield kind, Span(start, end)

    def _read_line(self, start: int, end: int) -> None:
        """One line, without the white space at its ends."""
        is_rule = self.text[start] in "-*=—_`" and _RULE.match(self.text, start, end)
        head = Head(self.lowered, start, end)
        if self.body is not None and self.written is not None:
            ends = is_rule or (self.is_one_paragraph and self.after_blank) or self._leaves(head)
            if not ends:
                self.written.add(start, end)
                return self._add(self.body, start, end)
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
        # a line of dialogue has an I of its own
        is_spoken = head.text[0] in QUOTES
        steps_out = self.after_blank and not is_spoken and SELF.search(head.text) is not None
        if is_comment(head) and (
            self.written.is_quoted_in(head.text)
            or (steps_out and not self.written.speaks_of_itself())
        ):
            return True
        return leaves_text(head, self.after_blank)

    def _unmarked_text(self, head: Head) -> Kind | None:
        """A line that is text although it stands where thinking is, or was announced before it."""
        if self.awaits is not None:
            kind, self.awaits = self.awaits, None
            if kind is DRAFT and self.written and self.thought is REFLECTION:
                kind = REVISION
            return None if speaks_of_work(head) else kind
        if self.written is None:
            is_text = self.after_blank and not is_work(head) and not is_note(head)
            return DRAFT if is_text else None
        if head.text[0] not in QUOTES and (is_work(head) or relabels(head)):
            return None
        if self.written.repeats(head) and not self.written.is_quoted_in(head.text):
            return REVISION
        if self.thought is not REFLECTION:
            return None
        is_bare = whole_quotation(head.text) and self.after_blank or self._is_bare_text(head)
        return REVISION if is_bare else None

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
        if line is not None and (end == line_end or end - start >= WINDOW):
            head = line
        else:
            head = Head(self.lowered, start, end)
        intro = introduced(head) if head.cues & INTRO else None
        is_noted = self.written is None and opens and is_note(head)
        if intro is not None or (opens and not is_noted and not head.cues & phrases.WORK):
            resume = self._read_announced(intro, start, end, line_end)
            if resume:
                return resume
        self._think(start, end if found is None else found.end(found.lastindex or 0), head, opens)
        return end

    def _read_announced(self, intro: Kind | None, start: int, end: int, line_end: int) -> int:
        """Take the text that a sentence or a label announces; where reading goes on, 0 if none."""
        colon = COLON.search(self.text, start, end)
        is_label = intro is None
        if is_label and colon is not None:
            intro = labelled(self.lower[start : colon.start()])
        if intro is None:
            return 0
        text_at = self._text_after(start, end, line_end, colon)
        if text_at is not None:
            resume = self._take_text(intro, start, text_at, line_end)
            self.is_one_paragraph = is_label
            return resume
        if end < line_end:
            return 0
        self.awaits = intro
        self._announce(start, end)
        return end

    def _announce(self, start: int, end: int) -> None:
        """An announcement belongs to the thought before it; behind a text it belongs to none."""
        if self.last not in WRITTEN:
            self._add_stripped(self.thought, start, end)

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
        if (
            kind is DRAFT
            and self.written
            and self.written.repeats(Head(self.lowered, at.start, at.end))
        ):
            kind = REVISION
        if self.text[at.start - 1] in QUOTES:
            self._begin_body(kind, at.start, at.end)
            self.body, self.just_wrote = None, True
            # the closing quote and the full stop behind it belong to nothing
            rest = _AFTER_QUOTE.match(self.text, at.end, line_end)
            return rest.end() if rest else at.end
        self._begin_body(kind, at.start, line_end)
        return line_end

    def _begin_body(self, kind: Kind, start: int, end: int) -> None:
        self.written = Memory(self.lowered)
        self.written.add(start, end)
        self.body, self.is_one_paragraph = kind, False
        self._add_stripped(kind, start, end, is_new=True)

    def _think(self, start: int, end: int, head: Head, opens: bool) -> None:
        is_new = False
        if opens or head.cues:
            self.thought, is_new = self._thought_of(head, opens, start)
        elif self.just_wrote:
            self.thought = REFLECTION
        self.just_wrote = False
        self._add(self.thought, start, end, is_new)

    def _thought_of(self, head: Head, opens: bool, start: int) -> tuple[Kind, bool]:
        """The kind of a sentence of deliberation, and whether it begins another segment."""
        cues = head.cues
        if self.written is None:
            return self._before_any_text(head, opens), False
        if cues & phrases.VERIFICATION or (opens and CHECK.match(self.lower, start)):
            return VERIFICATION, False
        if opens and cues & phrases.DONE and not phrases.RESERVATION.occur(head):
            return OTHER, False
        if cues & phrases.REFLECTION_STRONG or self._looks_back(head, opens):
            return REFLECTION, opens
        if self.just_wrote or (opens and self.thought in (VERIFICATION, OTHER)):
            return (PLAN if cues & phrases.PLAN else REFLECTION), opens
        if self.thought is PLAN or not opens:
            return self.thought, False
        return (PLAN if cues & phrases.PLAN else self.thought), self.after_blank

    def _before_any_text(self, head: Head, opens: bool) -> Kind:
        if head.cues & phrases.REFLECTION_STRONG and self.last:
            return REFLECTION if is_comment(head) else PLAN
        if opens and self.thought is not PLAN and head.cues & phrases.PLAN:
            return PLAN
        return self.thought

    def _looks_back(self, head: Head, opens: bool) -> bool:
        if not opens and self.thought in (REFLECTION, VERIFICATION):
            return self.thought is REFLECTION
        if opens and self.written is not None and self.written.is_quoted_in(head.text):
            return True
        is_about = head.cues & (phrases.DEICTIC | phrases.REFLECTION_WEAK)
        return is_about != 0 and phrases.JUDGEMENT.occur(head)

    def _add_stripped(self, kind: Kind, start: int, end: int, is_new: bool = False) -> None:
        """Add a piece without the white space at its ends, unless it is nothing else."""
        piece = stripped(self.text, Span(start, end))
        if len(piece):
            self._add(kind, piece.start, piece.end, is_new)

    def _add(self, kind: Kind, start: int, end: int, is_new: bool = False) -> None:
        """Add a piece, or lengthen the last segment when it says the same."""
        if kind is self.last and not is_new:
            self.ends[-1] = end
        else:
            self.last = kind
            self.begins.append((kind, start))
            self.ends.append(end)


def parse_prose(text: str, answer: str | None = None) -> Trace:
    """Segments of a trace without tags.

    >>> trace = parse_prose("The user wants rain.\\nDraft: Rain fell.\\nHmm, the line is flat.")
    >>> [(str(s.kind), trace.text_of(s)) for s in trace.segments]
    [('plan', 'The user wants rain.\\nDraft:'), ('draft', 'Rain fell.'), \
('reflection', 'Hmm, the line is flat.')]
    """
    segments = tuple(Segment(kind, span, span) for kind, span in _Scanner(text).scan())
    return Trace(text, segments, Form.PROSE, (), answer)
