"""The run report: every stage and row on one page, nothing loaded, hostile names escaped."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from r2w_eval.training.pipeline.plan import plan_pipeline
from r2w_eval.training.pipeline.plots import Curve, curves_svg, read_curves
from r2w_eval.training.pipeline.recipe import load_recipe
from r2w_eval.training.pipeline.records import Record, write_record
from r2w_eval.training.pipeline.report import write_pipeline_report
from r2w_eval.training.pipeline.runner import Pipeline

ROW = {
    "task": "quickstart", "judge": "<b>judge", "score_key": "k", "value": 5.5, "low": 5.0,
    "high": 6.0, "n_scored": 4, "n_expected": 4, "completion_tokens": 200,
    "reflection": {"n_reflections": 1, "measures": {"thinking_tokens": {"value": 12.0}}},
}  # fmt: skip


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """All stages but the last RL model's, as records say."""
    stages = plan_pipeline(load_recipe("smoke"))
    for stage in stages:
        if "lambda0.3" in stage.name:
            continue
        folder = stage.folder(tmp_path)
        folder.mkdir(parents=True)
        facts = {
            "evaluate": {"model": stage.name.removeprefix("evaluate-"), "rows": [ROW]},
            "leaderboard": {"rows": []},
        }.get(stage.kind, {"n": 3})
        record = Record(
            stage.name, stage.kind, stage.key, {}, stage.settings, (), "r2w-eval <i>", {"r2w": "1"},
            "2026-01-01", 2.0, 3.0, 4_000_000_000, None, 1, facts,
        )  # fmt: skip
        write_record(folder, record)
    return Pipeline("smoke", stages, tmp_path)


def test_the_page_holds_every_stage_and_escapes_what_it_shows(pipeline: Pipeline) -> None:
    page = write_pipeline_report(pipeline).read_text("utf-8")
    assert all(f"<td>{stage.name}</td>" in page for stage in pipeline.stages)
    assert f"{len(pipeline.stages) - 2} of {len(pipeline.stages)}" in page
    assert "&lt;b&gt;judge" in page and "<b>judge" not in page and "<i>" not in page
    assert "5.00 – 6.00" in page and "thinking tokens" in page and "4.00 GB" in page
    # matplotlib names the namespaces of SVG; nothing else has an address
    found = set(re.findall(r'(?:src|href)="(https?:[^"]*)"', page))
    assert not found and "<script" not in page


def test_the_page_of_a_pipeline_that_made_nothing_yet(pipeline: Pipeline, tmp_path: Path) -> None:
    empty = replace(pipeline, out=tmp_path / "empty")
    empty.out.mkdir()
    page = write_pipeline_report(empty).read_text("utf-8")
    assert "Nothing is evaluated yet" in page and "0 of 13" in page


def test_curves_are_read_from_the_last_whole_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "checkpoint-2"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    history = [
        {"step": 1, "reward": 0.5, "loss": None},
        {"step": 2, "reward": 0.25, "process/score": -0.5},
    ]
    state = {"global_step": 2, "log_history": history}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    curves = read_curves("rl-lambda0-seed0", "rl", tmp_path)
    assert curves["reward"] == Curve("rl-lambda0-seed0", ((1, 0.5), (2, 0.25)))
    assert set(curves) == {"reward", "process/score"}
    assert read_curves("sft-seed0", "sft", tmp_path / "none") == {}
    svg = curves_svg([curves["reward"], replace(curves["reward"], stage="other")], "reward")
    assert "<svg" in svg and "other" in svg
