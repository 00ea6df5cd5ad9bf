"""Evaluator cards on judge pages: what is known about a judge apart from any board.

`r2w-eval judge-check` makes the cards in the package's `cards/` folder. A card is matched by the
judge's name and facts, so that it never describes the judge in another setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from r2w_eval.judge_check.card import EvaluatorCard, find_card, load_cards


def packaged_cards() -> list[EvaluatorCard]:
    """All cards that come with the package."""
    return load_cards(Path(str(resources.files("r2w_eval.leaderboards").joinpath("cards"))))


def card_of(cards: Sequence[EvaluatorCard], identity: Mapping[str, Any]) -> EvaluatorCard | None:
    """The card for the judge of a score identity in exactly this setting, if any."""
    return find_card(cards, str(identity.get("judge")), identity.get("judge_facts", {}))
