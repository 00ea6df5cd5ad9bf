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
from calls import DEAD, REQUEST, ask_many, connect, send
from support import ScriptedServer, completion

from r2w_eval.config import RunConfig
from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.chat import CallFailed, CallStatus, Reply
from r2w_eval.models.client import HttpModel
from r2w_eval.run import evaluate
from r2w_eval.types import JudgeStatus, WriterStatus

TOO_LONG = (400, {}, b'{"error": {"message": "maximum context length is 512 tokens"}}')


def check(*urls: str) -> str | None:
    async def job() -> str | None:
        async with connect(*urls, model="gen-0") as client:
            return await client.check()

    return asyncio.run(job())


def watch(*urls: str, count: int, model: str) -> tuple[list[Reply | BaseException], HttpModel]:
    """What becomes of `count` requests, and the client afterwards."""

    async def job() -> tuple[list[Reply | BaseException], HttpModel]:
        async with connect(*urls, model=model) as client:
            return await send(client, count), client

    return asyncio.run(job())


@contextmanager
def server_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A fake server in a process of its own, to be killed."""
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


def test_when_one_of_three_servers_is_killed_nothing_is_lost_or_duplicated(tmp_path: Path) -> None:
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


def test_an_address_that_serves_another_model_is_refused_at_once(
    server: FakeServer,
) -> None:
    with ScriptedServer((200, {}, completion(model="other"))) as odd:
        urls = (server.base_url, odd.base_url, server.base_url.replace("127.0.0.1", "localhost"))
        with pytest.raises(UsageError, match="serves 'other', the rest 'gen-0'"):
            check(*urls)


def test_an_address_that_changes_its_model_is_dropped_with_its_texts(
    server: FakeServer,
) -> None:
    replies = [(200, {}, completion(model=name)) for name in ("gen-5", "gen-5", "other")]
    with ScriptedServer(*replies) as odd:
        found, client = watch(server.base_url, odd.base_url, count=40, model="gen-5")
        assert [reply.model for reply in found if isinstance(reply, Reply)] == ["gen-5"] * 40
        assert len(odd.seen) <= 22
    (reason,) = client.traffic().out
    assert "serves 'other', the rest 'gen-5'" in reason


def test_only_addresses_that_answer_with_the_right_model_count_as_answering() -> None:
    with ExitStack() as stack:
        names = ("m", "m", "other")
        urls = [
            stack.enter_context(ScriptedServer((200, {}, completion(model=name)))).base_url
            for name in names
        ]

        async def job() -> None:
            async with connect(*urls, DEAD) as client:
                client.replicas.agree({urls[0]: "m"})
                assert client.replicas.answering() == {urls[0]}
                await send(client, 40)
                assert client.replicas.answering() == set(urls[:2])

        asyncio.run(job())


def test_a_server_without_the_model_loses_no_reply(server: FakeServer) -> None:
    with ScriptedServer((404, {}, b'{"error": "no such model"}')) as other:
        found, client = watch(other.base_url, server.base_url, count=30, model="gen-0")
        assert all(isinstance(reply, Reply) for reply in found)
        assert "does not serve model 'gen-0'" in client.traffic().out[0]


@pytest.mark.parametrize(
    "broken",
    [
        (200, {}, b"<html>Service is starting</html>"),
        *((status, {}, b'{"error": "forbidden"}') for status in (401, 402, 403)),
        (302, {"Location": "http://elsewhere.example/v1"}, b""),
        (429, {}, b'{"error": {"code": "insufficient_quota"}}'),
        (400, {}, b'{"error": {"message": "Your credit balance is too low to go on"}}'),
    ],
    ids=lambda reply: str(reply[0]),
)
def test_an_address_that_breaks_down_loses_no_reply(
    broken: tuple[int, dict[str, str], bytes],
) -> None:
    def write(headers: dict[str, str]) -> bytes:
        time.sleep(0.03)
        return completion(model="m")

    with ScriptedServer(broken) as first, ScriptedServer((200, {}, write)) as second:
        found = ask_many(first.base_url, second.base_url, count=60)
        assert all(isinstance(reply, Reply) for reply in found), found
        assert len(first.seen) < 45


def test_a_flagged_prompt_ends_no_address() -> None:
    flagged = b'{"error": {"code": 403, "metadata": {"flagged_input": "forbidden"}}}'
    with ScriptedServer((403, {}, flagged), (200, {}, completion(model="m"))) as server:
        found, client = watch(server.base_url, count=2, model="m")
        assert sorted(type(end).__name__ for end in found) == ["CallFailed", "Reply"]
        assert {end.status for end in found if isinstance(end, CallFailed)} == {CallStatus.FILTERED}
        assert not client.traffic().out


def test_refusing_addresses_use_up_no_tries() -> None:
    with ExitStack() as stack:
        refused = [stack.enter_context(ScriptedServer((403, {}, b"no"))) for _ in range(7)]
        good = stack.enter_context(ScriptedServer((200, {}, completion(model="m"))))
        found = ask_many(*(server.base_url for server in (*refused, good)), count=1)
        assert isinstance(found[0], Reply), found
        assert [len(server.seen) for server in refused] == [1] * 7


def test_when_the_last_address_refuses_the_run_ends() -> None:
    with ScriptedServer((403, {}, b"no")) as first, ScriptedServer((401, {}, b"no")) as second:
        found, client = watch(first.base_url, second.base_url, count=30, model="m")
        assert {type(end) for end in found} == {EndpointDown}
        assert "refuses model 'm': HTTP 40" in str(found[0])
        assert len(client.traffic().out) == 1


def test_a_prompt_too_long_for_one_server_goes_to_another(
    server: FakeServer,
) -> None:
    with ScriptedServer(TOO_LONG) as first, ScriptedServer(TOO_LONG) as second:
        found = ask_many(first.base_url, server.base_url, count=10, model="gen-0")
        assert all(isinstance(reply, Reply) for reply in found)
        before = len(second.seen)
        (failure,) = ask_many(first.base_url, second.base_url, count=1)
        assert isinstance(failure, CallFailed) and failure.status is CallStatus.CONTEXT
        assert len(second.seen) == before + 1


def test_a_run_starts_without_an_unreachable_address(server: FakeServer) -> None:
    warning = check(DEAD, server.base_url)
    assert warning is not None and f"{DEAD}: unreachable" in warning
    with pytest.raises(UsageError, match="unreachable"):
        check(DEAD, DEAD.replace("9", "19"))


def test_when_every_address_changes_its_model_the_run_ends() -> None:
    replies = [(200, {}, completion(model=name)) for name in ("a", "b")]
    with ScriptedServer(*replies) as one, ScriptedServer(*replies) as two:

        async def job() -> list[Reply | BaseException]:
            async with connect(one.base_url, two.base_url) as client:
                # the first reply says which model it is; of many at once, any may come first
                return [await client.complete(REQUEST), *await send(client, 12)]

        found = asyncio.run(job())
        assert any(isinstance(reply, EndpointDown) for reply in found)
        assert {reply.model for reply in found if isinstance(reply, Reply)} == {"a"}
