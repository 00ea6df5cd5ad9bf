"""Several servers behind one endpoint: one killed, one of another model, one of a short context."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support import ScriptedServer, completion

from r2w_eval.config import RunConfig
from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.models.client import HttpModel
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.run import evaluate
from r2w_eval.types import Decoding, JudgeStatus, Message, WriterStatus

FAST = ClientSettings(backoff_s=0.001, timeout_s=5.0)
REQUEST = ChatRequest((Message("user", "Write."),), Decoding(max_tokens=10))
DEAD = "http://127.0.0.1:9/v1"
TOO_LONG = (400, {}, b'{"error": {"message": "maximum context length is 512 tokens"}}')


@contextmanager
def server_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A fake server of its own process, to be killed."""
    argv = [sys.executable, "-m", "r2w_eval.fakeserver"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def requests_seen(url: str) -> int:
    with urllib.request.urlopen(f"{url}/stats", timeout=5) as reply:
        counts = json.load(reply)
    return int(counts["total"]["requests"])


def kill_after(process: subprocess.Popen[str], url: str, requests: int) -> None:
    while requests_seen(url) < requests:
        time.sleep(0.02)
    process.kill()


def test_one_of_three_servers_is_killed_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(server_process()) for _ in range(3)]
        urls = ",".join(f"{url}/v1" for _, url in servers)
        config = RunConfig(
            model=f"{urls}#gen-100", judge=(f"{urls}#judge-100",), tasks="quickstart",
            out=str(tmp_path / "run"), cache=False,
        )  # fmt: skip
        killer = threading.Thread(target=kill_after, args=(*servers[1], 12))
        killer.start()
        outcome = asyncio.run(evaluate(config))
        killer.join()
        assert servers[1][0].poll() == -9
        assert all(requests_seen(servers[n][1]) > 30 for n in (0, 2))
    responses, judgements = list(outcome.folder.responses()), list(outcome.folder.judgements())
    assert len({r.key for r in responses}) == len(responses) == 24
    assert len({j.key for j in judgements}) == len(judgements) == 120
    assert {r.status for r in responses} == {WriterStatus.OK}
    assert {j.score.status for j in judgements} == {JudgeStatus.OK}
    assert sum(t.retries.get("transport", 0) for t in outcome.traffic) > 0


def test_an_address_with_another_model_is_refused_before_any_work(server: FakeServer) -> None:
    with ScriptedServer((200, {}, completion(model="other"))) as odd:
        urls = (server.base_url, odd.base_url, server.base_url.replace("127.0.0.1", "localhost"))
        with pytest.raises(UsageError, match="serves 'other', the rest 'gen-0'"):
            asyncio.run(check(urls))


def test_an_address_that_changes_its_model_is_out_and_its_texts_are_not_kept(
    server: FakeServer,
) -> None:
    replies = [(200, {}, completion(model=name)) for name in ("gen-5", "gen-5", "other")]
    with ScriptedServer(*replies) as odd:
        client = HttpModel(Endpoint((server.base_url, odd.base_url), "gen-5"), FAST)
        found = asyncio.run(ask(client, 40))
        assert [reply.model for reply in found if isinstance(reply, Reply)] == ["gen-5"] * 40
        assert len(odd.seen) <= 22
    (reason,) = client.traffic().out
    assert "serves 'other', the rest 'gen-5'" in reason


def test_those_that_answer_are_known_from_the_absent_and_from_another_model() -> None:
    with ExitStack() as stack:
        names = ("m", "m", "other")
        urls = [
            stack.enter_context(ScriptedServer((200, {}, completion(model=name)))).base_url
            for name in names
        ]
        client = HttpModel(Endpoint((*urls, DEAD), "m"), FAST)
        client.replicas.agree({urls[0]: "m"})
        assert client.replicas.answering() == {urls[0]}
        asyncio.run(ask(client, 40))
        assert client.replicas.answering() == set(urls[:2])


def test_a_server_without_the_model_costs_no_verdict(server: FakeServer) -> None:
    with ScriptedServer((404, {}, b'{"error": "no such model"}')) as other:
        client = HttpModel(Endpoint((other.base_url, server.base_url), "gen-0"), FAST)
        assert all(isinstance(reply, Reply) for reply in asyncio.run(ask(client, 30)))
        assert "does not serve this model" in client.traffic().out[0]
        alone = HttpModel(Endpoint((other.base_url,), "gen-0"), FAST)
        (failure,) = asyncio.run(ask(alone, 1))
        assert isinstance(failure, CallFailed) and failure.status is CallStatus.BAD_REQUEST


