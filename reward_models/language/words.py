"""Words, sentences, quotations and differences of texts, in any language, without a model.

Pure functions on strings. Chinese, Japanese and Korean characters are words of their own.
"""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from typing import Any, TypeVar, cast

from r2w_eval.paths import packaged_text

_WORD = re.compile(r"[一-鿿぀-ヿ가-힯]|[^\W_一-鿿぀-ヿ가-힯]+(?:['’][^\W_]+)?")
_TOKEN = re.compile(_WORD.pattern + r"|[^\w\s]")
_CJK = re.compile(r"[一-鿿]")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？…])[\"'”’」』）)]*\s*(?=\S)|\n+")
_STOPS = frozenset(".!?。！？…")
_END_MARKS = _STOPS | frozenset("\"'”’」』》）)")
_SINGLE_QUOTED = r"(?<!\w)['‘]([^'‘’]{3,300})['’](?!\w)"
# a letter in straight quotes is a pair too, or the next pair would begin where it ends
_QUOTED = re.compile(rf"[\"“「『《]([^\"”」』》]{{1,600}})[\"”」』》]|{_SINGLE_QUOTED}")
_SPEECH = re.compile(rf"[\"“「『《]([^\"”」』》]{{2,600}})[\"”」』》]|{_SINGLE_QUOTED}")
# Above this many sentences a side, only sentences are compared, not words.
_MAX_WORDS_COMPARED = 4000
# A quotation with fewer of its tokens in a place is not taken to stand there.
LEAST_SHARED = 0.8
# At so many places of a text, the likeliest, a quotation that stands nowhere exactly is compared.
_MAX_PLACES = 64
# Cache sizes: many results for short texts, which recur everywhere, and few for long ones, which
# many reflections in a row are compared with
SHORT_CHARS, N_SHORT, N_LONG = 4_000, 2048, 64

F = TypeVar("F", bound=Callable[..., Any])


def remembered(function: F) -> F:
    """Cache a function of texts, with separate caches so that long texts cannot fill the memory."""
    short, long = lru_cache(N_SHORT)(function), lru_cache(N_LONG)(function)

    @wraps(function)
    def call(*texts: str) -> Any:
        return (short if sum(map(len, texts)) <= SHORT_CHARS else long)(*texts)

    return cast(F, call)


def is_cjk(text: str) -> bool:
    """Whether more than a fifth of the text are Chinese characters.

    >>> is_cjk("他说 hello"), is_cjk("a long English text with 字"), is_cjk("")
    (True, False, False)
    """
    return len(_CJK.findall(text)) > 0.2 * len(text)


@cache
def stop_words() -> frozenset[str]:
    """Words that carry no content, English and Chinese."""
    text = packaged_text("stop_words.txt", __package__)
    return frozenset(text.split())


@remembered
def words(text: str) -> tuple[str, ...]:
    """Lower-case words; a CJK character is a word.

    >>> words("It's 重复 again.")
    ("it's", '重', '复', 'again')
    """
    return tuple(_WORD.findall(text.lower()))


@remembered
def tokens(text: str) -> tuple[str, ...]:
    """Words with their case and punctuation marks, for differences."""
    return tuple(_TOKEN.findall(text))


def token_spans(text: str) -> list[tuple[int, int]]:
    """Where each of the `tokens` of a text stands, as (start, end) in characters."""
    return [match.span() for match in _TOKEN.finditer(text)]


@remembered
def content_words(text: str) -> tuple[str, ...]:
    """Words without stop words and single Latin letters."""
    plain = stop_words()
    return tuple(w for w in words(text) if w not in plain and (len(w) > 1 or ord(w) > 0x2E7F))


@remembered
def sentences(text: str) -> tuple[str, ...]:
    """The sentences, stripped of surrounding white space.

    >>> sentences("One. Two!  三。四？")
    ('One.', 'Two!', '三。', '四？')
    """
    return tuple(part.strip() for part in _SENTENCE_END.split(text) if part and part.strip())


def sentence_numbers(parts: Sequence[str]) -> list[int]:
    """The index of each token's sentence, by the end marks among the tokens.

    >>> sentence_numbers(("One", ".", '"', "Two", "!"))
    [0, 0, 0, 1, 1]
    """
    found, number, is_over = [], 0, False
    for part in parts:
        if is_over and part not in _END_MARKS:
            number, is_over = number + 1, False
        is_over = is_over or part in _STOPS
        found.append(number)
    return found


def quotations(text: str) -> list[str]:
    """The quotations in a remark; single letters are left out.

    >>> quotations('I wrote "a dark night" and “very cold”; "a" is no "an hour".')
    ['a dark night', 'very cold', 'an hour']
    """
    return [own for a, b in _QUOTED.findall(text) if len(own := (a or b).strip()) > 1]


