"""Where JSON stands in a judge's text, as the suites' own scripts look for it: fences and braces.

Small pure functions that each return a piece of the text, or None. What the piece says is for
`parse_json` and the suite to judge; the strict reading of verdicts is in `parsing`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from r2w_eval.judge.parsing import DECODER, MAX_BROKEN_OBJECTS, closing_brace

_LIST = re.compile(r"\[\s*\{")


def parse_json(text: str | None) -> Any:
    """The value, or None for what is not JSON (JSON's null is no verdict either).

    >>> parse_json('{"a": 1}'), parse_json("{"), parse_json(None)
    ({'a': 1}, None, None)
    """
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def first_fence(text: str) -> str | None:
    """What stands between the first opening fence of JSON and the next fence, stripped.

    >>> first_fence("a ```json\\n{}\\n``` b ```json 2```")
    '{}'
    """
    _, opening, rest = text.partition("```json")
    inside, closing, _ = rest.partition("```")
    return inside.strip() if opening and closing else None


def balanced_braces(text: str) -> str | None:
    """From the first brace to the one that balances it; braces inside strings count.

    >>> balanced_braces('x {"a": {}} {"b": 1}')
    '{"a": {}}'
    """
    start = text.find("{")
    end = closing_brace(text, start) if start >= 0 else None
    return None if end is None else text[start:end]


def outer_braces(text: str) -> str | None:
    """From the first opening to the last closing brace.

    >>> outer_braces("x {a} y {b} z")
    '{a} y {b}'
    """
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else None


def last_list(text: str) -> list[Any] | None:
    """The last JSON list that begins with an object; lists inside others do not count. None where
    there is none, or where it is broken: an earlier one is not what the judge said in the end.

    >>> last_list('first [{"a": 1}], better [{"a": [{"b": 2}]}].')
    [{'a': [{'b': 2}]}]
    >>> last_list('first [{"a": "1"}], better [{"a": "so "1""}].')
    """
    found, position, failures = None, 0, 0
    while failures < MAX_BROKEN_OBJECTS and (opening := _LIST.search(text, position)):
        start = opening.start()
        try:
            found, position = DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            found, position = None, closing_brace(text, start) or len(text)
            failures += 1
    return found
