"""Where JSON stands in a text: fences and braces, on ordinary and on hostile texts."""

from __future__ import annotations

import json
import time

from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.judge.extraction import balanced_braces, first_fence, outer_braces, parse_json

OBJECTS = st.dictionaries(st.text(alphabet="abc", max_size=4), st.integers() | st.booleans())


@given(OBJECTS, st.text(alphabet="xy \n", max_size=20))
def test_a_flat_object_is_found_in_any_prose(value: dict[str, int], prose: str) -> None:
    text = json.dumps(value)
    assert parse_json(balanced_braces(f"{prose}{text}{prose}")) == value
    assert parse_json(outer_braces(f"{prose}{text}{prose}")) == value
    assert parse_json(first_fence(f"{prose}```json\n{text}\n```{prose}")) == value


def test_missing_json_is_none() -> None:
    assert first_fence("```json {}") is None and first_fence("``` {} ```") is None
    assert balanced_braces("{ {}") is None and balanced_braces("} {}") == "{}"
    assert balanced_braces("plain") is None and outer_braces("} {") is None


@given(st.text(alphabet='{}"`json a', max_size=200))
def test_no_text_breaks_a_search(text: str) -> None:
    for found in (first_fence(text), balanced_braces(text), outer_braces(text)):
        assert found is None or found in text
        parse_json(found)


def test_a_hostile_text_takes_linear_time() -> None:
    started = time.perf_counter()
    assert balanced_braces("{" * 500_000) is None
    assert parse_json("[" * 500_000) is None
    assert time.perf_counter() - started < 5
