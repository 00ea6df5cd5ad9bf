"""What a revision changed: a word diff with moved sentences, close to linear in long texts.

Sentences that stand once in both texts are anchors (patience diff); between two anchors the words
are aligned by longest common subsequence (rapidfuzz, bit-parallel). A stretch too long for that is
one replacement. Spans are characters of the old and of the new text.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from rapidfuzz.distance import Indel

from r2w_eval.trace.types import Span

# Words between two anchors that are aligned word by word: 8 MiB of bit matrix at most
MAX_GAP_CELLS = 64_000_000
# A sentence that is moved, or that serves as an anchor, has at least this many words
MIN_SENTENCE_WORDS = 4

_WORD = re.compile(r"[^\W\d_㐀-鿿]+(?:['’-][^\W\d_㐀-鿿]+)*|\d+(?:[.,]\d+)*|[㐀-鿿]|[^\w\s]")
# only the last mark of a run is looked at: a text of full stops must not become quadratic
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|[。！？；]+[”’」』）]*\s*|\n+")


class EditKind(StrEnum):
    """What became of a stretch of the old text."""

    INSERT = "insert"
    DELETE = "delete"
    REPLACE = "replace"
    MOVE = "move"


@dataclass(frozen=True, slots=True)
class Edit:
    """One change; an insertion has an empty old span, a deletion an empty new one."""

    kind: EditKind
    old: Span
    new: Span


class Word(NamedTuple):
    """A word, a number, one Chinese character or one mark, with its place."""

    text: str
    span: Span


# revisions follow each other: what one led to is where the next begins
@lru_cache(maxsize=8)
def words_of(text: str) -> tuple[Word, ...]:
    """Words with their character spans, in order; linear in the text."""
    return tuple(Word(found[0], Span(*found.span())) for found in _WORD.finditer(text))


class _Sentence(NamedTuple):
    """A sentence as a range of words; `key` tells equal sentences."""

    key: tuple[str, ...]
    words: Span


def diff(old: str, new: str) -> tuple[Edit, ...]:
    """Edits that turn `old` into `new`, in the order of the old text.

    >>> [(str(e.kind), e.old.cut("a red door"), e.new.cut("a blue door"))
    ...  for e in diff("a red door", "a blue door")]
    [('replace', 'red', 'blue')]
    """
    a, b = words_of(old), words_of(new)
    sentences_a, sentences_b = _sentences(old), _sentences(new)
    common = _common(sentences_a, sentences_b)
    anchors = _longest_increasing(common)
    moved = sorted(set(common) - set(anchors))
    edits = [
        Edit(
            EditKind.MOVE,
            _characters(a, sentences_a[i].words),
            _characters(b, sentences_b[j].words),
        )
        for i, j in moved
    ]
    gone_a = [sentences_a[i].words for i, _ in moved]
    gone_b = sorted(sentences_b[j].words for _, j in moved)
    done = (0, 0)
    for i, j in anchors:
        own, other = sentences_a[i].words, sentences_b[j].words
        left = _outside(Span(done[0], own.start), gone_a)
        right = _outside(Span(done[1], other.start), gone_b)
        edits.extend(_diff_words(a, b, left, right, done))
        done = (own.end, other.end)
    left, right = _outside(Span(done[0], len(a)), gone_a), _outside(Span(done[1], len(b)), gone_b)
    edits.extend(_diff_words(a, b, left, right, done))
    return tuple(sorted(edits, key=lambda edit: (edit.old.start, edit.new.start)))


@lru_cache(maxsize=4)
def _sentences(text: str) -> list[_Sentence]:
    words = words_of(text)
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    starts = [word.span.start for word in words]
    borders = sorted({0, len(words), *(bisect_left(starts, end) for end in ends)})
    return [
        _Sentence(tuple(word.text for word in words[a:b]), Span(a, b))
        for a, b in zip(borders, borders[1:], strict=False)
    ]


def _common(a: Sequence[_Sentence], b: Sequence[_Sentence]) -> list[tuple[int, int]]:
    """Pairs of equal sentences that stand once in each text, in the order of the first."""
    there = _unique(b)
    return [(i, there[key]) for key, i in _unique(a).items() if key in there]


def _unique(sentences: Sequence[_Sentence]) -> dict[tuple[str, ...], int]:
    counts = Counter(sentence.key for sentence in sentences)
    return {
        sentence.key: index
        for index, sentence in enumerate(sentences)
        if counts[sentence.key] == 1 and len(sentence.words) >= MIN_SENTENCE_WORDS
    }


def _longest_increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Longest chain that ascends in both members; O(n log n).

    >>> _longest_increasing([(0, 2), (1, 0), (2, 1)])
    [(1, 0), (2, 1)]
    """
    tops: list[int] = []
    last: list[int] = []
    previous: list[int] = []
    for index, (_, j) in enumerate(pairs):
        place = bisect_left(tops, j)
        previous.append(last[place - 1] if place else -1)
        tops[place : place + 1] = [j]
        last[place : place + 1] = [index]
    chain = []
    index = last[-1] if last else -1
    while index >= 0:
        chain.append(pairs[index])
        index = previous[index]
    return chain[::-1]


