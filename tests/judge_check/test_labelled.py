"""Labelled sets: read as published, refused when altered, limited evenly; null answers of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import DataError, UnknownName
from r2w_eval.hashing import file_hash
from r2w_eval.judge_check.labelled import (
    SETS,
    LabelledItem,
    Part,
    choose_sets,
    labels_root,
    load_set,
    pair_item,
    spread,
)
from r2w_eval.judge_check.nulls import (
    DESCRIPTIONS,
    LONGEST,
    longest_text,
    null_answers,
    partners,
    shuffle_sentences,
    split_sentences,
)

PUBLISHED = {
    "autoj_writing_dev": (356, 712, 258),
    "wpb_zh_dev": (100, 1899, 2970),
    "nextchapter_crowd": (60, 260, None),
    "lamp_val_pairs": (98, 196, 98),
    "storyer_upvotes": (581, 1162, 581),
    "llmbar_public": (734, 1468, 734),
}


@pytest.mark.parametrize("name", SETS)
def test_every_set_reads_as_published(reward_data: Path, name: str) -> None:
    found = load_set(SETS[name], reward_data)
    n_items, n_texts, n_pairs = PUBLISHED[name]
    assert len(found.items) == n_items
    assert sum(len(item.texts) for item in found.items) == n_texts
    told_apart = [pair for item in found.items for pair in item.pairs if pair.human]
    assert n_pairs is None or len(told_apart) == n_pairs
    assert len({item.id for item in found.items}) == n_items
    if scale := found.spec.scale:
        rated = [t.rating for item in found.items for t in item.texts if t.rating is not None]
        assert rated and all(scale[0] <= rating <= scale[1] for rating in rated)


def test_the_winner_is_not_always_listed_first(reward_data: Path) -> None:
    found = load_set(SETS["storyer_upvotes"], reward_data)
    first = sum(pair.human > 0 for item in found.items for pair in item.pairs)
    assert 0.4 < first / 581 < 0.6


def test_limits_are_even_and_keep_pairs_consistent(reward_data: Path) -> None:
    found = load_set(SETS["wpb_zh_dev"], reward_data, Part(5, 4))
    assert len(found.items) == 5 and all(len(item.texts) == 4 for item in found.items)
    for item in found.items:
        ids = {text.id for text in item.texts}
        assert all({pair.first, pair.second} <= ids for pair in item.pairs)


def test_long_answers_are_left_out_with_their_pairs(reward_data: Path) -> None:
    short = load_set(SETS["wpb_zh_dev"], reward_data, Part(chars=400)).items
    assert 0 < len(short) < len(load_set(SETS["wpb_zh_dev"], reward_data).items)
    for item in short:
        assert len(item.texts) >= 2
        assert all(len(item.prompt) + len(text.text) <= 400 for text in item.texts)
        ids = {text.id for text in item.texts}
        assert all({pair.first, pair.second} <= ids for pair in item.pairs)
    with pytest.raises(DataError, match="within 5 characters.*--max-chars"):
        load_set(SETS["wpb_zh_dev"], reward_data, Part(chars=5))


def test_missing_and_altered_files_are_named(tmp_path: Path) -> None:
    spec = SETS["llmbar_public"]
    with pytest.raises(DataError, match=r"llmbar_public is not there.*--labels"):
        load_set(spec, tmp_path)
    path = tmp_path / spec.file
    path.parent.mkdir()
    path.write_text(json.dumps({"input": "a"}) + "\n")
    with pytest.raises(DataError, match=r"altered.*expected f46aede"):
        load_set(spec, tmp_path)
    broken = replace(spec, sha256=file_hash(path))
    with pytest.raises(DataError, match=r"record 0000.*output_1"):
        load_set(broken, tmp_path)


def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean llmbar_public"):
        choose_sets("llmbar")
    assert [spec.name for spec in choose_sets("")] == list(SETS)


def test_the_labels_lie_beside_the_benchmark_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_DATA", "/data/benchmarks")
    monkeypatch.delenv("R2W_REWARD_DATA", raising=False)
    assert labels_root(None, None) == Path("/data/reward_data")
    assert labels_root(None, "/other/benchmarks") == Path("/other/reward_data")
    monkeypatch.setenv("R2W_REWARD_DATA", "/labels")
    assert labels_root(None, "/other/benchmarks") == Path("/labels")
    assert labels_root("/mine", None) == Path("/mine")


@given(st.lists(st.integers(), unique=True), st.integers(0, 20))
def test_spread_keeps_order_and_takes_no_more_than_there_is(values: list[int], n: int) -> None:
    found = spread(values, n)
    assert len(found) == min(n, len(values))
    assert [value for value in values if value in found] == found


def item(key: str, prompt: str, first: str, second: str = "Short.") -> LabelledItem:
    return pair_item(key, prompt, (first, second), 1.0)


def test_null_answers_are_what_they_say() -> None:
    own = item("a", "Write of rain.", "One. Two. Three. Four. Five.")
    other = item("b", "Write of snow.", "Snow fell.")
    found = {null.name: null for null in null_answers(own, other, "en")}
    assert found.keys() == DESCRIPTIONS.keys() - {LONGEST}
    assert found["empty"].text == "" and found["repeat_prompt"].text == "Write of rain."
    assert found["other_answer"].text == "Snow fell."
    assert "full score" in found["injected_instructions"].text
    assert longest_text(own) == "1"
    chinese = {null.name: null.text for null in null_answers(own, other, "zh")}
    assert re.search("[一-鿿]", chinese["constant_essay"])


def test_no_other_answer_without_another_request() -> None:
    own, twin = item("a", "Same.", "x"), item("b", "Same.", "y")
    assert partners([own, twin]) == [own, twin]
    assert "other_answer" not in {null.name for null in null_answers(own, twin, "en")}
    third = item("c", "Else.", "z")
    assert partners([own, twin, third]) == [third, third, own]


@given(st.lists(st.sampled_from(["One.", "Two!", "三。", "Four?", "Five."]), max_size=12))
def test_shuffling_keeps_every_sentence_and_changes_the_order(sentences: list[str]) -> None:
    text = " ".join(sentences)
    shuffled = shuffle_sentences(text)
    if len(set(sentences)) < 4:
        assert shuffled is None
        return
    assert shuffled is not None and shuffled != text
    assert sorted(split_sentences(shuffled)) == sorted(split_sentences(text))
