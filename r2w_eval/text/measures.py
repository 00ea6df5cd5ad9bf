"""Text metrics of a run: what each answer is measured for, and the estimates made of it.

An answer leaves counts, not texts: n-grams are kept as hashes, so that a whole run can be measured
from its records without holding its stories. Formulas are in `metrics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from functools import cache
from typing import Any

from r2w_eval.errors import R2WError
from r2w_eval.text.metrics import (
    MAX_GRADE,
    MAX_LONG_WORDS,
    RELEASE,
    SlopCounts,
    SlopLists,
    VocabularyCounts,
    blank_words,
    content_words,
    count_ngrams,
    count_slop,
    count_vocabulary,
    repeated_counts,
    short_hash,
    stop_words,
    syllables,
)
from r2w_eval.text.tokenise import nltk_sentences, nltk_tokens
from r2w_eval.types import Estimate, ItemVerdicts, Stratum

NO_DICTIONARY = "needs CMUdict 0.7a: set R2W_CMUDICT to it"
FIXED_PHRASES = "the interval takes the phrases counted as given"
Measured = Sequence[tuple[str, Mapping[str, Any]]]


@cache
def why_uncounted() -> str:
    """Why words cannot be counted as published here; empty when they can."""
    try:
        nltk_tokens("One word.", RELEASE)
        stop_words()
    except R2WError as error:
        return str(error)
    return ""


def measure_texts(texts: Sequence[str], lists: SlopLists) -> dict[str, Any]:
    """Counts over the texts of one answer (one text, or the chapters of a story)."""
    found: dict[str, Any] = {"chars": sum(map(len, texts)), "texts": len(texts)}
    found["words"] = sum(map(blank_words, texts))
    if reason := why_uncounted():
        return {**found, "uncounted": reason}
    whole = "\n\n".join(texts)
    slop = count_slop(nltk_tokens(whole.lower(), RELEASE), lists)
    kept = [content_words(nltk_tokens(text.lower(), RELEASE), stop_words()) for text in texts]
    found["slop"] = list(astuple(slop))
    for n in (2, 3):
        counts = count_ngrams(kept, n)
        found[f"{n}-grams"] = {short_hash(gram): count for gram, count in counts.items()}
    if (dictionary := syllables()) is not None:
        n_sentences = len(nltk_sentences(whole, RELEASE))
        counted = count_vocabulary(nltk_tokens(whole, RELEASE), n_sentences, dictionary)
        found["vocabulary"] = list(astuple(counted))
    return found


def text_estimates(
    items: Sequence[ItemVerdicts], cluster_of: Callable[[ItemVerdicts], str], min_prompts: int
) -> list[Estimate]:
    """Length (characters a text), words a text, slop, repetition and vocabulary of a run."""
    measured = [(cluster_of(item), item.measures) for item in items if item.measures]
    n_expected = len({cluster_of(item) for item in items})
    reason = next((str(m["uncounted"]) for _, m in measured if "uncounted" in m), "")
    counted = [] if reason else measured
    estimates = [
        ratio("length", measured, lambda m: (m["chars"], m["texts"])),
        ratio("words", measured, lambda m: (m["words"], m["texts"])),
        ratio("slop", counted, _slop_ratio, 1000.0),
        repetition_estimate(counted, min_prompts),
        vocabulary_estimate(counted),
    ]
    return [
        replace(e, n_expected=n_expected, bounded=False, note=e.note if e.strata else reason)
        for e in estimates
    ]


def ratio(
    name: str,
    measured: Measured,
    read: Callable[[Mapping[str, Any]], tuple[float, float]],
    scale: float = 1.0,
) -> Estimate:
    """`scale` times the sum of the numerators over that of the denominators."""
    pairs = [read(measures) for _, measures in measured]
    stratum = Stratum(
        tuple(cluster for cluster, _ in measured),
        tuple(float(above) for above, _ in pairs),
        tuple(float(below) for _, below in pairs),
    )
    return Estimate(name, (stratum,) if measured else (), 0, scale)


def _slop_ratio(measures: Mapping[str, Any]) -> tuple[float, float]:
    counts = SlopCounts(*measures["slop"])
    return counts.weighted, counts.tokens


def repetition_estimate(measured: Measured, min_prompts: int) -> Estimate:
    """Uses of the 40 commonest bigrams and 40 trigrams per 1,000 words between blanks.

    Only n-grams found under `min_prompts` prompts or more count.
    """
    words: Counter[str] = Counter()
    repeated: Counter[str] = Counter()
    for cluster, measures in measured:
        words[cluster] += measures["words"]
    for n in (2, 3):
        by_prompt: dict[str, Counter[str]] = {cluster: Counter() for cluster in words}
        for cluster, measures in measured:
            by_prompt[cluster].update(measures[f"{n}-grams"])
        repeated.update(repeated_counts(by_prompt, min_prompts))
    rows = [(cluster, {"above": repeated[cluster], "below": n}) for cluster, n in words.items()]
    estimate = ratio("repetition", rows, lambda m: (m["above"], m["below"]), 1000.0)
    return replace(estimate, note=FIXED_PHRASES)


def vocabulary_estimate(measured: Measured) -> Estimate:
    """The vocabulary index of all texts together, in its linear part one ratio per share.

    Grade and long words are shares of sums; where a cap holds, that share stands at 100 %.
    """
    rows = [(c, VocabularyCounts(*m["vocabulary"])) for c, m in measured if "vocabulary" in m]
    if not rows:
        return Estimate("vocabulary", (), 0, note=NO_DICTIONARY if measured else "")
    total = VocabularyCounts(
        *(sum(column) for column in zip(*(astuple(r) for _, r in rows), strict=True))
    )
    clusters = tuple(cluster for cluster, _ in rows)

    def stratum(above: str, below: str, weight: float) -> Stratum:
        numbers = [[float(getattr(row, name)) for _, row in rows] for name in (above, below)]
        return Stratum(clusters, tuple(numbers[0]), tuple(numbers[1]), weight)

    strata: tuple[Stratum, ...] = ()
    offset = 0.0
    if total.grade < MAX_GRADE:
        share = 50 / MAX_GRADE
        offset -= 15.59 * share
        strata += (
            stratum("tokens", "sentences", 0.39 * share),
            stratum("syllables", "tokens", 11.8 * share),
        )
    else:
        offset += 50
    if total.long_word_share < MAX_LONG_WORDS:
        strata += (stratum("long_words", "tokens", 100 * 50 / MAX_LONG_WORDS),)
    else:
        offset += 50
    return Estimate("vocabulary", strata, 0, offset=offset)
