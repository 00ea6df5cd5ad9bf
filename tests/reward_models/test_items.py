"""The public item format: what is read, what is refused and why."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.reward_models.items import (
    MAX_ITEM_CHARS,
    ItemScore,
    ItemStatus,
    ReflectionItem,
    WritingItem,
    failed,
    read_item,
    unscorable,
)

GOOD = {"id": "a", "prompt": "p", "draft": "d", "reflection": "r"}


def test_both_kinds_are_read() -> None:
    item = read_item({**GOOD, "revision": "v", "earlier": ["e"]}, 1)
    assert item == ReflectionItem("a", "p", "d", "r", "v", ("e",))
    assert read_item({"id": 3, "response": "text"}, 1) == WritingItem("3", "", "text")


@pytest.mark.parametrize(
    ("record", "status"),
    [
        ({**GOOD, "draft": ""}, ItemStatus.NO_DRAFT),
        ({"id": "a", "reflection": "r"}, ItemStatus.NO_DRAFT),
        ({**GOOD, "reflection": " \n"}, ItemStatus.NO_SEGMENT),
        ({**GOOD, "earlier": "one"}, ItemStatus.BAD_ITEM),
        ({**GOOD, "earlier": [1]}, ItemStatus.BAD_ITEM),
        ({**GOOD, "draft": 5}, ItemStatus.BAD_ITEM),
        ({"id": "a", "prompt": "p"}, ItemStatus.BAD_ITEM),
        # which of the two is to be scored, no one can tell
        ({**GOOD, "response": "text"}, ItemStatus.BAD_ITEM),
        ({"id": "a", "response": "  "}, ItemStatus.EMPTY),
        ({**GOOD, "draft": "x" * (MAX_ITEM_CHARS + 1)}, ItemStatus.TOO_LONG),
        ([1, 2], ItemStatus.BAD_ITEM),
        (None, ItemStatus.BAD_ITEM),
    ],
)
def test_a_bad_item_has_a_status_and_no_value(record: Any, status: ItemStatus) -> None:
    score = read_item(record, 7)
    assert isinstance(score, ItemScore)
    assert score.status is status
    assert score.value is None
    assert score.reason


@pytest.mark.parametrize("record", [{"response": "text"}, {"id": None, "response": "text"}])
def test_an_item_without_id_is_named_by_its_number(record: Any) -> None:
    assert read_item(record, 12) == WritingItem("12", "", "text")


def test_null_is_the_same_as_nothing_there() -> None:
    assert read_item({**GOOD, "response": None}, 1) == read_item(GOOD, 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "draft", "reflection", "response", "earlier", "revision"]), inner,
        max_size=5,
    ),
    max_leaves=10,
)  # fmt: skip


@given(json_values)
def test_no_json_makes_reading_fail(record: Any) -> None:
    read = read_item(record, 1)
    # what was read can be asked about, too
    assert isinstance(read, ItemScore) or unscorable(read) is None


def test_a_score_cannot_contradict_itself() -> None:
    with pytest.raises(ValueError, match="bad_item"):
        ItemScore("a", 0.0, {}, ItemStatus.BAD_ITEM)
    with pytest.raises(ValueError, match="finite"):
        ItemScore("a", float("nan"))
    assert "reason" not in ItemScore("a", 1.0).as_record()
    assert failed("a", ItemStatus.ERROR, "why").as_record()["reason"] == "why"


def test_the_numbers_of_a_library_become_those_of_json() -> None:
    parts: dict[str, Any] = {
        "a": np.float32(0.5),
        "b": np.float32("nan"),
        "c": np.int64(3),
        "d": "text",
        "e": True,
        "f": [{"score": np.float64("inf")}, (np.int8(1),)],
    }
    score = ItemScore("a", np.float32(0.5), parts)  # type: ignore[arg-type]
    told = {"a": 0.5, "b": None, "c": 3, "d": "text", "e": True, "f": [{"score": None}, [1]]}
    assert json.loads(json.dumps(score.as_record())) == {
        "id": "a", "value": 0.5, "parts": told, "status": "ok"
    }  # fmt: skip
    assert str(ItemScore("a", 1).as_record()["value"]) == "1.0"