def _outside(span: Span, taken: Sequence[Span]) -> list[int]:
    """The indices of a range that no taken range (sorted, disjoint) holds."""
    indices: list[int] = []
    position = span.start
    for other in taken[bisect_left(taken, Span(span.start, 0)) :]:
        if other.start >= span.end:
            break
        indices.extend(range(position, other.start))
        position = other.end
    return [*indices, *range(position, span.end)]


def _diff_words(
    a: Sequence[Word],
    b: Sequence[Word],
    left: Sequence[int],
    right: Sequence[int],
    place: tuple[int, int],
) -> list[Edit]:
    """Edits between words of the two texts, given by index; `place` is where the gap begins."""
    equal = []
    if len(left) * len(right) <= MAX_GAP_CELLS:
        codes = Indel.opcodes([a[i].text for i in left], [b[j].text for j in right])
        equal = [
            (c.src_start, c.src_end, c.dest_start, c.dest_end) for c in codes if c.tag == "equal"
        ]
    edits = []
    i = j = 0
    for start_a, end_a, start_b, end_b in [*equal, (len(left), len(left), len(right), len(right))]:
        old, new = left[i:start_a], right[j:start_b]
        if old or new:
            before = (left[i - 1] + 1 if i else place[0], right[j - 1] + 1 if j else place[1])
            spans = (_stretch(a, old, before[0]), _stretch(b, new, before[1]))
            edits.append(Edit(_kind(bool(old), bool(new)), *spans))
        i, j = end_a, end_b
    return edits


def _kind(has_old: bool, has_new: bool) -> EditKind:
    if has_old and has_new:
        return EditKind.REPLACE
    return EditKind.DELETE if has_old else EditKind.INSERT


def _stretch(words: Sequence[Word], indices: Sequence[int], place: int) -> Span:
    """The characters from the first to the last of some words; a point where there are none."""
    if indices:
        return Span(words[indices[0]].span.start, words[indices[-1]].span.end)
    point = words[place - 1].span.end if place else 0
    return Span(point, point)


def _characters(words: Sequence[Word], span: Span) -> Span:
    return Span(words[span.start].span.start, words[span.end - 1].span.end)


@dataclass(frozen=True, slots=True)
class ChangedShares:
    """Share of words that changed inside given spans of the old text, and outside of them.

    A deleted or replaced word counts as one, a place where words were put in as one more. Moved
    sentences count as kept. None where there are no words.
    """

    inside: float | None
    outside: float | None


class Changes:
    """How much of any stretch of a text its edits changed.

    The text is read once and each stretch is a binary search, because many reflections ask about
    the same revision.

    >>> Changes("a red door", diff("a red door", "a blue door")).shares([Span(2, 5)])
    ChangedShares(inside=1.0, outside=0.0)
    """

    def __init__(self, old: str, edits: Sequence[Edit]) -> None:
        self.edits = tuple(edits)
        words = words_of(old)
        gone = sorted(e.old for e in edits if e.kind in (EditKind.DELETE, EditKind.REPLACE))
        self._starts = [word.span.start for word in words]
        self._ends = [word.span.end for word in words]
        flags = [0] * len(words)
        for span in gone:
            own = range(bisect_right(self._ends, span.start), bisect_left(self._starts, span.end))
            for place in own:
                flags[place] = 1
        self._changed = [0, *accumulate(flags)]
        inserted = (e for e in edits if e.kind is EditKind.INSERT and len(e.new))
        self._inserts = sorted(edit.old.start for edit in inserted)

    def shares(self, spans: Sequence[Span]) -> ChangedShares:
        """How much of the spans changed, and how much of the rest."""
        total = changed = end = 0
        for span in merged(spans):
            # a word that reaches into two spans counts once
            begin = max(end, bisect_right(self._ends, span.start))
            end = max(begin, bisect_left(self._starts, span.end))
            inserts = bisect_right(self._inserts, span.end) - bisect_left(self._inserts, span.start)
            total += end - begin + inserts
            changed += self._changed[end] - self._changed[begin] + inserts
        n_inserts = len(self._inserts)
        rest = len(self._starts) + n_inserts - total
        elsewhere = self._changed[-1] + n_inserts - changed
        return ChangedShares(changed / total if total else None, elsewhere / rest if rest else None)


def merged(spans: Sequence[Span]) -> list[Span]:
    """Sorted, disjoint spans that cover the same.

    >>> merged([Span(3, 5), Span(0, 4)])
    [Span(start=0, end=5)]
    """
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def covers(spans: Sequence[Span], inner: Span) -> bool:
    """One of the sorted, disjoint spans overlaps the inner one."""
    place = bisect_left(spans, Span(inner.end, inner.end)) - 1
    return place >= 0 and spans[place].end > inner.start
