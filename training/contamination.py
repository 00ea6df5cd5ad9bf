"""Finds training prompts that occur in a benchmark, whole or in part.

Long prompts are compared by shared 13-grams, short ones by equality or by the Jaccard index of
their token sets (specification: r2write.md section 3.5, which calibrates the limits), and by
standing whole in the text. Tokens are lower-case words and single CJK characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from r2w_eval.config import INPUT_OPTIONS
from r2w_eval.data import data_roots
from r2w_eval.errors import DataError
from r2w_eval.suites.groups import expand_groups
from r2w_eval.suites.suite import load_info, load_suite, suite_folders

N = 13
MAX_SHARE = 0.2
MAX_RUN_TOKENS = 30
# one changed word takes 13 grams with it: below this many tokens sets of words are compared too
SHORT_TOKENS = 100
MAX_JACCARD = 0.8
# a short prompt of at least this many tokens is found where instructions stand around it
MIN_WHOLE = 8

# any odd number with mixed bits
_BASE = np.uint64(0x9E3779B97F4A7C15)

# what nobody sees: soft hyphens, joiners, marks of direction
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_TOKEN = re.compile(r"[一-鿿぀-ヿ가-힯]|[^\W_一-鿿぀-ヿ가-힯]+")


@dataclass(frozen=True, slots=True)
class Hit:
    """Why a prompt is refused.

    share: of its 13-grams, those that occur in a benchmark
    run: the longest stretch of its tokens that occurs in a benchmark
    like: the short benchmark prompt that it resembles or holds; empty when the other two decided
    """

    share: float
    run: int
    like: str = ""

    def __str__(self) -> str:
        if self.like:
            return f"like the benchmark prompt {self.like[:60]!r}"
        return f"{self.share:.0%} of its {N}-grams and {self.run} tokens in a row are a benchmark's"


def tokenise(text: str) -> list[str]:
    """Lower-case words; a CJK character is a token of its own. The same text in another form of
    Unicode has the same tokens.

    >>> tokenise("Two cats, 两只猫"), tokenise("Ｔｗｏ ca\u200bts")
    (['two', 'cats', '两', '只', '猫'], ['two', 'cats'])
    """
    if not text.isascii():
        text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    return _TOKEN.findall(text.lower())


def _hashes(tokens: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A rolling hash per 13-gram: a polynomial over the tokens' hashes, modulo 2^64."""
    own = np.fromiter(map(hash, tokens), np.int64, len(tokens)).view(np.uint64)
    grams = np.zeros(max(0, len(tokens) - N + 1), np.uint64)
    for place in range(N if len(grams) else 0):
        grams = grams * _BASE + own[place : place + len(grams)]
    return grams


class BenchmarkIndex:
    """The 13-grams and the short prompts of all benchmark texts.

    Python's string hashes differ between processes, so an index is not stored. Duplicate grams are
    kept: sorting them all takes a fifth of the time that building a set takes.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        pieces: list[npt.NDArray[np.uint64]] = []
        self._short: dict[frozenset[str], str] = {}
        # by their first tokens
        self._whole: defaultdict[tuple[str, ...], list[list[str]]] = defaultdict(list)
        # suites share their prompts
        for text in dict.fromkeys(texts):
            tokens = tokenise(text)
            if len(tokens) < SHORT_TOKENS and tokens:
                self._short.setdefault(frozenset(tokens), text)
                if len(tokens) >= MIN_WHOLE:
                    self._whole[tuple(tokens[:MIN_WHOLE])].append(tokens)
            pieces.append(_hashes(tokens))
        self._grams = np.sort(np.concatenate(pieces)) if pieces else np.zeros(0, np.uint64)
        self._sizes = np.array([len(own) for own in self._short], np.int64)
        # which of the short prompts have a token
        self._holders: defaultdict[str, list[int]] = defaultdict(list)
        for place, own in enumerate(self._short):
            for token in own:
                self._holders[token].append(place)

    def check(self, text: str) -> Hit | None:
        """The reason to refuse `text`; None if it may be trained on."""
        tokens = tokenise(text)
        known = self._known(_hashes(tokens))
        share = float(known.mean()) if len(known) else 0.0
        # k grams in a row cover k + N - 1 tokens
        run = _longest_run(known) + N - 1 if known.any() else 0
        if share > MAX_SHARE or run >= MAX_RUN_TOKENS:
            return Hit(share, run)
        like = self._like_a_short_one(tokens) or self._holds_a_short_one(tokens)
        return Hit(share, run, like) if like else None

    def _known(self, grams: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        if not len(self._grams):
            return np.zeros(len(grams), bool)
        places = np.searchsorted(self._grams, grams).clip(max=len(self._grams) - 1)
        same: npt.NDArray[np.bool_] = self._grams[places] == grams
        return same

    def _like_a_short_one(self, tokens: Sequence[str]) -> str:
        own = frozenset(tokens)
        if not own or len(tokens) >= SHORT_TOKENS:
            return ""
        if own in self._short:
            return self._short[own]
        holders = [place for token in own for place in self._holders.get(token, ())]
        shared = np.bincount(holders, minlength=len(self._sizes))
        alike = shared >= MAX_JACCARD * (len(own) + self._sizes - shared)
        return list(self._short.values())[alike.argmax()] if alike.any() else ""

    def _holds_a_short_one(self, tokens: Sequence[str]) -> str:
        for place in range(len(tokens) - MIN_WHOLE + 1):
            for own in self._whole.get(tuple(tokens[place : place + MIN_WHOLE]), ()):
                if tokens[place : place + len(own)] == own:
                    return " ".join(own)
        return ""


def _longest_run(flags: npt.NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))


@dataclass(frozen=True, slots=True)
class BenchmarkTexts:
    """The prompts of the suites, and the names of suites whose data was not found."""

    texts: tuple[str, ...]
    unchecked: tuple[str, ...]


def benchmark_texts(data_dir: str | None, also: Sequence[str] = ()) -> BenchmarkTexts:
    """The prompts of every suite whose data is in the data folders.

    `also` names the suites, or groups of them, that the model will be evaluated on. Their data are
    fetched as their evaluation would, and only there suites with prompts of this project are
    included. Raises DataError when those cannot be had, UnknownName.
    """
    roots = data_roots(data_dir)
    evaluated = set(expand_groups(also, (*INPUT_OPTIONS, "pages"))[0]) if also else set()
    texts: list[str] = []
    unchecked: list[str] = []
    for name in suite_folders():
        info = load_info(name)
        is_evaluated = name in evaluated
        if info.source == "this package" and not is_evaluated:
            continue
        data = replace(info.data(roots), prompts_only=True)
        if not is_evaluated and not any(data.find(file) for file in info.files):
            unchecked.append(name)
            continue
        try:
            for sample in load_suite(info.folder).load_samples(data):
                texts += [message.content for message in sample.messages]
        except DataError:
            if is_evaluated:
                raise
            unchecked.append(name)
    return BenchmarkTexts(tuple(texts), tuple(unchecked))
