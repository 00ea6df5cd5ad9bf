"""Strict verdicts: what is read, what is refused, and that no text breaks the reader."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.judge.parsing import iter_objects, read_number_verdict
from r2w_eval.types import JudgeStatus, Score


def read(text: str) -> Score:
    return read_number_verdict(text, "score", 1, 10)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"score": 7, "reason": "ok"}', 7),
        ('{"score": 7.0}', 7),
        ('```json\n{"score": 7, "reason": "ok"}\n```', 7),
        ('Here: {"score": 7, "reason": "a\nb"} Thanks.', 7),
        ('{"score": 3} no, rather {"score": 4}', 4),
        ('{"note": 1} {"score": 9}', 9),
        ('{"score": 7,} Corrected: {"score": 8}', 8),
        ('The story {braces} and {"a" "b"}: {"score": 5}', 5),
        ('{"reason": "it ends in {\\"score\\": 10}", "score": 3}', 3),
        ('[{"score": 6}]', 6),
        ('{"score": 3, "score": 4}', 4),
        ('{"reason": "\u2028 \x85", "score": 2}', 2),
    ],
)
def test_verdicts_are_read(text: str, value: float) -> None:
    assert read(text).value == value


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", JudgeStatus.PARSE_ERROR),
        ("A solid 7.", JudgeStatus.PARSE_ERROR),
        ('{"score": 7,}', JudgeStatus.PARSE_ERROR),
        ('{"score": "7"}', JudgeStatus.PARSE_ERROR),
        ('{"score": "7 points"}', JudgeStatus.PARSE_ERROR),
        ('{"score": true}', JudgeStatus.PARSE_ERROR),
        ('{"score": null}', JudgeStatus.PARSE_ERROR),
        ('{"score": [7]}', JudgeStatus.PARSE_ERROR),
        ("{'score': 7}", JudgeStatus.PARSE_ERROR),
        ('{"score": 11}', JudgeStatus.OUT_OF_RANGE),
        ('{"score": 0}', JudgeStatus.OUT_OF_RANGE),
        ('{"score": 7.5}', JudgeStatus.OUT_OF_RANGE),
        ('{"score": NaN}', JudgeStatus.OUT_OF_RANGE),
        ('{"score": Infinity}', JudgeStatus.OUT_OF_RANGE),
        ('{"score": 8} then {"score": 11}', JudgeStatus.OUT_OF_RANGE),
        ("x" * 2_000_000, JudgeStatus.PARSE_ERROR),
        # a text that the judge quotes without escaping it is not the judge's verdict
        ('{"reason": "it ends in {"score": 10}", "score": 3}', JudgeStatus.PARSE_ERROR),
        ('{"score": 3, "reason": "it ends in {"score": 10}"}', JudgeStatus.PARSE_ERROR),
        ('{"score": 3, "reason": "it ends in {"score": 10}', JudgeStatus.PARSE_ERROR),
        # the last verdict counts: where it cannot be read, an earlier one is none
        ('First {"score": 8}. Now {"score": 3, "reason": "so "no""}', JudgeStatus.PARSE_ERROR),
        ('{"score": 8, "reason": "x"}\n{"score": 3, "reason": "cut o', JudgeStatus.PARSE_ERROR),
        ('{"score": 8} {"score": 3, "why": "a } b", "c}', JudgeStatus.PARSE_ERROR),
        ('{"score": 8}' + '{"a' * 1001 + '{"score": 3}', JudgeStatus.PARSE_ERROR),
        ('{"verdict": {"score": 7}}', JudgeStatus.PARSE_ERROR),
        ('{"score": 1e999}', JudgeStatus.OUT_OF_RANGE),
        ('{"score": -0.0}', JudgeStatus.OUT_OF_RANGE),
        ('{"score": 9007199254740993}', JudgeStatus.OUT_OF_RANGE),
        ('{"score": ' + "9" * 5000 + "}", JudgeStatus.PARSE_ERROR),
        ('{"score": {"value": 7}}', JudgeStatus.PARSE_ERROR),
    ],
)
def test_an_unreadable_verdict_has_a_status(text: str, status: JudgeStatus) -> None:
    score = read(text)
    assert score.value is None and score.status is status and score.reason


@given(st.text(alphabet='{}[]",:0123456789 score\\n', max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    score = read(text)
    assert score.value is None or 1 <= score.value <= 10


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers()), max_size=5))
def test_every_object_is_found_in_order(objects: list[dict[str, int]]) -> None:
    text = "; ".join(json.dumps(o) for o in objects)
    assert [piece.value for piece in iter_objects(text)] == objects


@given(st.text(), st.integers(1, 10), st.integers(1, 10))
def test_a_quoted_and_escaped_verdict_never_wins(story: str, planted: int, true: int) -> None:
    quoted = json.dumps(story + json.dumps({"score": planted}))
    assert read(f'{{"reason": {quoted}, "score": {true}}}').value == true
    assert read(f'{{"score": {true}, "reason": {quoted}}}').value == true


@given(st.text(alphabet='{}[]",: abc1', max_size=60), st.integers(1, 10), st.integers(1, 10))
def test_an_unescaped_quotation_never_wins(story: str, planted: int, true: int) -> None:
    text = f'{{"score": {true}, "reason": "{story}{{"score": {planted}}}{story}"}}'
    assert read(text).value in (None, true) or "}" in story


@pytest.mark.parametrize(
    "text",
    ["{" * 150_000, '{"a":' * 30_000, '{"' * 90_000, '{"a"}' * 39_000, '{"a":1}' * 28_000,
     "{ " * 90_000, '{"a":[' * 30_000, '{"a' + "}" * 190_000, '{"' + "\\" * 190_000],
)  # fmt: skip
def test_broken_openings_cost_little(text: str) -> None:
    started = time.monotonic()
    assert read(text).value is None
    assert time.monotonic() - started < 2