@pytest.mark.parametrize(
    "broken",
    [
        (200, {}, b"<html>Service is starting</html>"),
        *((status, {}, b'{"error": "forbidden"}') for status in (401, 402, 403)),
        (302, {"Location": "http://elsewhere.example/v1"}, b""),
        (429, {}, b'{"error": {"code": "insufficient_quota"}}'),
    ],
    ids=lambda reply: str(reply[0]),
)
def test_one_address_that_breaks_down_costs_no_reply(
    broken: tuple[int, dict[str, str], bytes],
) -> None:
    def write(headers: dict[str, str]) -> bytes:
        time.sleep(0.03)
        return completion(model="m")

    with ScriptedServer(broken) as first, ScriptedServer((200, {}, write)) as second:
        client = HttpModel(Endpoint((first.base_url, second.base_url), "m"), FAST)
        found = asyncio.run(ask(client, 60))
        assert all(isinstance(reply, Reply) for reply in found), found
        assert len(first.seen) < 45


def test_more_addresses_that_refuse_than_a_request_has_tries_cost_no_reply() -> None:
    with ExitStack() as stack:
        refused = [stack.enter_context(ScriptedServer((403, {}, b"no"))) for _ in range(7)]
        good = stack.enter_context(ScriptedServer((200, {}, completion(model="m"))))
        urls = tuple(server.base_url for server in (*refused, good))
        client = HttpModel(Endpoint(urls, "m"), FAST)
        found = asyncio.run(ask(client, 1))
        assert isinstance(found[0], Reply), found
        assert [len(server.seen) for server in refused] == [1] * 7


def test_the_last_address_that_refuses_ends_the_run() -> None:
    with ScriptedServer((403, {}, b"no")) as first, ScriptedServer((401, {}, b"no")) as second:
        client = HttpModel(Endpoint((first.base_url, second.base_url), "m"), FAST)
        found = asyncio.run(ask(client, 30))
        assert {type(end) for end in found} == {EndpointDown}
        assert "refuses model 'm': HTTP 40" in str(found[0])
        assert len(client.traffic().out) == 1


def test_a_prompt_too_long_for_one_goes_to_the_other_and_is_typed_when_for_all(
    server: FakeServer,
) -> None:
    with ScriptedServer(TOO_LONG) as first, ScriptedServer(TOO_LONG) as second:
        client = HttpModel(Endpoint((first.base_url, server.base_url), "gen-0"), FAST)
        assert all(isinstance(reply, Reply) for reply in asyncio.run(ask(client, 10)))
        client = HttpModel(Endpoint((first.base_url, second.base_url), "gen-0"), FAST)
        before = len(second.seen)
        (failure,) = asyncio.run(ask(client, 1))
        assert isinstance(failure, CallFailed) and failure.status is CallStatus.CONTEXT
        assert len(second.seen) == before + 1


def test_a_run_starts_without_the_address_that_is_gone(server: FakeServer) -> None:
    warning = asyncio.run(check((DEAD, server.base_url)))
    assert warning is not None and f"{DEAD}: unreachable" in warning
    with pytest.raises(UsageError, match="unreachable"):
        asyncio.run(check((DEAD, DEAD.replace("9", "19"))))


def test_all_addresses_changing_their_model_end_the_run() -> None:
    replies = [(200, {}, completion(model=name)) for name in ("a", "b")]
    with ScriptedServer(*replies) as one, ScriptedServer(*replies) as two:
        client = HttpModel(Endpoint((one.base_url, two.base_url), "m"), FAST)

        async def one_and_then_many() -> list[Reply | BaseException]:
            # the first reply says which model it is; of many at once, any may come first
            return [await client.complete(REQUEST), *await ask(client, 12)]

        found = asyncio.run(one_and_then_many())
        assert any(isinstance(reply, EndpointDown) for reply in found)
        assert {reply.model for reply in found if isinstance(reply, Reply)} == {"a"}


async def check(urls: tuple[str, ...]) -> str | None:
    client = HttpModel(Endpoint(urls, "gen-0"), FAST)
    try:
        return await client.check()
    finally:
        await client.close()


async def ask(client: HttpModel, count: int) -> list[Reply | BaseException]:
    requests = (client.complete(REQUEST) for _ in range(count))
    try:
        return await asyncio.gather(*requests, return_exceptions=True)
    finally:
        await client.close()
