"""The grid of an ablation: what a recipe trains, under which names, and what stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from r2w_eval.training.pipeline.grid import GridSettings, about, control_of, rl_arms, variants
from r2w_eval.training.pipeline.job import job_of, run_stage
from r2w_eval.training.pipeline.plan import Stage, plan_pipeline
from r2w_eval.training.pipeline.recipe import load_recipe
from r2w_eval.training.pipeline.stages import RUNNERS, arms_folder
from r2w_eval.training.rl.advantages import MAPPINGS
from r2w_eval.training.rl.settings import RLSettings

from r2w_eval.errors import UsageError
from r2w_eval.store import iter_jsonl

WHOLE = {
    "seeds": [0, 1],
    "without_reflections": True,
    "mappings": ["local", *MAPPINGS],
    "scorers": ["r2w-reward", "r2w-rules"],
    "shuffled": True,
}
Plan = Callable[..., dict[str, Stage]]


@pytest.fixture
def plan(tmp_path: Path, own_cache: Path) -> Plan:
    """The stages of a recipe of these sections, by name."""

    def planned(**sections: Any) -> dict[str, Stage]:
        usual = {"prompts": {"n": 4, "held": 2}, "rollouts": {"samples": 2}}
        path = tmp_path / "own.yaml"
        path.write_text(json.dumps({**usual, **sections}))
        return {stage.name: stage for stage in plan_pipeline(load_recipe(str(path)))}

    return planned


def test_the_whole_ablation_is_planned_and_each_model_evaluated(plan: Plan) -> None:
    stages = plan(grid=WHOLE)
    ways = ["", *(f"{form}-" for form in MAPPINGS), "r2w-rules-", "shuffled-"]
    arms = {f"rl-{way}lambda0.3-seed{seed}" for way in ways for seed in (0, 1)}
    trained = {
        *arms,
        *(f"rl-lambda0-seed{seed}" for seed in (0, 1)),
        *(f"sft-{way}seed{seed}" for way in ("", "without-reflections-") for seed in (0, 1)),
    }
    assert {name for name, one in stages.items() if one.kind in ("sft", "rl")} == trained
    evaluated = {f"evaluate-{name}" for name in ("base", *trained)}
    assert set(stages["leaderboard"].inputs) == evaluated
    assert {f"rollouts-{name}" for name in ("base", *trained)} <= set(stages)
    # a scorer shows its validity before its arm, and keeps no other arm from training
    checked = {name for name in arms if "validity-r2w-rules" in stages[name].inputs}
    assert checked == {f"rl-r2w-rules-lambda0.3-seed{seed}" for seed in (0, 1)}
    names = list(stages)
    assert all(names.index(i) < names.index(s.name) for s in stages.values() for i in s.inputs)


def test_each_variant_differs_from_the_usual_arm_in_one_thing(plan: Plan) -> None:
    stages = plan(grid=WHOLE)
    usual = stages["rl-lambda0.3-seed1"].settings["settings"]

    def changed(way: str) -> dict[str, Any]:
        own = stages[f"rl-{way}-lambda0.3-seed1"].settings["settings"]
        return {name: value for name, value in own.items() if usual.get(name) != value}

    mapping = usual["process_mapping"]
    assert changed("sum") == {"process_mapping": {**mapping, "form": "sum"}}
    assert changed("r2w-rules") == {"process": "r2w-rules"}
    assert changed("shuffled") == {"shuffled": True}
    keys = [stage.key for stage in stages.values()]
    assert len(set(keys)) == len(keys)


def test_a_grid_without_an_ablation_keeps_the_keys_and_names_of_its_stages(plan: Plan) -> None:
    plain, whole = plan(grid={"seeds": [0, 1]}), plan(grid=WHOLE)
    apart = {name for name, stage in plain.items() if whole[name].key != stage.key}
    # these two read all others
    assert apart == {"signal", "leaderboard"}
    assert "shuffled" not in plain["rl-lambda0.3-seed0"].settings["settings"]
    assert not {"mappings", "scorers", "shuffled"} & set(plain["signal"].settings)
    assert "without_reflections" not in plain["sft-seed0"].settings


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"grid": {"mappings": ["sums"]}}, "grid.mappings: 'sums': expected local or sum"),
        ({"grid": {"mappings": ["sum"], "lambdas": [0.0]}}, "Expected one, as in lambdas"),
        ({"grid": {"shuffled": True, "lambdas": [0.0]}}, "grid.lambdas"),
        ({"grid": {"scorers": ["a/rm", "b/rm"]}}, "'b/rm' would be 'rm'.*taken"),
        ({"grid": {"scorers": ["x/sum"], "mappings": ["sum"]}}, "'x/sum' would be 'sum'"),
        ({"grid": {"scorers": ["shuffled"]}}, "'shuffled'.*taken"),
        ({"rl": {"shuffled": True}}, "Set grid.shuffled: true"),
        ({"grid": {"shuffle": True}}, "Did you mean shuffled"),
    ],
)
def test_a_wrong_grid_is_an_error_before_anything_runs(
    plan: Plan, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(**sections)


def test_a_report_of_validity_is_of_the_usual_scorer_alone() -> None:
    grid = GridSettings(scorers=("r2w-rules",))
    rl = RLSettings(validity="report.json")
    assert variants(rl, grid)["r2w-rules"].settings.validity == ""
    waived = variants(replace(rl, validity="waived"), grid)
    assert waived["r2w-rules"].settings.validity == "waived"
    assert rl_arms(rl, grid)["rl-lambda0.3-seed0"].validity == "report.json"


def test_models_are_described_in_words_and_compared_with_their_ablation(plan: Plan) -> None:
    stages = plan(grid=WHOLE)

    def told(name: str) -> tuple[str, str | None]:
        stage = stages[name]
        return about(stage.kind, stage.settings), control_of(stage.kind, stage.settings)

    assert told("evaluate-base") == ("the base", None)
    assert told("sft-without-reflections-seed1") == (
        "SFT on the same answers, without reflections", None,
    )  # fmt: skip
    assert told("sft-seed1") == ("SFT", "sft-without-reflections-seed1")
    assert told("rl-lambda0-seed1") == ("RL by the outcome alone", "sft-seed1")
    assert told("rl-lambda0.3-seed1")[1] == "rl-lambda0-seed1"
    assert told("rl-shuffled-lambda0.3-seed0") == (
        "RL, lambda 0.3, r2w-reward, local, scores shuffled (control)", "rl-lambda0-seed0",
    )  # fmt: skip
    assert "r2w-rules, local" in told("rl-r2w-rules-lambda0.3-seed0")[0]


def test_all_arms_of_an_ablation_agree_on_one_last_step(tmp_path: Path, plan: Plan) -> None:
    folders = set()
    for grid in (WHOLE, {"lambdas": [0.5]}):
        plan(grid=grid)
        recipe = load_recipe(str(tmp_path / "own.yaml"))
        stages = plan_pipeline(recipe)
        arms = (stage for stage in stages if stage.kind == "rl")
        folders |= {arms_folder(job_of(recipe, stages, arm, tmp_path)) for arm in arms}
    assert len(folders) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sft_without_reflections_learns_from_the_prompts_that_sft_learns_from(
    tmp_path: Path, own_cache: Path
) -> None:
    pytest.importorskip("trl", reason="needs the train extra: pip install 'r2w-eval[train]'")
    from toy_policy import save_policy

    recipe_path = tmp_path / "own.yaml"
    sections = {
        "prompts": {"data_dir": str(tmp_path)},
        "traces": {"sources": ["planted"], "limit": 6, "languages": ["en"]},
        "sft": {"model": str(save_policy(tmp_path / "toy")), "epochs": 1, "save_steps": 0,
                "max_tokens": 250},
        "evaluate": {"judge": ["r2w-quality"]},
        "grid": {"without_reflections": True},
    }  # fmt: skip
    recipe_path.write_text(json.dumps(sections))
    recipe = load_recipe(str(recipe_path))
    stages = plan_pipeline(recipe)
    names = ("traces-planted", "traces", "sft-without-reflections-seed0", "sft-seed0")
    records = {
        stage.name: run_stage(job_of(recipe, stages, stage, tmp_path), RUNNERS, "a command")
        for stage in stages
        if stage.name in names
    }
    plain, control = (records[f"sft-{way}seed0"] for way in ("", "without-reflections-"))
    assert 0 < plain.facts["n"] == control.facts["n"] < 6 and plain.facts["n_too_long"] > 0
    assert control.facts["n_too_long"] == 0 and control.facts["steps"] == plain.facts["steps"]

    def traces(stage: str) -> dict[str, dict[str, Any]]:
        (path,) = (tmp_path / "stages").glob(f"{stage}-????????/traces.jsonl")
        return {trace["id"]: trace for trace in iter_jsonl(path)}

    whole, taught = traces("traces"), traces("sft-without-reflections-seed0")
    assert all(whole[name]["answer"] == own["answer"] for name, own in taught.items())
    assert not any("<reflection>" in own["thinking"] for own in taught.values())
