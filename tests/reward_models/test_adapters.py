"""Reward functions for trainers: the answer is scored, never the thinking before it."""

from __future__ import annotations

import pytest
from r2w_eval.reward_models.adapters import Unscorable, compute_score, pick_best, trl_reward
from r2w_eval.reward_models.scorer import load_reward

ANSWER = "The storm came at six. We tied the boats and waited."
THOUGHT = "<think>" + "The lamp swung low over the grey harbour while gulls cried. " * 10


def test_thinking_earns_nothing_and_without_an_end_has_no_reward() -> None:
    texts = [ANSWER, f"{THOUGHT}</think>\n{ANSWER}", THOUGHT]
    plain, after_thinking, unclosed = trl_reward(["Write."] * 3, texts)
    assert plain is not None and plain == after_thinking and unclosed is None
    assert pick_best(load_reward(), "Write.", [THOUGHT, texts[1]]) == 1
    with pytest.raises(Unscorable):
        compute_score("data", THOUGHT)
