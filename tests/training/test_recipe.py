"""Recipes and checkpoints: what is wrong is named, what is half-written is left alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from r2w_eval.training.checkpoints.folders import find_checkpoints, half_written, resume_from
from r2w_eval.training.prompts import lay_out, starter_prompts
from r2w_eval.training.recipe import read_recipe, recipe_path
from r2w_eval.training.rl.advantages import LocalMapping
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.synthesis.loop import SynthSettings
from r2w_eval.training.trainer.sft import (
    SFTSettings,
    fits,
    is_usable,
    read_rows,
    specials_in,
    to_row,
)

from r2w_eval.errors import R2WError
from r2w_eval.models.thinking import answer_of
from r2w_eval.store import write_jsonl

# eight bytes of length and an empty header: the smallest whole file of its kind
EMPTY_WEIGHTS = (2).to_bytes(8, "little") + b"{}"
STAGES = {"synth": SynthSettings, "sft": SFTSettings, "rl": RLSettings}


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_recipe_overrides_defaults_down_to_nested_settings(tmp_path: Path) -> None:
    text = "sft: {epochs: 1}\nrl:\n  process_mapping: {weight: 0, gate: always}\n"
    found = read_recipe(write(tmp_path, text), STAGES)
    assert found["sft"] == SFTSettings(epochs=1.0)
    assert found["rl"].process_mapping == LocalMapping(weight=0.0, gate="always")
    assert found["synth"] == SynthSettings()


@pytest.mark.parametrize(
    "text, message",
    [
        ("sftt: {}", "did you mean sft|sft"),
        ("sft: {epoch: 1}", "epochs"),
        ("sft: {epochs: many}", "expected float"),
        ("sft: {packing: 1}", "expected bool"),
        ("sft: {save_steps: true}", "expected int"),
        ("rl: {loss: ppo}", "dapo or dr_grpo or grpo"),
        ("rl: {process_mapping: {wait: 1}}", "weight"),
        ("rl: [1]", "is no mapping"),
        ("sft: {epochs: .nan}", "expected float"),
        ("sft: {epochs: 1}\nrl: {steps: 3}\nsft: {lora_rank: 4}", "'sft' is given twice"),
        ("rl:\n  steps: 3\n  steps: 4", "'steps' is given twice"),
        ("sft: false", "is no mapping"),
        ("0", "expected sections"),
        ("rl: {group: 1}", r"rl.group 1: expected 2 or more"),
        ("rl: {groups_per_step: 0}", "expected 1 or more"),
        ("rl: {temperature: -1}", "expected a number above 0"),
        ("rl: {unanswered: .inf}", "rl.unanswered inf: expected a finite number"),
        ("rl: {seed: -1}", "from 0 to"),
        ("rl: {process_mapping: {weight: -1}}", "process_mapping.weight -1.0: expected 0 or more"),
        ("rl: {process_mapping: {weight: .inf}}", "process_mapping.weight inf"),
        ("rl: {process_mapping: {max_segments: -1}}", "expected 1 or more.*default 8"),
        ("rl: {process_mapping: {token_cap: -1}}", "process_mapping.token_cap -1.0"),
        ("rl: {process_mapping: {warmup_share: 2}}", "from 0 to 1"),
        ("synth: {tries: 0}", "synth.tries 0: expected 1 or more"),
        ("synth: {rounds: -1}", "synth.rounds"),
        ("sft: {batch_size: 0}", "sft.batch_size"),
        ("sft: {save_steps: 0, evaluation: {tasks: quickstart}}", "no checkpoint would be there"),
        ("- a", "expected sections"),
        ("a: [", "Expected YAML"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(R2WError, match=message):
        read_recipe(write(tmp_path, text), STAGES)


def test_caps_may_be_infinite(tmp_path: Path) -> None:
    text = "rl: {process_mapping: {token_cap: .inf, sum_cap: .inf, weight: 0}}"
    mapping = read_recipe(write(tmp_path, text), STAGES)["rl"].process_mapping
    assert mapping.token_cap == mapping.sum_cap == float("inf")


def test_an_unknown_recipe_names_ours() -> None:
    with pytest.raises(R2WError, match="smoke"):
        recipe_path("smok")


def make_checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(EMPTY_WEIGHTS)
    state = json.dumps({"global_step": step})
    (path / "trainer_state.json").write_text(state if whole else state[:-4])
    return path


def test_training_goes_on_from_the_last_whole_checkpoint(tmp_path: Path) -> None:
    assert resume_from(tmp_path) is None
    make_checkpoint(tmp_path, 9)
    last = make_checkpoint(tmp_path, 10)
    make_checkpoint(tmp_path, 11, whole=False)
    (make_checkpoint(tmp_path, 12) / "trainer_state.json").unlink()
    (make_checkpoint(tmp_path, 13) / "model.safetensors").unlink()
    (make_checkpoint(tmp_path, 14) / "model.safetensors").write_bytes(EMPTY_WEIGHTS[:-1])
    assert [one.step for one in find_checkpoints(tmp_path)] == [9, 10]
    assert resume_from(tmp_path) == str(last)
    assert [path.name for path in half_written(tmp_path)] == [
        f"checkpoint-{step}" for step in (11, 12, 13, 14)
    ]


def test_checkpoints_of_verl_are_found_once_its_trainer_calls_them_whole(tmp_path: Path) -> None:
    for step in (2, 4):
        folder = tmp_path / f"global_step_{step}" / "actor" / "huggingface"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(EMPTY_WEIGHTS)
    assert find_checkpoints(tmp_path) == []
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("2")
    assert [(one.step, one.path.name) for one in find_checkpoints(tmp_path)] == [(2, "huggingface")]


def test_rows_keep_thinking_and_answer_on_the_assistants_side() -> None:
    row = to_row({"prompt": "Write.", "thinking": "<draft>a</draft>", "answer": "b"})
    assert row["prompt"] == [{"role": "user", "content": "Write."}]
    assert row["completion"][0]["content"] == "<think>\n<draft>a</draft>\n</think>\n\nb"


def test_the_last_trace_counts_without_a_newline_behind_it(tmp_path: Path) -> None:
    line = json.dumps({"id": "t1", "prompt": "Write.", "thinking": "a", "answer": "b"})
    (tmp_path / "traces.jsonl").write_text(f"{line}\n{line}")
    assert len(read_rows(tmp_path / "traces.jsonl")) == 2


def test_a_trace_file_without_traces_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text("")
    with pytest.raises(R2WError, match="no traces"):
        read_rows(tmp_path / "traces.jsonl")


@pytest.mark.parametrize("place", ["thinking", "answer"])
@pytest.mark.parametrize("tag", ["a </think> b", "a\n<think>b"])
def test_a_trace_that_would_be_taught_with_another_end_of_thinking_is_named(
    tmp_path: Path, place: str, tag: str
) -> None:
    good = {"id": "t1", "prompt": "Write.", "thinking": " a ", "answer": "b"}
    write_jsonl(tmp_path / "good.jsonl", [good])
    assert len(read_rows(tmp_path / "good.jsonl")) == 1
    write_jsonl(tmp_path / "bad.jsonl", [good, {**good, "id": "t2", place: tag}])
    with pytest.raises(R2WError, match="trace 't2' holds a <think> or </think>"):
        read_rows(tmp_path / "bad.jsonl")


@dataclass
class WordTokenizer:
    """Counts words: enough to see what is too long."""

    @property
    def added_tokens_decoder(self) -> dict[int, SimpleNamespace]:
        named = {"<|end|>": True, "</think>": True, "<tool>": False}
        return {
            n: SimpleNamespace(content=text, special=special)
            for n, (text, special) in enumerate(named.items())
        }

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool) -> str:
        return " ".join(message["content"] for message in messages)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[str]]:
        return {"input_ids": text.split()}


def test_rows_are_measured_with_prompt_thinking_and_answer() -> None:
    rows = [to_row({"prompt": "p", "thinking": "t " * n, "answer": "a"}) for n in (1, 50, 3)]
    assert [fits(row, WordTokenizer(), 20) for row in rows] == [True, False, True]
    # p, <think>, t, </think>, a
    assert fits(rows[0], WordTokenizer(), 5) and not fits(rows[0], WordTokenizer(), 4)


def test_a_row_with_an_end_of_turn_in_its_text_is_not_trained_on() -> None:
    good = {"prompt": "p", "thinking": "t", "answer": "a"}
    assert is_usable(to_row({**good, "answer": "<tool>"}), WordTokenizer(), 5)
    for place in good:
        row = to_row({**good, place: "one<|end|>two"})
        assert specials_in(row, WordTokenizer()) == ["<|end|>"]
        assert not is_usable(row, WordTokenizer(), 5)


def test_prompts_are_laid_out_epoch_by_epoch_and_the_same_each_time() -> None:
    prompts = starter_prompts(5)
    laid = lay_out(prompts, 12, seed=3)
    assert {p.id for p in laid[:5]} == {p.id for p in laid[5:10]} == {p.id for p in prompts}
    assert laid == lay_out(prompts, 12, seed=3) != lay_out(prompts, 12, seed=4)
    assert laid[:8] == lay_out(prompts, 8, seed=3)


@pytest.mark.parametrize(
    "completion, answer",
    [
        ("<think>x</think> Once.", "Once."),
        ("<think>x", None),
        ("<think>x</think>  ", None),
        ("Once.", "Once."),
    ],
)
def test_only_a_finished_answer_is_rewarded(completion: str, answer: str | None) -> None:
    assert answer_of(completion) == answer
