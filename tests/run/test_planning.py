"""What settings mean before anything is asked: sampling, tags, and the names of models."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from r2w_eval.config import RunConfig
from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.run.opening import ModelOptions, ModelPool
from r2w_eval.run.planning import EMBEDDED_MAX_TOKENS, plan_decoding
from r2w_eval.run.roles import think_tags
from r2w_eval.suites.suite import load_info


@pytest.mark.parametrize(
    ("given", "tokens"),
    [("", EMBEDDED_MAX_TOKENS), ("max_tokens=2048", 2048), (" max_gen_toks=2048", 2048)],
)
def test_the_embedded_model_is_limited_by_default(given: str, tokens: int) -> None:
    config = RunConfig(model="smollm2", gen_kwargs=given)
    assert plan_decoding(load_info("quickstart"), config).max_tokens == tokens


def test_blanks_beside_the_comma_are_not_part_of_a_tag() -> None:
    tags = think_tags(RunConfig(think_tags="<think>, </think>"))
    assert tags == think_tags(RunConfig())
    with pytest.raises(UsageError, match="--think-tags"):
        think_tags(RunConfig(think_tags="<think>, "))


def test_a_path_may_hold_a_colon(tmp_path: Path) -> None:
    folder = tmp_path / "step:100"
    folder.mkdir()

    async def job() -> None:
        async with ModelPool(ModelOptions()) as pool:
            await pool.model(f"hf:{folder}")

    with pytest.raises(UsageError, match="step:100") as caught:
        asyncio.run(job())
    assert not isinstance(caught.value, UnknownName)
