"""An OpenAI-compatible server on loopback that tells stories and judges them, with faults to order.

In: chat completions whose model name says role, latency and fault rates, for example `gen-200` or
`judge-200+malformed=0.1+http429=0.01+retryafter=1+seed=3`. Out: replies that depend only on the
prompt, and counts (`/stats`, `/reset`). Used by tests, the demo and the throughput benchmark
(specification: harness section 16). `python -m r2w_eval.fakeserver --help` lists the options.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

from r2w_eval.fakeserver.replies import (
    EXTRAS,
    FAULTS,
    FLAGS,
    HTTP_FAULTS,
    SETTINGS,
    Plan,
    build_completion,
    hash_prompt,
    parse_model,
)

MAX_BODY_BYTES = 64 << 20


@dataclass(slots=True)
class ModelStats:
    """What one model name has seen. Times are seconds on the server's monotonic clock."""

    requests: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    first_request_s: float | None = None
    last_reply_s: float | None = None
    faults: dict[str, int] = field(default_factory=dict)

    def entered(self) -> None:
        """A request arrived."""
        self.requests += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        if self.first_request_s is None:
            self.first_request_s = time.monotonic()

    def left(self) -> None:
        """Its reply is ready, or its connection is gone."""
        self.in_flight -= 1
        self.last_reply_s = time.monotonic()

    @property
    def rate(self) -> float:
        """Requests per second between the first arrival and the last reply."""
        if self.first_request_s is None or self.last_reply_s is None:
            return 0.0
        return self.requests / max(self.last_reply_s - self.first_request_s, 1e-9)


@dataclass(slots=True)
class Stats:
    """All counts since the start or the last reset. `sends` counts each distinct body."""

    total: ModelStats = field(default_factory=ModelStats)
    by_model: dict[str, ModelStats] = field(default_factory=dict)
    sends: Counter[str] = field(default_factory=Counter)

    def to_dict(self, *, with_sends: bool = False) -> dict[str, Any]:
        """For JSON; the map of body hashes only on demand, because it grows with the run."""
        shown = {name: {**asdict(one), "rate": one.rate} for name, one in self.by_model.items()}
        return {
            "total": {**asdict(self.total), "rate": self.total.rate},
            "by_model": shown,
            "distinct_bodies": len(self.sends),
            "most_sends_of_one_body": max(self.sends.values(), default=0),
            **({"sends": dict(self.sends)} if with_sends else {}),
        }


