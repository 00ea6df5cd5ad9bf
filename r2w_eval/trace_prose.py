"""Segments free prose of reasoning models by rules; English and Chinese; linear in the text.

One pass over lines and sentences. A draft or revision begins after a sentence that announces it (a
colon, a quotation, or a new line) and holds the text of the piece only; it ends at a line that
speaks about the writing. Everything else is deliberation, told apart by the cues of `trace_cues`.
Definitions and the annotation guide: docs/reflection.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from r2w_eval import trace_cues as cues
from r2w_eval.trace import Form, Kind, Segment, Span, Trace

# A quotation shorter than this is a phrase that is spoken of, not a text (characters)
MIN_QUOTE = {True: 6, False: 20}
# A quotation is closed within this many characters, or it is none: keeps hostile lines linear
MAX_QUOTE = 20_000

_LINE = re.compile(r"[^\n]+")
_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?:\s+|$)|[。！？；]+[”’」』）]*\s*")
_RULE = re.compile(r"\s*(?:-{3,}|\*{3,}|={3,}|—{3,}|_{3,}|```\w*)\s*$")
_COLON = re.compile(r":(?=\s|$|[\"“「*_])|：")
_CJK = re.compile(r"[\u3400-\u9fff]")
_OPEN_QUOTE = re.compile(r"[\"“「『]")
_AFTER_QUOTE = re.compile(r"[\"”」』.。,，;；!！*_\s]*")


class _Scanner:
    """The state of one pass: what is being said, and whether a text has been written yet."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lower = cues.lowered(text)
        self.found: list[tuple[Kind, int, int]] = []
        self.body: Kind | None = None
        self.awaits: Kind | None = None
        self.has_written = False
        self.thought = Kind.PLAN

    def scan(self) -> list[tuple[Kind, int, int]]:
        """All segments as (kind, start, end)."""
        for found in _LINE.finditer(self.text):
            line = found[0]
            bare = line.strip()
            if bare:
                start = found.start() + len(line) - len(line.lstrip())
                self._read_line(start, start + len(bare))
        return self.found

    def _read_line(self, start: int, end: int) -> None:
        """One line, without the white space at its ends."""
        is_rule = self.text[start] in "-*=—_`" and _RULE.match(self.text, start, end)
        if self.body is not None:
            if not is_rule and not leaves_text(
                cues.Head(self.lower[start : min(end, start + cues.WINDOW)])
            ):
                return self._add(self.body, start, end)
            self.body = None
        if is_rule:
            return None
        if self.awaits is not None:
            kind, self.awaits = self.awaits, None
            if not speaks_of_work(cues.Head(self.lower[start : min(end, start + cues.WINDOW)])):
                return self._begin_body(kind, start, end)
        position = start
        while position < end:
            position = self._read_sentence(position, end, position == start)
        return None

    def _read_sentence(self, start: int, line_end: int, opens: bool) -> int:
        """Take one sentence; returns where reading goes on."""
        found = _END.search(self.text, start, line_end)
        end = found.end() if found else line_end
        head = cues.Head(self.lower[start:end])
        intro = introduced(head)
        if intro is not None:
            text_at = self._text_after(start, end, line_end)
            if text_at is not None:
                return self._take_text(intro, start, text_at, line_end, opens)
            if end == line_end:
                self.awaits = intro
        self._think(start, end, head, opens)
        return end

    def _text_after(self, start: int, end: int, line_end: int) -> Span | None:
        """Where the announced text stands in the line; None when it is not in this line."""
        quote = last_quotation(self.text, Span(start, end), line_end)
        if quote is not None:
            return quote
        colon = _COLON.search(self.text, start, end)
        if colon is None or not self.text[colon.end() : line_end].strip(" *_"):
            return None
        return Span(colon.end(), line_end)

    def _take_text(self, kind: Kind, start: int, at: Span, line_end: int, opens: bool) -> int:
        """The announcement is thinking, the text behind it a draft or revision."""
        lead = start + len(self.text[start : at.start].rstrip(' "“「『*_'))
        if lead > start:
            self._think(start, lead, cues.Head(self.lower[start:lead]), opens)
        if self.text[at.start - 1] in cues.QUOTES:
            self._add(kind, at.start, at.end, is_new=True)
            self.has_written = True
            # the closing quote and the full stop behind it belong to nothing
            rest = _AFTER_QUOTE.match(self.text, at.end, line_end)
            return rest.end() if rest else at.end
        self._begin_body(kind, at.start, line_end)
        return line_end

    def _begin_body(self, kind: Kind, start: int, end: int) -> None:
        self._add(kind, start, end, is_new=True)
        self.body, self.has_written = kind, True

    def _think(self, start: int, end: int, head: cues.Head, opens: bool) -> None:
        self.thought, is_new = self._thought_of(head, opens)
        self._add(self.thought, start, end, is_new)

    def _thought_of(self, head: cues.Head, opens: bool) -> tuple[Kind, bool]:
        """The kind of a sentence of deliberation, and whether it begins another segment."""
        if cues.VERIFICATION.opens(head):
            return Kind.VERIFICATION, False
        if self.has_written and cues.DONE.opens(head) and not cues.JUDGEMENT.occur(head):
            return Kind.OTHER, False
        if cues.REFLECTION_STRONG.opens(head) and (
            self.has_written or cues.JUDGEMENT.occur(head) or cues.META.occur(head)
        ):
            return Kind.REFLECTION, opens
        if self.has_written and self._looks_back(head, opens):
            return Kind.REFLECTION, opens
        if self.thought is Kind.PLAN or not opens:
            return self.thought, False
        return (Kind.PLAN if cues.PLAN.opens(head) else self.thought), False

    def _looks_back(self, head: cues.Head, opens: bool) -> bool:
        if not opens and self.thought in (Kind.REFLECTION, Kind.VERIFICATION):
            return self.thought is Kind.REFLECTION
        is_about = cues.DEICTIC.opens(head) or cues.REFLECTION_WEAK.opens(head)
        return is_about and cues.JUDGEMENT.occur(head)

    def _add(self, kind: Kind, start: int, end: int, is_new: bool = False) -> None:
        """Add a piece, or lengthen the last segment when it says the same."""
        piece = self.text[start:end]
        bare = piece.lstrip()
        start, end = start + len(piece) - len(bare), start + len(piece.rstrip())
        if start >= end:
            return
        if self.found and not is_new and self.found[-1][0] is kind:
            self.found[-1] = (kind, self.found[-1][1], end)
        else:
            self.found.append((kind, start, end))


