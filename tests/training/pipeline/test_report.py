"""The run report: every stage and row on one page, nothing loaded, hostile names escaped."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from boards import answers, make_run
from r2w_eval.training.checkpoints.evaluated import headlines
from r2w_eval.training.pipeline.plan import Stage, plan_pipeline
from r2w_eval.training.pipeline.plots import Curve, curves_svg, read_curves, way_colours
from r2w_eval.training.pipeline.recipe import load_recipe
from r2w_eval.training.pipeline.records import Record, write_record
from r2w_eval.training.pipeline.report import write_pipeline_report
from r2w_eval.training.pipeline.runner import Pipeline

from r2w_eval.comparison.scores import load_results
from r2w_eval.stats.inference import compare

ROW = {
    "task": "quickstart", "judge": "<b>judge", "score_key": "k", "value": 5.5, "low": 5.0,
    "high": 6.0, "n_scored": 4, "n_expected": 4, "completion_tokens": 200,
    "reflection": {"n_reflections": 1, "measures": {"thinking_tokens": {"value": 12.0}}},
}  # fmt: skip


def finish(stage: Stage, out: Path, facts: Mapping[str, Any]) -> None:
    """Write the record of a stage."""
    record = Record(
        stage.name, stage.kind, stage.key, {}, stage.settings, (), "r2w-eval <i>", {"r2w": "1"},
        "2026-01-01", 2.0, 3.0, 4_000_000_000, None, 1, facts,
    )  # fmt: skip
    stage.folder(out).mkdir(parents=True, exist_ok=True)
    write_record(stage.folder(out), record)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """All stages but the last RL model's, as records say."""
    stages = plan_pipeline(load_recipe("smoke"))
    for stage in stages:
        if "lambda0.3" in stage.name:
            continue
        facts = {
            "evaluate": {"model": stage.name.removeprefix("evaluate-"), "rows": [ROW]},
            "leaderboard": {"rows": []},
        }.get(stage.kind, {"n": 3})
        finish(stage, tmp_path, facts)
    return Pipeline("smoke", stages, tmp_path)


def test_the_page_holds_every_stage_and_escapes_what_it_shows(pipeline: Pipeline) -> None:
    page = write_pipeline_report(pipeline).read_text("utf-8")
    assert all(f"<td>{stage.name}</td>" in page for stage in pipeline.stages)
    assert f"{len(pipeline.stages) - 2} of {len(pipeline.stages)}" in page
    assert "&lt;b&gt;judge" in page and "<b>judge" not in page and "<i>" not in page
    assert "5.00 to 6.00" in page and "thinking tokens" in page and "4.00 GB" in page
    # matplotlib names the namespaces of SVG; nothing else has an address
    found = set(re.findall(r'(?:src|href)="(https?:[^"]*)"', page))
    assert not found and "<script" not in page


def test_the_page_of_a_pipeline_that_made_nothing_yet(pipeline: Pipeline, tmp_path: Path) -> None:
    empty = replace(pipeline, out=tmp_path / "empty")
    empty.out.mkdir()
    page = write_pipeline_report(empty).read_text("utf-8")
    assert "Nothing is evaluated yet" in page and "0 of 13" in page


def test_models_are_shown_in_words_beside_what_they_add_to(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "own.yaml"
    grid = {"shuffled": True, "without_reflections": True, "mappings": ["sum"]}
    path.write_text(json.dumps({"grid": grid}))
    planned = Pipeline("own", plan_pipeline(load_recipe(str(path))), tmp_path)
    results = {}
    for number, stage in enumerate(s for s in planned.stages if s.kind == "evaluate"):
        name = stage.name.removeprefix("evaluate-")
        texts = answers("The rain came late. " * (1 + number) + "We waited, and it was cold.", 3)
        run = make_run(stage.folder(tmp_path) / "run", name, texts, "r2w-quality", limit=3)
        rows = [{**row, "reflection": None} for row in headlines(run)]
        finish(stage, tmp_path, {"model": name, "rows": rows})
        (results[name],) = load_results(str(run))
    page = write_pipeline_report(planned).read_text("utf-8")

    def line(model: str) -> str:
        return page[page.index(f">{model}</a>") :].partition("</tr>")[0]

    told = {
        "sft-seed0": ('<span class="soft">SFT</span>', "sft-without-reflections-seed0"),
        "rl-lambda0-seed0": ("RL by the outcome alone", "sft-seed0"),
        "rl-lambda0.3-seed0": ("RL, lambda 0.3, r2w-reward, local<", "rl-lambda0-seed0"),
        "rl-sum-lambda0.3-seed0": ("r2w-reward, sum<", "rl-lambda0-seed0"),
        "rl-shuffled-lambda0.3-seed0": ("scores shuffled (control)", "rl-lambda0-seed0"),
    }
    for name, (words, control) in told.items():
        added = compare(results[name].estimate, results[control].estimate).difference
        own = line(name)
        assert words in own and f">{control}</span>" in own
        assert added and f"<td>{added:.2f}<span" in own
    assert "SFT on the same answers, without reflections" in line("sft-without-reflections-seed0")
    assert "Shuffled scores must not beat lambda 0." in page


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
    names = [*(f"rl-lambda0-seed{seed}" for seed in range(3)), *(f"rl-{n}" for n in range(5))]
    own, colours = curves["reward"], way_colours(names)
    svg = curves_svg([replace(own, stage=name) for name in names], "reward", colours)
    # a way of training has one colour and one entry, whatever its seeds; the others one each
    assert len(set(colours.values())) == 6 and set(colours) == {"rl-lambda0", *names[3:]}
    assert svg.count(">rl-lambda0<") == 1 and all(f">{name}<" in svg for name in names[3:])
    assert "seed" not in svg and "seed2" in curves_svg(
        [own, replace(own, stage="rl-lambda0.3-seed2")],
        "reward",
        way_colours(["rl-lambda0", "rl-lambda0.3"]),
    )
