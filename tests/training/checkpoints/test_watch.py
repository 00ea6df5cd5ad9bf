"""Every checkpoint is evaluated once, as the command line would; what fails is a row."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from r2w_eval.training.checkpoints import watch as module
from r2w_eval.training.checkpoints.decline import find_decline
from r2w_eval.training.checkpoints.evaluated import headlines
from r2w_eval.training.checkpoints.progress import (
    ProgressRow,
    due,
    evaluations,
    plot,
    read_progress,
)
from r2w_eval.training.checkpoints.watch import watch_once

from r2w_eval.cli.watch import watch as watch_command
from r2w_eval.config import RunConfig, stored_config
from r2w_eval.errors import UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.store import RunFolder, write_jsonl
from r2w_eval.types import Response, WriterStatus


@pytest.fixture
def config(server: FakeServer, own_cache: Path) -> RunConfig:
    return RunConfig(judge=(f"{server.base_url}#judge-0",), limit=3, cache=False, timeout=10.0)


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def served(monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> list[str]:
    """Checkpoints answered by the server: loading real weights is the local model's own test."""
    asked: list[str] = []
    original = module.evaluate

    async def evaluate(config: RunConfig) -> Any:
        asked.append(str(config.model))
        return await original(replace(config, model=f"{server.base_url}#gen-0"))

    monkeypatch.setattr(module, "evaluate", evaluate)
    return asked


def test_each_checkpoint_is_evaluated_once(
    tmp_path: Path, config: RunConfig, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = served(monkeypatch, server)
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 10)
    rows = watch_once(tmp_path, config)
    assert [row.step for row in rows] == [2, 10] and all(row.score for row in rows)
    assert rows[0].n_scored == 3 and rows[0].low is not None
    assert watch_once(tmp_path, config) == [] and len(asked) == 2
    checkpoint(tmp_path, 12)
    assert [one.step for one in due(tmp_path)] == [12]
    assert (tmp_path / "evaluations" / "progress.svg").read_bytes().startswith(b"<?xml")


def test_a_checkpoint_that_cannot_be_loaded_is_a_row_with_the_reason(
    tmp_path: Path, config: RunConfig
) -> None:
    checkpoint(tmp_path, 1)
    (row,) = watch_once(tmp_path, config)
    assert row.score is None and "config.json" in row.error
    assert read_progress(tmp_path) == [row]


