"""EQ-Bench Longform: from a judge's text to the published figure. Pure functions, no data.

Follows EQ-bench/longform-writing-bench@d1c6255, core/scoring.py and the results notebook. A
leaderboard is rebuilt with `parse_scores`, `judgement`, `task_score`, `two_decimals`, `printed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

N_PLANNING, N_CHAPTERS = 5, 8
MAX_SCORE = 20.0
POWER = 1.7
STEEP = "forced poetry or metaphor"
MARKERS = ("[Scores]", "--- Scores ---")
PROSE = frozenset({"overall assessment", "summary", "reasoning", "critique", "feedback", "notes"})
_NUMBER = re.compile(r"\s*\[?(-?\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Signs:
    """Which criteria are better when lower, and their weights (default 1).

    Names are compared in lower case.
    """

    negative: frozenset[str]
    weights: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, negative: Iterable[str], weights: Mapping[str, float]) -> Signs:
        """From the lines of upstream's files."""
        return cls(frozenset(name.lower().strip() for name in negative), weights)


def parse_scores(text: str) -> dict[str, float]:
    """Upstream's reading: `name: number` lines of any name, clamped to 0 to 20.

    With a `[Scores]` marker anywhere, only lines from one to the next `---` count.

    >>> parse_scores("[Scores]\\nPlot: 25\\n---\\nNote: 3")
    {'Plot': 20.0}
    """
    scores: dict[str, float] = {}
    for line in _score_section(text):
        if (found := _find_score(line)) and found[0].lower() not in PROSE:
            scores[found[0]] = max(0.0, min(MAX_SCORE, float(found[1])))
    return scores


def _find_score(line: str) -> tuple[str, str] | None:
    """(name, number) at the first colon between a name and a number.

    Equal to upstream's two patterns, in linear time.
    """
    *before, _ = line.split(":")
    position = 0
    for name in before:
        position += len(name) + 1
        if name and (number := _NUMBER.match(line, position)):
            return name.strip(), number[1]
    return None


def _score_section(text: str) -> list[str]:
    lines = [line for raw in text.splitlines() if (line := raw.strip())]
    if not any(marker in text for marker in MARKERS):
        return [line for line in lines if "[End Scores]" not in line]
    kept: list[str] = []
    is_inside = False
    for line in lines:
        if any(marker in line for marker in MARKERS):
            is_inside = True
        elif (is_inside and "---" in line) or "[End Scores]" in line:
            is_inside = False
        elif is_inside:
            kept.append(line)
    return kept


def goodness(name: str, value: float, signs: Signs) -> float:
    """The value with "higher is better", 0 to 20; one criterion enters as 20 (x / 20) ** 1.7.

    >>> signs = Signs.of(["Forced Poetry or Metaphor"], {})
    >>> round(goodness("Forced Poetry or Metaphor", 10.0, signs), 9)
    6.155722067
    """
    good = MAX_SCORE - value if name.lower().strip() in signs.negative else value
    return (good / MAX_SCORE) ** POWER * MAX_SCORE if name.lower() == STEEP else good


def judgement(scores: Mapping[str, float], signs: Signs) -> float | None:
    """Weighted mean of one verdict, 0 to 20; None for a verdict without scores."""
    above = below = 0.0
    for name, value in scores.items():
        weight = signs.weights.get(name.lower().strip(), 1.0)
        above += goodness(name, value, signs) * weight
        below += weight
    return above / below if below else None


def plain_mean(scores: Mapping[str, float], signs: Signs) -> float | None:
    """Unweighted mean of one verdict, as in the chapter columns of the table."""
    values = [goodness(name, value, signs) for name, value in scores.items()]
    return sum(values) / len(values) if values else None


def task_score(
    chapters: Sequence[float], final: float | None, final_weight: float = 1.0
) -> float | None:
    """(sum of the chapters judged + weight * final) / (their number + weight), 0 to 20.

    >>> task_score([10.0, 12.0], 8.0)
    10.0
    """
    above, below = sum(chapters), float(len(chapters))
    if final is not None:
        above, below = above + final_weight * final, below + final_weight
    return above / below if below else None


def two_decimals(score: float) -> float:
    """The stored figure: a mean over tasks (0 to 20) times five.

    >>> two_decimals(5.389888545724653)
    26.95
    """
    return round(score * 5.0, 2)


def printed(score: float) -> str:
    """The figure of the table: rounded twice, the second time by binary float formatting.

    >>> printed(5.389888545724653), printed(11.690063327555123)
    ('26.9', '58.5')
    """
    return f"{two_decimals(score):.1f}"
