"""What `serve` takes and gives: our format, vLLM's /classify, OpenRLHF's /get_reward.

In the formats of vLLM and OpenRLHF only the answer is scored, as by the adapters: without thinking,
end-of-turn tokens, and the prompt that a chat template put before it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from r2w_eval.reward_models.items import (
    MAX_ITEM_CHARS,
    Item,
    ItemScore,
    ItemStatus,
    failed,
    read_item,
    too_long,
)
from r2w_eval.reward_models.serving.turns import read_exchange

from r2w_eval.models.completions import last_turn
from r2w_eval.models.thinking import ThinkTags, split_thinking

if TYPE_CHECKING:
    from aiohttp import web


class BadRequest(Exception):
    """A body that is not what the route takes."""


class TooMany(Exception):
    """A request has more items than may ever wait."""


Read = Callable[[Mapping[str, Any]], list[Item | ItemScore]]
# where the texts of a request stand; of one item they are the body itself
LISTS = ("items", "input", "query")


async def read_request(request: web.Request, read: Read, most: int) -> list[Item | ItemScore]:
    """The items of a request, at most `most`; read in a thread, so that a large body holds up no
    other client. Raises BadRequest, TooMany.
    """
    from aiohttp.web import RequestPayloadError

    try:
        content = await request.read()
    except RequestPayloadError as error:
        raise BadRequest(f"the body cannot be read: {error}") from error
    return await asyncio.to_thread(_read_content, content, read, most)


def _read_content(content: bytes, read: Read, most: int) -> list[Item | ItemScore]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("expected a JSON object")
    given = max((len(own) for name in LISTS if isinstance(own := body.get(name), list)), default=1)
    if given > most:
        raise TooMany(f"{given} items; send at most {most} a request")
    return read(body)


def read_items(body: Mapping[str, Any]) -> list[Item | ItemScore]:
    """Items of a /score request, or the one that the body is. Raises BadRequest."""
    records = body.get("items", [body])
    if not isinstance(records, list):
        raise BadRequest("items: expected a list")
    return [read_item(record, number) for number, record in enumerate(records, 1)]


def read_classify(body: Mapping[str, Any]) -> list[Item | ItemScore]:
    """Items of a /classify request. Raises BadRequest."""
    if "messages" in body:
        return [_from_messages(body["messages"])]
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    return _texts(texts, [""] * len(texts) if isinstance(texts, list) else [], "input")


def read_get_reward(body: Mapping[str, Any]) -> list[Item | ItemScore]:
    """Items of a /get_reward request; `query` may hold its prompt. Raises BadRequest."""
    prompts = body.get("prompts")
    texts = body.get("query")
    if isinstance(texts, list) and prompts in (None, []):
        prompts = [""] * len(texts)
    return _texts(texts, prompts, "query")


def _texts(texts: Any, prompts: Any, name: str) -> list[Item | ItemScore]:
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise BadRequest(f"{name}: expected text or a list of texts")
    if not isinstance(prompts, list) or len(prompts) != len(texts):
        raise BadRequest(f"prompts: expected one for each of the {len(texts)} texts")
    if not all(p is None or isinstance(p, str) for p in prompts):
        raise BadRequest("prompts: expected texts, as the policy was given them")
    return [
        read_writing(i, p or "", t) for i, (t, p) in enumerate(zip(texts, prompts, strict=True))
    ]


def read_writing(number: int, prompt: str, text: str) -> Item | ItemScore:
    """The answer in a trainer's text as an item with the id `number`; failed if there is none."""
    if (size := len(prompt) + len(text)) > MAX_ITEM_CHARS:
        return failed(str(number), *too_long(size))
    found = read_exchange(prompt, text)
    split = split_thinking(found.completion, ThinkTags(opened_by_template=found.is_opened))
    if split.unclosed:
        reason = "the thinking never ends, so there is no answer"
        return failed(str(number), ItemStatus.UNCLOSED_THINK, reason)
    record = {"id": str(number), "prompt": found.prompt, "response": split.answer}
    return read_item(record, number + 1)


def _from_messages(messages: Any) -> Item | ItemScore:
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise BadRequest("messages: expected a list of {role, content}")
    if not any(message.get("role") == "assistant" for message in messages):
        raise BadRequest("messages: expected an assistant message with text")
    return read_writing(0, last_turn(messages, "user"), last_turn(messages, "assistant"))


def as_classify(values: Sequence[float], model: str) -> dict[str, Any]:
    """The answer of vLLM's /classify."""
    data = [{"index": i, "label": "reward", "probs": [v], "num_classes": 1}
            for i, v in enumerate(values)]  # fmt: skip
    return {"object": "list", "model": model, "data": data}


def as_rewards(values: Sequence[float], model: str) -> dict[str, Any]:
    """The answer of OpenRLHF's /get_reward, which makes a tensor of whatever `extra_logs` holds."""
    rewards = list(values)
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}, "model": model}
