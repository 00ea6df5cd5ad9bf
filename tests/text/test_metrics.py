"""Text metrics: counts by hand, laws, and what stands in for missing tools."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import DataError, UsageError
from r2w_eval.stats.inference import evaluate
from r2w_eval.text import measures as textmeasures
from r2w_eval.text import metrics as textmetrics
from r2w_eval.text.measures import measure_texts, text_estimates, vocabulary_estimate
from r2w_eval.text.metrics import (
    SlopCounts,
    SlopLists,
    VocabularyCounts,
    count_ngrams,
    count_slop,
    count_vocabulary,
    ngrams,
    read_syllables,
    repeated_counts,
)
from r2w_eval.types import ItemVerdicts, WriterStatus

LISTS = SlopLists(frozenset({"hum"}), frozenset({"a hum"}), frozenset({"hum of dread"}))
WORDS = st.lists(st.sampled_from(["a", "hum", "of", "dread", ".", "—"]), max_size=30)


def test_slop_counts_words_pairs_and_triples() -> None:
    counts = count_slop(["a", "hum", ",", "of", "dread", "."], LISTS)
    assert counts == SlopCounts(4, 1, 1, 1)
    assert counts.weighted == 11 and counts.index == 11 / 4 * 1000
    assert count_slop([".", "—"], LISTS).index is None


@given(WORDS)
def test_slop_never_counts_more_than_there_are(tokens: list[str]) -> None:
    counts = count_slop(tokens, LISTS)
    assert 0 <= counts.words <= counts.tokens
    assert counts.bigrams <= max(0, counts.tokens - 1)
    assert counts.trigrams <= max(0, counts.tokens - 2)


@given(WORDS, st.integers(1, 4))
def test_there_are_as_many_runs_as_fit(tokens: list[str], n: int) -> None:
    assert len(list(ngrams(tokens, n))) == max(0, len(tokens) - n + 1)


def test_only_phrases_of_several_prompts_are_repetitions() -> None:
    by_prompt = {"1": {"x": 9, "y": 2, "z": 1}, "2": {"y": 3, "z": 1}, "3": {"z": 1}}
    assert repeated_counts(by_prompt, 2) == {"1": 3, "2": 4, "3": 1}
    assert repeated_counts(by_prompt, 3) == {"1": 1, "2": 1, "3": 1}
    assert repeated_counts(by_prompt, 2, top=1) == {"1": 2, "2": 3, "3": 0}
    assert count_ngrams([["a", "b"], ["a", "b"]], 2) == {"a b": 2}, "no phrase spans two texts"


@given(
    st.dictionaries(
        st.sampled_from("123"), st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9))
    ),
    st.integers(1, 6),
)
def test_the_sum_is_that_of_the_commonest(by_prompt: dict[str, dict[str, int]], top: int) -> None:
    total: dict[str, int] = {}
    for counts in by_prompt.values():
        for gram, count in counts.items():
            total[gram] = total.get(gram, 0) + count
    shared = [c for g, c in total.items() if sum(g in own for own in by_prompt.values()) >= 2]
    assert sum(repeated_counts(by_prompt, 2, top).values()) == sum(sorted(shared)[::-1][:top])


def test_vocabulary_by_hand() -> None:
    known = read_syllables(["HOUSE  HH AW1 S", "melancholy 1 M EH1 L AH0 N K AA2 L IY0", ""])
    assert known == {"house": 1, "melancholy": 4}
    counts = count_vocabulary(["House", "melancholy", "."], 1, known)
    assert counts == VocabularyCounts(1, 3, 6, 1)
    grade = 0.39 * 3 + 11.8 * 2 - 15.59
    assert counts.index == pytest.approx((grade / 14 + 1) * 50), "long words are capped at 20 %"
    assert VocabularyCounts(0, 0, 0, 0).index is None


@given(
    st.lists(
        st.builds(
            VocabularyCounts, st.integers(1, 9), st.integers(1, 99), st.integers(1, 300),
            st.integers(0, 60),
        ),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_the_estimate_is_the_index_of_the_sums(rows: list[VocabularyCounts]) -> None:
    fields = ("sentences", "tokens", "syllables", "long_words")
    total = VocabularyCounts(*(sum(getattr(row, name) for row in rows) for name in fields))
    measured = [
        (str(i), {"vocabulary": [getattr(row, name) for name in fields]})
        for i, row in enumerate(rows)
    ]
    got = evaluate(vocabulary_estimate(measured))
    # both shares capped: a constant, and no ratio to resample
    assert total.index == pytest.approx(100.0 if got is None else got)


def item(texts: list[str], sample_id: str = "1") -> ItemVerdicts:
    measures = measure_texts(texts, LISTS)
    return ItemVerdicts(sample_id, "en", {}, WriterStatus.OK, {}, measures=measures)


def test_without_the_tools_lengths_stand_and_the_rest_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> list[str]:
        raise UsageError("no NLTK here")

    monkeypatch.setattr(textmeasures, "nltk_tokens", refuse)
    textmeasures.why_uncounted.cache_clear()
    try:
        found = {e.name: e for e in text_estimates([item(["two words"])], lambda i: "1", 2)}
    finally:
        textmeasures.why_uncounted.cache_clear()
    assert evaluate(found["length"]) == 9.0 and evaluate(found["words"]) == 2.0
    for name in ("slop", "repetition", "vocabulary"):
        assert evaluate(found[name]) is None and found[name].note == "no NLTK here"


def test_a_run_without_answers_has_no_figures() -> None:
    empty = ItemVerdicts("1", "en", {}, WriterStatus.ERROR, {})
    for estimate in text_estimates([empty], lambda i: "1", 2):
        assert evaluate(estimate) is None and estimate.n_expected == 1


def test_a_run_is_measured_over_its_prompts() -> None:
    if reason := textmeasures.why_uncounted():
        pytest.skip(reason)
    items = [item(["A hum of dread. A dark hum rose."], "1"), item(["The dark hum rose."], "2")]
    got = {e.name: evaluate(e) for e in text_estimates(items, lambda i: i.sample_id, 2)}
    # 3 words, 1 pair and 1 triple of the lists among 12 tokens
    assert got["slop"] == pytest.approx((3 + 2 * 1 + 8 * 1) / 12 * 1000)
    # "dark hum", "hum rose" and "dark hum rose" occur twice each, in 12 words
    assert got["repetition"] == pytest.approx(6 / 12 * 1000)


def test_altered_lists_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "words.txt"
    path.write_text("the\n")
    monkeypatch.setenv("R2W_STOPWORDS", str(path))
    textmetrics.stop_words.cache_clear()
    with pytest.raises(DataError, match="Remove the file, or set R2W_STOPWORDS"):
        textmetrics.stop_words()
    monkeypatch.setenv("R2W_STOPWORDS", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="no such file"):
        textmetrics.stop_words()
    textmetrics.stop_words.cache_clear()
