"""The HTTP client against a real server that fails to order."""

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
from hypothesis import given
from hypothesis import strategies as st
from support import ScriptedServer, completion

from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.chat import BROKEN_OFF, CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.models.client import HttpModel
from r2w_eval.models.completions import Retry, read_reply, read_retry_after, read_usage
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.models.keys import read_key
from r2w_eval.types import Decoding, Message, Usage

FAST = ClientSettings(backoff_s=0.001, timeout_s=5.0, idle_timeout_s=0.3, connect_timeout_s=1.0)
REQUEST = ChatRequest((Message("user", "Write."),), Decoding(max_tokens=10))


async def complete(url: str, settings: ClientSettings = FAST, model: str = "m") -> Reply:
    client = HttpModel(Endpoint((url,), model), settings)
    try:
        return await client.complete(REQUEST)
    finally:
        await client.close()


def ask(server: FakeServer | ScriptedServer, model: str, settings: ClientSettings = FAST) -> Reply:
    return asyncio.run(complete(server.base_url, settings, model))


def send_heads(listening: socket.socket, head: bytes) -> None:
    """Begin a reply to everybody who connects, and never go on."""
    kept = []
    with contextlib.suppress(OSError):
        while True:
            kept.append(listening.accept()[0])
            kept[-1].sendall(head)


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


@pytest.mark.parametrize("status", [501, 520, 522, 524, 598])
def test_any_failure_of_the_server_deserves_another_try(status: int) -> None:
    with ScriptedServer((status, {}, b"origin timed out"), (200, {}, completion())) as server:
        assert ask(server, "m").text == "Once." and len(server.seen) == 2


@pytest.mark.parametrize("end", sorted(BROKEN_OFF))
def test_a_text_that_the_server_broke_off_is_no_answer(end: str) -> None:
    choice = {"message": {"content": "Once upon a ti"}, "finish_reason": end}
    broken = (200, {}, completion(choices=[choice]))
    with ScriptedServer(broken, (200, {}, completion("Whole."))) as server:
        assert ask(server, "m").text == "Whole."
    with ScriptedServer(broken) as server, pytest.raises(CallFailed, match=end) as caught:
        ask(server, "m")
    assert caught.value.status is CallStatus.TRANSPORT and len(server.seen) == 6


def test_a_context_that_is_full_is_a_length_by_every_name() -> None:
    choice = {"message": {"content": "Once"}, "finish_reason": "model_length"}
    assert read_reply(completion(choices=[choice])).finish_reason == "length"


def test_a_hanging_server_is_a_timeout(server: FakeServer) -> None:
    with pytest.raises(CallFailed) as caught:
        ask(server, "gen-0+hang=1", replace(FAST, timeout_s=0.1))
    assert caught.value.status is CallStatus.TIMEOUT
    assert sent(server) == 6


def test_a_reply_may_take_long_to_begin_but_not_stand_still(server: FakeServer) -> None:
    assert ask(server, "gen-600", replace(FAST, idle_timeout_s=0.2)).latency_s >= 0.6
    with socket.create_server(("127.0.0.1", 0)) as half, pytest.raises(CallFailed) as caught:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
        threading.Thread(target=send_heads, args=(half, head), daemon=True).start()
        url = f"http://127.0.0.1:{half.getsockname()[1]}/v1"
        asyncio.run(complete(url, replace(FAST, idle_timeout_s=0.1)))
    assert caught.value.status is CallStatus.TIMEOUT


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
        client.replicas.pause(server.base_url, 0.3)
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


def test_an_endpoint_that_dies_later_stops_the_work_and_single_failures_do_not() -> None:
    too_long = (400, {}, b"maximum context length")

    async def job(url: str) -> list[BaseException | Reply]:
        settings = replace(FAST, backoff_s=0.02, timeout_s=0.4, patience_s=0.5)
        client = HttpModel(Endpoint((url,), "m"), settings)
        calls = [client.complete(REQUEST) for _ in range(80)]
        replies = [(await asyncio.gather(call, return_exceptions=True))[0] for call in calls]
        await client.close()
        return replies

    script = [(200, {}, completion()), *[too_long] * 30, (502, {}, b"gone")]
    with ScriptedServer(*script) as server:
        replies = asyncio.run(job(server.base_url))
        assert isinstance(replies[0], Reply)
        assert {type(reply) for reply in replies[1:32]} == {CallFailed}
        assert isinstance(replies[-1], EndpointDown), "long before the last one it is dead"
        assert "has answered nobody for" in str(replies[-1])
        stopped = len(server.seen)
    assert 31 + 6 < stopped < 31 + 48 * 6


