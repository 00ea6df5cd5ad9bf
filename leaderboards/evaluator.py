"""Evaluator cards: what is known of a judge apart from any board, kept as data in `cards/`.

A card is a JSON object with the judge's name under `judge` and any figures beside it; a metric with
`value`, `low`, `high` is shown with its interval.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from r2w_eval.leaderboards.export import interval_text, number

Card = tuple[tuple[str, str], ...]


def load_cards() -> dict[str, Card]:
    """Cards of the package by judge."""
    folder = resources.files("r2w_eval.leaderboards").joinpath("cards")
    if not folder.is_dir():
        return {}
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    cards = (json.loads(file.read_text("utf-8")) for file in files)
    return {str(card["judge"]): tuple(tell(card)) for card in cards if "judge" in card}


def tell(card: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Names and texts of a card, nested parts as `part: name`.

    >>> list(tell({"judge": "j", "bias": {"first": {"value": 0.5, "low": 0.4, "high": 0.6}}}))
    [('bias: first', '0.500 (0.400 – 0.600)')]
    """
    for key, value in card.items():
        name = prefix + str(key).replace("_", " ")
        if key == "judge" and not prefix:
            continue
        if isinstance(value, Mapping) and isinstance(value.get("value"), (int, float)):
            bounds = interval_text(value.get("low"), value.get("high"), 3)
            yield name, f"{number(float(value['value']), 3)} ({bounds})"
        elif isinstance(value, Mapping):
            yield from tell(value, f"{name}: ")
        elif isinstance(value, float):
            yield name, number(value, 3)
        elif isinstance(value, (str, int)):
            yield name, str(value)
        elif isinstance(value, list) and all(isinstance(v, (str, int, float)) for v in value):
            yield name, ", ".join(map(str, value))
