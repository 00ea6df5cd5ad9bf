"""Questions about one line or sentence of a trace: does it announce a text, end one, or repeat one?

`prose` walks over the lines and asks them.
"""

from __future__ import annotations

import re

from r2w_eval.trace import phrases
from r2w_eval.trace.cues import QUOTES, WINDOW, Head, Lowered, pieces_of, words_of
from r2w_eval.trace.types import Kind, Span

# A quotation shorter than this is a phrase that is spoken of, not a text (characters)
MIN_QUOTE = {True: 6, False: 20}
# A quotation is closed within this many characters, or it is none: keeps hostile lines linear
MAX_QUOTE = 20_000

# A line repeats the text before it when this share of its words or characters stands there
MIN_SHARED = 0.55
# How much of the last text is remembered for that, and searched for quoted excerpts (characters)
MEMORY = 4_000
# A label before a colon is at most this long (characters)
MAX_LABEL = {True: 10, False: 26}
LONGEST_LABEL = max(MAX_LABEL.values())

COLON = re.compile(r":(?=\s|$|[\"“「*_])|：")
CJK = re.compile(r"[\u3400-\u9fff]")
OPEN_QUOTE = re.compile(r"[\"“「『]")
CHECK = re.compile(
    r"\W*(?:\d+ (?:words|lines|syllables|characters)\b|[^.?!]{3,50}\? (?:yes|no)\b"
    r"|(?:现在|大约|大概|一共|才)?[\d一二三四五六七八九十百两]+(?:来|多|几)?个?(?:字|行|句)"
    r"(?:[，。]|左右|以内|上下)|[^。？]{1,12}(?:有没有|是否|够不够)？)"
)
# an item of a list, or a label in bold
_NOTE = re.compile(r"(?:[-*•+]|\d{1,2}[.)、）])\s|\*\*[^*]{1,40}(?:\*\*\s*[:：]|[:：]\s*\*\*)")
# "i" as a word; the letter comes first so that the search for it is fast
SELF = re.compile(r"i(?<!\wi)(?!\w)|我")


class Memory:
    """What was written last: its words, and its beginning for finding excerpts.

    Lines are kept as spans and read when a question needs them, which most lines never do.
    """

    def __init__(self, lower: Lowered) -> None:
        self._lower = lower
        self._lines: list[tuple[int, int]] = []
        self._n_searched = 0
        self._n_read = 0
        self._has_self = False
        self._text = ""
        self._pieces: set[str] = set()

    def add(self, start: int, end: int) -> None:
        """Remember another line of the same text."""
        self._lines.append((start, end))

    def speaks_of_itself(self) -> bool:
        """The text has a first person."""
        lines, text = self._lines[self._n_searched :], self._lower.text
        self._n_searched += len(lines)
        self._has_self = self._has_self or any(SELF.search(text, *line) for line in lines)
        return self._has_self

    def repeats(self, head: Head) -> bool:
        """The line says much of the text again."""
        pieces = pieces_of(head.text, head.letters)
        if len(pieces) <= 3:
            return False
        self._read()
        return len(pieces & self._pieces) >= MIN_SHARED * len(pieces)

    def is_quoted_in(self, lowered: str) -> bool:
        """The first quotation of the line is an excerpt of the text."""
        opening = OPEN_QUOTE.search(lowered, 0, WINDOW)
        if opening is None:
            return False
        close = lowered.find(QUOTES[opening[0]], opening.end(), opening.end() + WINDOW)
        excerpt = lowered[opening.end() : close].strip(" .,，。!?！？")
        if close <= 0 or len(excerpt) < 2:
            return False
        self._read()
        return excerpt in self._text

    def _read(self) -> None:
        """Take in the lines that are new, up to `MEMORY` characters."""
        lower, lines = self._lower, self._lines[self._n_read :]
        self._n_read += len(lines)
        for start, end in lines:
            if len(self._text) >= MEMORY:
                break
            end = min(end, start + MEMORY)
            line = lower.text[start:end]
            self._text += line + "\n"
            self._pieces |= pieces_of(line, lower.letters[start:end])


