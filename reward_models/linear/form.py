"""Form features of a text in any language: length, completeness, repetition, stylistic devices.

They are computed without a model and carry over to other sources and languages better than words;
the outcome model adds them to its words (`outcome.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from statistics import fmean, pstdev

from r2w_eval.reward_models.language.cues import cue
from r2w_eval.reward_models.language.words import (
    content_words,
    is_cjk,
    sentences,
    speech,
    words,
)
from r2w_eval.reward_models.linear.features import MAX_CHARS

WINDOW = 100
# words (a CJK character is a word): a fragment below the first, short up to the second, neutral up
# to the third, long above up to the last
FRAGMENT, SHORT, LONG, LONGEST = 40, 120, 300, 1200
SHORT_SLOPE = 0.25
FRESH = 0.2
DEVICES = ("simile", "abstract", "adverb", "emotion", "comment", "worn", "slogan", "sequence",
           "hedge", "because", "negation", "specific")  # fmt: skip
_REFUSES = re.compile(
    r"\b(?:as an ai|i(?: am|'m) (?:sorry|unable)|i (?:cannot|can't|can not)|language model)\b"
    r"|抱歉|作为一个?(?:人工智能|ai)|无法(?:提供|完成|满足)",
    re.IGNORECASE,
)
_FINISHED = re.compile(r"[.!?。！？…—~][\"'”’」』》）)*_\]]*\s*$")
_MARKDOWN = re.compile(r"^[^\S\n]*(?:#{1,6} |[-*•] |\d+[.)、] ?)|\*\*|^---", re.MULTILINE)
_OPENS = re.compile(
    r"^\s*(?:sure|certainly|of course|here(?:'s| is| are)|好的|当然|以下是|下面是)", re.IGNORECASE
)
_SPEECH = re.compile(r"[“「『\"]")
_SELF = frozenset(["i", "my", "me", "we", "our", "我", "咱"])
_MARKS = {
    "comma": ",，、",
    "dash": "—–",
    "exclamation": "!！",
    "query": "?？",
    "ellipsis": "…",
    "colon": ":：;；",
}


def form_features(prompt: str, text: str) -> dict[str, float]:
    """The form features of one text; the names are the same for every text."""
    text = text[:MAX_CHARS]
    own, parts = words(text), sentences(text)
    n, k = max(1, len(own)), max(1, len(parts))
    return {
        **_shape(text, parts, n, k),
        **_variety(own, parts),
        **_fit(prompt, text),
        **{f"mark_{name}": _rate(sum(map(text.count, marks)), n) for name, marks in _MARKS.items()},
        **{f"cue_{name}": _rate(len(cue(name).findall(text)), n) for name in DEVICES},
        "self": _rate(sum(w in _SELF for w in own), n),
    }


def _rate(count: float, n: int) -> float:
    """log(1 + occurrences per hundred words)."""
    return math.log1p(100 * count / n)


def size_of(text: str) -> float:
    """The length term: log words up to FRAGMENT, a quarter of that slope up to SHORT, flat up to
    LONG, log words again up to LONGEST. Repeated sentences count once, and above LONG the words of
    sentences without new words hardly.

    Length thus distinguishes fragments and full pieces, but not texts of a paragraph's length, and
    padding a short text gains little.

    >>> size_of("a " * 150) == size_of("a " * 250) < size_of("a " * 900)
    True
    >>> size_of("One gate. One gate.") == size_of("One gate.")
    True
    """
    own = dict.fromkeys(sentences(text[:MAX_CHARS]))
    log = math.log1p(sum(len(words(sentence)) for sentence in own))
    short = _between(log, FRAGMENT, SHORT)
    above = _between(math.log1p(_fresh_size(own)), LONG, LONGEST)
    return min(log, math.log(FRAGMENT)) + SHORT_SLOPE * short + above


def _fresh_size(parts: Iterable[str]) -> float:
    """Words in sentences that say something new: one of which less than FRESH of its words are new
    counts in proportion, so that the words of a text at random make it no longer.
    """
    said: set[str] = set()
    size = 0.0
    for own in map(words, parts):
        distinct = set(own)
        fresh = len(distinct - said) / max(1, len(distinct))
        size += len(own) * min(1.0, fresh / FRESH)
        said |= distinct
    return size


def _between(log: float, low: int, high: int) -> float:
    """How far `log` exceeds log(low), capped at log(high)."""
    return max(0.0, min(log, math.log(high)) - math.log(low))


def _shape(text: str, parts: Sequence[str], n: int, k: int) -> dict[str, float]:
    lengths = [len(words(s)) for s in parts] or [0]
    return {
        "finished": float(bool(_FINISHED.search(text[-40:]))),
        "refuses": float(bool(_REFUSES.search(text[:300]))),
        "opens_as_assistant": float(bool(_OPENS.search(text[:60]))),
        "markdown": _rate(len(_MARKDOWN.findall(text)), n),
        "sentence_words": math.log1p(fmean(lengths)),
        "sentence_spread": pstdev(lengths) / (fmean(lengths) or 1.0),
        "speech": _rate(len(_SPEECH.findall(text)), n),
        "quoted": min(1.0, sum(map(len, speech(text))) / max(1, len(text))),
        "digits": _rate(sum(c.isdigit() for c in text), n),
        "openings": len({words(s)[:1] for s in parts}) / k,
    }


def _variety(own: Sequence[str], parts: Sequence[str]) -> dict[str, float]:
    """Vocabulary in windows of equal length, and repetition of sentences and word triples."""
    windows = [own[i : i + WINDOW] for i in range(0, max(1, len(own) - WINDOW + 1), WINDOW)]
    triples = list(zip(own, own[1:], own[2:], strict=False))
    first = triples[:500]
    return {
        "variety": fmean(len(set(w)) / max(1, len(w)) for w in windows),
        "same_sentence": 1 - len(set(parts)) / max(1, len(parts)),
        "same_triple": 1 - len(set(first)) / max(1, len(first)),
        "word_chars": fmean(map(len, own)) if own else 0.0,
    }


def _fit(prompt: str, text: str) -> dict[str, float]:
    """How the text relates to its prompt."""
    asked, given = set(content_words(prompt[:MAX_CHARS])), set(content_words(text))
    shared = len(asked & given)
    return {
        "answers": shared / math.sqrt(len(asked)) if asked else 0.0,
        "echoes": shared / max(1, len(given)),
        "other_script": float(bool(prompt) and is_cjk(prompt) != is_cjk(text)),
    }
