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
from plans import keys
from r2w_eval.reward_models import commands as reward_commands
from r2w_eval.reward_models.checks.report import read_report
from r2w_eval.reward_models.data.synthesis import build_synthesis
from r2w_eval.training.contamination import benchmark_texts
from r2w_eval.training.pipeline import runner as work
from r2w_eval.training.pipeline.job import job_of, run_stage
from r2w_eval.training.pipeline.plan import Stage, plan_pipeline, select
from r2w_eval.training.pipeline.recipe import load_recipe
from r2w_eval.training.pipeline.records import finished, locked, read_record
from r2w_eval.training.pipeline.stages import (
    RUNNERS,
    arms_folder,
    check_finished_prompts,
    own_steps,
)
from r2w_eval.training.prompts import read_prompts, starter_prompts
from scripted import ScriptedModel, endpoint, mixed

from r2w_eval.errors import DataError, UnknownName, UsageError
from r2w_eval.store import write_jsonl

LIGHT = ("prompts", "traces-planted", "traces", "reward")
Write = Callable[..., Path]


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


def test_a_stage_runs_in_its_own_process_and_its_failure_is_reported(
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


def test_the_reason_of_a_failure_is_that_of_the_last_start(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("r2w-eval: the first error\n")
    begin = log.stat().st_size
    with log.open("a") as file:
        file.write("Traceback:\nKeyError: 'x'\n")
    assert work._reason(log, begin, 1) == "Traceback:\nKeyError: 'x'"
    assert work._reason(log, 0, 1).startswith("the first error")


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


def test_references_that_lack_a_chosen_prompt_are_refused_at_the_start(
    write: Write, tmp_path: Path
) -> None:
    file, out = tmp_path / "references.jsonl", tmp_path / "out"
    prompts = starter_prompts(4)
    write_jsonl(file, [{"prompt": one.prompt, "text": "Rain."} for one in prompts])
    recipe = load_recipe(str(write(rl={"outcome_form": "references", "references": str(file)})))
    stages = plan_pipeline(recipe)
    check_finished_prompts(recipe, stages, out)
    run_stage(job_of(recipe, stages, stages[0], out), RUNNERS, "a command")
    check_finished_prompts(recipe, stages, out)
    write_jsonl(file, [{"prompt": one.prompt, "text": "Rain."} for one in prompts[1:]])
    with pytest.raises(UsageError, match=f"1 of 4 prompts without a reference: '{prompts[0].id}'"):
        check_finished_prompts(recipe, stages, out)


def test_the_reward_model_may_take_the_steps_of_the_loop(write: Write, tmp_path: Path) -> None:
    trained = {"source": "trained", "synth": "loop"}
    with pytest.raises(UsageError, match=r"rm.synth loop: expected loop among traces.sources"):
        load_recipe(str(write(rm=trained)))
    with pytest.raises(UsageError, match="rm.synth 'loop': nothing is trained on it"):
        load_recipe(str(write(rm={"synth": "loop"})))
    model = ScriptedModel(mixed)
    with endpoint(model) as server:
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
            job = job_of(recipe, stages, stage, tmp_path / "out")
            first = run_stage(job, RUNNERS, "a command").facts
        # killed before its record: what it cost is told of both starts, and nothing is paid twice
        (job.folder / "record.json").unlink()
        n_asked = len(model.requests)
        again = run_stage(job, RUNNERS, "a command").facts
    assert len(model.requests) == n_asked == again["calls_sent"] == first["calls_sent"]
    assert again["prompt_tokens"] == first["prompt_tokens"] == 10 * n_asked
    (reward,) = select(stages, "reward")
    assert reward.inputs == ("traces-loop",)
    (folder,) = own_steps(job_of(recipe, stages, reward, tmp_path / "out"))
    kinds = sorted(row.kind for row in build_synthesis(Path(folder)))
    assert kinds == ["degraded"] * 2 + ["improved"] * 2 + ["neutral"] * 2


def test_when_a_benchmark_holds_every_step_the_error_names_the_recipes_keys(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("R2W_DATA", raising=False)
    folder = tmp_path / "synth"
    folder.mkdir()
    (prompt, *_) = benchmark_texts(None, ("quickstart",)).texts
    step = {"prompt": prompt, "draft": "Rain.", "revision": "Hail."}
    write_jsonl(folder / "reflections.jsonl", [step])
    recipe = load_recipe(str(write(rm={"source": "trained", "synth": str(folder)})))
    stages = plan_pipeline(recipe)
    (reward,) = select(stages, "reward")
    with pytest.raises(DataError, match=r"no steps to train on: 1 in .*, 1 of them in a benchmark"):
        own_steps(job_of(recipe, stages, reward, tmp_path / "out"))


def test_a_reward_model_may_be_trained_in_the_folder_that_its_stage_holds(tmp_path: Path) -> None:
    choice = reward_commands.DataChoice(str(tmp_path), fillings=1)
    with locked(tmp_path / "stage"), pytest.raises(UsageError, match="not among the sets"):
        reward_commands.train(choice, str(tmp_path / "stage"), data_only=False, transformer=None)
