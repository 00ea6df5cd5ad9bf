"""Folders that another version wrote, or that somebody made up: one error, never a traceback."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from r2w_eval.cli import cli
from r2w_eval.config import RunConfig
from r2w_eval.errors import DataError, R2WError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.run import evaluate


@pytest.fixture
def folder(server: FakeServer, tmp_path: Path) -> Path:
    config = RunConfig(
        model=f"{server.base_url}#gen-0", tasks="quickstart", limit=2, cache=False,
        judge=(f"{server.base_url}#judge-0",), out=str(tmp_path / "run"),
    )  # fmt: skip
    asyncio.run(evaluate(config))
    return tmp_path / "run"


def change(folder: Path, **changed: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changed}))


def test_a_setting_of_a_newer_version_is_named(folder: Path, server: FakeServer) -> None:
    config = json.loads((folder / "run.json").read_bytes())["config"]
    change(folder, r2w_eval="99.0", config={**config, "teleport": True})
    before = server.stats().total.requests
    for words in (["judge", str(folder), "--reparse"], ["judge", str(folder), "--judge=none"]):
        done = CliRunner().invoke(cli, words)
        assert isinstance(done.exception, DataError)
        assert "'99.0'" in str(done.exception) and "teleport" in str(done.exception)
    assert server.stats().total.requests == before


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", "null", '{"config": 1}', '{"model": 1, "identity": {}, "config": {"judge": []}}',
     '{"model": "m", "identity": [], "config": {"judge": [1]}}', "[" * 200_000],
)  # fmt: skip
def test_a_manifest_that_is_made_up_is_an_error_of_ours(folder: Path, content: str) -> None:
    (folder / "run.json").write_text(content)
    for words in (["judge", str(folder), "--reparse"], ["compare", str(folder), str(folder)]):
        done = CliRunner().invoke(cli, words)
        assert isinstance(done.exception, R2WError), (words, done.exception)
