"""Evaluator cards on judge pages: what is known of a judge apart from any board.

Cards are made by `r2w-eval judge-check` and kept in the package's `cards/` folder; a judge finds
its own by name and facts, so that a card never stands for a judge in another setting.
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
    """The card of the judge of a score identity; None when there is none for this very setting."""
    return find_card(cards, str(identity.get("judge")), identity.get("judge_facts", {}))
