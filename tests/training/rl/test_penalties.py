"""Penalties: what each is for, and that they never pay, nor touch what has no reward."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.rl.penalties import Penalised, Penalties, penalty

from r2w_eval.errors import UsageError
from r2w_eval.trace import segment_trace

SPECIAL = {0: SimpleNamespace(content="<|end|>", special=True)}
SAID = "<reflection>The verb “rained” is flat.</reflection>"
STEP = "<revision>It poured on the roofs.</revision>"
ONCE = segment_trace(f"<draft>It rained.</draft>{SAID}{STEP}")
TWICE = segment_trace(f"<draft>It rained.</draft>{SAID}{STEP}{SAID}{STEP}")
OPEN = segment_trace("<draft>It rained.</draft><reflection>The verb is flat.")


def decode(ids: Any) -> str:
    return "".join(map(chr, ids))


def test_each_weight_charges_its_own_fault_alone() -> None:
    assert penalty(ONCE, 50, Penalties(redundancy=1.0, length=1.0, budget=50, form=1.0)) == 0.0
    assert penalty(TWICE, 50, Penalties(redundancy=0.4, budget=50)) == pytest.approx(0.2)
    assert penalty(ONCE, 75, Penalties(length=0.4, budget=50)) == pytest.approx(0.2)
    assert penalty(OPEN, 50, Penalties(form=0.4)) == 0.4 > penalty(ONCE, 50, Penalties(form=0.4))


@given(
    st.text("abc <>/draftflionws", max_size=60), st.integers(0, 4000),
    st.floats(0, 2), st.floats(0, 2), st.floats(0, 2),
)  # fmt: skip
def test_no_thinking_is_paid_for_it(text: str, n: int, a: float, b: float, c: float) -> None:
    assert penalty(segment_trace(text), n, Penalties(a, b, 100, c)) >= 0.0


def test_what_has_no_reward_gets_none_and_the_rest_is_logged() -> None:
    logged: dict[str, float] = {}
    texts = ["<think>a long thought</think>b", "<think>on and on", "<think>c</think>d"]
    outcome = Penalised(
        lambda prompts, completions, **columns: [0.5, None, 0.5],
        Penalties(length=0.1, budget=10),
        SimpleNamespace(decode=decode, added_tokens_decoder=SPECIAL),
    )
    rewards = outcome(
        ["p"] * 3,
        texts,
        # an end of turn is no thinking
        [[*map(ord, text), 0] for text in texts],
        log_metric=logged.__setitem__,
    )
    # 29, 16 and 16 characters are as many tokens here
    assert rewards == [pytest.approx(0.5 - 0.1 * 1.9), None, pytest.approx(0.5 - 0.1 * 0.6)]
    assert logged["outcome/penalty"] == pytest.approx(0.1 * (1.9 + 0.6 + 0.6) / 3)
    assert outcome.begin is None


@pytest.mark.parametrize("wrong", [{"length": -0.1}, {"form": float("inf")}, {"budget": 0}])
def test_a_penalty_that_pays_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"rl.penalties.{next(iter(wrong))} "):
        Penalties(**wrong)
