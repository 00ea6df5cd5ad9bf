"""Planted keys over a whole job, and every address that it talks to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
from r2w_eval.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["r2w-eval", *words]
    try:
        main()
    except SystemExit as ended:
        print(words[0], "ended with", ended.code)
print(json.dumps(sorted(seen)))
"""


@pytest.mark.slow
def test_no_key_stands_anywhere_and_nobody_else_is_asked(tmp_path: Path) -> None:
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
        environment = {**os.environ, **KEYS, "R2W_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", JOB, json.dumps(jobs)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    told = done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 40 and told.count("ended with 0") >= 4
    for key in KEYS.values():
        assert key not in told
        assert not [path for path in files if key.encode() in path.read_bytes()]
    own = {f'["127.0.0.1", "{server.port}"]', '["127.0.0.1", "9"]', "looked up 127.0.0.1"}
    assert set(json.loads(done.stdout.splitlines()[-1])) <= own
