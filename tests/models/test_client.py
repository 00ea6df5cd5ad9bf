"""The HTTP client against a server that fails on demand."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import re
import socket
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from calls import DEAD, FAST, REQUEST, ask, ask_many, connect, send
from support import ScriptedServer, completion

from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.chat import BROKEN_OFF, CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.models.client import HttpModel
from r2w_eval.types import Decoding, Message


def send_heads(listening: socket.socket, head: bytes) -> None:
    """Begin a reply to every connection and never finish it."""
    kept = []
    with contextlib.suppress(OSError):
        while True:
            kept.append(listening.accept()[0])
            kept[-1].sendall(head)


def test_a_reply_carries_what_the_server_reported(server: FakeServer) -> None:
    reply = ask(server.base_url, model="gen-20")
    assert reply.text and reply.finish_reason == "stop" and reply.model == "gen-20"
    assert reply.usage.completion_tokens and reply.latency_s >= 0.02


@pytest.mark.parametrize("fault", ["http500", "http503", "reset", "cutjson", "html", "nochoices"])
def test_transient_faults_are_tried_six_times_and_then_reported(
    server: FakeServer, fault: str
) -> None:
    with pytest.raises(CallFailed) as caught:
        ask(server.base_url, model=f"gen-0+{fault}=1")
    assert caught.value.status is CallStatus.TRANSPORT
    assert server.stats().total.requests == 6


@pytest.mark.parametrize("status", [501, 520, 522, 524, 598])
def test_every_5xx_is_retried(status: int) -> None:
    with ScriptedServer((status, {}, b"origin timed out"), (200, {}, completion())) as server:
        assert ask(server.base_url).text == "Once." and len(server.seen) == 2


@pytest.mark.parametrize("end", sorted(BROKEN_OFF))
def test_a_reply_that_the_server_aborted_is_retried(end: str) -> None:
    choice = {"message": {"content": "Once upon a ti"}, "finish_reason": end}
    broken = (200, {}, completion(choices=[choice]))
    with ScriptedServer(broken, (200, {}, completion("Whole."))) as server:
        assert ask(server.base_url).text == "Whole."
    with ScriptedServer(broken) as server, pytest.raises(CallFailed, match=end) as caught:
        ask(server.base_url)
    assert caught.value.status is CallStatus.TRANSPORT and len(server.seen) == 6


def test_a_hanging_server_is_a_timeout(server: FakeServer) -> None:
    with pytest.raises(CallFailed) as caught:
        ask(server.base_url, model="gen-0+hang=1", settings=replace(FAST, timeout_s=0.1))
    assert caught.value.status is CallStatus.TIMEOUT
    assert server.stats().total.requests == 6


def test_a_reply_may_start_late_but_must_not_stall(server: FakeServer) -> None:
    assert (
        ask(server.base_url, model="gen-600", settings=replace(FAST, idle_timeout_s=0.2)).latency_s
        >= 0.6
    )
    with socket.create_server(("127.0.0.1", 0)) as half, pytest.raises(CallFailed) as caught:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
        threading.Thread(target=send_heads, args=(half, head), daemon=True).start()
        url = f"http://127.0.0.1:{half.getsockname()[1]}/v1"
        ask(url, settings=replace(FAST, idle_timeout_s=0.1))
    assert caught.value.status is CallStatus.TIMEOUT


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("http400", CallStatus.BAD_REQUEST),
        ("http413", CallStatus.BAD_REQUEST),
        ("http422", CallStatus.BAD_REQUEST),
        ("context", CallStatus.CONTEXT),
        ("filter", CallStatus.FILTERED),
    ],
)
def test_permanent_faults_are_sent_once(server: FakeServer, fault: str, status: CallStatus) -> None:
    with pytest.raises(CallFailed) as caught:
        ask(server.base_url, model=f"gen-0+{fault}=1")
    assert caught.value.status is status
    assert server.stats().total.requests == 1


def test_an_address_that_knows_no_such_path_ends_at_the_first_call() -> None:
    absent, told = (404, {}, b"Not Found"), "does not serve model 'm'.*Try: {}"
    with ScriptedServer(absent) as server:
        for url, way in (
            (server.base_url.removesuffix("/v1"), f"{server.base_url}#m"),
            (server.base_url, "r2w-eval doctor --endpoint"),
        ):
            with pytest.raises(EndpointDown, match=told.format(way)):
                ask(url, model="m")
    # once it has answered, it says so about a request
    with ScriptedServer((200, {}, completion()), absent) as server:
        assert isinstance(asyncio.run(_second(server.base_url)), CallFailed)


async def _second(url: str) -> BaseException | Reply:
    async with connect(url) as client:
        await client.complete(REQUEST)
        return (await send(client, 1))[0]


def test_a_rate_limit_pauses_and_uses_up_no_try(server: FakeServer) -> None:
    started = time.monotonic()
    reply = ask(server.base_url, model="gen-0+http429=0.7+retryafter=0+seed=5")
    assert reply.text and time.monotonic() - started < 5


def test_a_paused_address_is_left_alone_for_that_long(server: FakeServer) -> None:
    async def job() -> float:
        async with connect(server.base_url, model="gen-0") as client:
            client.replicas.pause(server.base_url, 0.3)
            started = time.monotonic()
            await client.complete(REQUEST)
            return time.monotonic() - started

    assert asyncio.run(job()) >= 0.3


def test_twenty_equal_failures_stop_the_endpoint(server: FakeServer) -> None:
    results = ask_many(server.base_url, count=60, model="gen-0+http422=1")
    assert sum(isinstance(r, EndpointDown) for r in results) >= 20
    assert server.stats().total.requests <= 40


def test_an_endpoint_that_dies_later_stops_the_work_but_single_failures_do_not() -> None:
    too_long = (400, {}, b"maximum context length")

    async def job(url: str) -> list[BaseException | Reply]:
        settings = replace(FAST, backoff_s=0.02, timeout_s=0.4, patience_s=0.5)
        async with connect(url, settings=settings) as client:
            return [(await send(client, 1))[0] for _ in range(80)]

    script = [(200, {}, completion()), *[too_long] * 30, (502, {}, b"gone")]
    with ScriptedServer(*script) as server:
        replies = asyncio.run(job(server.base_url))
        assert isinstance(replies[0], Reply)
        assert {type(reply) for reply in replies[1:32]} == {CallFailed}
        assert isinstance(replies[-1], EndpointDown), "it is dead long before the last request"
        assert "has answered nobody for" in str(replies[-1])
        stopped = len(server.seen)
    assert 31 + 6 < stopped < 31 + 48 * 6


def test_a_request_that_is_never_answered_fails_alone() -> None:
    async def job(url: str) -> list[BaseException | Reply]:
        async with connect(url, settings=replace(FAST, timeout_s=0.1, patience_s=0.1)) as client:
            return [await client.complete(REQUEST), *await send(client, 2)]

    def hang(headers: dict[str, str]) -> bytes:
        time.sleep(0.3)
        return b""

    with ScriptedServer((200, {}, completion()), (200, {}, hang)) as server:
        _, *stuck = asyncio.run(job(server.base_url))
        assert len(server.seen) == 1 + 2 * 6
    assert [getattr(failure, "status", None) for failure in stuck] == [CallStatus.TIMEOUT] * 2


def test_of_two_addresses_one_may_be_dead(server: FakeServer) -> None:
    async def job() -> None:
        async with connect(server.base_url, DEAD, model="gen-0") as client:
            for _ in range(5):
                await client.complete(REQUEST)

    asyncio.run(job())


def test_a_server_with_two_slots_loses_nothing_to_its_own_queue(server: FakeServer) -> None:
    # ten at once would wait 0.5 s for a reply, twenty 1 s
    settings = replace(FAST, timeout_s=0.7)
    requests = [ChatRequest((Message("user", f"Write {n}."),), Decoding()) for n in range(60)]

    async def job() -> tuple[list[Reply], HttpModel]:
        async with connect(server.base_url, model="gen-100+slots=2", settings=settings) as client:
            return await asyncio.gather(*map(client.complete, requests)), client

    replies, client = asyncio.run(job())
    assert len({reply.text for reply in replies}) == 60
    assert client.limiters[server.base_url].limit < 20
    assert server.stats().total.requests == 60 + sum(client.retries.values()) < 120


def test_two_addresses_share_the_load() -> None:
    with FakeServer() as first, FakeServer() as second:
        ask_many(first.base_url, second.base_url, count=20, model="gen-20")
        assert first.stats().total.requests == second.stats().total.requests == 10


def test_an_address_where_nothing_listens_is_named() -> None:
    async def job() -> None:
        async with connect(DEAD) as client:
            await client.check()

    with pytest.raises(UsageError, match=r"127\.0\.0\.1:9"):
        asyncio.run(job())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with ScriptedServer((200, {}, completion())) as other:
        place = f"{other.base_url}/chat/completions"
        with ScriptedServer((status, {"Location": place}, b"")) as server:
            with pytest.raises(EndpointDown, match=re.escape(place)):
                ask(server.base_url)
            assert len(server.seen) == 1 and not other.seen


def test_a_redirect_to_a_malformed_address_is_reported_too() -> None:
    broken = (307, {"Location": f"http://{'a' * 300}.x/"}, b"")
    with ScriptedServer(broken) as server, pytest.raises(EndpointDown, match="redirects"):
        ask(server.base_url)


def test_a_refused_parameter_is_quoted_with_the_option_that_omits_it() -> None:
    refusal = b'{"error": {"message": "temperature and top_p cannot both be specified"}}'

    async def job(url: str) -> None:
        async with connect(url) as client:
            await send(client, 20)
            await client.complete(REQUEST)

    told = r"cannot both be specified.*--omit NAME"
    with ScriptedServer((400, {}, refusal)) as server, pytest.raises(EndpointDown, match=told):
        asyncio.run(job(server.base_url))


@pytest.mark.parametrize("status", [403, 404, 307])
def test_an_endpoint_need_not_list_its_models(status: int) -> None:
    async def job(url: str) -> tuple[str | None, str]:
        async with connect(url) as client:
            return await client.check(), (await client.complete(REQUEST)).text

    with ScriptedServer((200, {}, completion("fine"))) as server:
        server.list_status = status
        assert asyncio.run(job(server.base_url)) == (None, "fine")


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "1"},
        {"retry-after-ms": "400"},
        {"Retry-After": "date"},
        {"retry-after-ms": "300", "Retry-After": "60"},
    ],
)
def test_a_retry_after_is_waited_out_and_uses_up_no_try(headers: dict[str, str]) -> None:
    if headers.get("Retry-After") == "date":
        headers = {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)}
    busy = (429, headers, b"busy")
    with ScriptedServer(busy, (200, {}, completion())) as server:
        assert ask(server.base_url).text == "Once."
        waited = server.times[1] - server.times[0]
    stated = 0.3 if "retry-after-ms" in headers else 0.9
    assert stated <= waited < 3


def test_a_server_with_a_zero_retry_after_is_not_hammered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("r2w_eval.models.client.RATE_LIMIT_PATIENCE_S", 0.5)
    past = email.utils.formatdate(time.time() - 3600, usegmt=True)
    for value in ("0", "-5", past):
        with ScriptedServer((429, {"Retry-After": value}, b"")) as server:
            with pytest.raises(CallFailed) as caught:
                ask(server.base_url, settings=replace(FAST, backoff_s=0.1))
            assert caught.value.status is CallStatus.RATE_LIMITED
            assert len(server.seen) < 60


def test_rate_limits_end_in_a_status_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("r2w_eval.models.client.RATE_LIMIT_PATIENCE_S", 0.2)
    with ScriptedServer((429, {}, b"")) as server:
        with pytest.raises(CallFailed) as caught:
            ask(server.base_url, settings=replace(FAST, backoff_s=0.001))
        assert caught.value.status is CallStatus.RATE_LIMITED and len(server.seen) > 6


@pytest.mark.parametrize("dead_first", [True, False])
@pytest.mark.parametrize("count", [1, 50])
def test_a_dead_address_does_not_attract_the_load(
    server: FakeServer, dead_first: bool, count: int
) -> None:
    urls = (DEAD, server.base_url) if dead_first else (server.base_url, DEAD)
    replies = ask_many(*urls, count=count, model="gen-5")
    assert all(isinstance(reply, Reply) for reply in replies)


def test_an_address_that_always_fails_does_not_attract_the_load(server: FakeServer) -> None:
    with ScriptedServer((502, {}, b"bad gateway")) as broken:
        replies = ask_many(broken.base_url, server.base_url, count=50, model="gen-5")
        assert all(isinstance(reply, Reply) for reply in replies)
        assert len(broken.seen) <= 30


def test_while_one_address_is_paused_the_other_does_the_work(server: FakeServer) -> None:
    with ScriptedServer((429, {"Retry-After": "30"}, b"")) as busy:
        started = time.monotonic()
        replies = ask_many(busy.base_url, server.base_url, count=100, model="gen-5")
        assert all(isinstance(reply, Reply) for reply in replies)
        assert time.monotonic() - started < 10


def test_a_reply_of_several_megabytes_is_read_in_full() -> None:
    with ScriptedServer((200, {}, completion("x" * (8 << 20)))) as server:
        assert len(ask(server.base_url).text) == 8 << 20


def test_lone_surrogates_arrive_unchanged() -> None:
    with ScriptedServer((200, {}, completion("a\ud800b\u2028"))) as server:
        assert ask(server.base_url).text == "a\ud800b\u2028"


SCHEMA = '{"name": "Verdict", "schema": {"type": "object"}, "strict": true}'
WITH_SCHEMA = ChatRequest((Message("user", "Judge."),), Decoding(response_format=SCHEMA))


def test_a_schema_is_sent_in_openais_form() -> None:
    bodies: list[dict[str, Any]] = []
    with ScriptedServer((200, {}, completion())) as server:
        server.on_body = bodies.append
        ask(server.base_url, request=WITH_SCHEMA)
    wanted = {"type": "json_schema", "json_schema": json.loads(SCHEMA)}
    assert bodies[0]["response_format"] == wanted


def test_an_endpoint_that_refuses_schemas_stops_the_work_and_says_what_to_do() -> None:
    refusal = b'{"error": "Unsupported parameter: response_format"}'
    with (
        ScriptedServer((400, {}, refusal)) as server,
        pytest.raises(EndpointDown, match="Try: --omit response_format"),
    ):
        ask(server.base_url, request=WITH_SCHEMA)