def test_a_crash_of_one_evaluation_is_its_row_and_the_next_checkpoint_is_evaluated(
    tmp_path: Path, config: RunConfig, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = served(monkeypatch, server)
    sound = module.evaluate

    async def evaluate(config: RunConfig) -> Any:
        if "checkpoint-1" in str(config.model):
            raise RuntimeError("CUDA out of memory")
        return await sound(config)

    monkeypatch.setattr(module, "evaluate", evaluate)
    checkpoint(tmp_path, 1)
    checkpoint(tmp_path, 2)
    first, second = watch_once(tmp_path, config)
    assert first.error == "RuntimeError: CUDA out of memory" and second.score and len(asked) == 1


def test_an_endpoint_that_was_away_is_asked_again_by_the_next_start(
    tmp_path: Path, config: RunConfig, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(monkeypatch, server)
    checkpoint(tmp_path, 1)
    (gone,) = watch_once(tmp_path, replace(config, judge=("http://127.0.0.1:9/v1#judge-0",)))
    assert gone.error and watch_once(tmp_path, config, is_again=False) == []
    (row,) = watch_once(tmp_path, config)
    assert row.score and read_progress(tmp_path) == [row] and watch_once(tmp_path, config) == []
    write_jsonl(evaluations(tmp_path) / "progress.jsonl", [replace(row, n_scored=2, n_lost=5)])
    sent = server.stats().total.requests
    assert watch_once(tmp_path, config) == read_progress(tmp_path) == [row]
    assert server.stats().total.requests == sent


def test_only_what_an_endpoint_did_not_give_counts_as_lost(tmp_path: Path) -> None:
    write_result(tmp_path / "a", [1.0, 2.0])
    path = tmp_path / "a" / "results.json"
    (record,) = json.loads(path.read_bytes())
    record["writer"] = {"completion_tokens": 1}
    for causes, lost in (({"answer": 3, "judge": 2}, 0), ({"infrastructure": 4, "judge": 1}, 4)):
        path.write_text(json.dumps([{**record, "judging": {"failures_by_cause": causes}}]))
        assert [row["n_lost"] for row in headlines(tmp_path / "a")] == [lost]


def test_the_command_takes_what_run_takes_from_flags_and_a_file(
    tmp_path: Path, server: FakeServer, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(monkeypatch, server)
    checkpoint(tmp_path / "out", 1)
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"judge: ['{server.base_url}#judge-0']\nlimit: 3\ntimeout: 9\n")
    words = ["--once", f"--config={settings}", "--timeout=7", "--repeats=2", "--no-cache"]
    words += ["--judge-kwargs=temperature=0.5", str(tmp_path / "out")]
    done = CliRunner().invoke(watch_command, words, catch_exceptions=False)
    assert done.exit_code == 0 and "3 of 3" in done.output
    run = evaluations(tmp_path / "out") / "checkpoint-1"
    stored = stored_config(RunFolder.existing(str(run)).manifest(), str(run))
    assert (stored.limit, stored.timeout, stored.repeats, stored.cache) == (3, 7.0, 2, False)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        watch_once(tmp_path / "none", config)


def write_result(folder: Path, values: list[float]) -> None:
    """A run folder with the one row that comparisons read."""
    folder.mkdir(parents=True)
    ids = [f"s{i}" for i in range(len(values))]
    mean = sum(values) / len(values)
    estimate = {
        "name": "overall",
        "strata": [
            {"clusters": ids, "numerators": values, "denominators": [1.0] * len(ids), "weight": 1.0}
        ],
        "n_expected": len(ids),
        "scale": 1.0,
        "offset": 0.0,
        "is_headline": True,
        "note": "",
        "bounded": True,
    }
    metric = {"name": "overall", "value": mean, "low": mean, "high": mean, "n_scored": len(ids)}
    record = {
        "task": "quickstart",
        "judge": "j",
        "mode": "strict",
        "version": "1",
        "score_key": "k",
        "identity": {},
        "metrics": [{**metric, "n_expected": len(ids), "is_headline": True, "note": ""}],
        "estimate": estimate,
        "samples": [],
    }
    (folder / "results.json").write_text(json.dumps([record]))
    (folder / "run.json").write_text(
        json.dumps({"model": folder.name, "identity": {}, "config": {}})
    )


def row(folder: Path, step: int, score: float) -> ProgressRow:
    run = str(folder / f"run-{step}")
    return ProgressRow(
        step, f"checkpoint-{step}", run, "quickstart", "j", "k", score, n_expected=20
    )


def test_only_a_significant_decline_is_reported(tmp_path: Path) -> None:
    good = [7.0 + (i % 3) for i in range(20)]
    write_result(tmp_path / "run-1", good)
    write_result(tmp_path / "run-2", [value - 1.5 - (i % 2) * 0.5 for i, value in enumerate(good)])
    worse = [row(tmp_path, 1, 8.0), row(tmp_path, 2, 6.2)]
    decline = find_decline(worse)
    assert decline is not None and decline.difference < 0 and decline.best_step == 1
    shutil.rmtree(tmp_path / "run-2")
    write_result(tmp_path / "run-2", [value + (-1) ** i for i, value in enumerate(good)])
    assert find_decline(worse) is None
    assert find_decline(worse[:1]) is None


def test_the_more_suites_the_less_one_fall_says(tmp_path: Path) -> None:
    good = [7.0 + (i % 3) for i in range(20)]
    # sixteen items of twenty fall: p is 0.007
    fallen = [value + (-1.0 if i % 5 else 1.0) for i, value in enumerate(good)]
    write_result(tmp_path / "run-1", good)
    write_result(tmp_path / "run-2", fallen)
    alone = [row(tmp_path, 1, 8.0), row(tmp_path, 2, 7.5)]
    decline = find_decline(alone)
    assert decline is not None and 0.05 / (2 * 8) < decline.p < 0.05 / 2
    others = [replace(one, task=f"other-{n}", score=None) for one in alone for n in range(7)]
    assert find_decline([*alone, *others]) is None


def test_a_policy_that_finishes_fewer_answers_declines_at_any_score(
    tmp_path: Path,
) -> None:
    def write_statuses(step: int, *statuses: WriterStatus) -> None:
        name, text = "quickstart", "a"
        write_jsonl(
            tmp_path / f"run-{step}" / "responses.jsonl",
            [
                Response(f"k{i}", name, f"q{i}", "m", text, text, None, status)
                for i, status in enumerate(statuses)
            ],
        )

    for step in (1, 2):
        write_result(tmp_path / f"run-{step}", [7.0] * 20)
    rows = [row(tmp_path, 1, 7.0), row(tmp_path, 2, 7.0)]
    write_statuses(1, *[WriterStatus.OK] * 20)
    write_statuses(2, *[WriterStatus.UNCLOSED_THINK] * 12, *[WriterStatus.OK] * 8)
    decline = find_decline(rows)
    assert decline is not None
    assert (decline.quantity, decline.difference) == ("answers", pytest.approx(-0.6))
    # nothing at all is left to score
    write_statuses(2, *[WriterStatus.UNCLOSED_THINK] * 20)
    silent = find_decline([rows[0], replace(rows[1], score=None)])
    assert silent is not None and silent.difference == -1.0
    # an endpoint that was down says nothing of the policy
    write_statuses(2, *[WriterStatus.ERROR] * 12, *[WriterStatus.OK] * 8)
    assert find_decline(rows) is None


def test_scores_of_another_identity_are_not_compared(tmp_path: Path) -> None:
    rows = [replace(row(tmp_path, 1, 8.0), score_key="other"), row(tmp_path, 2, 2.0)]
    assert find_decline(rows) is None


def test_an_empty_table_plots() -> None:
    assert b"<svg" in plot([])
