"""Parses a judge's assessment of one text: marks per criterion, and problems with quotations.

A problem whose quotation does not occur in the text is discarded and counted. Marks that are
missing, unasked for or off the scale make the whole reply unreadable (specification: r2write.md
section 3.1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from r2w_eval.reward_models.language.levels import LEVELS
from r2w_eval.training.prompts import Criterion, make_rubric
from r2w_eval.training.wording import load_wording

from r2w_eval.judge.parsing import last_object
from r2w_eval.template import fence_mark
from r2w_eval.types import is_number

LOWEST, HIGHEST = 1, 10
MAX_ISSUES = 5
MAX_CRITERIA = 12

_SPACE = re.compile(r"\s+")


class Severity(StrEnum):
    """Severity of a problem."""

    MINOR = "minor"
    MAJOR = "major"


@dataclass(frozen=True, slots=True)
class Issue:
    """One problem of a text, located by a quotation."""

    criterion: str
    level: str
    severity: Severity
    quote: str
    problem: str
    suggestion: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """Marks from 1 to 10 by criterion, and the problems whose quotations occur in the text.

    n_discarded: problems that were dropped as invalid
    """

    marks: Mapping[str, float]
    issues: tuple[Issue, ...] = ()
    n_discarded: int = 0

    def mean(self, rubric: Sequence[Criterion]) -> float:
        """Mean of the marks, weighted by the rubric."""
        total = math.fsum(criterion.weight for criterion in rubric)
        return math.fsum(c.weight * self.marks[c.name] for c in rubric) / total

    @property
    def has_major_issue(self) -> bool:
        """Whether at least one problem is major."""
        return any(issue.severity is Severity.MAJOR for issue in self.issues)

    def gravest(self, n: int) -> tuple[Issue, ...]:
        """The `n` gravest problems: major before minor, then by the mark of their criterion."""

        def gravity(issue: Issue) -> tuple[bool, float]:
            return issue.severity is not Severity.MAJOR, self.marks[issue.criterion]

        return tuple(sorted(self.issues, key=gravity)[:n])


class Unreadable(Exception):
    """A reply that cannot be parsed; the message says what is wrong with it."""


def read_assessment(reply: str, text: str, rubric: Sequence[Criterion]) -> Assessment:
    """The assessment in the reply's last JSON object that has `scores`. Raises Unreadable."""
    found = last_object(reply, "scores")
    if found is None or not isinstance(found["scores"], dict):
        raise Unreadable("no JSON object with scores")
    marks = _read_marks(found["scores"], [criterion.name for criterion in rubric])
    raw = found.get("issues", [])
    if not isinstance(raw, list):
        raise Unreadable("issues is not a list")
    place = _SPACE.sub("", text)
    issues = [_read_issue(entry, marks, place) for entry in raw[:MAX_ISSUES]]
    kept = tuple(issue for issue in issues if issue is not None)
    return Assessment(marks, kept, len(issues) - len(kept))


def _read_marks(scores: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    if scores.keys() != set(names):
        raise Unreadable(
            f"scores are of {sorted(map(str, scores))!r:.200}, not of {sorted(names)!r:.200}"
        )
    for name, mark in scores.items():
        if not is_number(mark):
            raise Unreadable(f"the score of {name!r} is {str(mark)[:40]!r}, not a number")
        if not LOWEST <= mark <= HIGHEST:
            raise Unreadable(f"the score of {name!r} is {mark}, outside {LOWEST} to {HIGHEST}")
    return {name: float(scores[name]) for name in names}


def _read_issue(entry: Any, marks: Mapping[str, float], place: str) -> Issue | None:
    """A problem, or None if its criterion, level, severity or quotation is invalid."""
    if not isinstance(entry, dict):
        return None
    names = ("criterion", "level", "quote", "problem", "suggestion")
    values = {name: str(entry.get(name, "")).strip() for name in names}
    quote = _SPACE.sub("", values["quote"])
    is_known = values["criterion"] in marks and values["level"] in LEVELS
    is_true = bool(quote) and quote in place
    severity = str(entry.get("severity", "")).strip()
    if not is_known or not is_true or severity not in set(Severity):
        return None
    return Issue(severity=Severity(severity), **values)


def read_rubric(reply: str) -> tuple[Criterion, ...]:
    """The rubric in the reply's last JSON object that has `criteria`. Raises Unreadable."""
    found = last_object(reply, "criteria")
    if found is None or not isinstance(found["criteria"], list):
        raise Unreadable("no JSON object with criteria")
    entries = found["criteria"][:MAX_CRITERIA]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Unreadable(f"criteria {str(entries)[:60]!r}: expected one or more objects")
    try:
        return make_rubric(map(_plain_criterion, entries))
    except ValueError as error:
        raise Unreadable(f"criteria: {error}") from error


def _plain_criterion(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The known fields of a criterion, whatever else the judge wrote."""
    texts = {name: str(entry.get(name, "")).strip() for name in ("name", "description")}
    return {**texts, "weight": entry.get("weight", 1)}


def ask_marks(prompt: str, text: str, rubric: Sequence[Criterion]) -> str:
    """The question for the marks of a policy's text, which stands in a fence that it cannot close:
    a policy would learn to speak to its judge from outside.
    """
    return load_wording("outcome").fill(
        prompt=prompt, text=text, rubric=show_rubric(rubric), mark=fence_mark(text)
    )


def show_rubric(rubric: Sequence[Criterion]) -> str:
    """The rubric as lines of a prompt."""
    return "\n".join(f"- {criterion.name}: {criterion.description}" for criterion in rubric)


def show_issues(issues: Sequence[Issue]) -> str:
    """Problems as lines of the internaliser's prompt; marks are left out."""
    return "\n".join(
        f'- "{issue.quote}": {issue.problem} What would mend it: {issue.suggestion}'
        for issue in issues
    )
