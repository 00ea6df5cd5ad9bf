"""Planted keys over a whole job, and every address that it talks to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support import ScriptedServer, completion

from r2w_eval.fakeserver.server import FakeServer

KEYS = {
    name: f"planted-{name.lower().replace('_', '-')}-2718281828"
    for name in ("R2W_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "R2W_SERVE_TOKEN")
}
# runs several commands in one process, and tells every address on its last line
JOB = """
import json, sys
seen = set()
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        seen.add(json.dumps(list(map(str, arguments[-1]))) if isinstance(arguments[-1], tuple)
                 else str(arguments[-1]))
    elif event == "socket.getaddrinfo":
        seen.add(f"looked up {arguments[0]}")
sys.addaudithook(watch)
if sys.flags.dev_mode:
    import logging
    logging.basicConfig(level=logging.DEBUG)
from r2w_eval.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["r2w-eval", *words]
    try:
        main()
    except SystemExit as ended:
        print(words[0], "ended with", ended.code)
print(json.dumps(sorted(seen)))
"""


def planted(folder: Path) -> dict[str, str]:
    return {**os.environ, **KEYS, "R2W_CACHE": str(folder / "cache")}


def assert_no_key(told: str, folder: Path, n_files: int) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= n_files
    for key in KEYS.values():
        assert key not in told
        assert not [path for path in files if key.encode() in path.read_bytes()]


@pytest.mark.slow
def test_no_key_is_written_anywhere_and_no_other_host_is_contacted(tmp_path: Path) -> None:
    with FakeServer() as server:
        url = server.base_url
        common = ["--tasks=quickstart", "--limit=4", "--quiet", f"--judge={url}#judge-0"]
        jobs = [
            ["run", f"--model={url}#gen-0+http400=0.2", "--out=a", *common],
            ["run", f"--model={url}#gen-0+seed=2", "--out=b", *common],
            ["run", f"--model={url}#gen-0+http401=1", "--out=refused", *common],
            ["run", "--model=http://127.0.0.1:9/v1#m", "--out=dead", *common],
            ["compare", "a", "b", f"--judge={url}#judge-0", "--out=pairs"],
            ["leaderboard", "a", "b", "--out=site"],
            ["judge", "a", f"--judge={url}#judge-0+html=1", "--timeout=2"],
            ["list"],
        ]
        done = subprocess.run(
            [sys.executable, "-c", JOB, json.dumps(jobs)],
            cwd=tmp_path, env=planted(tmp_path), capture_output=True, text=True, timeout=150,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    told = done.stdout + done.stderr
    assert told.count("ended with 0") >= 4
    assert_no_key(told, tmp_path, n_files=40)
    own = {f'["127.0.0.1", "{server.port}"]', '["127.0.0.1", "9"]', "looked up 127.0.0.1"}
    assert set(json.loads(done.stdout.splitlines()[-1])) <= own


def quote(headers: dict[str, str]) -> bytes:
    """Story, verdict and error in one, with every key that came."""
    return completion(f"<think>You sent {headers}.</think> {headers}", model=f"m {headers}")


@pytest.mark.slow
def test_no_key_stands_in_debug_logs_of_the_other_commands_with_servers_that_quote_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (tmp_path / "item.jsonl").write_text('{"id": "1", "prompt": "A tale.", "response": "Rain."}\n')
    with (
        ScriptedServer((200, {}, quote)) as story,
        ScriptedServer((401, {}, quote)) as refusal,
        ScriptedServer((400, {}, quote)) as bad,
    ):
        run = ["run", "--tasks=quickstart", "--limit=2", "--no-cache"]
        jobs = [
            [*run, f"--model={story.base_url}#m", f"--judge={bad.base_url}#j", "--out=a"],
            [*run, f"--model={story.base_url}#m", f"--judge={bad.base_url}#j", "--dry-run"],
            ["doctor", f"--endpoint={story.base_url}#m"],
            ["doctor", f"--endpoint={refusal.base_url}#m", "--json"],
            ["reflect", "a", "--html=reflect.html"],
            ["score", "--scorer=r2w-quality", "--input=item.jsonl", "--output=scores.jsonl"],
            ["export", "a", "--out=set"],
            ["judge-check", f"--judge={refusal.base_url}#j", "--limit=1", "--out=check"],
            ["train", "synth", f"--writer={refusal.base_url}#m", "--n=1", "--out=synth"],
            ["train", "pipeline", "smoke", "--dry-run", "--out=pipeline"],
            ["train", "sft", "--traces=none.jsonl", "--out=sft"],
            ["train", "rl", "--model=none", "--n=1", "--out=rl"],
            ["watch", "checkpoints", "--once", "--tasks=quickstart", f"--judge={bad.base_url}#j"],
        ]
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "ignore", "-c", JOB, json.dumps(jobs)],
            cwd=tmp_path, env=planted(tmp_path), capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        told = done.stdout + done.stderr
        assert done.returncode == 0 and told.count("ended with") == len(jobs), told
    assert "[key]" in (tmp_path / "a" / "responses.jsonl").read_text()
    assert "DEBUG:" in told and "Traceback" not in told
    assert_no_key(told, tmp_path, n_files=12)


def test_serve_shows_its_token_neither_in_the_log_nor_in_replies(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    told = tmp_path / "log.txt"
    with told.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-X", "dev", "-m", "r2w_eval", "serve", "--scorer=r2w-rules",
             f"--port={port}"], env=planted(tmp_path), stdout=log, stderr=log, cwd=tmp_path,
        )  # fmt: skip
    token = KEYS["R2W_SERVE_TOKEN"]
    body = b'{"id": "1", "draft": "He go.", "reflection": "The verb is wrong."}'
    asks = [
        ("/score", token, body), ("/score", token[:-1], body), ("/score", token, b"{"),
        (f"/{token}", token, body), ("/metrics", token, None), ("/openapi.json", token, None),
    ]  # fmt: skip
    try:
        while server.poll() is None and not answer(port, "/health", token, None):
            time.sleep(0.05)
        replies = [answer(port, *ask) for ask in asks]
    finally:
        server.terminate()
        server.wait(30)
    assert [status for status, _ in replies] == [200, 401, 400, 404, 200, 200]
    assert_no_key(told.read_text() + "".join(text for _, text in replies), tmp_path, n_files=1)


def answer(port: int, path: str, token: str, body: bytes | None) -> tuple[int, str] | None:
    """Status, headers and body; None while nobody listens."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, f"{reply.headers}{reply.read().decode()}"
    except urllib.error.HTTPError as error:
        return error.code, f"{error.headers}{error.read().decode()}"
    except OSError:
        return None
