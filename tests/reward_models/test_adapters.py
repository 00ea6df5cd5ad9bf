"""Reward functions for trainers: the answer is scored, never the thinking before it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from r2w_eval.reward_models.adapters import (
    Unscorable,
    compute_score,
    pick_best,
    register_lm_eval,
    trl_reward,
    trl_reward_async,
)
from r2w_eval.reward_models.items import Item, ItemScore, WritingItem
from r2w_eval.reward_models.scorer import load_reward

from r2w_eval.models.completions import last_turn

ANSWER = "The storm came at six. We tied the boats and waited."
THOUGHT = "<think>" + "The lamp swung low over the grey harbour while gulls cried. " * 10


class Lengths:
    """A scorer whose value is the length of the prompt."""

    id = "lengths"

    def describe(self) -> dict[str, Any]:
        return {}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        return [ItemScore(item.id, float(len(item.prompt))) for item in items]


class Echo(Lengths):
    """A scorer that likes an answer which says what was asked."""

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        own = [item for item in items if isinstance(item, WritingItem)]
        return [ItemScore(item.id, float(item.prompt == item.response)) for item in own]


def test_the_filter_of_lm_eval_reads_the_column_that_is_named_and_registers_once() -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.registry import get_filter

    register_lm_eval()
    register_lm_eval()
    docs, own = [{"question": "Say b."}], [["Say a.", "Say b."]]
    best = get_filter("r2w_best_of_n")
    assert best(scorer=f"{__name__}:Echo", prompt="question").apply(own, docs) == [["Say b."]]
    assert best(scorer=f"{__name__}:Echo").apply(own, docs) == [["Say a."]]


def test_thinking_earns_nothing_and_without_an_end_has_no_reward() -> None:
    texts = [ANSWER, f"{THOUGHT}</think>\n{ANSWER}", THOUGHT]
    plain, after_thinking, unclosed = trl_reward(["Write."] * 3, texts)
    assert plain is not None and plain == after_thinking and unclosed is None
    assert pick_best(load_reward(), "Write.", [THOUGHT, texts[1]]) == 1
    with pytest.raises(Unscorable):
        compute_score("data", THOUGHT)


def test_every_form_scores_with_the_scorer_that_is_named() -> None:
    own = f"{__name__}:Lengths"
    assert trl_reward(["Write."], [ANSWER], own) == [6.0]
    assert asyncio.run(trl_reward_async(["Write."], [ANSWER], scorer=own, column=[1])) == [6.0]
    assert compute_score("d", ANSWER, None, {"prompt": "Write."}, scorer=own)["score"] == 6.0


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>\n", "</s> </s>"])
def test_an_end_of_turn_token_in_the_text_pays_nothing(end: str) -> None:
    plain, ended = trl_reward(["Write."] * 2, [ANSWER, ANSWER + end])
    assert plain is not None and plain == ended
    assert compute_score("d", ANSWER + end, None, {"prompt": "Write."})["score"] == plain


def test_a_prompt_of_turns_may_come_as_an_array() -> None:
    asked = np.array([turn("system", "Be brief."), turn("user", "Write.")], object)
    own = compute_score("d", ANSWER, None, {"prompt": asked}, scorer=f"{__name__}:Lengths")
    assert own["score"] == 6.0


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_of_conversations_the_roles_say_what_is_scored() -> None:
    parts = [{"type": "text", "text": "Write "}, {"type": "image"}, {"type": "text", "text": "on."}]
    asked = [turn("system", "You are X."), turn("user", parts)]
    told = [turn("assistant", "Draft."), turn("assistant", ANSWER), turn("tool", "42")]
    assert last_turn(asked, "user") == "Write on." and last_turn(told, "assistant") == ANSWER
    assert trl_reward([asked], [told]) == trl_reward(["Write on."], [ANSWER])
    assert last_turn(asked[:1], "user") == "" and trl_reward(["Write."], [told[2:]]) == [None]
