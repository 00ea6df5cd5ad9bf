"""Reads batches of rubric verdicts: upstream's parser and checks (run_evaluation.py), and ours.

Before parsing, upstream repairs what it takes for keys, which breaks every object with a text value
and a further key on the same line: it can never read JSON on one line and asks again. Here plain
JSON is read first, in both modes, and upstream's failures are counted.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Any

from r2w_eval.judge.extraction import parse_json
from r2w_eval.judge.parsing import last_object
from r2w_eval.types import JudgeStatus, Score

SATISFIED, BLOCKED = 1, -1
LEVELS = (1, 0, -1)
_KEY_END = re.compile(r'"(?=\s*:)')
_BARE_QUOTE = re.compile(r'(?<!\\)"')


def repair_keys(text: str) -> str:
    """Escape quotes inside what upstream takes for keys: from a quote to the next quote before a
    colon on the same line. Linear, unlike upstream's regular expression.

    >>> repair_keys('{"a": 1}'), repair_keys('{"a": "x", "b": 2}')
    ('{"a": 1}', '{"a": "x\\\\", \\\\"b": 2}')
    """
    ends = [match.start() for match in _KEY_END.finditer(text)]
    pieces, position, newline = [], 0, -1
    while (start := text.find('"', position)) >= 0:
        if newline <= start:
            newline = text.find("\n", start + 1)
            newline = len(text) if newline < 0 else newline
        place = bisect_right(ends, start)
        end = ends[place] if place < len(ends) else len(text)
        if end < newline:
            pieces += [text[position : start + 1], _BARE_QUOTE.sub(r"\"", text[start + 1 : end])]
            position = end
        else:
            pieces.append(text[position:start])
            position = start
        pieces.append('"')
        position += 1
    return "".join([*pieces, text[position:]])


def widest_fence(text: str) -> str | None:
    """From the first `json` fence to the last fence of any kind."""
    start, end = text.find("```json"), text.rfind("```")
    inside = start + len("```json")
    return text[inside:end] if start >= 0 and inside <= end else None


def parse_upstream(text: str) -> tuple[Any, bool]:
    """What upstream reads (the fence, else all, keys repaired), and whether it can."""
    for found in (widest_fence(text), text):
        if found is not None:
            try:
                return json.loads(repair_keys(found).strip()), True
            except (ValueError, RecursionError):
                continue
    return None, False


def is_valid(rubrics: Sequence[str], parsed: Any) -> bool:
    """Upstream's check: as many results as rubrics, and an exact match for every rubric."""
    results = parsed.get("results", []) if isinstance(parsed, dict) else None
    if not isinstance(results, list) or len(results) != len(rubrics):
        return False
    if not all(isinstance(result, dict) for result in results):
        return False
    returned = [result.get("rubric_item", "") for result in results]
    return all(rubric in returned for rubric in rubrics)


def read_parity(rubrics: Sequence[str], text: str) -> Score:
    """Plain JSON first, then upstream's reading; scores that are not numbers do not count."""
    parsed, readable = parse_upstream(text)
    plain = (parse_json(found) for found in (widest_fence(text), text))
    parsed = next((value for value in plain if value is not None), parsed)
    if not isinstance(parsed, dict):
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object")
    if not is_valid(rubrics, parsed):
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, _compare(rubrics, parsed.get("results")))
    given = {result["rubric_item"]: result.get("score", 0) for result in parsed["results"]}
    return _batch([_level(given[rubric]) for rubric in rubrics], readable)


def _level(score: Any) -> int | None:
    """1 and -1 stay, other numbers become 0, anything else is not counted (None)."""
    if not isinstance(score, (int, float)):
        return None
    return int(score) if score in (SATISFIED, BLOCKED) and math.isfinite(score) else 0


def read_strict(rubrics: Sequence[str], text: str) -> Score:
    """The last object with results: exactly the rubrics asked for, scores 1, 0 or -1."""
    parsed = last_object(text, "results")
    results = None if parsed is None else parsed["results"]
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object with a list of results")
    if Counter(str(result.get("rubric_item")) for result in results) != Counter(rubrics):
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, _compare(rubrics, results))
    levels = [result.get("score") for result in _in_order(rubrics, results)]
    odd = [level for level in levels if isinstance(level, bool) or level not in LEVELS]
    if odd:
        return Score(None, JudgeStatus.OUT_OF_RANGE, f"score {str(odd[0])[:40]!r}, not 1, 0 or -1")
    return _batch([int(level) for level in levels if level is not None], parse_upstream(text)[1])


def _in_order(rubrics: Sequence[str], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results in the order of the rubrics; equal rubrics get theirs in order."""
    waiting: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        waiting.setdefault(result["rubric_item"], []).append(result)
    return [waiting[rubric].pop(0) for rubric in rubrics]


def _batch(levels: Sequence[int | None], readable: bool) -> Score:
    share = sum(level == SATISFIED for level in levels) / len(levels)
    return Score(share, parts={**count_marks(levels), "upstream_reads": float(readable)})


def count_marks(levels: Sequence[int | None]) -> dict[str, list[float | None]]:
    """Per rubric: satisfied, and supported by a blocked source alone; None: not counted.

    Unlike levels, the marks of several judges can be averaged.

    >>> count_marks([1, -1, None])
    {'satisfied': [1.0, 0.0, None], 'blocked': [0.0, 1.0, None]}
    """
    return {
        name: [None if level is None else float(level == wanted) for level in levels]
        for name, wanted in (("satisfied", SATISFIED), ("blocked", BLOCKED))
    }


def _compare(rubrics: Sequence[str], results: Any) -> str:
    """How the two lists differ, without their texts."""
    found = results if isinstance(results, list) else []
    returned = {str(r.get("rubric_item")) for r in found if isinstance(r, dict)}
    missing = [place for place, rubric in enumerate(rubrics, 1) if rubric not in returned]
    odd = len(returned - set(rubrics))
    shown = ", ".join(map(str, missing[:10])) or "none"
    return f"{len(found)} results for {len(rubrics)} rubrics; missing {shown}; {odd} not asked for"