def introduced(head: cues.Head) -> Kind | None:
    """What kind of text the sentence announces, if any."""
    if cues.REVISION_INTRO.opens(head):
        return Kind.REVISION
    return Kind.DRAFT if cues.DRAFT_INTRO.opens(head) else None


def last_quotation(text: str, sentence: Span, line_end: int) -> Span | None:
    """The content of the last quotation that begins in the sentence, if it is long enough."""
    found: Span | None = None
    position = sentence.start
    while opening := _OPEN_QUOTE.search(text, position, sentence.end):
        begin = opening.end()
        close = text.find(cues.QUOTES[opening[0]], begin, min(line_end, begin + MAX_QUOTE))
        if close < 0:
            break
        if close - begin >= MIN_QUOTE[_CJK.search(text, begin, close) is not None]:
            found = Span(begin, close)
        position = close + 1
    return found


def leaves_text(head: cues.Head) -> bool:
    """A line inside a draft speaks about the writing, so the draft ended before it."""
    if head.text[:1] in cues.QUOTES:
        return False
    if cues.VERIFICATION.opens(head):
        return cues.META.occur(head)
    if cues.REFLECTION_STRONG.opens(head):
        return cues.META.occur(head) or cues.JUDGEMENT.occur(head)
    if cues.DEICTIC.opens(head) and cues.JUDGEMENT.occur(head):
        return True
    if introduced(head) and (head.text.rstrip()[-1:] in (":", "：") or cues.META.occur(head)):
        return True
    speaks = cues.REFLECTION_WEAK.opens(head) or cues.PLAN.opens(head) or cues.DONE.opens(head)
    return speaks and cues.is_about_writing(head)


def speaks_of_work(head: cues.Head) -> bool:
    """A line of deliberation, where the announced text was expected."""
    if head.text[:1] in cues.QUOTES:
        return False
    return leaves_text(head) or (cues.PLAN.opens(head) and cues.META.occur(head))


def parse_prose(text: str, answer: str | None = None) -> Trace:
    """Segments of a trace without tags.

    >>> trace = parse_prose("The user wants rain.\\nDraft: Rain fell.\\nHmm, the line is flat.")
    >>> [(str(s.kind), trace.text_of(s)) for s in trace.segments]
    [('plan', 'The user wants rain.\\nDraft:'), ('draft', 'Rain fell.'), \
('reflection', 'Hmm, the line is flat.')]
    """
    found = _Scanner(text).scan()
    segments = [Segment(kind, Span(a, b), Span(a, b)) for kind, a, b in found]
    return Trace(text, tuple(segments), Form.PROSE, (), answer)


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
