"""Training curves: which rows form one, in what order, and what breaks none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from boards import make_row, sample_ids
from r2w_eval.leaderboards.collect import Collection, Entry, collect
from r2w_eval.leaderboards.lineage import places_of, read_lines
from r2w_eval.leaderboards.site import SiteOptions, write_site
from r2w_eval.leaderboards.submit import submit
from r2w_eval.leaderboards.training import split_checkpoint

from r2w_eval.errors import UsageError


def test_checkpoints_of_one_run_become_a_curve(tmp_path: Path) -> None:
    rows = [
        make_row(f"runs/rl/checkpoint-{step}", {i: 4 + step / 50 for i in sample_ids()})
        for step in (20, 40, 60)
    ]
    site = write_site(
        Collection(tuple(Entry(row) for row in rows), ()), tmp_path / "site", SiteOptions()
    )
    page = (site.path / "training.html").read_text("utf-8")
    assert "runs/rl" in page and page.index("checkpoint-20") < page.index("checkpoint-60")
    assert split_checkpoint("step_7") == ("training", 7)


def node(name: str, kind: str, inputs: list[str], steps: int = 0) -> dict[str, object]:
    record = {"facts": {"steps": steps}}
    folder = f"stages/{name}-1"
    return {"name": name, "kind": kind, "inputs": inputs, "folder": folder, "record": record}


def test_a_pipeline_is_one_curve_over_the_steps_of_all_its_stages(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    nodes = [
        node("evaluate-base", "evaluate", []),
        node("sft", "sft", ["traces"], 6),
        node("evaluate-sft", "evaluate", ["sft"]),
        node("rl", "rl", ["sft", "prompts"], 40),
        node("evaluate-rl", "evaluate", ["rl"]),
        {**node("evaluate-other", "evaluate", ["prompts"]), "folder": "../elsewhere"},
        node("prompts", "prompts", []),
        node("traces", "traces", []),
    ]
    pipeline = tmp_path / "pipe"
    for stage, run in (("base", "plain"), ("sft", "thinking"), ("rl", "second")):
        shutil.copytree(runs[run], pipeline / "stages" / f"evaluate-{stage}-1" / "run")
    manifest = pipeline / "pipeline.json"
    manifest.write_text(json.dumps({"recipe": "tiny", "nodes": nodes}))
    (line,) = read_lines(manifest)
    assert [(stop.stage, stop.step) for stop in line.stops] == [("base", 0), ("sft", 6), ("rl", 46)]
    site = write_site(collect([str(pipeline)]), tmp_path / "site", SiteOptions())
    page = (site.path / "training.html").read_text("utf-8")
    assert "tiny: rl on quickstart" in page and "<td>46</td>" in page
    for stop in line.stops:
        submit(stop.run, tmp_path / "sent")
    sent = write_site(collect([str(tmp_path / "sent")]), tmp_path / "sent-site", SiteOptions())
    curve = page[page.index("tiny: rl on quickstart") :]
    assert curve in (sent.path / "training.html").read_text("utf-8"), "a submission keeps its place"


def test_a_curve_ends_at_the_last_evaluated_model(tmp_path: Path) -> None:
    nodes = [
        node("evaluate-base", "evaluate", []),
        node("sft", "sft", ["traces"], 6),
        node("evaluate-sft", "evaluate", ["sft"]),
        node("rl-a", "rl", ["sft"], 40),
        node("rl-b", "rl", ["sft"], 40),
        node("traces", "traces", []),
    ]
    manifest = tmp_path / "pipeline.json"
    manifest.write_text(json.dumps({"recipe": "tiny", "nodes": nodes}))
    (line,) = read_lines(manifest)
    assert line.final == "sft" and [stop.step for stop in line.stops] == [0, 6]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[{"recipe": "r", "final": "f", "stage": "s"}]',
        '[{"recipe": 1, "final": 2, "stage": 3, "step": 1e999}]',
    ],
)
def test_a_malformed_lineage_file_gives_no_curve(text: str, tmp_path: Path) -> None:
    (tmp_path / "lineage.json").write_text(text)
    assert places_of(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", '{"recipe": "x", "nodes": [{"name": "a"}]}'])
def test_a_malformed_manifest_gives_no_curve(text: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text(text)
    assert read_lines(tmp_path / "pipeline.json") == []
    with pytest.raises(UsageError, match="names no evaluated model"):
        collect([str(tmp_path)])
