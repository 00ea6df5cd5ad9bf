"""Money: what is no price, and what tries cost that brought no reply."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support import ScriptedReply, ScriptedServer

from r2w_eval.errors import UsageError
from r2w_eval.models.chat import CallFailed, ChatRequest
from r2w_eval.models.client import HttpModel
from r2w_eval.models.cost import FIRST_GUESS_TOKENS, Budget, MeteredModel, Price, load_prices
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.types import Decoding, Message


@pytest.mark.parametrize("price", [".nan", ".inf", "-1", "free"])
def test_an_invalid_price_is_refused(tmp_path: Path, price: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(f"m: {{input: 1, output: {price}}}\n")
    with pytest.raises(UsageError, match="--prices"):
        load_prices(str(path))


def reply(finish: str = "stop", **changes: object) -> ScriptedReply:
    message = {"role": "assistant", "content": "x"}
    body: dict[str, object] = {
        "model": "m",
        "usage": {"prompt_tokens": 1000, "completion_tokens": 1000},
        "choices": [{"message": message, "finish_reason": finish}],
    }
    return 200, {}, json.dumps({**body, **changes}).encode()


def spend(*replies: ScriptedReply) -> float:
    """Dollars counted for one request, at one dollar a thousand tokens."""
    budget = Budget(1000.0)

    async def job(url: str) -> None:
        client = HttpModel(Endpoint((url,), "m"), ClientSettings(backoff_s=0.001))
        metered = MeteredModel(client, Price(1000.0, 1000.0), budget)
        client.on_lost = metered.charge
        try:
            await metered.complete(ChatRequest((Message("user", "abcd" * 100),), Decoding()))
        except CallFailed:
            pass
        finally:
            await client.close()

    with ScriptedServer(*replies) as server:
        asyncio.run(job(server.base_url))
    assert budget.reserved_usd == 0.0
    return budget.spent_usd


def test_tries_that_brought_nothing_are_charged_as_the_endpoint_counts_them() -> None:
    assert spend(reply()) == 2.0
    assert spend(reply("content_filter")) == 2.0
    assert spend(reply(choices=[]), reply()) == 4.0
    assert spend((500, {}, b"busy"), reply()) == 2.0, "a refusal costs nothing"
    assert spend((400, {}, b"no")) == 0.0
    uncounted = reply("content_filter", usage=None)
    assert spend(uncounted) == pytest.approx((100 + FIRST_GUESS_TOKENS) / 1000)