def test_a_request_that_is_never_answered_ends_itself_and_not_the_endpoint() -> None:
    async def job(url: str) -> list[BaseException | Reply]:
        settings = replace(FAST, timeout_s=0.1, patience_s=0.1)
        client = HttpModel(Endpoint((url,), "m"), settings)
        first = await client.complete(REQUEST)
        calls = (client.complete(REQUEST) for _ in range(2))
        last = await asyncio.gather(*calls, return_exceptions=True)
        await client.close()
        return [first, *last]

    def hang(headers: dict[str, str]) -> bytes:
        time.sleep(0.3)
        return b""

    with ScriptedServer((200, {}, completion()), (200, {}, hang)) as server:
        _, *stuck = asyncio.run(job(server.base_url))
        assert len(server.seen) == 1 + 2 * 6
    assert [getattr(failure, "status", None) for failure in stuck] == [CallStatus.TIMEOUT] * 2


def test_a_lost_endpoint_of_two_costs_nothing_but_time(server: FakeServer) -> None:
    async def job() -> list[Reply]:
        urls = (server.base_url, "http://127.0.0.1:9/v1")
        client = HttpModel(Endpoint(urls, "gen-0"), FAST)
        try:
            return [await client.complete(REQUEST) for _ in range(5)]
        finally:
            await client.close()

    assert len(asyncio.run(job())) == 5


def test_a_server_of_two_places_loses_nothing_to_its_own_queue(server: FakeServer) -> None:
    async def job() -> tuple[list[Reply], HttpModel]:
        # ten would wait 0.5 s for a reply, twenty 1 s
        settings = replace(FAST, timeout_s=0.7)
        client = HttpModel(Endpoint((server.base_url,), "gen-100+slots=2"), settings)
        texts = (f"Write {n}." for n in range(60))
        requests = [ChatRequest((Message("user", text),), Decoding()) for text in texts]
        replies = await asyncio.gather(*map(client.complete, requests))
        await client.close()
        return replies, client

    replies, client = asyncio.run(job())
    assert len({reply.text for reply in replies}) == 60
    assert client.limiters[server.base_url].limit < 20
    assert sent(server) == 60 + sum(client.retries.values()) < 120


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


@pytest.mark.parametrize("hours", [-3, 0, 3])
def test_a_date_to_retry_after_is_on_the_servers_clock(hours: int) -> None:
    now = time.time() + 3600 * hours
    dates = (email.utils.formatdate(at, usegmt=True) for at in (now, now + 30))
    assert read_retry_after(dict(zip(("Date", "Retry-After"), dates, strict=True))) == 30.0
    assert (
        read_retry_after({"Date": "today", "Retry-After": "Fri, 27 Nov 2026 14:00:00 GMT"}) is None
    )


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(content: bytes) -> None:
    with contextlib.suppress(Retry, CallFailed):
        read_reply(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries(
        {"choices": st.lists(st.fixed_dictionaries({"message": JSON, "finish_reason": JSON}))
         | JSON},
        optional={"usage": JSON, "model": JSON, "system_fingerprint": JSON},
    )
    | JSON
)  # fmt: skip
def test_no_json_breaks_the_reader(data: object) -> None:
    with contextlib.suppress(Retry, CallFailed):
        reply = read_reply(json.dumps(data).encode())
        assert isinstance(reply.text, str)


@given(JSON, JSON, JSON, JSON)
def test_fields_of_the_wrong_kind_are_unknown(a: Any, b: Any, c: Any, d: Any) -> None:
    message = {"content": "x", "reasoning_content": a, "reasoning": b, "refusal": c}
    choice = {"message": message, "finish_reason": "stop" if d == "content_filter" else d}
    usage = {"prompt_tokens": a, "completion_tokens": b, "completion_tokens_details": c}
    data = {"choices": [choice], "model": d, "system_fingerprint": a, "usage": usage}
    reply = read_reply(json.dumps(data).encode())
    for value in (reply.reasoning, reply.refusal, reply.finish_reason, reply.model):
        assert value is None or isinstance(value, str)
    counts = [reply.usage.prompt_tokens, reply.usage.completion_tokens]
    assert all(count is None or type(count) is int for count in counts)


