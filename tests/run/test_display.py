"""What is shown and written while a run goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from r2w_eval.errors import UsageError
from r2w_eval.run.display import ProgressDisplay
from r2w_eval.web.pages import PageStatus


def test_the_progress_file_holds_the_counters_of_citation_suites_too(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"

    async def job() -> None:
        display = ProgressDisplay(True, str(path))
        with display.running():
            assert json.loads(path.read_bytes())["responses_done"] == 0
            display.progress.responses_done = 2
            display.progress.pages["fact", "judge"] = {"http://a.example/": PageStatus.OK}

    asyncio.run(job())
    held = json.loads(path.read_bytes())
    assert held["responses_done"] == 2 and "pages" not in held


def test_a_progress_file_nowhere_is_refused_before_the_run(tmp_path: Path) -> None:
    async def job() -> None:
        with ProgressDisplay(True, str(tmp_path / "absent" / "p.json")).running():
            pytest.fail("the body must not run")

    with pytest.raises(UsageError, match="--progress-file .*absent/p.json.*mkdir -p"):
        asyncio.run(job())