def speech(text: str) -> list[str]:
    """Direct speech in a piece of writing. Like `quotations`, except that a letter in straight
    quotes is no quotation; the outcome's weights were fitted with this reading.
    """
    return [(a or b).strip() for a, b in _SPEECH.findall(text) if (a or b).strip()]


def without(text: str, parts: Iterable[str]) -> str:
    """The text with the first occurrence of each part removed, in turn."""
    for part in parts:
        text = text.replace(part, "", 1)
    return text


def ngrams(items: Sequence[str], n: int) -> set[tuple[str, ...]]:
    """Distinct n-grams."""
    return {tuple(items[i : i + n]) for i in range(len(items) - n + 1)}


def containment(part: Sequence[str], whole: Sequence[str], n: int) -> float:
    """Share of the n-grams of `part` that `whole` has; single words where `part` is shorter.

    >>> containment(["a", "b", "c"], ["x", "a", "b"], 2)
    0.5
    """
    n = min(n, len(part))
    if n == 0:
        return 0.0
    own = ngrams(part, n)
    return len(own & ngrams(whole, n)) / len(own)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a revision changed.

    draft: its tokens; changed: for each of them, whether it was changed
    removed, added: tokens; hunks: (removed, added) texts of each changed place
    """

    draft: tuple[str, ...]
    changed: tuple[bool, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    hunks: tuple[tuple[str, str], ...]

    @property
    def share(self) -> float:
        """Share of the draft's tokens that were changed."""
        return sum(self.changed) / len(self.changed) if self.changed else 0.0


@remembered
def difference(draft: str, revision: str) -> Difference:
    """The token difference of two texts."""
    before, after = tokens(draft), tokens(revision)
    changed = [False] * len(before)
    removed: list[str] = []
    added: list[str] = []
    hunks = []
    for i1, i2, j1, j2 in changed_places(before, after):
        gone, new = before[i1:i2], after[j1:j2]
        # an insertion counts as a change of the token after it
        for index in range(i1, max(i2, i1 + 1)):
            if index < len(changed):
                changed[index] = True
        removed += gone
        added += new
        hunks.append((" ".join(gone), " ".join(new)))
    return Difference(tuple(before), tuple(changed), tuple(removed), tuple(added), tuple(hunks))


def changed_places(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """(start, end, start, end) of each stretch of `before` that is another one in `after`.

    >>> changed_places("a b c d".split(), "a c x d".split())
    [(1, 2, 1, 1), (3, 3, 2, 3)]
    """
    head = _common_prefix(before, after)
    tail = _common_prefix(before[head:][::-1], after[head:][::-1])
    left, right = before[head : len(before) - tail], after[head : len(after) - tail]
    if max(len(left), len(right)) > _MAX_WORDS_COMPARED:
        return [(head, head + len(left), head, head + len(right))]
    found = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    return [(head + a, head + b, head + c, head + d) for tag, a, b, c, d in found if tag != "equal"]


def _common_prefix(first: Sequence[str], second: Sequence[str]) -> int:
    count = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        count += 1
    return count


def find_spans(span: str, draft: str) -> list[tuple[int, int]]:
    """Where the tokens of `span` stand in `draft`, as (start, end) token indices: every exact
    match, else the best one that shares at least LEAST_SHARED of them.

    >>> find_spans("dark night", "It was a dark night.")
    [(3, 5)]
    """
    part, whole = _lowered(span), _lowered(draft)
    part = tuple(t for t in part if t not in "….,") or part
    n = len(part)
    if not part or not whole or n > len(whole) + 2:
        return []
    firsts = (i for i, t in enumerate(whole[: len(whole) - n + 1]) if t == part[0])
    exact = [(i, i + n) for i in firsts if whole[i : i + n] == part]
    return exact or _nearest(part, whole)


def _nearest(part: tuple[str, ...], whole: tuple[str, ...]) -> list[tuple[int, int]]:
    n, wanted = len(part), set(part)
    hits = [t in wanted for t in whole]
    inside = sum(hits[:n])
    best, place = LEAST_SHARED - 1e-9, -1
    likely: list[tuple[int, int]] = []
    for start in range(max(1, len(whole) - n + 1)):
        if hits[start] and inside / n > best:
            likely.append((inside, -start))
        if start + n < len(whole):
            inside += hits[start + n] - hits[start]
    # a long quotation whose words come everywhere would be compared at every place
    for start, shared in sorted((-s, k) for k, s in heapq.nlargest(_MAX_PLACES, likely)):
        if shared / n <= best:
            continue
        match = difflib.SequenceMatcher(None, part, whole[start : start + n], autojunk=False)
        share = sum(block.size for block in match.get_matching_blocks()) / n
        if share > best:
            best, place = share, start
    return [(place, min(place + n, len(whole)))] if place >= 0 else []


@remembered
def _lowered(text: str) -> tuple[str, ...]:
    return tuple(t.lower() for t in tokens(text))
