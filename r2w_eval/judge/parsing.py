"""Reads JSON verdicts out of judge text: parsed, never evaluated.

Strict rule for all suites: fences and prose around the verdict are allowed, the *last* JSON object
with the wanted key wins, and where that one is broken, or its value outside the scale, this is a
failure and no reason to look for an earlier one (specification: harness J8).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from r2w_eval.types import JudgeRequest, JudgeStatus, Scale, Score, is_number

MAX_TEXT_CHARS = 200_000
MAX_BROKEN_OBJECTS = 1000
# judges break lines inside strings; what they say is readable all the same
DECODER = json.JSONDecoder(strict=False)
_OPENING = re.compile(r'\{\s*["}]')
_BRACE, _BRACKET = re.compile(r"[{}]"), re.compile(r"[\[\]]")


# the scale of our own prompts
TEN_POINTS = Scale(lead='{"score": ', labels={str(n): float(n) for n in range(1, 11)})


class Piece(NamedTuple):
    """A top-level JSON object as it stands in a text; `value` is None for a broken one."""

    text: str
    value: dict[str, Any] | None


def iter_objects(text: str) -> Iterator[Piece]:
    """All top-level JSON objects in `text`, in order; linear in its length.

    A broken object is one piece up to its closing brace, with all that is in it: what a judge
    quotes inside its verdict is not the verdict. One that never closes reaches to the end.

    >>> [piece.value for piece in iter_objects('x {"a": 1} y {"b": {"c": 2}}')]
    [{'a': 1}, {'b': {'c': 2}}]
    >>> [piece.value for piece in iter_objects('{"a": 1, "why": "in {"a": 10"}"} {"a": 2}')]
    [None, {'a': 2}]
    """
    position = failures = 0
    while opening := _OPENING.search(text, position):
        start = opening.start()
        try:
            value, position = DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            failures += 1
            # locating an error costs the length of the text: a run of them must not be quadratic
            is_last = failures == MAX_BROKEN_OBJECTS
            position = len(text) if is_last else closing_brace(text, start) or len(text)
            value = None
        yield Piece(text[start:position], value)


def closing_brace(text: str, start: int) -> int | None:
    """Just after the brace (or bracket) that balances the one at `start`; None where none does.
    Those inside strings count.
    """
    depth, opening = 0, text[start]
    for mark in (_BRACE if opening == "{" else _BRACKET).finditer(text, start):
        depth += 1 if mark[0] == opening else -1
        if depth == 0:
            return mark.end()
    return None


def last_object(text: str, *keys: str) -> dict[str, Any] | None:
    """The last JSON object that has one of the keys: the verdict. None where there is none, where
    it is broken (an earlier one is not what the judge said in the end), or in a huge text.

    >>> last_object('{"label": "a"} so {"label": "b", "why": ""}', "label")["label"]
    'b'
    >>> last_object('{"label": "a"} no: {"label": "b", "why": "so "b""}', "label")
    """
    if len(text) > MAX_TEXT_CHARS:
        return None
    found = None
    for piece in iter_objects(text):
        if piece.value is None:
            is_verdict = any(f'"{key}"' in piece.text for key in keys)
        else:
            is_verdict = any(key in piece.value for key in keys)
        found = piece.value if is_verdict else found
    return found


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
    found = last_object(text, key)
    if found is None:
        return Score(None, JudgeStatus.PARSE_ERROR, f"no JSON object with the key {key!r}")
    score = check_number(found[key], key, low, high, integer=integer)
    reason = found.get("reason")
    if score.value is None or not isinstance(reason, str):
        return score
    return Score(score.value, parts={"reason": reason})


def read_ten_points(request: JudgeRequest, text: str) -> Score:
    """Strict reading of a score on `TEN_POINTS`, which our own prompts ask for.

    >>> read_ten_points(None, '{"score": 7}').value
    7.0
    """
    return read_number_verdict(text, "score", 1, 10)


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
