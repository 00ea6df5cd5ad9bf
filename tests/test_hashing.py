"""Content hashes: equal for equal work, different for different work, defined for any text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.hashing import content_hash, dump_line, file_hash, text_hash, to_plain
from r2w_eval.types import Message, Usage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
# lone surrogates are what broken tokenizers and hostile servers send
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=50)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_the_order_of_keys_does_not_change_a_hash(value: dict[str, object]) -> None:
    assert content_hash(value) == content_hash(dict(reversed(value.items())))


@given(JSON, JSON)
def test_equal_hashes_mean_equal_json(a: object, b: object) -> None:
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (content_hash(a) == content_hash(b)) is same


@given(JSON)
def test_a_record_read_back_has_the_same_hash(value: object) -> None:
    assert content_hash(json.loads(dump_line(value))) == content_hash(value)


@given(ANY_TEXT)
def test_any_text_has_hashes_and_is_one_line(text: str) -> None:
    assert len(text_hash(text)) == 64 and len(content_hash([text], 12)) == 12
    line = dump_line({"text": text})
    assert line.count(b"\n") == 1 and json.loads(line) == {"text": text}


@given(st.lists(ANY_TEXT, max_size=4), st.lists(ANY_TEXT, max_size=4))
def test_moving_a_boundary_between_texts_changes_the_hash(a: list[str], b: list[str]) -> None:
    assert (content_hash(a) == content_hash(b)) is (a == b)


def test_dataclasses_tuples_and_lists_are_the_same_content() -> None:
    as_dict = {"role": "user", "content": "x"}
    assert content_hash((Message("user", "x"),)) == content_hash([as_dict])
    assert to_plain({1: (Usage(1),)}) == {
        "1": [{"prompt_tokens": 1, "completion_tokens": None, "reasoning_tokens": None,
               "cached_tokens": None}]
    }  # fmt: skip


def test_text_and_file_hashes_are_plain_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("Grüße\u2028")
    expected = hashlib.sha256("Grüße\u2028".encode()).hexdigest()
    assert text_hash("Grüße\u2028") == file_hash(tmp_path / "a") == expected
