"""What a reward model reads of a revision."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.reward_models.language.words import tokens
from r2w_eval.reward_models.transformer.digest import CONTEXT, HALF, revision_digest

WORDS = st.lists(st.sampled_from(("one", "two", "three", "四", ".", "“")), max_size=12)


@pytest.mark.parametrize(
    ("draft", "revision", "shown"),
    [
        ("One. Two.", "One. Two.", ""),
        ("One. Two.", "One.\n\nTwo.", ""),
        ("One. Two. Three.", "One. Two. Four.", "One. Two. [-Three-]{+Four+} ."),
        # what only takes away, moves, repeats or takes a repetition away is seen
        ("One. Two. Three.", "One. Three.", "One. [-Two.-] Three."),
        ("One. Two.", "Two. One.", "[-One. Two-]{+Two. One+} ."),
        ("One. Two.", "One. Two. One.", "One. Two. {+One.+}"),
        # changes with a word or two between them are one
        ("a big old red barn", "a small old blue barn", "a [-big old red-]{+small old blue+} barn"),
        # another text is shown whole
        ("One two three four five", "Six seven", "Six seven"),
        ("", "New.", "{+New.+}"),
        # and one that takes everything away does not look like none
        ("Old text.", "", "[-Old text.-]"),
    ],
)
def test_a_revision_is_shown_as_what_it_changed(draft: str, revision: str, shown: str) -> None:
    assert revision_digest(draft, revision) == shown


def test_what_lies_far_from_a_change_is_left_out() -> None:
    words = [f"w{i}" for i in range(80)]
    revision = " ".join([*words[:20], "new", *words[20 + 3 * HALF :]])
    shown = revision_digest(" ".join(words), revision).split(" ")
    assert shown[: CONTEXT + 1] == ["…", *words[20 - CONTEXT : 20]]
    assert "".join(shown[CONTEXT + 1 :]).count("…") == 2  # in what is gone, and behind it
    assert f"[-{words[20]}" in shown and words[20 + HALF] not in shown


@given(WORDS, WORDS)
def test_the_marks_lead_from_one_text_to_the_other(before: list[str], after: list[str]) -> None:
    draft, revision = " ".join(before), " ".join(after)
    shown = revision_digest(draft, revision)
    assert bool(shown) == (before != after)
    if not shown or "…" in shown or shown == revision:
        return
    without_old = re.sub(r"\[-.*?-\]", "", shown)
    assert tokens(re.sub(r"\{\+(.*?)\+\}", r" \1 ", without_old)) == tuple(after)
    without_new = re.sub(r"\{\+.*?\+\}", "", shown)
    assert tokens(re.sub(r"\[-(.*?)-\]", r" \1 ", without_new)) == tuple(before)
