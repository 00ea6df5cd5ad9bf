"""Reads JSON verdicts out of judge text: parsed, never evaluated.

Strict rule for all suites: fences and prose around the verdict are allowed, the *last* complete
JSON object that has the wanted keys wins, and a value outside the scale is a failure, not a reason
to look for an earlier one (specification: harness J8).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from r2w_eval.types import JudgeStatus, Score, is_number

MAX_TEXT_CHARS = 200_000
MAX_BROKEN_OBJECTS = 1000
# judges break lines inside strings; the verdict is readable all the same
_DECODER = json.JSONDecoder(strict=False)
_OPENING = re.compile(r'\{\s*["}]')
_BRACE = re.compile(r"[{}]")


def iter_objects(text: str) -> Iterator[dict[str, Any]]:
    """All top-level JSON objects in `text`, in order; linear in its length.

    A broken object is skipped up to its closing brace, with all that is in it: what a judge quotes
    inside its verdict is not the verdict. Nothing is read behind one that never closes.

    >>> list(iter_objects('x {"a": 1} y {"b": {"c": 2}}'))
    [{'a': 1}, {'b': {'c': 2}}]
    >>> list(iter_objects('{"a": 1, "why": "it ends in {"a": 10}"} {"a": 2}'))
    [{'a': 2}]
    """
    position = failures = 0
    # locating an error costs the length of the text: a run of them must not make this quadratic
    while failures < MAX_BROKEN_OBJECTS and (opening := _OPENING.search(text, position)):
        try:
            value, position = _DECODER.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            position = closing_brace(text, opening.start()) or len(text)
            failures += 1
            continue
        yield value


def closing_brace(text: str, start: int) -> int | None:
    """Just after the brace that balances the one at `start`; None where none does. Braces inside
    strings count.
    """
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return None


def last_object(text: str, *keys: str) -> dict[str, Any] | None:
    """The last complete JSON object that has all the keys; None without one, or in a huge text.

    >>> last_object('{"label": "a"} so {"label": "b", "why": ""}', "label")["label"]
    'b'
    """
    if len(text) > MAX_TEXT_CHARS:
        return None
    found = [value for value in iter_objects(text) if all(key in value for key in keys)]
    return found[-1] if found else None


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
    score = check_number(found[-1][key], key, low, high, integer=integer)
    reason = found[-1].get("reason")
    if score.value is None or not isinstance(reason, str):
        return score
    return Score(score.value, parts={"reason": reason})


def check_number(number: Any, name: str, low: float, high: float, *, integer: bool = True) -> Score:
    """A number of a verdict; a status where it is none, or not on its scale.

    >>> check_number(7, "score", 1, 10).value, check_number("7", "score", 1, 10).reason
    (7.0, "score is '7', not a number")
    """
    if not is_number(number):
        return Score(None, JudgeStatus.PARSE_ERROR, f"{name} is {str(number)[:40]!r}, not a number")
    if not low <= number <= high:
        return Score(
            None, JudgeStatus.OUT_OF_RANGE, f"{name} is {number}, outside {low:g} to {high:g}"
        )
    if integer and number != int(number):
        return Score(None, JudgeStatus.OUT_OF_RANGE, f"{name} is {number}, not an integer")
    return Score(float(number))