@pytest.mark.parametrize(
    "usage",
    [None, [], "many", 7, {"prompt_tokens": "7"}, {"prompt_tokens": True}, {"prompt_tokens": -1},
     {"prompt_tokens": 1.5}],
)  # fmt: skip
def test_what_is_no_token_count_is_unknown(usage: object) -> None:
    assert read_usage(usage) == Usage()


def test_a_key_that_the_server_quotes_reaches_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", "planted-secret")

    def quote(headers: dict[str, str]) -> bytes:
        return f"Incorrect API key: {headers['Authorization']}".encode()

    for status in (401, 400, 500, 429):
        with ScriptedServer((status, {}, quote)) as server:
            settings = replace(FAST, backoff_s=1e-6)
            monkeypatch.setattr("r2w_eval.models.client.RATE_LIMIT_PATIENCE_S", 0.0)
            with pytest.raises((EndpointDown, CallFailed)) as caught:
                ask(server, "m", settings)
            assert server.seen[0]["Authorization"] == "Bearer planted-secret"
            assert "planted-secret" not in str(caught.value) and "[key]" in str(caught.value)


def test_a_key_that_a_reply_quotes_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", "planted-secret")

    def quote(headers: dict[str, str]) -> bytes:
        return completion(f"You sent {headers['Authorization']}.", model=headers["Authorization"])

    with ScriptedServer((200, {}, quote)) as server:
        reply = ask(server, "m")
    assert (reply.text, reply.model) == ("You sent Bearer [key].", "Bearer [key]")


@pytest.mark.parametrize("slash", ["/", "\\/", "\\u002f", "\\u002F"])
@pytest.mark.parametrize("status", [200, 400])
def test_a_key_is_taken_out_in_every_spelling(
    status: int, slash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "ABSK/secret/key+base64=="
    monkeypatch.setenv("R2W_API_KEY", key)
    body = completion(f"Echo: {key}.").replace(b"/", slash.encode())
    with ScriptedServer((status, {}, body)) as server:
        if status == 200:
            assert ask(server, "m").text == "Echo: [key]."
            return
        with pytest.raises(CallFailed) as caught:
            ask(server, "m")
    assert "secret" not in str(caught.value) and "[key]" in str(caught.value)


def test_a_word_that_stands_for_no_key_stays_in_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", "anything")
    with ScriptedServer((200, {}, completion("She would give anything."))) as server:
        assert ask(server, "m").text == "She would give anything."


def test_every_host_gets_its_own_key_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R2W_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai-1")
    monkeypatch.setenv("R2W_API_KEY_LOCALHOST", "of-localhost-1")
    with ScriptedServer((200, {}, completion())) as server:
        ask(server, "m")
        asyncio.run(complete(server.base_url.replace("127.0.0.1", "localhost")))
        monkeypatch.setenv("R2W_API_KEY", "for-the-rest-1")
        ask(server, "m")
        keys = [headers.get("Authorization") for headers in server.seen]
    assert keys == [None, "Bearer of-localhost-1", "Bearer for-the-rest-1"]
    assert read_key("https://api.openai.com/v1", "R2W_JUDGE_API_KEY") == "of-openai-1"
    assert read_key("https://api.openai.com.example.org/v1", "R2W_JUDGE_API_KEY") == ""


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_text_is_sent_on_to_nobody(status: int) -> None:
    with ScriptedServer((200, {}, completion())) as other:
        place = f"{other.base_url}/chat/completions"
        with ScriptedServer((status, {"Location": place}, b"")) as server:
            with pytest.raises(EndpointDown, match=re.escape(place)):
                ask(server, "m")
            assert len(server.seen) == 1 and not other.seen


def test_a_location_that_is_no_address_breaks_nothing() -> None:
    broken = (307, {"Location": f"http://{'a' * 300}.x/"}, b"")
    with ScriptedServer(broken) as server, pytest.raises(EndpointDown, match="redirects"):
        ask(server, "m")


def test_what_the_server_says_of_a_parameter_is_told_with_the_option() -> None:
    refusal = b'{"error": {"message": "temperature and top_p cannot both be specified"}}'

    async def job(url: str) -> None:
        client = HttpModel(Endpoint((url,), "m"), FAST)
        calls = (client.complete(REQUEST) for _ in range(20))
        try:
            await asyncio.gather(*calls, return_exceptions=True)
            await client.complete(REQUEST)
        finally:
            await client.close()

    told = r"cannot both be specified.*--omit NAME"
    with ScriptedServer((400, {}, refusal)) as server, pytest.raises(EndpointDown, match=told):
        asyncio.run(job(server.base_url))


@pytest.mark.parametrize("status", [403, 404, 307])
def test_a_list_of_models_that_is_not_given_does_not_refuse_the_endpoint(status: int) -> None:
    async def job(url: str) -> tuple[str | None, str]:
        client = HttpModel(Endpoint((url,), "m"), FAST)
        try:
            return await client.check(), (await client.complete(REQUEST)).text
        finally:
            await client.close()

    with ScriptedServer((200, {}, completion("fine"))) as server:
        server.list_status = status
        assert asyncio.run(job(server.base_url)) == (None, "fine")


def test_content_in_parts_is_text_and_thinking() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "A plan."}]}
    parts = [thought, {"type": "text", "text": "Once "}, {"type": "text", "text": "more."}]
    reply = read_reply(completion(parts))
    assert (reply.text, reply.reasoning) == ("Once more.", "A plan.")
    for unreadable in ([{"type": "image_url"}], {"text": "x"}, 7):
        with pytest.raises(Retry):
            read_reply(completion(unreadable))


