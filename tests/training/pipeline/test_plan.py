"""A stage's key covers all that it depends on, and a wrong recipe ends before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plans import keys
from r2w_eval.training.pipeline.plan import dependants, plan_pipeline
from r2w_eval.training.pipeline.recipe import load_recipe
from r2w_eval.training.rl.settings import LATER

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.store import write_jsonl

Write = Callable[..., Path]


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


def test_another_reward_reads_the_signal_again(write: Write) -> None:
    prompts = {"n": 4, "held": 2}
    plain, *others = (
        keys(load_recipe(str(write(prompts=prompts, rollouts={"samples": 2}, rl=rl))))
        for rl in ({}, {"unanswered": -0.5}, {"effect": {"form": "scored"}})
    )
    for other in others:
        assert plain["signal"] != other["signal"] and plain["sft-seed0"] == other["sft-seed0"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sft": {"learning_rat": 1.0}}, "Did you mean learning_rate"),
        ({"grids": {}}, "Did you mean grid"),
        ({"grid": {"seeds": []}}, "grid.seeds"),
        ({"grid": {"lambdas": [0.3, 0.3]}}, "grid.lambdas"),
        ({"grid": {"seeds": 3}}, "expected a list"),
        ({"traces": {"sources": ["loops"]}}, "loop, expert, planted"),
        ({"traces": {"sources": ["planted", "planted"]}}, "each once"),
        ({"prompts": {"languages": ["en", "en"]}}, "each once"),
        ({"traces": {"languages": ["de"]}}, "expected one or more of en, zh"),
        ({"rollouts": {"samples": 2}}, "Set prompts.held"),
        ({"evaluate": {"model": "x"}}, "the pipeline sets it"),
        # each of them would do nothing
        ({"sft": {"seed": 7}}, "sft.seed 7: the pipeline trains by grid.seeds, which has 0"),
        ({"rl": {"seed": 7}, "grid": {"seeds": [1, 2]}}, "rl.seed 7: .* which has 1, 2"),
        ({"rl": {"process_mapping": {"weight": 1.0}}}, "Set grid.lambdas, or leave"),
        ({"rl": {"model": "a/b"}}, "rl.model a/b: the pipeline trains by sft.model"),
        ({"evaluate": {"limit": 0}}, "at least 1"),
        # hours of training later these would be errors, or checkpoints that nobody evaluates
        ({"evaluate": {"tasks": "quikstart"}}, "Did you mean quickstart"),
        ({"evaluate": {"tasks": ""}}, "an empty group"),
        ({"evaluate": {"judge": []}}, "evaluate.judge names nobody"),
        ({"rl": {"evaluation": {"tasks": "quikstart"}}}, "Did you mean quickstart"),
        ({"sft": {"evaluation": {"tasks": "quickstart", "limit": -3}}}, "at least 1"),
    ],
)
def test_a_wrong_recipe_is_an_error_before_anything_runs(
    write: Write, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(str(write(**sections)))


def test_settings_of_the_single_commands_may_be_those_of_the_grid(write: Write) -> None:
    sections = {"sft": {"seed": 7, "model": "a/b"}, "grid": {"seeds": [0, 7], "lambdas": [1.0]}}
    rl = {"seed": 7, "model": "a/b", "process_mapping": {"weight": 1.0}}
    assert load_recipe(str(write(**sections, rl=rl))).rl.model == "a/b"


def test_settings_that_a_recipe_leaves_out_keep_its_keys(write: Write) -> None:
    recipe = load_recipe(str(write(traces={"sources": ["loop", "planted"], "writer": "h"})))
    settings = {stage.name: stage.settings for stage in plan_pipeline(recipe)}
    assert set(settings["traces-loop"]) == {"models", "settings"}
    assert settings["traces-loop"]["models"] == ["h", "h", "h"]
    assert set(settings["traces-planted"]) == {"limit", "languages"}
    assert set(settings["reward"]["settings"]) == {"source", "reward_data", "without"}
    rl = settings["rl-lambda0-seed0"]["settings"]
    assert {"outcome_form", "opponents", "seed"} <= set(rl) and not set(LATER) & set(rl)


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


def test_steps_of_another_folder_are_in_the_key_of_the_reward(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "synth"
    folder.mkdir()
    trained = {"source": "trained", "synth": str(folder)}
    changed = changed_by(write, folder / "reflections.jsonl", rm=trained)
    assert changed == {"reward", "rl", "evaluate", "leaderboard"}


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean smoke"):
        load_recipe("smok")
