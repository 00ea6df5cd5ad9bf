"""The judge queue in virtual time: rate limits, stragglers, lost connections; checked for real.

`python benchmarks/queue_sim.py`: the real client (`HttpModel`, its limiter, retries, pauses) runs
in an event loop whose clock jumps to the next event, against a server that draws its faults as the
fake server does, prompt by prompt. First the same work is sent to the fake server and the times are
compared; then the queue of a large run is predicted. Writes results/queue_sim.json.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import selectors
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

from r2w_eval.fakeserver.replies import build_completion, hash_prompt, parse_model
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.chat import CallFailed, ChatRequest
from r2w_eval.models.client import HttpModel
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.store import write_json
from r2w_eval.types import Decoding, Message

PREDICTED_TIMEOUT_S = 60.0
# A slow server of two places: its own queue takes the time. Replies take up to this share more or
# less, or all the same: those that waited for the place of a late one are then late to the second
SPREADS = (0.1, 0.0)
QUEUED = tuple(
    (count, 256, f"judge-{s}000+slots=2")
    for count, s in ((500, 10), (500, 60), (200, 200), (200, 300), (200, 400), (200, 500))
)
QUEUED_TIMEOUT_S = 600.0
RESULTS = Path(__file__).parent / "results" / "queue_sim.json"
URL = "http://127.0.0.1:1/v1"
TIMEOUT_S = 3.0
CHECKED = (
    (400, 32, "judge-500"),
    (400, 32, "judge-500+http429=0.02+retryafter=1+seed=1"),
    (400, 32, "judge-500+hang=0.01+seed=2"),
    (400, 32, "judge-500+http503=0.05+http429=0.02+retryafter=1+hang=0.005+seed=3"),
)
PREDICTED = tuple(
    (20_000, 256, f"judge-2000+http429={rate}+retryafter=5+hang={slow}+seed=1")
    for rate in (0.0, 0.001, 0.01)
    for slow in (0.0, 0.001)
)


class JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: time moves on by what the loop would have slept."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += max(0.0, timeout or 0.0)
        return []


class Body:
    """What `aiohttp` calls the content of a reply."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def readany(self) -> bytes:
        content, self._content = self._content, b""
        return content

    def is_eof(self) -> bool:
        return not self._content


@dataclass(frozen=True, slots=True)
class VirtualReply:
    status: int
    headers: Mapping[str, str]
    content: Body


class VirtualServer:
    """Replaces the client's session; draws faults as the fake server does."""

    def __init__(self, timeout_s: float, spread: float) -> None:
        self.sends: dict[str, int] = {}
        self._timeout_s = timeout_s
        self._spread = spread
        self._slots: asyncio.Semaphore | None = None

    @asynccontextmanager
    async def post(
        self, url: str, data: bytes, headers: Mapping[str, str], **options: object
    ) -> AsyncIterator[VirtualReply]:
        body = json.loads(data)
        plan = parse_model(body["model"])
        prompt_hash = hash_prompt(body["messages"], body.get("seed"))
        attempt = self.sends.get(prompt_hash, 0)
        self.sends[prompt_hash] = attempt + 1
        fault = plan.fault(prompt_hash, attempt)
        self._slots = self._slots or asyncio.Semaphore(plan.slots or 1 << 30)
        async with asyncio.timeout(self._timeout_s), self._slots:
            latency_s = (plan.latency_s or 0.0) * self._share(prompt_hash)
            await asyncio.sleep(math.inf if fault == "hang" else latency_s)
        if fault is None:
            content = build_completion(plan, body, prompt_hash, attempt)
            yield VirtualReply(200, {}, Body(content))
        else:
            waits = {"Retry-After": plan.retry_after} if plan.retry_after else {}
            code = int(fault.removeprefix("http"))
            sent = waits if code in (429, 503) else {}
            yield VirtualReply(code, sent, Body(b"{}"))

    def _share(self, prompt_hash: str) -> float:
        """How long this prompt takes for the usual time: from 1 - spread to 1 + spread."""
        return 1 + self._spread * random.Random(prompt_hash).uniform(-1, 1)

    async def close(self) -> None: ...


async def send_all(client: HttpModel, count: int) -> int:
    """Ask `count` questions as the engine's judge does; returns how many were lost."""
    waiting = asyncio.Semaphore(1024)

    async def one(number: int) -> bool:
        messages = (Message("user", f"Score this text: text {number}."),)
        async with waiting:
            try:
                await client.complete(ChatRequest(messages, Decoding(max_tokens=10)))
            except CallFailed:
                return True
        return False

    try:
        return sum(await asyncio.gather(*map(one, range(count))))
    finally:
        await client.close()


def make_client(url: str, model: str, connections: int, timeout_s: float) -> HttpModel:
    settings = ClientSettings(max_connections=connections, timeout_s=timeout_s)
    return HttpModel(Endpoint((url,), model), settings)


def simulate(
    count: int, connections: int, model: str, timeout_s: float = TIMEOUT_S, spread: float = 0.0
) -> dict[str, Any]:
    """Seconds of virtual time, requests sent, verdicts lost, the limit at the end."""
    selector = JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    client = make_client(URL, model, connections, timeout_s)
    server = VirtualServer(timeout_s, spread)
    client._session = server  # type: ignore[assignment]
    for limiter in client.limiters.values():
        limiter._clock = loop.time
    with mock.patch("time.monotonic", loop.time):
        lost = loop.run_until_complete(send_all(client, count))
    loop.close()
    sent = sum(server.sends.values())
    limit = int(client.limiters[URL].limit)
    return {"s": round(selector.now, 2), "sent": sent, "lost": lost, "limit": limit}


def measure(count: int, connections: int, model: str) -> dict[str, Any]:
    """The same against the fake server, on the clock of the wall."""
    with FakeServer() as server:
        client = make_client(server.base_url, model, connections, TIMEOUT_S)
        started = time.monotonic()
        lost = asyncio.run(send_all(client, count))
        took = time.monotonic() - started
        sent = server.stats().total.requests
    return {"s": round(took, 2), "sent": sent, "lost": lost}


def main() -> None:
    checked = []
    for scenario in CHECKED:
        row = {"scenario": scenario, "simulated": simulate(*scenario), "real": measure(*scenario)}
        row["ratio"] = round(row["simulated"]["s"] / row["real"]["s"], 3)
        checked.append(row)
        print(json.dumps(row), flush=True)
    predicted = []
    for scenario in PREDICTED:
        row = {"scenario": scenario, "simulated": simulate(*scenario, PREDICTED_TIMEOUT_S)}
        predicted.append(row)
        print(json.dumps(predicted[-1]), flush=True)
    queued = []
    for spread, scenario in product(SPREADS, QUEUED):
        told = simulate(*scenario, QUEUED_TIMEOUT_S, spread)
        queued.append({"scenario": scenario, "spread": spread, "simulated": told})
        print(json.dumps(queued[-1]), flush=True)
    found = {"load": round(os.getloadavg()[0], 1), "checked": checked}
    found |= {"predicted": predicted, "queued": queued}
    write_json(RESULTS, found)


if __name__ == "__main__":
    main()
