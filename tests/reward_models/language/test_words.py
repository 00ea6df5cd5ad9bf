"""Words, sentences, quotations, differences."""

from __future__ import annotations

import difflib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.reward_models.language.words import (
    N_LONG,
    SHORT_CHARS,
    containment,
    content_words,
    difference,
    find_spans,
    quotations,
    remembered,
    sentences,
    tokens,
)


def test_a_changed_word_is_found_and_nothing_else() -> None:
    found = difference("The dark night fell.", "The cold night fell.")
    assert found.removed == ("dark",)
    assert found.added == ("cold",)
    assert found.changed == (False, True, False, False, False)
    assert found.hunks == (("dark", "cold"),)


def test_an_insertion_touches_the_token_after_it() -> None:
    found = difference("one three", "one two three")
    assert found.changed == (False, True)
    assert found.added == ("two",)


@given(st.text(alphabet="ab c.", max_size=40))
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert difference(text, text).share == 0.0


@given(st.text(alphabet="abc 。x.", max_size=30), st.text(alphabet="abc 。x.", max_size=30))
def test_removed_and_added_account_for_the_lengths(before: str, after: str) -> None:
    found = difference(before, after)
    assert len(tokens(before)) - len(found.removed) + len(found.added) == len(tokens(after))


def test_a_huge_text_is_compared_without_stalling() -> None:
    text = "word " * 30_000
    assert difference("x " + text, "y " + text + "z").share > 0


@pytest.mark.parametrize(
    ("span", "expected"),
    [("dark night", (3, 5)), ("DARK night", (3, 5)), ("a bright day", None), ("", None)],
)
def test_a_span_is_found_where_it_stands(span: str, expected: tuple[int, int] | None) -> None:
    assert find_spans(span, "It was a dark night.") == ([expected] if expected else [])


def test_a_draft_of_one_sentence_is_found_in_itself_at_once() -> None:
    started = time.process_time()
    assert find_spans("重复" * 10_000, "重复" * 10_000) == [(0, 20_000)]
    # a copy of the rest at every place: 1.5 s and more
    assert time.process_time() - started < 0.5


def test_a_span_with_one_word_changed_is_still_found() -> None:
    draft = "He went down to the river and sat there until the moon came up."
    assert find_spans("he went down to a river and sat there", draft) == [(0, 9)]


def test_quotations_leave_apostrophes_alone() -> None:
    assert quotations("It's Mara's 'old coat' and 「旧外套」.") == ["old coat", "旧外套"]


def test_a_letter_in_straight_quotes_does_not_shift_the_quotations_behind_it() -> None:
    remark = 'The article "a" is wrong before "hour"; I will write "an hour".'
    assert quotations(remark) == ["hour", "an hour"]


def test_a_long_quotation_that_stands_nowhere_is_compared_at_few_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []
    matcher = difflib.SequenceMatcher

    def counted(*given: Any, **options: Any) -> Any:
        compared.append(given)
        return matcher(*given, **options)

    monkeypatch.setattr(difflib, "SequenceMatcher", counted)
    own = [f"word{i}" for i in range(40)]
    draft = " ".join(own[::-1] * 20)
    assert find_spans(" ".join(own), draft) == []
    assert 0 < len(compared) <= 64


def test_sentences_of_both_languages() -> None:
    assert sentences('He said "No." Then left.\n走了。没人说话！') == [
        'He said "No."', "Then left.", "走了。", "没人说话！"
    ] or len(sentences("走了。没人说话！")) == 2  # fmt: skip


def test_containment_of_short_parts_uses_single_words() -> None:
    assert containment(["a"], ["a", "b"], 3) == 1.0
    assert containment([], ["a"], 3) == 0.0


def test_stop_words_carry_no_content() -> None:
    assert content_words("The night was very dark") == ("night", "dark")


def test_no_span_is_found_in_an_empty_text() -> None:
    assert find_spans("goes", "") == []


def test_long_texts_do_not_fill_the_memory() -> None:
    read = []

    @remembered
    def note(text: str) -> str:
        read.append(text)
        return text

    short, long = "a", [f"{i} " * SHORT_CHARS for i in range(N_LONG + 1)]
    for text in (short, *long, short, long[-1], long[0]):
        assert note(text) == text
    # the short one and the last long one were kept, the first long one made room
    assert read == [short, *long, long[0]]
