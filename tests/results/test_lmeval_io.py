"""A run in lm-eval's layout: what lm-eval prints of it, its order, its bytes, its judges."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from r2w_eval.config import RunConfig
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.results.lmeval_io import write_lm_eval_files
from r2w_eval.run import Outcome, evaluate, judge_again
from r2w_eval.run.outputs import write_outputs
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import RunFolder


@pytest.fixture
def config(server: FakeServer, tmp_path: Path, own_cache: Path) -> RunConfig:
    return RunConfig(
        model=f"{server.base_url}#gen-0+reasoning",
        tasks="quickstart",
        judge=(f"{server.base_url}#judge-0",),
        out=str(tmp_path / "run"),
        samples=2,
        limit=5,
    )


def read_rows(folder: RunFolder) -> list[dict[str, Any]]:
    (path,) = (folder.path / "lm_eval").rglob("samples_*.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def read_results(folder: RunFolder) -> dict[str, Any]:
    (path,) = (folder.path / "lm_eval").rglob("results_*.json")
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


@pytest.mark.filterwarnings("ignore")
def test_lm_eval_prints_the_score_with_its_error(config: RunConfig) -> None:
    utils = pytest.importorskip("lm_eval.utils", reason="needs pip install 'r2w-eval[hf]'")
    outcome = asyncio.run(evaluate(config))
    headline = outcome.results[0].headline
    assert headline.low is not None and headline.high is not None
    lines = utils.make_table(read_results(outcome.folder)).split("\n")
    (line,) = [line for line in lines if "|score " in line]
    value, _, error = (cell.strip(" |") for cell in line.rsplit("|", 4)[1:4])
    assert float(value) == pytest.approx(headline.value, abs=1e-4)
    assert float(error) == pytest.approx((headline.high - headline.low) / 3.92, abs=1e-3)


def test_rows_stand_in_the_order_of_the_suite_with_repeats_together(config: RunConfig) -> None:
    outcome = asyncio.run(evaluate(config))
    rows = read_rows(outcome.folder)
    assert [row["doc_id"] for row in rows] == [i for i in range(5) for _ in range(2)]
    assert [row["r2w"]["repeat"] for row in rows] == [0, 1] * 5
    assert all(row["arguments"]["gen_args_0"]["arg_1"]["until"] == [] for row in rows)
    assert read_results(outcome.folder)["n-samples"]["quickstart"] == {
        "original": 24,
        "effective": 10,
    }


def test_aggregating_again_writes_the_same_names_and_bytes(config: RunConfig) -> None:
    outcome = asyncio.run(evaluate(config))

    def contents() -> dict[str, bytes]:
        files = (outcome.folder.path / "lm_eval").rglob("*.*")
        return {path.name: path.read_bytes() for path in files}

    before = contents()
    write_outputs(outcome.folder, plan_tasks(config), outcome.manifest)
    assert contents() == before and len(before) == 2


def test_a_second_judge_stands_beside_the_first(config: RunConfig, server: FakeServer) -> None:
    first = asyncio.run(evaluate(config))
    other = dataclasses.replace(config, judge=(f"{server.base_url}#judge-0+fenced",))
    second = asyncio.run(judge_again(first.folder, other, False))
    judges = read_results(second.folder)["r2w"]["judges"]["quickstart"]
    assert [judge["judge"] for judge in judges] == [result.judge for result in second.results]
    assert len(judges) == 2


def test_server_side_thinking_survives_the_way_out_and_back(
    config: RunConfig, tmp_path: Path
) -> None:
    first = asyncio.run(evaluate(config))
    again = judge_file(config, first.folder.path / "lm_eval", tmp_path / "again")
    assert again.manifest["identity"]["writer"]["reasoning"] == "recorded"
    assert again.results[0].headline == first.results[0].headline
    both = (
        {(r.sample_id, r.repeat): (r.thinking, r.answer, r.status) for r in run.folder.responses()}
        for run in (first, again)
    )
    assert next(both) == next(both)


def test_a_run_folder_is_read_by_place_and_not_by_order(config: RunConfig, tmp_path: Path) -> None:
    first = asyncio.run(evaluate(config))
    again = judge_file(config, first.folder.path, tmp_path / "again")
    assert again.results[0].headline == first.results[0].headline


def test_cut_answers_stay_cut_in_a_second_judging(config: RunConfig, tmp_path: Path) -> None:
    cut = dataclasses.replace(config, model=config.model.replace("+reasoning", "+length"))
    first = asyncio.run(evaluate(cut))
    again = judge_file(cut, first.folder.path / "lm_eval", tmp_path / "again")
    assert again.results[0].writer.statuses == {"truncated": 10}


def judge_file(config: RunConfig, responses: Path, out: Path) -> Outcome:
    again = dataclasses.replace(config, model="same", responses=str(responses), out=str(out))
    return asyncio.run(evaluate(again))


def test_without_a_result_there_is_nothing_to_show_and_nothing_breaks(
    config: RunConfig, tmp_path: Path
) -> None:
    manifest = asyncio.run(evaluate(config)).manifest
    folder = RunFolder(tmp_path / "empty")
    folder.path.mkdir()
    write_lm_eval_files(folder, [], plan_tasks(config), manifest)
    assert read_results(folder)["results"] == {}