def test_a_placeholder_for_a_key_changes_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", "x")
    text = b"longer than the context length of 8"
    with ScriptedServer((400, {}, text)) as server, pytest.raises(CallFailed) as caught:
        ask(server, "m")
    assert caught.value.status is CallStatus.CONTEXT and "[key]" not in str(caught.value)


@pytest.mark.parametrize("key", ["planted-secret\n", " planted-secret\r\n"])
def test_a_line_break_after_the_key_is_not_part_of_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2W_API_KEY", key)
    with ScriptedServer((200, {}, completion())) as server:
        ask(server, "m")
        assert server.seen[0]["Authorization"] == "Bearer planted-secret"


def test_a_key_with_control_characters_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", "planted\nsecret")
    with ScriptedServer((200, {}, completion())) as server:
        with pytest.raises(UsageError, match=r"\$R2W_API_KEY") as caught:
            ask(server, "m")
        assert "planted" not in str(caught.value) and not server.seen


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "1"},
        {"retry-after-ms": "400"},
        {"Retry-After": "date"},
        {"retry-after-ms": "300", "Retry-After": "60"},
    ],
)
def test_a_stated_wait_is_waited_and_costs_no_try(headers: dict[str, str]) -> None:
    if headers.get("Retry-After") == "date":
        headers = {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)}
    busy = (429, headers, b"busy")
    with ScriptedServer(busy, (200, {}, completion())) as server:
        assert ask(server, "m").text == "Once."
        waited = server.times[1] - server.times[0]
    stated = 0.3 if "retry-after-ms" in headers else 0.9
    assert stated <= waited < 3


def test_a_server_that_says_now_and_refuses_is_not_hammered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("r2w_eval.models.client.RATE_LIMIT_PATIENCE_S", 0.5)
    past = email.utils.formatdate(time.time() - 3600, usegmt=True)
    for value in ("0", "-5", past):
        with ScriptedServer((429, {"Retry-After": value}, b"")) as server:
            with pytest.raises(CallFailed) as caught:
                ask(server, "m", replace(FAST, backoff_s=0.1))
            assert caught.value.status is CallStatus.RATE_LIMITED
            assert len(server.seen) < 60


def test_rate_limits_end_as_their_own_status_and_not_as_a_lost_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("r2w_eval.models.client.RATE_LIMIT_PATIENCE_S", 0.2)
    with ScriptedServer((429, {}, b"")) as server:
        with pytest.raises(CallFailed) as caught:
            ask(server, "m", replace(FAST, backoff_s=0.001))
        assert caught.value.status is CallStatus.RATE_LIMITED and len(server.seen) > 6


