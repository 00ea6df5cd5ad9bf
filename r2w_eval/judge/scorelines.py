"""Reads verdicts written as lines of `Criterion: number`: official names, the scale, all of them.

The strict reading of rubric suites (specification: harness J8): only the section after the last
`[Scores]` counts, where there is one; a name may carry a number, bullets, bold marks or another
apostrophe; a value may be followed by a remark; a later line replaces an earlier one; names that
the judge invented are told, not counted. A value "out of" something else than the top of the scale
is on another scale, and no value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from r2w_eval.judge.parsing import MAX_TEXT_CHARS
from r2w_eval.types import JudgeStatus, Score

_MARKER = re.compile(r"\[Scores\]|--- Scores ---", re.IGNORECASE)
_LINE = re.compile(
    r"[\s>*_#•\-]*(?:\d{1,2}[.)]\s[\s*_]*)?(?P<name>[^\W\d_][^:：\n]{1,80}?)"
    r"[\s*_]*[:：][\s*_]*(?:score(?:\s*:)?\s*)?"
    r"\[?(?P<value>-?\d+(?:\.\d+)?)\]?(?:[\s*_]*(?:/|out of)\s*(?P<top>\d+))?[\s*_.]*"
    # a remark, but no second number: "7 - 8" is a range
    r"(?:[(（].*|[-–—]\s+\D.*)?",
    re.IGNORECASE,
)
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "-": " "})


@dataclass(frozen=True, slots=True)
class Rubric:
    """Official criterion names, and which of them a verdict may leave out."""

    names: tuple[str, ...]
    optional: Collection[str] = ()


def canonical(name: str) -> str:
    """The same name however it is hyphenated, spaced or quoted.

    >>> canonical("Tell-Don\\u2019t Show") == canonical("tell-don't-show")
    True
    """
    return " ".join(name.translate(_APOSTROPHES).lower().split())


def read_score_lines(
    text: str, rubric: Rubric, low: float, high: float
) -> Mapping[str, float] | Score:
    """Value by official name, or the reason why there is none, as a `Score` without a value."""
    if len(text) > MAX_TEXT_CHARS:
        return Score(None, JudgeStatus.PARSE_ERROR, f"verdict of {len(text)} characters")
    official = {canonical(name): name for name in rubric.names}
    found: dict[str, float] = {}
    invented: list[str] = []
    for line in _MARKER.split(text)[-1].split("\n"):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            continue
        name = official.get(canonical(match["name"]))
        if name is None:
            invented.append(match["name"].strip()[:40])
        elif match["top"] is not None and float(match["top"]) != high:
            reason = f"{name} is out of {match['top'][:20]}; the scale is {low:g} to {high:g}"
            return Score(None, JudgeStatus.OUT_OF_RANGE, reason)
        else:
            found[name] = float(match["value"])
    if not found:
        return Score(None, JudgeStatus.PARSE_ERROR, "no line with an official criterion: number")
    return _check(found, rubric, invented, (low, high))


def _check(
    found: Mapping[str, float],
    rubric: Rubric,
    invented: Sequence[str],
    scale: tuple[float, float],
) -> Mapping[str, float] | Score:
    low, high = scale
    outside = [f"{name} is {v:g}" for name, v in found.items() if not low <= v <= high]
    if outside:
        reason = f"{', '.join(outside)}; the scale is {low:g} to {high:g}"
        return Score(None, JudgeStatus.OUT_OF_RANGE, reason)
    missing = [n for n in rubric.names if n not in found and n not in rubric.optional]
    if missing:
        also = f"; not official: {', '.join(invented[:5])}" if invented else ""
        reason = f"missing: {', '.join(missing)}{also}"
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, reason)
    return found