class FakeServer:
    """The server, on loopback: `with` runs it in a thread, `async with` in the running loop.

    With `keep_log`, `log` holds the body of every chat request in the order of arrival; with `tls`
    set before the start it speaks HTTPS.
    """

    def __init__(self, port: int = 0, latency_ms: float = 0.0, *, keep_log: bool = False) -> None:
        self.port = port
        self.tls: ssl.SSLContext | None = None
        self.log: list[Mapping[str, Any]] = []
        self._keep_log = keep_log
        self._latency_s = latency_ms / 1000
        self._stats = Stats()
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._runner: web.AppRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Root address, without `/v1`."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client calls the base URL."""
        return f"{self.url}/v1"

    def stats(self) -> Stats:
        """The live counts."""
        return self._stats

    def reset(self) -> None:
        """Forget all counts, and with them all attempt numbers."""
        self._stats = Stats()

    async def start(self) -> None:
        """Bind and listen. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/stats", self._show_stats)
        app.router.add_post("/reset", self._reset)
        # handlers end with their connection, so that hung requests do not count as in flight
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2
        )
        await self._runner.setup()
        where = (self._runner, "127.0.0.1", self.port)
        await web.TCPSite(*where, backlog=1024, ssl_context=self.tls).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the socket and all connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> FakeServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def __enter__(self) -> FakeServer:
        loop = asyncio.new_event_loop()
        self._loop = loop
        loop.run_until_complete(self.start())
        self._thread = threading.Thread(target=loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None and self._thread is not None
        asyncio.run_coroutine_threadsafe(self.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw)
            plan = parse_model(str(body["model"]))
            prompt_hash = hash_prompt(body["messages"], body.get("seed"))
        except (ValueError, LookupError, TypeError) as error:
            return _error(400, "invalid_request", str(error))
        if body.get("stream"):
            return _error(400, "unsupported", "stream: true is not supported; send stream: false")
        if self._keep_log:
            self.log.append(body)
        body_hash = hashlib.sha256(raw).hexdigest()
        attempt = self._stats.sends[body_hash]
        self._stats.sends[body_hash] += 1
        if plan.marker is not None and plan.marker in str(body["messages"]):
            fault: str | None = "http400"
        else:
            fault = plan.fault(prompt_hash, attempt)
        with self._counted(body["model"], fault):
            async with self._slot(body["model"], plan.slots):
                await asyncio.sleep(self._latency_s if plan.latency_s is None else plan.latency_s)
            if fault in HTTP_FAULTS or fault in ("context", "html"):
                return _http_fault(plan, fault)
            content = build_completion(plan, body, prompt_hash, attempt)
            if fault in ("reset", "hang", "cutjson", "cutstream"):
                return await _wire_fault(request, fault, content)
            return web.Response(body=content, content_type="application/json")

    def _slot(self, model: str, count: int | None) -> contextlib.AbstractAsyncContextManager[None]:
        """One of the few places where this model works; who finds none waits, as in llama.cpp."""
        if count is None:
            return contextlib.nullcontext()
        return self._slots.setdefault(model, asyncio.Semaphore(count))

    @contextlib.contextmanager
    def _counted(self, model: str, fault: str | None) -> Iterator[None]:
        # a reset in between must not lead to negative counts: the pair is kept, not looked up again
        pair = (self._stats.total, self._stats.by_model.setdefault(model, ModelStats()))
        for one in pair:
            one.entered()
            if fault is not None:
                one.faults[fault] = one.faults.get(fault, 0) + 1
        try:
            yield
        finally:
            for one in pair:
                one.left()

    async def _models(self, _: web.Request) -> web.Response:
        # no list: every name that parses is served
        return web.json_response({"object": "list", "data": []})

    async def _show_stats(self, request: web.Request) -> web.Response:
        counts = self._stats.to_dict(with_sends="sends" in request.query)
        return web.json_response({**counts, "process_cpu_s": time.process_time()})

    async def _reset(self, _: web.Request) -> web.Response:
        self.reset()
        return web.json_response({"reset": True})


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    error = {"message": message, "type": code, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


def _http_fault(plan: Plan, fault: str) -> web.Response:
    if fault == "html":
        return web.Response(text="<html><body>Bad gateway</body></html>", content_type="text/html")
    if fault == "context":
        message = "This model's maximum context length is 8192 tokens."
        return _error(400, "context_length_exceeded", message)
    status = int(fault.removeprefix("http"))
    codes = {400: "invalid_request", 401: "invalid_api_key", 402: "insufficient_quota"}
    waits = status in (429, 503) and plan.retry_after is not None
    headers = {"Retry-After": str(plan.retry_after)} if waits else None
    return _error(status, codes.get(status, f"injected_{status}"), "Injected fault.", headers)


async def _wire_fault(request: web.Request, fault: str, content: bytes) -> web.StreamResponse:
    """Break off in the way asked for; the returned response no longer reaches the client."""
    if fault == "cutjson":
        return web.Response(body=content[: len(content) // 2], content_type="application/json")
    if fault == "hang":
        await asyncio.Event().wait()
    transport = request.transport
    response = web.StreamResponse()
    if fault == "cutstream":
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
    elif transport is not None:
        # linger 0 turns the close into a TCP reset
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    if transport is not None:
        transport.abort()
    return response


async def _serve(port: int, latency_ms: float) -> None:
    async with FakeServer(port, latency_ms) as server:
        address = {"url": server.url, "base_url": server.base_url}
        sys.stdout.write(json.dumps(address) + "\n")
        sys.stdout.flush()
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await stopped.wait()


def main() -> None:
    """Serve until interrupted; the first line of output holds the address."""
    parser = argparse.ArgumentParser(
        prog="python -m r2w_eval.fakeserver",
        description="OpenAI-compatible test server on 127.0.0.1. Model names say what it does.",
        epilog=f"gen[-MS] or judge[-MS], then any of +FAULT=RATE: {', '.join(FAULTS + EXTRAS)}; "
        f"+{', +'.join(FLAGS)}; " + ", ".join(f"+{name}=VALUE" for name in SETTINGS),
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="for names that state none")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.latency_ms))
