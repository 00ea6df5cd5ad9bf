"""The HTTP client against a real server that fails to order."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.client import (
    ClientSettings,
    Endpoint,
    HttpModel,
    Retry,
    read_reply,
    read_retry_after,
)
from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.fakeserver import FakeServer
from r2w_eval.types import Decoding, Message

FAST = ClientSettings(backoff_s=0.001, timeout_s=5.0, idle_timeout_s=0.3, connect_timeout_s=1.0)
REQUEST = ChatRequest((Message("user", "Write."),), Decoding(max_tokens=10))


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


def ask(server: FakeServer, model: str, settings: ClientSettings = FAST) -> Reply:
    async def job() -> Reply:
        client = HttpModel(Endpoint((server.base_url,), model), settings)
        try:
            return await client.complete(REQUEST)
        finally:
            await client.close()

    return asyncio.run(job())


def sent(server: FakeServer) -> int:
    total = server.stats().to_dict()["total"]["requests"]
    assert isinstance(total, int)
    return total


def test_a_reply_carries_all_that_the_server_said(server: FakeServer) -> None:
    reply = ask(server, "gen-20")
    assert reply.text and reply.finish_reason == "stop" and reply.model == "gen-20"
    assert reply.usage.completion_tokens and reply.latency_s >= 0.02


@pytest.mark.parametrize("fault", ["http500", "http503", "reset", "cutjson", "html", "nochoices"])
def test_transient_faults_are_retried_six_times_and_then_named(
    server: FakeServer, fault: str
) -> None:
    with pytest.raises(CallFailed) as caught:
        ask(server, f"gen-0+{fault}=1")
    assert caught.value.status is CallStatus.TRANSPORT
    assert sent(server) == 6


def test_a_hanging_server_is_a_timeout(server: FakeServer) -> None:
    with pytest.raises(CallFailed) as caught:
        ask(server, "gen-0+hang=1", replace(FAST, timeout_s=0.1))
    assert caught.value.status is CallStatus.TIMEOUT
    assert sent(server) == 6


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("http400", CallStatus.BAD_REQUEST),
        ("http404", CallStatus.BAD_REQUEST),
        ("http413", CallStatus.BAD_REQUEST),
        ("http422", CallStatus.BAD_REQUEST),
        ("context", CallStatus.CONTEXT),
        ("filter", CallStatus.FILTERED),
    ],
)
def test_permanent_faults_are_sent_once(server: FakeServer, fault: str, status: CallStatus) -> None:
    with pytest.raises(CallFailed) as caught:
        ask(server, f"gen-0+{fault}=1")
    assert caught.value.status is status
    assert sent(server) == 1


@pytest.mark.parametrize("fault", ["http401", "http402", "http403"])
def test_a_refused_key_stops_the_endpoint_and_names_the_variable(
    server: FakeServer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2W_API_KEY", "planted-secret")
    with pytest.raises(EndpointDown) as caught:
        ask(server, f"gen-0+{fault}=1")
    assert "R2W_API_KEY" in str(caught.value) and "planted-secret" not in str(caught.value)
    assert sent(server) == 1


def test_a_rate_limit_pauses_and_does_not_use_up_tries(server: FakeServer) -> None:
    started = time.monotonic()
    reply = ask(server, "gen-0+http429=0.7+retryafter=0+seed=5")
    assert reply.text and time.monotonic() - started < 5


def test_retry_after_is_honoured(server: FakeServer) -> None:
    async def job() -> float:
        client = HttpModel(Endpoint((server.base_url,), "gen-0"), FAST)
        client.limiters[server.base_url].pause(0.3)
        started = time.monotonic()
        await client.complete(REQUEST)
        await client.close()
        return time.monotonic() - started

    assert asyncio.run(job()) >= 0.3


def test_twenty_equal_failures_stop_the_endpoint(server: FakeServer) -> None:
    async def job() -> list[BaseException | Reply]:
        client = HttpModel(Endpoint((server.base_url,), "gen-0+http404=1"), FAST)
        try:
            return await asyncio.gather(
                *(client.complete(REQUEST) for _ in range(60)), return_exceptions=True
            )
        finally:
            await client.close()

    results = asyncio.run(job())
    assert sum(isinstance(r, EndpointDown) for r in results) >= 20
    assert sent(server) <= 40


def test_a_lost_endpoint_of_two_costs_nothing_but_time(server: FakeServer) -> None:
    async def job() -> list[Reply]:
        urls = (server.base_url, "http://127.0.0.1:9/v1")
        client = HttpModel(Endpoint(urls, "gen-0"), FAST)
        try:
            return [await client.complete(REQUEST) for _ in range(5)]
        finally:
            await client.close()

    assert len(asyncio.run(job())) == 5


def test_two_endpoints_share_the_load() -> None:
    async def job(urls: tuple[str, ...]) -> None:
        client = HttpModel(Endpoint(urls, "gen-20"), FAST)
        await asyncio.gather(*(client.complete(REQUEST) for _ in range(20)))
        await client.close()

    with FakeServer() as first, FakeServer() as second:
        asyncio.run(job((first.base_url, second.base_url)))
        assert sent(first) == sent(second) == 10


def test_nothing_there_is_a_usage_error_that_names_the_address() -> None:
    async def job() -> None:
        client = HttpModel(Endpoint(("http://127.0.0.1:9/v1",), "m"), FAST)
        try:
            await client.check()
        finally:
            await client.close()

    with pytest.raises(UsageError, match=r"127\.0\.0\.1:9"):
        asyncio.run(job())


@pytest.mark.parametrize(
    "text", ["http://host/v1", "ftp://host/v1#m", "#m", "http:///v1#m", "http://u:p@host/v1#m"]
)
def test_a_broken_endpoint_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Endpoint.parse(text)


def test_retry_after_is_read_in_all_three_spellings() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert read_retry_after({"retry-after-ms": "250"}) == 0.25
    assert read_retry_after({"Retry-After": "7"}) == 7.0
    assert 25 < (read_retry_after({"Retry-After": date}) or 0) <= 31
    assert read_retry_after({"Retry-After": "soon"}) is None
    assert read_retry_after({}) is None


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(content: bytes) -> None:
    with contextlib.suppress(Retry, CallFailed):
        read_reply(content)
