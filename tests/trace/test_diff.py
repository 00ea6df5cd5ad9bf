"""The word diff: laws by hypothesis, moves, and growth with length."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.trace.diff import Changes, EditKind, covers, diff, merged, words_of
from r2w_eval.trace.types import Span

TEXTS = st.lists(
    st.sampled_from(["the", "rain", "fell", "a", "door", ".", "\n", "雨", "停了", "。", "42"]),
    max_size=30,
).map(" ".join)


def rebuilt(old: str, new: str) -> list[str]:
    """The words of the new text, made from the old one's and the edits alone."""
    edits = diff(old, new)
    gone = [e.old for e in edits if len(e.old)]
    words = [
        (w.span.start, w.text)
        for w in words_of(old)
        if not any(s.start <= w.span.start < s.end for s in gone)
    ]
    kept = [text for _, text in words]
    come = [e.new for e in edits if len(e.new)]
    others = [
        w.text for w in words_of(new) if not any(s.start <= w.span.start < s.end for s in come)
    ]
    assert kept == others
    return kept


@given(TEXTS, TEXTS)
def test_what_no_edit_covers_is_the_same_in_both_texts(old: str, new: str) -> None:
    rebuilt(old, new)


@given(TEXTS)
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert diff(text, text) == ()


def test_edits_name_the_words_that_changed() -> None:
    old, new = "She wore a very red coat.", "She wore a coat today."
    found = [(str(e.kind), e.old.cut(old), e.new.cut(new)) for e in diff(old, new)]
    assert found == [("delete", "very red", ""), ("insert", "", "today")]


def test_a_change_of_case_alone_is_an_edit_in_any_sentence() -> None:
    for rest in ("fell.", "fell on the old roof tonight."):
        old, new = f"the rain {rest}", f"The rain {rest}"
        found = [(e.old.cut(old), e.new.cut(new)) for e in diff(old, new)]
        assert found == [("the", "The")]


def test_a_sentence_that_changes_place_is_a_move() -> None:
    old = "Nobody came to the door. The rain went on all night. The end is near us."
    new = "The rain went on all night. The end is near us. Nobody came to the door."
    assert [(e.kind, e.old.cut(old), e.new.cut(new)) for e in diff(old, new)] == [
        (EditKind.MOVE, "Nobody came to the door.", "Nobody came to the door.")
    ]
    zh = diff("雨下了一整夜。没有人来敲门。", "没有人来敲门。雨下了一整夜。")
    assert [e.kind for e in zh] == [EditKind.MOVE]


def test_shares_inside_and_outside_of_a_span() -> None:
    old, new = "a red door and a wall", "a blue door and a wall"
    shares = Changes(old, diff(old, new)).shares([Span(2, 5)])
    assert (shares.inside, shares.outside) == (1.0, 0.0)
    rewritten = Changes(old, diff(old, "something else entirely")).shares([Span(2, 5)])
    assert (rewritten.inside, rewritten.outside) == (1.0, 1.0)
    assert Changes(old, ()).shares([]).inside is None


def test_a_long_text_takes_time_in_proportion() -> None:
    def seconds(n: int) -> float:
        old = " ".join(f"Sentence number {i} stands here quite alone." for i in range(n))
        new = old.replace("quite alone", "not alone", n // 2)
        begin = time.process_time()
        diff(old, new)
        return time.process_time() - begin

    seconds(200)
    assert seconds(8_000) < 40 * max(seconds(800), 0.005)


def test_a_text_of_marks_alone_takes_time_in_proportion() -> None:
    for mark in (".", "!", '."', "。", ". ", "\n"):
        begin = time.process_time()
        diff(mark * 20_000 + "x", mark * 20_000 + "y")
        assert time.process_time() - begin < 2.0, mark


def test_one_sentence_without_end_does_not_explode() -> None:
    text = "the same words again and " * 8_000
    assert diff(text, text + "and more") != ()


@given(
    st.lists(st.sampled_from(["rain", "sun", "door", "."]), max_size=14),
    st.lists(st.sampled_from(["rain", "sun", "door", "."]), max_size=14),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=4),
)
def test_the_shares_are_those_of_counting_every_word(
    left: list[str], right: list[str], places: list[tuple[int, int]]
) -> None:
    old, new = " ".join(left), " ".join(right)
    edits = diff(old, new)
    spans = merged([Span(start, start + length) for start, length in places])
    gone = sorted(e.old for e in edits if e.kind in (EditKind.DELETE, EditKind.REPLACE))
    inside = [(covers(spans, w.span), covers(gone, w.span)) for w in words_of(old)]
    inside += [
        (any(s.start <= e.old.start <= s.end for s in spans), True)
        for e in edits
        if e.kind is EditKind.INSERT and len(e.new)
    ]
    shares = Changes(old, edits).shares(spans)
    for side, found in ((True, shares.inside), (False, shares.outside)):
        own = [is_changed for is_inside, is_changed in inside if is_inside is side]
        assert found == (sum(own) / len(own) if own else None)
