"""Reads JSON verdicts out of judge text: parsed, never evaluated.

Strict rule for all suites: fences and prose around the verdict are allowed, the *last* complete
JSON object that has the wanted keys wins, and a value outside the scale is a failure, not a reason
to look for an earlier one (specification: harness J8).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from r2w_eval.types import JudgeStatus, Score

MAX_TEXT_CHARS = 200_000
# judges break lines inside strings; the verdict is readable all the same
_DECODER = json.JSONDecoder(strict=False)


def iter_objects(text: str) -> Iterator[dict[str, Any]]:
    """All top-level JSON objects in `text`, in order; linear in its length.

    >>> list(iter_objects('x {"a": 1} y {"b": {"c": 2}}'))
    [{'a': 1}, {'b': {'c': 2}}]
    """
    position = 0
    failures = 0
    # a run of broken openings must not make this quadratic
    while failures < 1000 and (start := text.find("{", position)) >= 0:
        try:
            value, position = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
            failures += 1
            continue
        if isinstance(value, dict):
            yield value


def read_number_verdict(
    text: str, key: str, low: float, high: float, *, integer: bool = True
) -> Score:
    """Strict reading of `{"<key>": number, "reason": text}`.

    >>> read_number_verdict('Sure: {"score": 7, "reason": "ok"}', "score", 1, 10).value
    7.0
    >>> read_number_verdict('{"score": 11}', "score", 1, 10).status.value
    'out_of_range'
    """
    if len(text) > MAX_TEXT_CHARS:
        return Score(None, JudgeStatus.PARSE_ERROR, f"verdict of {len(text)} characters")
    found = [value for value in iter_objects(text) if key in value]
    if not found:
        return Score(None, JudgeStatus.PARSE_ERROR, f"no JSON object with the key {key!r}")
    number = found[-1][key]
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return Score(None, JudgeStatus.PARSE_ERROR, f"{key} is {str(number)[:40]!r}, not a number")
    if not low <= number <= high:
        return Score(
            None, JudgeStatus.OUT_OF_RANGE, f"{key} is {number}, outside {low:g} to {high:g}"
        )
    if integer and number != int(number):
        return Score(None, JudgeStatus.OUT_OF_RANGE, f"{key} is {number}, not an integer")
    reason = found[-1].get("reason")
    return Score(float(number), parts={"reason": reason} if isinstance(reason, str) else {})
