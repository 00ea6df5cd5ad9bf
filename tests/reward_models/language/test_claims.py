"""Claims: what a remark announces, what kind of edit was made, and whether the two agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.reward_models.language.claims import agreement, announced, claims, edits, mention
from r2w_eval.reward_models.language.words import difference


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("one, two", "one two", "mark,"),
        ("one two", "one, two", "marked"),
        ("a dog", "the dog", "article"),
        ("he walk", "he walks", "number"),
        ("he walks", "he walked", "near"),
        ("big dog", "dog big", "moved"),
        ("Internet use", "internet use", "case"),
        ("well-known man", "well known man", "mark-"),
        ("under water", "underwater", "hyphen"),
        ("It rained, and we left.", "It rained. We left.", "split"),
        ("on Monday", "at Monday", "preposition"),
        ("the general data rule", "the GDR", "acronym"),
        ("three dogs", "3 dogs", "digits"),
        ("a very big dog", "a big dog", "shorter"),
    ],
)
def test_kinds_of_edits(before: str, after: str, kind: str) -> None:
    assert kind in edits(difference(before, after))


@pytest.mark.parametrize(
    ("remark", "before", "after"),
    [
        ("A comma is needed.", "After rain we left.", "After rain, we left."),
        ("Wordy; this can be more concise.", "due to the fact that it rained", "because it rained"),
        ("Wrong preposition.", "We met in Monday.", "We met on Monday."),
        ("Past tense throughout.", "She walks home.", "She walked home."),
        ("The article is missing.", "We saw dog.", "We saw a dog."),
        ("多余的词，删去。", "天非常非常冷。", "天非常冷。"),
    ],
)
def test_an_edit_that_carries_out_its_remark_keeps_its_claims(
    remark: str, before: str, after: str
) -> None:
    made = agreement(remark, difference(before, after))
    other = agreement(remark, difference("He ran fast.", "He sprinted fast."))
    unchanged = agreement(remark, difference(before, before))
    assert made["claims_kept"] > other["claims_kept"]
    assert unchanged["claims_broken"] == 1.0


def test_a_remark_without_claims_keeps_and_breaks_none() -> None:
    found = agreement("Hm.", difference("a b", "a c"))
    assert found == {"claims": 0.0, "claims_kept": 0.0, "claims_broken": 0.0}


def test_a_remark_mentions_what_went_and_what_came_in_any_form() -> None:
    change = difference("She utilizes a pen.", "She uses a pen.")
    assert mention('"Uses" is plainer.', change)["mention"] == 0.5
    assert mention("Utilization is jargon.", change)["mention_stems"] > 0
    assert mention("Too long.", change)["mention"] == 0.0


def test_every_claim_can_be_carried_out() -> None:
    possible = set()
    for before, after in [
        ("one", "one, (two) - three; four: five. Six – — ' \" “x” ’y’ ，。：；"),
        ("a dog he was but He", "the dogs she is and he"), ("in it", "It"), ("b", "3"),
        ("Ox", "ox"), ("the data rule", "DR"), ("x y", "y x"), ("x-y", "x y"), ("x y", "xy"),
        ("x", ""), ("A. B c d", "A b"), ("go", "went far away"), ("walk", "walks"),
    ]:  # fmt: skip
        possible |= edits(difference(before, after)) | edits(difference(after, before))
    for claim in claims():
        assert claim.edits & possible, claim.name


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_shares_stay_between_0_and_1(remark: str, before: str, after: str) -> None:
    change = difference(before, after)
    found = agreement(remark, change) | mention(remark, change)
    assert all(0.0 <= value <= 1.0 for value in found.values())
    assert len(announced(remark)) <= len(claims())