def many(urls: tuple[str, ...], count: int) -> list[Reply | BaseException]:
    async def job() -> list[Reply | BaseException]:
        client = HttpModel(Endpoint(urls, "gen-5"), FAST)
        try:
            return await asyncio.gather(
                *(client.complete(REQUEST) for _ in range(count)), return_exceptions=True
            )
        finally:
            await client.close()

    return asyncio.run(job())


@pytest.mark.parametrize("dead_first", [True, False])
@pytest.mark.parametrize("count", [1, 50])
def test_a_dead_address_does_not_draw_the_load(
    server: FakeServer, dead_first: bool, count: int
) -> None:
    urls = ("http://127.0.0.1:9/v1", server.base_url)
    replies = many(urls if dead_first else urls[::-1], count)
    assert all(isinstance(reply, Reply) for reply in replies)


def test_an_address_that_only_errs_does_not_draw_the_load(server: FakeServer) -> None:
    with ScriptedServer((502, {}, b"bad gateway")) as broken:
        replies = many((broken.base_url, server.base_url), 50)
        assert all(isinstance(reply, Reply) for reply in replies)
        assert len(broken.seen) <= 30


def test_a_paused_address_leaves_the_work_to_the_other(server: FakeServer) -> None:
    with ScriptedServer((429, {"Retry-After": "30"}, b"")) as busy:
        started = time.monotonic()
        replies = many((busy.base_url, server.base_url), 100)
        assert all(isinstance(reply, Reply) for reply in replies)
        assert time.monotonic() - started < 10


def test_a_reply_of_many_megabytes_is_read_whole() -> None:
    with ScriptedServer((200, {}, completion("x" * (8 << 20)))) as server:
        assert len(ask(server, "m").text) == 8 << 20


def test_lone_surrogates_arrive_as_they_are() -> None:
    with ScriptedServer((200, {}, completion("a\ud800b\u2028"))) as server:
        assert ask(server, "m").text == "a\ud800b\u2028"


@pytest.mark.parametrize(
    "text",
    ["http://user:planted-secret@host/v1", "http://user:planted-secret@host/v1#m",
     "http://host/v1?api-key=planted-secret#m", "https://planted-secret@host/v1#m"],
)  # fmt: skip
def test_credentials_in_an_address_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="Credentials") as caught:
        Endpoint.parse(text)
    assert "planted-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["http://[::1/v1#m", "http://h:port/v1#m", "http://h:99999/v1#m", "http://a/v1,#m",
             "http://h:0/v1#m", "https:/h/v1#m", "http://a/v1,b/v1#m"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an endpoint"):
        Endpoint.parse(text)


@given(st.text(alphabet="htps:/[]@?#,.123ab%", max_size=30))
def test_no_address_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert Endpoint.parse("http://" + text).model


SCHEMA = '{"name": "Verdict", "schema": {"type": "object"}, "strict": true}'


def ask_for_schema(server: ScriptedServer) -> Reply:
    async def run() -> Reply:
        model = HttpModel(Endpoint((server.base_url,), "m"), FAST)
        decoding = Decoding(response_format=SCHEMA)
        try:
            return await model.complete(ChatRequest((Message("user", "Judge."),), decoding))
        finally:
            await model.close()

    return asyncio.run(run())


def test_a_schema_goes_with_the_request_as_openai_takes_it() -> None:
    bodies: list[dict[str, Any]] = []
    with ScriptedServer((200, {}, completion())) as server:
        server.on_body = bodies.append
        ask_for_schema(server)
    wanted = {"type": "json_schema", "json_schema": json.loads(SCHEMA)}
    assert bodies[0]["response_format"] == wanted


def test_an_endpoint_that_refuses_schemas_ends_the_work_with_what_to_do() -> None:
    refusal = b'{"error": "Unsupported parameter: response_format"}'
    with (
        ScriptedServer((400, {}, refusal)) as server,
        pytest.raises(EndpointDown, match="Try: --omit response_format"),
    ):
        ask_for_schema(server)
