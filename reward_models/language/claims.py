"""Compares what a remark announces with what the revision changed.

A remark that says "comma" announces a change of punctuation, one that says "wordy" a shorter text.
The table of claims (`claims.yaml`) is general editing knowledge, not fitted to data, so that it
carries over to unseen sources. Pure functions on strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from r2w_eval.reward_models.language.levels import load_yaml
from r2w_eval.reward_models.language.words import (
    N_LONG,
    Difference,
    containment,
    content_words,
    remembered,
    tokens,
    words,
)

MAX_HUNKS = 40
_ENDS = re.compile(r"[.!?。！？]")
_LITTLE, _LARGE = 3, 6
_NEAR = 0.6
_GROUPS = {
    "article": "a an the this that these those",
    "preposition": "in on at of for to by with from into as than about over under through between "
    "among during within toward towards upon after before against",
    "auxiliary": "is are was were be been being has have had do does did will would can could may "
    "might shall should must",
    "conjunction": "and but or so yet because since although though while whereas however "
    "therefore thus moreover furthermore additionally hence then also which that when where if",
    "pronoun": "i me my we us our you your he him his she her it its they them their this these "
    "that those who whom whose which",
}
_WORDS = {name: frozenset(text.split()) for name, text in _GROUPS.items()}


class Claim(NamedTuple):
    """A kind of announcement: the words that make it, and the kinds of edit that fulfil it."""

    name: str
    cue: re.Pattern[str]
    edits: frozenset[str]


@cache
def claims() -> tuple[Claim, ...]:
    """The table of `claims.yaml`."""
    table = load_yaml("claims.yaml")
    return tuple(
        Claim(name, re.compile(own["cue"], re.IGNORECASE), frozenset(own["edits"]))
        for name, own in table.items()
    )


@remembered
def announced(remark: str) -> tuple[Claim, ...]:
    """The claims that a remark makes.

    >>> [claim.name for claim in announced("A comma is missing.")]
    ['comma', 'missing']
    """
    return tuple(claim for claim in claims() if claim.cue.search(remark))


@lru_cache(N_LONG)
def place_kinds(change: Difference) -> frozenset[str]:
    """Kinds of edit at the changed places, of which at most MAX_HUNKS are read."""
    return frozenset(kind for place in change.hunks[:MAX_HUNKS] for kind in kinds(*place))


@lru_cache(N_LONG)
def edits(change: Difference) -> frozenset[str]:
    """Kinds of edit at the changed places, and of the change as a whole."""
    found = set(place_kinds(change))
    gone, new = _ends(change.removed), _ends(change.added)
    found |= {"split"} if new > gone else {"joined"} if new < gone else set()
    lost, won = words(" ".join(change.removed)), words(" ".join(change.added))
    if lost and len(change.hunks) > 1 and sorted(lost) == sorted(won):
        found.add("moved")
    if len(lost) != len(won):
        found.add("shorter" if len(won) < len(lost) else "longer")
    return frozenset(found)


def _ends(parts: Iterable[str]) -> int:
    return sum(bool(_ENDS.fullmatch(part)) for part in parts)


def kinds(before: str, after: str) -> Iterator[str]:
    """Kinds of edit at one changed place.

    >>> sorted(kinds("walks", "walked"))
    ['little', 'near', 'replace', 'same', 'synonym', 'word']
    >>> sorted(kinds("", ","))
    ['mark,', 'marked']
    """
    marks = {m for m in set(tokens(before)) ^ set(tokens(after)) if len(m) == 1 and not m.isalnum()}
    yield from (f"mark{m}" for m in marks)
    gone, new = words(before), words(after)
    if gone == new:
        yield "marked" if marks else "case"
    elif "".join(gone) == "".join(new):
        yield "hyphen"
    else:
        yield from _worded(gone, new)


def _worded(gone: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    lost, won = set(gone) - set(new), set(new) - set(gone)
    sizes = len(gone), len(new)
    yield "insert" if not gone else "delete" if not new else "replace"
    yield "same" if sizes[0] == sizes[1] else "grows" if sizes[1] > sizes[0] else "shrinks"
    yield "word" if max(sizes) == 1 else "large" if max(sizes) > _LARGE else "middle"
    if max(sizes) <= _LITTLE:
        yield "little"
    if sorted(gone) == sorted(new):
        yield "reorder"
    elif gone and new and not set(gone) & set(new):
        yield "synonym"
    yield from (name for name, group in _WORDS.items() if (lost | won) & group)
    yield from _forms(lost, won)
    if _spelt_out(gone, new) or _spelt_out(new, gone):
        yield "acronym"


def _forms(lost: set[str], won: set[str]) -> Iterator[str]:
    """How removed and added words are related."""
    from rapidfuzz.distance import Levenshtein

    if any(Levenshtein.normalized_similarity(a, b) >= _NEAR for a in lost for b in won):
        yield "near"
    if {w.rstrip("s") for w in lost} & {w.rstrip("s") for w in won}:
        yield "number"
    if any(w.isdigit() for w in lost ^ won):
        yield "digits"


def _spelt_out(short: Sequence[str], long: Sequence[str]) -> bool:
    """Whether a word of `short` consists of the initials of consecutive words of `long`."""
    initials = "".join(word[0] for word in long)
    sizes = {len(word) for word in short if 1 < len(word) <= len(long)}
    # all runs at once: a search for each word is quadratic in a rewritten text
    runs = {initials[i : i + n] for n in sizes for i in range(len(initials) - n + 1)}
    return not runs.isdisjoint(short)


def agreement(remark: str, change: Difference) -> dict[str, float]:
    """Number of claims of a remark (up to 3, as a share), and the shares kept and broken."""
    own = announced(remark)
    done = edits(change) if own else frozenset()
    kept = sum(bool(claim.edits & done) for claim in own)
    n = len(own) or 1
    return {
        "claims": min(len(own), 3) / 3,
        "claims_kept": kept / n,
        "claims_broken": (len(own) - kept) / n,
    }


def mention(remark: str, change: Difference) -> dict[str, float]:
    """How far a remark, quotations included, contains the removed and added words."""
    moved, own = words(" ".join((*change.removed, *change.added))), words(remark)
    stems = _stems(moved)
    return {
        "mention": containment(moved, own, 1),
        "mention_stems": len(stems & _stems(own)) / (len(stems) or 1),
        "mention_echo": containment(content_words(remark), moved, 1),
    }


def _stems(parts: Iterable[str]) -> set[str]:
    """All four-letter substrings of the words, which forms of a word share."""
    return {word[i : i + 4] for word in parts for i in range(len(word) - 3)}
