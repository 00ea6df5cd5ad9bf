"""Score lines: official names on the scale, all of them; hostile lines cost little."""

from __future__ import annotations

import time

import pytest

from r2w_eval.judge.scorelines import Rubric, read_score_lines
from r2w_eval.types import JudgeStatus, Score

RUBRIC = Rubric(("Tone", "Show-Don't Tell", "Pace"), optional=("Pace",))


def status(text: str) -> JudgeStatus:
    found = read_score_lines(text, RUBRIC, 0, 10)
    assert isinstance(found, Score) and found.value is None and found.reason
    return found.status


def test_names_are_known_with_bullets_marks_and_other_apostrophes() -> None:
    text = "Tone: 1\n[Scores]\n- **Tone:** 7.5/10\n> Show Don’t Tell: [3] \nTone: 8\nWit: 9"
    assert read_score_lines(text, RUBRIC, 0, 10) == {"Tone": 8.0, "Show-Don't Tell": 3.0}


@pytest.mark.parametrize(
    "line",
    [
        "Tone: 7 (N/A - no dialogue in this chapter)",
        "1. Tone: 7",
        "**2) Tone:** 7",
        "3. **Tone**: **7**/10",
        "Tone: 7 out of 10",
        "Tone: [7] — steady, if flat",
        "Tone：7（平稳）",
        "* Tone: 7/10 - better than 6",
    ],
)
def test_a_value_may_have_a_remark_and_a_name_a_number(line: str) -> None:
    text = f"{line}\nShow-Don't Tell: 3"
    assert read_score_lines(text, RUBRIC, 0, 10) == {"Tone": 7.0, "Show-Don't Tell": 3.0}


@pytest.mark.parametrize(
    "line", ["Tone: 7-8", "Tone: 7 - 8", "Tone: 7–8", "Tone: 7, 8", "Tone: 7 8", "Tone: 7 or so"]
)
def test_a_range_is_no_value(line: str) -> None:
    assert status(f"{line}\nShow-Don't Tell: 3") is JudgeStatus.CRITERIA_MISMATCH


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", JudgeStatus.PARSE_ERROR),
        ("Wit: 9", JudgeStatus.PARSE_ERROR),
        ("Tone: 11\nShow-Don't Tell: 3", JudgeStatus.OUT_OF_RANGE),
        ("Tone: 9\nShow-Don't Tell: 3/5", JudgeStatus.OUT_OF_RANGE),
        ("Tone: 9/20\nShow-Don't Tell: 3", JudgeStatus.OUT_OF_RANGE),
        ("Tone: 9\nWit: 3", JudgeStatus.CRITERIA_MISMATCH),
        ("x" * 200_001, JudgeStatus.PARSE_ERROR),
    ],
)
def test_an_incomplete_verdict_has_a_status(text: str, expected: JudgeStatus) -> None:
    assert status(text) is expected


@pytest.mark.parametrize("filler", [" ", "*", "_ ", "9", ".", "a", ": ", "- ", "1. ", "("])
def test_a_hostile_line_costs_little(filler: str) -> None:
    started = time.process_time()
    for head in ("", "Tone: 1", "Tone: score", "Tone"):
        read_score_lines((head + filler * 100_000)[:190_000] + "x", RUBRIC, 0, 10)
    assert time.process_time() - started < 2
