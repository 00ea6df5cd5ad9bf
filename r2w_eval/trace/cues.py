"""How cue phrases are found in a sentence; which ones there are is listed in `phrases`.

A cue counts only at the beginning of a sentence. The first word selects the patterns to try from
one table of all cues, so that most sentences cost a single look-up. Each cue is one bit of an
integer.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# How much of a sentence or line tells whether it speaks about the writing (characters)
WINDOW = 160

QUOTES = {'"': '"', "“": "”", "「": "」", "『": "』"}
"""Opening and closing quotation marks."""

_FILLERS = "okay|ok|alright|right|so|well|and|now|yeah|yes|oh|ah"
_FILLERS_ZH = "嗯|好的|好|那么|那|所以|哦|对|行|不过|但是|但|另外|还有|然后|现在"
# What may stand before the first word, and the word itself or, ahead of the match, a CJK character;
# a word that continues in letters of another script is not one
_LEAD = re.compile(
    r"[\s>*_#\-•\d.()（）\[\]]*"
    rf"(?:(?:{_FILLERS})\b[,.!…]*\s+"
    rf"|(?:{_FILLERS_ZH})[,，。!！…、]+\s*)*"
    r"(?:([a-z]+(?:'[a-z]+)?)(?![^\W\d_])|(?=([\u3400-\u9fff])))"
)
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_CJK = re.compile(r"[\u3400-\u9fff]")
_ONLY_LETTERS = bytes(c if chr(c).islower() or c == ord("'") else ord(" ") for c in range(256))
_BITS = itertools.count()


class Lowered:
    """A text in lower case, and the same with everything but English letters and apostrophes
    replaced by blanks. Both are made once for a whole trace, and sentences are slices of them.
    """

    __slots__ = ("letters", "text")

    def __init__(self, text: str) -> None:
        self.text = lowered(text)
        # by a table of bytes, which is several times faster than a search
        ascii_only = self.text.encode("ascii", "replace")
        self.letters = ascii_only.translate(_ONLY_LETTERS).decode("ascii")


class Head:
    """The first `WINDOW` characters of a sentence in lower case, and the bits of all cues with
    which it begins.
    """

    __slots__ = ("_words", "cues", "letters", "text")

    def __init__(self, lower: Lowered, start: int, end: int) -> None:
        if end - start > WINDOW:
            end = start + WINDOW
        self.text = text = lower.text[start:end]
        self.letters = lower.letters[start:end]
        self.cues = 0
        self._words: list[str] | None = None
        first = _LEAD.match(text)
        if first is not None and (own := _BY_FIRST.get(first[first.lastindex or 0])):
            # an English pattern is what follows the first word, a Chinese one begins with it
            at = first.end()
            self.cues = own.always
            for bit, matches in own.patterns:
                if matches(text, at):
                    self.cues |= bit

    @property
    def words(self) -> list[str]:
        """The English words of the sentence."""
        if self._words is None:
            own = self.letters
            self._words = _WORD.findall(own) if "'" in own else own.split()
        return self._words


def words_of(text: str) -> list[str]:
    """English words in lower-case text, each with one ending behind an apostrophe.

    >>> words_of("don't say 'rock'n'roll'")
    ["don't", 'say', "rock'n", 'roll']
    """
    return _WORD.findall(text)


def pieces_of(text: str, letters: str) -> set[str]:
    """Runs of letters and apostrophes, and CJK characters, of a cut of `Lowered`.

    >>> line = Lowered("The cat's 'tail' 好了")
    >>> sorted(pieces_of(line.text, line.letters))
    ["'tail'", "cat's", 'the', '了', '好']
    """
    runs = set(letters.split())
    return runs if text.isascii() else runs.union(_CJK.findall(text))


def lowered(text: str) -> str:
    """The text in lower case with straight apostrophes, character for character."""
    lower = text.lower()
    if len(lower) != len(text):
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return lower.replace("’", "'")


class _Opening:
    """The cues that one first word or character may begin: those complete with it (`always`), and
    those whose pattern must match what follows.
    """

    __slots__ = ("always", "patterns")

    def __init__(self) -> None:
        self.always = 0
        self.patterns: list[tuple[int, Callable[[str, int], object]]] = []


_BY_FIRST: defaultdict[str, _Opening] = defaultdict(_Opening)


@dataclass(frozen=True, slots=True)
class Words:
    """Words of one meaning, anywhere in a sentence."""

    english: frozenset[str]
    chinese: re.Pattern[str]

    def occur(self, head: Head) -> bool:
        """At least one of them stands in the sentence's beginning."""
        return self.stand_in(head.text, head.words)

    def stand_in(self, lowered: str, words: list[str]) -> bool:
        """At least one of them is among the English words of the text, or stands in it."""
        if not self.english.isdisjoint(words):
            return True
        return not lowered.isascii() and self.chinese.search(lowered) is not None


def cue(english: Iterable[tuple[str, str]], chinese: str, prefixes: str = "") -> int:
    """Enter a cue into the table, and return its bit.

    `english` holds pairs (first words, pattern that must follow); `chinese` holds phrases, any of
    `prefixes` may precede them.
    """
    bit = 1 << next(_BITS)
    rests: dict[str, list[str]] = defaultdict(list)
    for words, rest in english:
        for word in words.split():
            rests[word].append(rest)
    for word, own in rests.items():
        if "" in own:
            _BY_FIRST[word].always |= bit
        else:
            behind = re.compile("|".join(f"(?:{rest})" for rest in own))
            _BY_FIRST[word].patterns.append((bit, behind.match))
    phrases, before = chinese.split(), prefixes.split()
    lead = f"(?:{'|'.join(before)})*" if before else ""
    pattern = re.compile(lead + f"(?:{'|'.join(phrases)})")
    for character in frozenset[str]().union(*map(_first_characters, (*phrases, *before))):
        _BY_FIRST[character].patterns.append((bit, pattern.match))
    return bit


def _first_characters(phrase: str) -> frozenset[str]:
    """The characters a pattern may begin with: a literal, a group of literals, or a class."""
    if phrase.startswith("(?:"):
        return frozenset(part[0] for part in phrase[3 : phrase.index(")")].split("|"))
    if phrase.startswith("["):
        return frozenset(phrase[1 : phrase.index("]")])
    return frozenset(phrase[0])


def make_words(english: str, chinese: str) -> Words:
    """Words from two lists parted by blanks; the Chinese ones are patterns."""
    return Words(frozenset(english.split()), re.compile("|".join(chinese.split())))
