"""Calls through the real HTTP client, for tests of what it makes of a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from r2w_eval.models.chat import ChatRequest, Reply
from r2w_eval.models.client import HttpModel
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.types import Decoding, Message

FAST = ClientSettings(backoff_s=0.001, timeout_s=5.0)
REQUEST = ChatRequest((Message("user", "Write."),), Decoding(max_tokens=10))
DEAD = "http://127.0.0.1:9/v1"


@asynccontextmanager
async def connect(
    *urls: str, model: str = "m", settings: ClientSettings = FAST
) -> AsyncIterator[HttpModel]:
    """A client of these addresses, closed at the end."""
    client = HttpModel(Endpoint(urls, model), settings)
    try:
        yield client
    finally:
        await client.close()


def ask(
    *urls: str,
    model: str = "m",
    settings: ClientSettings = FAST,
    request: ChatRequest = REQUEST,
) -> Reply:
    """The reply to one request."""

    async def job() -> Reply:
        async with connect(*urls, model=model, settings=settings) as client:
            return await client.complete(request)

    return asyncio.run(job())


async def send(client: HttpModel, count: int) -> list[Reply | BaseException]:
    """What becomes of `count` requests sent at once."""
    requests = (client.complete(REQUEST) for _ in range(count))
    return await asyncio.gather(*requests, return_exceptions=True)


def ask_many(
    *urls: str, count: int, model: str = "m", settings: ClientSettings = FAST
) -> list[Reply | BaseException]:
    """What becomes of `count` requests at once of a client of its own."""

    async def job() -> list[Reply | BaseException]:
        async with connect(*urls, model=model, settings=settings) as client:
            return await send(client, count)

    return asyncio.run(job())
