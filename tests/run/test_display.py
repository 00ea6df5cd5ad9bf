"""What is shown and written while a run goes on."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from r2w_eval.config import RunConfig
from r2w_eval.errors import UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.run import evaluate
from r2w_eval.run.display import collect_warnings, print_outcome
from r2w_eval.run.watching import ProgressDisplay, show_progress
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


def test_a_progress_file_that_can_no_longer_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r2w_eval.run.watching.TERMINAL_INTERVAL_S", 0.01)
    folder = tmp_path / "status"
    folder.mkdir()

    async def job(_: object) -> str:
        (folder / "p.json").unlink()
        folder.rmdir()
        await asyncio.sleep(0.1)
        folder.mkdir()
        # it goes on when there is room again
        async with asyncio.timeout(30):
            while not (folder / "p.json").is_file():
                await asyncio.sleep(0.01)
        (folder / "p.json").unlink()
        folder.rmdir()
        return "paid for"

    assert asyncio.run(show_progress(job, True, str(folder / "p.json"))) == "paid for"


def test_cut_answers_are_judged_and_no_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my run"
    with FakeServer() as server:
        config = RunConfig(
            model=f"{server.base_url}#gen-0+length=1",
            judge=(f"{server.base_url}#judge-0",),
            limit=2,
            out=str(folder),
        )
        display = ProgressDisplay(True, None)
        outcome = asyncio.run(evaluate(config, display.watch))
    assert "lost: none, cut: 2, tokens" in display.line()
    print_outcome(outcome)
    shown = capsys.readouterr().out
    assert "lost: none; judged as they were cut: 2\n" in shown
    assert f"r2w-eval judge '{folder}' --judge" in shown
    # two samples tell no slope, whatever was computed
    assert outcome.results[0].judging.length_slope is not None
    assert "doubling" not in shown


def test_losses_are_named_by_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer() as server:
        config = RunConfig(
            model=f"{server.base_url}#gen-0+empty=1",
            judge=(f"{server.base_url}#judge-0",),
            limit=2,
            out=str(tmp_path / "run"),
        )
        outcome = asyncio.run(evaluate(config))
    print_outcome(outcome)
    assert "lost: empty 2" in capsys.readouterr().out
    # in a run of several suites, a warning says which of them it is about
    own, other = outcome.results[0], replace(outcome.results[0], task="other", warnings=())
    texts = sorted(warning.text for warning in own.warnings)
    assert texts and collect_warnings([own]) == texts
    assert collect_warnings([own, other]) == [f"quickstart: {text}" for text in texts]
    assert collect_warnings([own, replace(own, task="other")]) == texts
