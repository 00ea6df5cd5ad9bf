"""Reads RACE verdicts: upstream's searches (utils/json_extractor.py), and the strict rule.

A verdict lists, for each of four dimensions, its criteria with a score for both articles (or, in
the pointwise variant, for one). `facts` of a request holds the official criteria and weights.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r2w_eval.judge.extraction import balanced_braces, first_fence, outer_braces, parse_json
from r2w_eval.judge.parsing import last_object
from r2w_eval.types import JudgeStatus, Score, is_number

DIMENSIONS = ("comprehensiveness", "insight", "instruction_following", "readability")
PAIR = ("article_1_score", "article_2_score")
SHOWN = 5
_CRITERION = re.compile(r'"criterion"\s*:\s*"([^"]+)"')
_SCORES = tuple(re.compile(rf'"{key}"\s*:\s*(\d+\.?\d*)') for key in PAIR)


def extract_json(text: str) -> str | None:
    """The JSON text that upstream finds, by the first of its searches that works.

    Its second search, by a regular expression for the fence, finds what the first one finds.
    """
    whole = text.strip()
    if whole.startswith("{") and whole.endswith("}") and parse_json(whole) is not None:
        return whole
    for found in (first_fence(text), whole, balanced_braces(text), outer_braces(text)):
        if found is not None and parse_json(found) is not None:
            return found
    return salvage(text)


def salvage(text: str) -> str | None:
    """Upstream's last resort: criteria and scores by their keys, in order, by dimension."""
    if not all(word in text for word in (DIMENSIONS[0], *PAIR)):
        return None
    found = {}
    for dimension in DIMENSIONS:
        if dimension in text:
            start = _find_name(text, dimension, 0)
            others = (_find_name(text, name, start) for name in DIMENSIONS if name != dimension)
            end = min((place for place in others if place >= 0), default=len(text))
            found[dimension] = _pair_up(text[start:end])
    return json.dumps(found) if any(found.values()) else None


def _find_name(text: str, name: str, start: int) -> int:
    places = (text.find(form, start) for form in (f'"{name}"', f"'{name}'", name))
    return next((place for place in places if place >= 0), -1)


def _pair_up(text: str) -> list[dict[str, Any]]:
    names = _CRITERION.findall(text)
    first, second = (map(float, pattern.findall(text)) for pattern in _SCORES)
    rows = zip(names, first, second, strict=False)
    return [{"criterion": name, PAIR[0]: one, PAIR[1]: two} for name, one, two in rows]


def read_parity(text: str) -> Mapping[str, Any] | Score:
    """The verdict if it has all dimensions, else a score with the reason."""
    found = parse_json(extract_json(text))
    if not isinstance(found, dict):
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object")
    missing = [name for name in DIMENSIONS if name not in found]
    if missing:
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, f"no {', '.join(missing)}")
    return found


def read_strict(
    text: str, official: Mapping[str, Mapping[str, float]], keys: Sequence[str]
) -> Mapping[str, Any] | Score:
    """The last object with a dimension: all of them, every official criterion once, all scores 0 to
    10.
    """
    found = last_object(text, *DIMENSIONS)
    if found is None:
        return Score(None, JudgeStatus.PARSE_ERROR, f"no object with {', '.join(DIMENSIONS)}")
    if missing := [name for name in DIMENSIONS if name not in found]:
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, f"no {', '.join(missing)}")
    for dimension in DIMENSIONS:
        entries = found[dimension]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return Score(None, JudgeStatus.PARSE_ERROR, f"{dimension} is no list of objects")
        wrong = next(_complain(dimension, entries, official[dimension], keys), None)
        if wrong is not None:
            return wrong
    return {dimension: found[dimension] for dimension in DIMENSIONS}


def _complain(
    dimension: str,
    entries: Sequence[Mapping[str, Any]],
    official: Mapping[str, float],
    keys: Sequence[str],
) -> Iterator[Score]:
    given = Counter(str(entry.get("criterion")).strip() for entry in entries)
    wanted = Counter(name.strip() for name in official)
    if given != wanted:
        missing, odd = wanted - given, given - wanted
        reason = f"{dimension}: missing {_show(missing)}; not asked for or repeated {_show(odd)}"
        yield Score(None, JudgeStatus.CRITERIA_MISMATCH, reason)
    for entry in entries:
        for key in keys:
            number = entry.get(key)
            if not is_number(number):
                yield Score(None, JudgeStatus.PARSE_ERROR, f"{key} is {str(number)[:40]!r}")
            elif not 0 <= number <= 10:
                yield Score(None, JudgeStatus.OUT_OF_RANGE, f"{key} is {number}, not 0 to 10")


def _show(names: Counter[str]) -> str:
    shown = [name[:60] for name in list(names)[:SHOWN]]
    return ", ".join(shown) + (" and more" if len(names) > SHOWN else "") if shown else "none"
