"""The dry run counts memory, tokens, calls and money of every stage, and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plans import keys
from r2w_eval.training.pipeline.calls import VALIDITY_ITEMS, loop_calls
from r2w_eval.training.pipeline.dryrun import print_forecast, total_cost
from r2w_eval.training.pipeline.forecast import (
    Forecaster,
    Need,
    cache_memory,
    train_memory,
)
from r2w_eval.training.pipeline.model_shape import read_shape, shape_of
from r2w_eval.training.pipeline.plan import plan_pipeline
from r2w_eval.training.pipeline.recipe import Recipe, load_recipe
from r2w_eval.training.trainer.stage import model_folder

from r2w_eval.errors import UsageError
from r2w_eval.models.cost import Price
from r2w_eval.store import write_jsonl

FIRST, SECOND = "a" * 40, "b" * 40
Write = Callable[..., Path]


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


def test_a_hub_id_is_read_at_its_revision_and_the_commit_is_shown(
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


def test_an_internaliser_is_forecast_at_its_own_price(write: Write) -> None:
    models = {"writer": "http://h/v1#w", "judge": "http://h/v1#j", "internaliser": "http://h/v1#i"}
    recipe = load_recipe(str(write(traces={"sources": ["loop"], **models})))
    rows = loop_calls(10, recipe)
    assert [row.calls for row in rows] == [50, 30, 90]
    prices = {"w": Price(0.0, 0.0), "j": Price(0.0, 0.0)}
    assert total_cost([Need(calls=rows)], recipe, prices) == "n/a (no price for i)"
    paid = total_cost([Need(calls=rows)], recipe, {**prices, "i": Price(1e3, 0.0)})
    assert float(paid.removeprefix("$")) == pytest.approx(rows[1].prompt_tokens / 1e3)


def test_prompts_held_apart_and_time_beyond_the_limit_cost_nothing(write: Write) -> None:
    def needs(**sections: Any) -> dict[str, Need]:
        recipe = load_recipe(str(write(**sections)))
        forecaster = Forecaster(recipe)
        return {stage.name: forecaster.need(stage) for stage in plan_pipeline(recipe)}

    loop = {"sources": ["loop"]}
    whole = needs(prompts={"n": 10}, traces=loop)
    held = needs(prompts={"n": 10, "held": 4}, traces=loop, rl={"max_seconds": 36.0})
    assert [row.calls for row in held["traces-loop"].calls] == [
        row.calls * 6 // 10 for row in whole["traces-loop"].calls
    ]
    name = "rl-lambda0.3-seed0"
    assert (whole[name].hours or 0.0) > 0.01 == held[name].hours


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