def introduced(head: Head) -> Kind | None:
    """What kind of text the sentence announces, if any."""
    if head.cues & phrases.REVISION_INTRO:
        return Kind.REVISION
    return Kind.DRAFT if head.cues & phrases.DRAFT_INTRO else None


def labelled(label: str) -> Kind | None:
    """What a short label before a colon announces: "Tagline:", "口号再来："; None for "Tone:".

    >>> labelled("口号再来")
    <Kind.REVISION: 'revision'>
    """
    bare = label.strip(" *_#>-0123456789.")
    if not bare or len(bare) > MAX_LABEL[CJK.search(bare) is not None]:
        return None
    words = words_of(bare)
    if phrases.LABELS_OF_WORK.stand_in(bare, words):
        return None
    return Kind.REVISION if phrases.AGAIN.stand_in(bare, words) else Kind.DRAFT


def whole_quotation(line: str) -> int:
    """Where the quotation ends that makes up the whole line; 0 when it is no such line."""
    close = QUOTES.get(line[:1])
    if close is None:
        return 0
    end = len(line.rstrip())
    if end < 3 or line[end - 1] != close or line.find(close, 1) != end - 1:
        return 0
    return end - 1


def last_quotation(text: str, sentence: Span, line_end: int) -> Span | None:
    """The content of the last quotation that begins in the sentence, if it is long enough."""
    found: Span | None = None
    position = sentence.start
    while opening := OPEN_QUOTE.search(text, position, sentence.end):
        begin = opening.end()
        close = text.find(QUOTES[opening[0]], begin, min(line_end, begin + MAX_QUOTE))
        if close < 0:
            break
        if close - begin >= MIN_QUOTE[CJK.search(text, begin, close) is not None]:
            found = Span(begin, close)
        position = close + 1
    return found


def leaves_text(head: Head, after_blank: bool) -> bool:
    """Whether a line inside a draft speaks about the draft and so no longer belongs to it."""
    if head.text[:1] in QUOTES:
        return False
    if head.cues & phrases.VERIFICATION or (after_blank and CHECK.match(head.text)):
        return True
    if head.cues & phrases.REFLECTION_STRONG:
        is_heading = len(head.text) < 16
        return is_heading or is_comment(head)
    if head.cues & phrases.DEICTIC and phrases.JUDGEMENT.occur(head):
        return True
    if introduced(head) and (
        head.text.rstrip(" *_")[-1:] in (":", "：") or phrases.META.occur(head)
    ):
        return True
    if phrases.is_about_writing(head):
        speaks = head.cues & (phrases.REFLECTION_WEAK | phrases.PLAN | phrases.DONE) != 0
        return speaks or (after_blank and phrases.JUDGEMENT.occur(head))
    return (after_blank and head.cues & phrases.DONE and len(head.text) < 60) or relabels(head)


def relabels(head: Head) -> bool:
    """Whether a line begins with a label such as "Tagline again: …", which starts a new version. A
    colon before a quotation is taken for a reporting clause (she said: "…") and does not count.
    """
    if head.cues & phrases.WORK:
        return False
    colon = COLON.search(head.text, 0, LONGEST_LABEL)
    if colon is None or head.text[colon.end() : colon.end() + 1] in ("", *QUOTES):
        return False
    return labelled(head.text[: colon.start()]) is Kind.REVISION


def is_note(head: Head) -> bool:
    """An item of a list, or a line with a label in bold: what a plan is made of, and hardly how a
    text begins that nothing has announced.
    """
    return _NOTE.match(head.text) is not None


def speaks_of_work(head: Head) -> bool:
    """Whether a line is deliberation, although an announced text was expected there."""
    if head.text[:1] in QUOTES:
        return False
    if head.cues & (phrases.REFLECTION_STRONG | phrases.PLAN):
        return phrases.is_about_writing(head)
    return leaves_text(head, False)


def is_comment(head: Head) -> bool:
    """A line that judges, or names what texts are made of."""
    return phrases.JUDGEMENT.occur(head) or phrases.META.occur(head)


def is_work(head: Head) -> bool:
    """A line that speaks about the task or the text, by any cue or word for it."""
    return head.cues & phrases.WORK != 0 or phrases.META.occur(head)
