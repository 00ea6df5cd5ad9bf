"""The pipeline: what is finished is not run twice, what changed is, and a killed stage goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from r2w_eval.reward_models import commands as reward_commands
from r2w_eval.reward_models.checks.report import read_report
from r2w_eval.reward_models.data.synthesis import build_synthesis
from r2w_eval.training.pipeline import runner as work
from r2w_eval.training.pipeline.calls import VALIDITY_ITEMS, loop_calls
from r2w_eval.training.pipeline.dryrun import print_forecast, total_cost
from r2w_eval.training.pipeline.forecast import (
    Forecaster,
    cache_memory,
    train_memory,
)
from r2w_eval.training.pipeline.job import job_of, run_stage
from r2w_eval.training.pipeline.model_shape import read_shape, shape_of
from r2w_eval.training.pipeline.plan import Stage, dependants, plan_pipeline, select
from r2w_eval.training.pipeline.recipe import Recipe, load_recipe
from r2w_eval.training.pipeline.records import finished, locked, read_record
from r2w_eval.training.pipeline.stages import RUNNERS, arms_folder, own_steps
from r2w_eval.training.prompts import read_prompts, starter_prompts
from r2w_eval.training.rl.settings import LATER
from r2w_eval.training.trainer.stage import model_folder
from scripted import ScriptedModel, endpoint, mixed

from r2w_eval.errors import DataError, UnknownName, UsageError
from r2w_eval.models.cost import Price
from r2w_eval.store import write_jsonl

LIGHT = ("prompts", "traces-planted", "traces", "reward")
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, own_cache: Path) -> Write:
    """Writes a recipe whose light stages need neither torch nor benchmark data."""
    (tmp_path / "data").mkdir()

    def write_recipe(**sections: Any) -> Path:
        content = {
            "prompts": {"n": 4, "data_dir": str(tmp_path / "data")},
            "traces": {"sources": ["planted"], "limit": 3},
            "evaluate": {"judge": ["r2w-quality"]},
            # the suite takes ten seconds; one test lets it run
            "rl": {"validity": "waived"},
        }
        path = tmp_path / "own.yaml"
        path.write_text(json.dumps({**content, **sections}))
        return path

    return write_recipe


def run_light(path: Path, out: Path) -> tuple[list[str], list[str]]:
    """The light stages in this process: what was launched, and what was told."""
    recipe = load_recipe(str(path))
    stages = plan_pipeline(recipe)
    launched: list[str] = []
    told: list[str] = []

    def launch(stage: Stage) -> None:
        launched.append(stage.name)
        run_stage(job_of(recipe, stages, stage, out), RUNNERS, "a command")

    chosen = [stage for stage in stages if stage.name in LIGHT]
    work.run_pipeline(work.Pipeline(recipe.name, stages, out), chosen, launch, told.append)
    return launched, told


def keys(recipe: Recipe) -> dict[str, str]:
    return {stage.name: stage.key for stage in plan_pipeline(recipe)}


def test_the_smoke_recipe_is_the_whole_graph() -> None:
    stages = plan_pipeline(load_recipe("smoke"))
    names = [stage.name for stage in stages]
    assert all(names.index(other) < names.index(s.name) for s in stages for other in s.inputs)
    arms = ("rl-lambda0-seed0", "rl-lambda0.3-seed0")
    assert stages[-1].inputs == (
        "evaluate-base",
        "evaluate-sft-seed0",
        *(f"evaluate-{arm}" for arm in arms),
    )
    assert len(plan_pipeline(load_recipe("small"))) > 3 * 6
    assert plan_pipeline(load_recipe("r2write-8b"))[1].settings["models"][0].startswith("http")


def test_a_value_changes_the_keys_of_its_stage_and_of_what_depends_on_it(write: Write) -> None:
    before = keys(load_recipe(str(write())))
    after = keys(load_recipe(str(write(rl={"learning_rate": 1e-7, "validity": "waived"}))))
    changed = {name for name in before if before[name] != after[name]}
    arms = {"rl-lambda0-seed0", "rl-lambda0.3-seed0"}
    assert changed == arms | {f"evaluate-{arm}" for arm in arms} | {"leaderboard"}
    assert set(dependants(plan_pipeline(load_recipe(str(write()))), {"sft-seed0"})) == (
        changed | {"evaluate-sft-seed0"}
    )


def changed_by(write: Write, path: Path, **sections: Any) -> set[str]:
    """Kinds of the stages whose keys differ once another file stands at `path`."""
    recipe = str(write(**{"rl": {"validity": "waived"}, **sections}))
    path.write_text("a")
    before = keys(load_recipe(recipe))
    path.write_text("b")
    after = plan_pipeline(load_recipe(recipe))
    return {stage.kind for stage in after if before[stage.name] != stage.key}


def test_what_a_stage_reads_from_outside_is_in_its_key(write: Write, tmp_path: Path) -> None:
    report, folder, sets = tmp_path / "report.json", tmp_path / "folder", tmp_path / "sets"
    for made in (folder, sets / "lamp_train"):
        made.mkdir(parents=True)
    weights, record = folder / "weights", sets / "lamp_train" / "SOURCE.json"
    of_rl = {"rl", "evaluate", "leaderboard"}
    assert changed_by(write, report, rl={"validity": str(report)}) == {"reward", *of_rl}
    paid = {"outcome": str(folder), "validity": "waived"}
    assert changed_by(write, weights, rl=paid) == of_rl
    effect = {"form": "scored", "scorer": f"judge:{folder}"}
    assert changed_by(write, weights, rl={"effect": effect, "validity": "waived"}) == of_rl
    writer = {"sources": ["loop"], "writer": str(folder)}
    assert changed_by(write, weights, traces=writer) == {"traces-loop", "traces", "sft", *of_rl}
    expert = {"sources": ["expert"], "reward_data": str(sets)}
    assert changed_by(write, record, traces=expert) == {"traces-expert", "traces", "sft", *of_rl}
    trained = {"source": "trained", "reward_data": str(sets)}
    assert changed_by(write, record, rm=trained) == {"reward", *of_rl}


def test_the_signal_is_read_anew_for_another_reward(write: Write) -> None:
    prompts = {"n": 4, "held": 2}
    plain, *others = (
        keys(load_recipe(str(write(prompts=prompts, rollouts={"samples": 2}, rl=rl))))
        for rl in ({}, {"unanswered": -0.5}, {"effect": {"form": "scored"}})
    )
    for other in others:
        assert plain["signal"] != other["signal"] and plain["sft-seed0"] == other["sft-seed0"]


def test_arms_agree_on_a_last_step_with_no_other_sft(write: Write, tmp_path: Path) -> None:
    def folder(**sections: Any) -> Path:
        recipe = load_recipe(str(write(**sections)))
        stages = plan_pipeline(recipe)
        return arms_folder(job_of(recipe, stages, stages[-1], tmp_path))

    plain = folder()
    assert folder(grid={"seeds": [0, 1]}) == folder(grid={"lambdas": [0.5]}) == plain
    assert folder(sft={"epochs": 1}) != plain
    assert folder(traces={"sources": ["planted"], "limit": 4}) != plain


def test_what_is_finished_is_not_run_again_and_a_changed_value_says_so(
    write: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_light(write(), out)[0] == list(LIGHT)
    launched, told = run_light(write(), out)
    assert launched == [] and all("finished earlier" in line for line in told)
    record = next(iter((out / "stages").glob("traces-planted-*")))
    assert read_record(record).attempts == 1  # type: ignore[union-attr]
    fewer = write(traces={"sources": ["planted"], "limit": 2})
    launched, told = run_light(fewer, out)
    assert launched == ["traces-planted", "traces"]
    assert told[0] == "changed: traces-planted: limit: 3 -> 2"
    assert "sft-seed0" in told[1] and "leaderboard" in told[1]
    # the old value finds the old work again
    assert run_light(write(), out)[0] == []


def test_the_reward_stage_shows_what_the_process_scorer_is_good_for(
    write: Write, tmp_path: Path
) -> None:
    recipe = load_recipe(str(write(rl={})))
    stages = plan_pipeline(recipe)
    (reward,) = select(stages, "reward")
    job = job_of(recipe, stages, reward, tmp_path)
    assert run_stage(job, RUNNERS, "a command").outputs
    arm = next(stage for stage in stages if stage.kind == "rl")
    report = read_report(Path(job_of(recipe, stages, arm, tmp_path).report("reward")))
    assert report.scorer.startswith("r2w-reward@") and not report.failed
    # nothing to ask for where no policy learns from it
    only_outcome = load_recipe(str(write(rl={}, grid={"lambdas": [0.0]})))
    assert keys(only_outcome)["reward"] != reward.key


def test_prompts_held_apart_are_not_those_of_training(write: Write, tmp_path: Path) -> None:
    chosen = {"n": 26, "held": 12, "languages": ["en"], "data_dir": str(tmp_path / "data")}
    path = write(prompts=chosen, rollouts={"samples": 2})
    run_light(path, tmp_path / "out")
    (folder,) = (tmp_path / "out" / "stages").glob("prompts-*")
    kept, held = (read_prompts(folder / name) for name in ("prompts.jsonl", "held.jsonl"))
    assert (len(kept), len(held)) == (14, 12)
    assert not {one.prompt for one in kept} & {one.prompt for one in held}
    # every domain is in both
    assert {one.domain for one in kept} == {one.domain for one in held}
    assert {one.lang for one in (*kept, *held)} == {"en"}
    stages = plan_pipeline(load_recipe(str(path)))
    names = [stage.name for stage in stages if stage.kind == "rollouts"]
    trained = ("sft-seed0", "rl-lambda0-seed0", "rl-lambda0.3-seed0")
    assert names == [f"rollouts-{name}" for name in ("base", *trained)]
    assert [s.name for s in select(stages, "sft,rollouts-base")] == ["sft-seed0", "rollouts-base"]


def test_stages_run_side_by_side_and_a_failure_leaves_the_others(
    write: Write, tmp_path: Path
) -> None:
    recipe = load_recipe(str(write(traces={"sources": ["planted", "expert"], "limit": 3})))
    stages, out = plan_pipeline(recipe), tmp_path / "out"
    # passes only when two wait there at once
    together = threading.Barrier(2, timeout=60)
    told: list[str] = []

    def launch(stage: Stage) -> None:
        if stage.name in ("prompts", "traces-expert"):
            together.wait()
        if stage.name == "traces-expert":
            raise work.StageFailed(stage.name, "no such set", 2)
        run_stage(job_of(recipe, stages, stage, out), RUNNERS, "a command")

    chosen = select(stages, "prompts,traces-planted,traces-expert,traces,reward")
    with pytest.raises(work.StageFailed, match="no such set"):
        work.run_pipeline(work.Pipeline(recipe.name, stages, out), chosen, launch, told.append, 2)
    assert any("traces-expert: failed; not run for it: traces" in line for line in told)
    done = {stage.name for stage in chosen if finished(stage, out)}
    assert done == {"prompts", "traces-planted", "reward"}


def test_places_share_the_cores_and_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert work.share_machine(1, ()) == [{}]
    # a trainer that sees several would give each a batch of its own
    assert work.share_machine(1, ("2", "5")) == [{"CUDA_VISIBLE_DEVICES": "2"}]
    places = work.share_machine(3, work.visible_gpus())
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["2", "5", "2"]
    assert {place["OMP_NUM_THREADS"] for place in places} == {"2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert work.visible_gpus() == ()


def test_the_manifest_is_the_lineage_with_hashes_commands_and_what_it_took(
    write: Write, tmp_path: Path
) -> None:
    run_light(write(), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / work.MANIFEST).read_bytes())
    node = next(node for node in manifest["nodes"] if node["name"] == "traces")
    record = node["record"]
    assert ["traces", "sft-seed0"] in manifest["edges"] and node["inputs"] == ["traces-planted"]
    assert record["key"] == node["hash"] and record["command"] == "a command"
    assert record["peak_bytes"] > 1e7 and "python" in record["versions"]
    assert len(record["outputs"][0]["sha256"]) == 64
    assert next(n for n in manifest["nodes"] if n["name"] == "sft-seed0")["record"] is None


def test_an_output_that_was_cut_short_is_made_again(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_light(write(), out)
    stage = select(plan_pipeline(load_recipe(str(write()))), "traces-planted")[0]
    traces = stage.folder(out) / "traces.jsonl"
    traces.write_bytes(traces.read_bytes()[:100])
    assert finished(stage, out) is None
    assert run_light(write(), out)[0] == ["traces-planted"]
    (stage.folder(out) / "record.json").write_text("[]")
    with pytest.raises(DataError, match="not a record"):
        finished(stage, out)


def test_two_processes_do_not_work_on_one_stage(tmp_path: Path) -> None:
    def work_there() -> None:
        with locked(tmp_path / "stage"):
            pass

    with locked(tmp_path / "stage"), pytest.raises(UsageError, match="another process"):
        work_there()
    work_there()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sft": {"learning_rat": 1.0}}, "Did you mean learning_rate"),
        ({"grids": {}}, "Did you mean grid"),
        ({"grid": {"seeds": []}}, "grid.seeds"),
        ({"grid": {"lambdas": [0.3, 0.3]}}, "grid.lambdas"),
        ({"grid": {"seeds": 3}}, "expected a list"),
        ({"traces": {"sources": ["loops"]}}, "loop, expert, planted"),
        ({"traces": {"languages": ["de"]}}, "expected one or more of en, zh"),
        ({"rollouts": {"samples": 2}}, "Set prompts.held"),
        ({"evaluate": {"model": "x"}}, "the pipeline sets it"),
        ({"evaluate": {"limit": 0}}, "at least 1"),
    ],
)
def test_a_wrong_recipe_is_an_error_before_anything_runs(
    write: Write, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(str(write(**sections)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("{no json\n", "line 1"),
        ('{"id": "1", "lang": "en", "domain": "d"}\n', "prompt is 'None'"),
    ],
)
def test_a_prompt_file_that_cannot_be_used_stops_its_stage(
    write: Write, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(content)
    path = write(prompts={"file": str(file), "data_dir": str(tmp_path / "data")})
    with pytest.raises(UsageError, match=message):
        run_light(path, tmp_path / "out")


def test_a_prompt_that_will_be_evaluated_is_refused(write: Write, tmp_path: Path) -> None:
    from r2w_eval.paths import tasks_dir

    source = Path(str(tasks_dir())) / "quickstart" / "samples.jsonl"
    sample = json.loads(source.read_text("utf-8").splitlines()[0])
    file = tmp_path / "prompts.jsonl"
    record = {"id": "mine", "lang": "en", "domain": "story", "prompt": sample["prompt"]}
    file.write_text(json.dumps(record) + "\n")
    path = write(prompts={"file": str(file), "data_dir": str(tmp_path / "data")})
    with pytest.raises(UsageError, match="prompt 'mine'.*benchmark"):
        run_light(path, tmp_path / "out")


def r2w(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "r2w_eval", "train", "pipeline", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_stage_runs_in_its_own_process_and_its_failure_is_told(
    write: Write, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    done = r2w(str(write()), "--out", out, "--only", "prompts")
    assert done.returncode == 0 and "n 4" in done.stdout, done.stderr
    file = tmp_path / "prompts.jsonl"
    file.write_text("")
    failed = r2w(str(write(prompts={"file": str(file)})), "--out", out, "--only", "prompts")
    assert failed.returncode == 2 and "empty" in failed.stderr and "log.txt" in failed.stderr
    assert "Traceback" not in failed.stderr
    with pytest.raises(UnknownName, match="Did you mean prompts"):
        select(plan_pipeline(load_recipe(str(write()))), "promts")


def test_a_stage_ends_with_the_pipeline_that_started_it(tmp_path: Path) -> None:
    child = (
        "import os, sys, time, pathlib; from r2w_eval.training.pipeline import runner as work; "
        "work.end_with_parent(); pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); "
        "time.sleep(120)"
    )
    parent = (
        "import os, subprocess, sys; r, w = os.pipe(); "
        f"subprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]], pass_fds=[r], "
        f"env={{**os.environ, '{work.LIFELINE}': str(r)}})"
    )
    mark = tmp_path / "pid"
    running = subprocess.Popen([sys.executable, "-c", parent, str(mark)])
    until(lambda: mark.is_file() and mark.read_text() != "")
    pid = int(mark.read_text())
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not alive(pid))


def alive(pid: int) -> bool:
    """Runs; a process that has ended may wait for its parent's look."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "\nState:\tZ" not in status.read_text()


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_parameters_are_counted_from_the_config(tmp_path: Path) -> None:
    assert shape_of("smollm2")[0].parameters == 134_515_008
    large = {
        "num_hidden_layers": 36, "hidden_size": 4096, "intermediate_size": 12288,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151936, "tie_word_embeddings": False,
    }  # fmt: skip
    shape = read_shape(large)
    # what Qwen3-8B is published with: 8.2 billion
    assert round(shape.parameters / 1e9, 1) == 8.2
    assert shape.adapter_parameters(8) == 36 * 8 * (4 * 4096 + 2 * 4096 + 2 * 1024 + 3 * 16384)
    # 16 bytes a parameter when all are trained, 4 when few are
    assert train_memory(shape, shape.parameters, 0, 0) > 16 * shape.parameters
    assert train_memory(shape, 0, 0, 0) < 4 * shape.parameters + 1e9
    with pytest.raises(UsageError, match="experts"):
        read_shape({**large, "num_experts": 8})
    with pytest.raises(UsageError, match="hidden_size"):
        read_shape({"num_attention_heads": 2})


FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with two commits of one model, of which the second is main."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    repo = cache / "models--org--toy"
    for commit, layers in ((FIRST, 1), (SECOND, 2)):
        config = {
            "num_hidden_layers": layers, "hidden_size": 8, "intermediate_size": 16,
            "num_attention_heads": 2, "vocab_size": 32, "tie_word_embeddings": True,
        }  # fmt: skip
        folder = repo / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
    for name, commit in (("main", SECOND), ("v1", FIRST)):
        ref = repo / "refs" / name
        ref.parent.mkdir(exist_ok=True)
        ref.write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repo


def test_a_hub_id_is_read_at_its_revision_and_the_commit_is_told(
    hub: Path, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = {name: shape_of(f"org/toy{name}") for name in ("", "@main", "@v1", f"@{FIRST}")}
    told = {name: (shape.layers, commit) for name, (shape, commit) in shapes.items()}
    assert told == {
        "": (2, SECOND), "@main": (2, SECOND), "@v1": (1, FIRST), f"@{FIRST}": (1, FIRST),
    }  # fmt: skip
    assert model_folder("org/toy@v1") == str(hub / "snapshots" / FIRST)
    # without one the trainer asks the hub by the name, and notes the commit
    assert model_folder("org/toy") == "org/toy"
    with pytest.raises(UsageError, match="'org/toy@v9': revision 'v9'.*as in org/toy@main"):
        model_folder("org/toy@v9")
    with pytest.raises(UsageError, match="cannot be read"):
        shape_of("org/toy@v9")
    shown = []
    for model in ("org/toy", f"org/toy@{FIRST}"):
        recipe = load_recipe(str(write(sft={"model": model})))
        print_forecast(recipe, plan_pipeline(recipe), tmp_path / "out", None)
        shown.append(capsys.readouterr().out.replace("\n", ""))
    assert SECOND in shown[0] and f"org/toy@{SECOND}" in shown[0]
    assert FIRST in shown[1] and "may change" not in shown[1]
    # what was named is in the key
    plain, pinned = (
        keys(load_recipe(str(write(sft={"model": model})))) for model in ("org/toy", "org/toy@v1")
    )
    assert plain["sft-seed0"] != pinned["sft-seed0"]


def test_a_folder_with_an_at_sign_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "toy@v1"
    folder.mkdir()
    assert model_folder(str(folder)) == str(folder)


def test_the_dry_run_tells_every_stage_and_runs_nothing(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(str(write(traces={"writer": "http://h/v1#w", "limit": 3})))
    writing, judging = loop_calls(10, recipe)
    # three rounds, two fresh assessments: 4 + 2 F + 3 K calls a prompt
    assert writing.calls + judging.calls == 10 * (4 + 2 * 2 + 3 * 3)
    prices = tmp_path / "prices.yaml"
    prices.write_text("w: {input: 1.0, output: 2.0}\n")
    print_forecast(recipe, plan_pipeline(recipe), tmp_path / "out", str(prices))
    shown = capsys.readouterr().out
    assert "rl-lambda0.3-seed0" in shown and "GB" in shown and "hours of one device" in shown
    assert "n/a" not in shown and "$" in shown and not (tmp_path / "out").exists()
    print_forecast(recipe, plan_pipeline(recipe), tmp_path / "out", None)
    assert "no price for w" in capsys.readouterr().out


def test_a_second_judge_is_forecast_at_its_own_price(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def recipe(**more: str) -> Recipe:
        models = {"writer": "http://h/v1#w", "judge": "http://h/v1#j", **more}
        return load_recipe(str(write(traces={"sources": ["loop"], **models})))

    plain, two = recipe(), recipe(second_judge="http://h/v1#s")
    assert [row.calls for row in loop_calls(10, plain)] == [80, 90]
    assert [row.calls for row in loop_calls(10, two)] == [80, 50, 40]
    prices = tmp_path / "prices.yaml"
    prices.write_text("w: {input: 1.0, output: 2.0}\nj: {input: 1.0, output: 2.0}\n")
    print_forecast(plain, plan_pipeline(plain), tmp_path / "out", str(prices))
    assert "no price" not in capsys.readouterr().out
    print_forecast(two, plan_pipeline(two), tmp_path / "out", str(prices))
    assert "no price for s" in capsys.readouterr().out
    changed = {name for name, key in keys(plain).items() if keys(two)[name] != key}
    assert {"traces-loop", "traces", "sft-seed0"} <= changed and "reward" not in changed


def test_settings_that_a_recipe_leaves_out_keep_its_keys(write: Write) -> None:
    recipe = load_recipe(str(write(traces={"sources": ["loop", "planted"], "writer": "h"})))
    settings = {stage.name: stage.settings for stage in plan_pipeline(recipe)}
    assert set(settings["traces-loop"]) == {"models", "settings"}
    assert settings["traces-loop"]["models"] == ["h", "h", "h"]
    assert set(settings["traces-planted"]) == {"limit", "languages"}
    assert set(settings["reward"]["settings"]) == {"source", "reward_data", "without"}
    rl = settings["rl-lambda0-seed0"]["settings"]
    assert {"outcome_form", "opponents", "seed"} <= set(rl) and not set(LATER) & set(rl)


def test_traces_in_prose_are_another_work_and_pay_no_reflections(
    write: Write, tmp_path: Path
) -> None:
    traces = {"sources": ["planted"], "limit": 3, "form": "prose"}
    with pytest.raises(UsageError, match="traces.form prose: rewards of reflections need tags"):
        load_recipe(str(write(traces=traces)))
    outcome_alone = write(traces=traces, grid={"lambdas": [0.0]})
    run_light(outcome_alone, tmp_path / "out")
    of_prose = keys(load_recipe(str(outcome_alone)))
    (folder,) = (tmp_path / "out" / "stages").glob("traces-planted-*")
    rows = [json.loads(line) for line in (folder / "traces.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and not any("<" in row["thinking"] for row in rows)
    tagged = load_recipe(str(write(grid={"lambdas": [0.0]})))
    assert keys(tagged)["traces-planted"] != of_prose["traces-planted"]


def test_the_dry_run_counts_the_calls_of_the_rewards_judge(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "references.jsonl"
    rows = [
        {"prompt_id": name, "text": f"{n}"} for name, m in (("a", 3), ("b", 1)) for n in range(m)
    ]
    write_jsonl(file, rows)

    def calls(**changed: Any) -> Any:
        sizes = {"steps": 5, "group": 4, "groups_per_step": 3, "outcome": "http://h/v1#j"}
        recipe = load_recipe(str(write(prompts={"n": 10}, rl={**sizes, **changed})))
        stage = next(one for one in plan_pipeline(recipe) if one.kind == "rl")
        need = Forecaster(recipe).need(stage)
        (row,) = need.calls
        cost = total_cost([need], recipe, {"j": Price(1.0, 1.0)})
        return row.calls, row.stage, cost != "$0.00"

    stored = {"outcome_form": "references", "references": str(file)}
    assert calls() == (5 * 3 * 4, "reward", False)
    # one mark an answer, and a rubric for each prompt that has none
    assert calls(outcome_form="pointwise") == (5 * 3 * 4 + 10, "judge", True)
    assert calls(outcome_form="pairwise", opponents=1) == (5 * 3 * 2 * 4, "judge", True)
    assert calls(outcome_form="in_group") == (5 * 3 * 2 * 3, "judge", True)
    assert calls(**stored) == (5 * 3 * 2 * 4, "judge", True)
    assert calls(**stored, rising_references=False) == (5 * 3 * 2 * 4 * 3, "judge", True)
    file.write_text("{}\n")
    with pytest.raises(UsageError, match="record 1: prompt is 'None'"):
        calls(**stored)


def test_the_dry_run_counts_and_prices_judges_behind_scorers(write: Write) -> None:
    judge = "judge:http://h/v1#j"
    rl = {"steps": 5, "group": 4, "groups_per_step": 3, "process": judge, "outcome": judge,
          "effect": {"form": "scored", "scorer": "judge:http://h/v1#e"}}  # fmt: skip
    recipe = load_recipe(
        str(write(prompts={"n": 10}, rl=rl, synth={"rounds": 2}, grid={"lambdas": [0.0, 0.3]}))
    )
    forecaster = Forecaster(recipe)
    needs = {stage.name: forecaster.need(stage) for stage in plan_pipeline(recipe)}
    found = {
        name: [(row.stage, row.calls) for row in needs[name].calls]
        for name in ("reward", "rl-lambda0-seed0", "rl-lambda0.3-seed0")
    }
    n = 5 * 3 * 4
    assert found == {
        "reward": [(judge, VALIDITY_ITEMS)],
        "rl-lambda0-seed0": [(judge, n)],
        "rl-lambda0.3-seed0": [(judge, n), (judge, 2 * n), ("judge:http://h/v1#e", 3 * n)],
    }
    rl_alone = [needs["rl-lambda0.3-seed0"]]
    assert total_cost(rl_alone, recipe, {"j": Price(1.0, 1.0)}) == "n/a (no price for e)"
    prices = {"j": Price(1.0, 1.0), "e": Price(1.0, 1.0)}
    assert float(total_cost(rl_alone, recipe, prices).removeprefix("$")) > 0


def test_prompts_without_a_reference_end_the_pipeline_before_sft(
    write: Write, tmp_path: Path
) -> None:
    file = tmp_path / "references.jsonl"
    prompts = starter_prompts(4)
    write_jsonl(file, [{"prompt_id": one.id, "text": "Rain."} for one in prompts[:3]])
    rl = {"outcome_form": "references", "references": str(file)}
    recipe, out = load_recipe(str(write(rl=rl))), tmp_path / "out"
    stages = plan_pipeline(recipe)
    job = job_of(recipe, stages, stages[0], out)
    job.folder.mkdir(parents=True)
    with pytest.raises(UsageError, match=f"1 of 4 prompts without a reference: '{prompts[3].id}'"):
        RUNNERS["prompts"](job)
    write_jsonl(file, [{"prompt": one.prompt, "text": "Rain."} for one in prompts])
    assert RUNNERS["prompts"](job).facts["n"] == 4


def test_other_references_are_another_training(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "references.jsonl"
    rl = {"outcome_form": "references", "references": str(file)}

    def keys(text: str) -> dict[str, str]:
        write_jsonl(file, [{"prompt_id": "a", "text": text}])
        return {one.name: one.key for one in plan_pipeline(load_recipe(str(write(rl=rl))))}

    one, other = keys("one"), keys("other")
    assert {name for name in one if one[name] != other[name]} == {
        name for name in one if "rl-" in name or name == "leaderboard"
    }


def test_the_reward_model_may_take_the_steps_of_the_loop(write: Write, tmp_path: Path) -> None:
    trained = {"source": "trained", "synth": "loop"}
    with pytest.raises(UsageError, match=r"rm.synth loop: expected loop among traces.sources"):
        load_recipe(str(write(rm=trained)))
    with pytest.raises(UsageError, match="rm.synth 'loop': nothing is trained on it"):
        load_recipe(str(write(rm={"synth": "loop"})))
    with endpoint(ScriptedModel(mixed)) as server:
        recipe = load_recipe(
            str(
                write(
                    rm=trained,
                    prompts={"n": 2, "languages": ["en"], "data_dir": str(tmp_path / "data")},
                    traces={"sources": ["loop"], "writer": f"{server.base_url}#m"},
                    synth={"concurrency": 1},
                )
            )
        )
        stages = plan_pipeline(recipe)
        for name in ("prompts", "traces-loop"):
            (stage,) = select(stages, name)
            run_stage(job_of(recipe, stages, stage, tmp_path / "out"), RUNNERS, "a command")
    (reward,) = select(stages, "reward")
    assert reward.inputs == ("traces-loop",)
    (folder,) = own_steps(job_of(recipe, stages, reward, tmp_path / "out"))
    kinds = sorted(row.kind for row in build_synthesis(Path(folder)))
    assert kinds == ["degraded"] * 2 + ["improved"] * 2 + ["neutral"] * 2


def test_steps_of_another_folder_are_in_the_key_of_the_reward(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "synth"
    folder.mkdir()
    trained = {"source": "trained", "synth": str(folder)}
    changed = changed_by(write, folder / "reflections.jsonl", rm=trained)
    assert changed == {"reward", "rl", "evaluate", "leaderboard"}


def test_the_memory_of_rl_is_that_of_a_pass_and_of_a_call(write: Write) -> None:
    def memory(**changed: int) -> float:
        rl = {"group": 8, "groups_per_step": 4, "max_completion_tokens": 900, **changed}
        recipe = load_recipe(str(write(rl=rl)))
        stage = next(one for one in plan_pipeline(recipe) if one.kind == "rl")
        return Forecaster(recipe).need(stage).memory_bytes or 0.0

    (shape, _), tokens = shape_of("smollm2"), 1000
    one_pass = [train_memory(shape, shape.parameters, rows, tokens) for rows in (32, 2)]
    assert memory() == one_pass[0] + cache_memory(shape, 32, tokens)
    assert memory(micro_batch=2) == one_pass[1] + cache_memory(shape, 32, tokens)
    assert memory(micro_batch=2, groups_per_call=1) == one_pass[1] + cache_memory(shape, 8, tokens)
    with pytest.raises(UsageError, match=r"divisor of the 32 rollouts.*Try micro_batch: 4"):
        memory(micro_batch=5)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean smoke"):
        load_recipe("smok")


def test_a_reward_model_may_be_trained_in_the_folder_that_its_stage_holds(tmp_path: Path) -> None:
    choice = reward_commands.DataChoice(str(tmp_path), fillings=1)
    with locked(tmp_path / "stage"), pytest.raises(UsageError, match="not among the sets"):
        reward_commands.train(choice, str(tmp_path / "stage"), data_only=False, transformer=None)
