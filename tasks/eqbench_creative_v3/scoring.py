"""EQ-Bench Creative Writing v3: from a judge's text to the published figure. Pure functions.

Follows EQ-bench/creative-writing-bench@e7ab009 (core/scoring.py). The published table is
the mean over all values of all items, the benchmark's own script prints `item_mean`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

MAX_SCORE = 20.0
_PLAIN = re.compile(r":\s*(?:Score\s+)?(-?\d+(?:\.\d+)?)")
_BRACKETED = re.compile(r":\s*\[(-?\d+(?:\.\d+)?)\]")


def parse_scores(text: str) -> dict[str, float]:
    """Upstream's reading: every `name: number` anywhere, of any name, up to 20.

    >>> parse_scores("- Coherent: Score 12.5\\nPace: [4]")
    {'- Coherent': 12.5, 'Pace': 4.0}
    """
    found = [*_find_scores(_PLAIN, text), *_find_scores(_BRACKETED, text)]
    return {name.strip(): float(value) for name, value in found if float(value) <= MAX_SCORE}


def _find_scores(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, str]]:
    """All (name, number) that upstream's `(.*?)` and pattern find, in linear time.

    A name reaches back to the previous match or the start of the line.
    """
    position = 0
    for match in pattern.finditer(text):
        line_start = text.rfind("\n", position, match.start()) + 1
        yield text[max(position, line_start) : match.start()], match[1]
        position = match.end()


def good_values(scores: Mapping[str, float], negative: Collection[str]) -> list[float]:
    """Values with "higher is better"; those above 20 are dropped.

    >>> good_values({"Coherent": 12, "Meandering": 5, "Overwrought": -1},
    ...             {"Meandering", "Overwrought"})
    [12, 15.0]
    """
    turned = (MAX_SCORE - v if name in negative else v for name, v in scores.items())
    return [value for value in turned if value <= MAX_SCORE]


def item_mean(items: Sequence[Sequence[float]]) -> float | None:
    """Mean per item, then over items: the benchmark's own script, 0 to 20."""
    means = [sum(item) / len(item) for item in items if item]
    return sum(means) / len(means) if means else None


def printed(score: float) -> str:
    """The figure of the table.

    >>> printed(16.604265402843602)
    '16.60'
    """
    return f"{score:.2f}"


def out_of_hundred(score: float) -> float:
    """The script's figure: times five, two decimals.

    >>> out_of_hundred(16.604888167388165)
    83.02
    """
    return round(score * 5, 2)


def strip_thinking(raw: str) -> str:
    """Upstream's reading of an answer: cut up to a closing tag if the opening one occurs too.

    >>> strip_thinking("<think>a</think> b"), strip_thinking("a</think> b")
    ('b', 'a</think> b')
    """
    for tag in ("think", "reasoning"):
        if f"<{tag}>" in raw and f"</{tag}>" in raw:
            raw = raw.partition(f"</{tag}>")[2].strip()
    return raw
