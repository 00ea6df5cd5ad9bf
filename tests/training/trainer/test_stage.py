"""Whole stages on the toy policy: killed and resumed, broken, out of memory, evaluated."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the train extra: pip install 'r2w-eval[train]'")

from r2w_eval.training.checkpoints.folders import find_checkpoints, last_sound
from r2w_eval.training.checkpoints.progress import read_progress
from r2w_eval.training.checkpoints.validation import EvaluationSettings, best_checkpoint
from r2w_eval.training.pipeline import commands
from r2w_eval.training.prompts import Prompt
from r2w_eval.training.rl.advantages import LocalMapping
from r2w_eval.training.rl.effects import EffectSettings
from r2w_eval.training.rl.references import SCHEDULE
from r2w_eval.training.rl.rollouts import RolloutSettings, write_rollouts
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.rl.train import train_rl
from r2w_eval.training.trainer.faults import OutOfMemory, out_of_memory_named
from r2w_eval.training.trainer.sft import SFTSettings, to_row, train_sft
from safetensors.torch import save_file
from support import ROOT
from toy_policy import TURNS, save_policy

from r2w_eval.errors import R2WError, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.store import iter_jsonl, write_jsonl
from r2w_eval.trace.types import TagSchema

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
HERE = Path(__file__).parent
REFUSED = 3
PROMPTS = [Prompt(f"p{i}", "en", "toy", text) for i, text in enumerate(("rain", "sun", "sun rain"))]
TRACES = [{"prompt": "sun", "thinking": "rain " * n, "answer": "rain sun"} for n in range(1, 9)]
ROWS = [to_row(trace) for trace in TRACES]


def rl_settings(model: Path) -> RLSettings:
    return RLSettings(
        model=str(model),
        outcome="toy_scorer:Rain",
        process="toy_scorer:Rain",
        validity="waived",
        process_mapping=LocalMapping(weight=0.5, warmup_share=0.0),
        steps=5,
        group=4,
        groups_per_step=2,
        micro_batch=4,
        max_completion_tokens=12,
        learning_rate=1e-2,
        save_steps=1,
    )


def sft_settings(model: Path) -> SFTSettings:
    return SFTSettings(
        model=str(model), learning_rate=1e-2, batch_size=1, accumulate=2, epochs=2.0, save_steps=1
    )


def run_rl(model: Path, out: Path, last_step: Path | None = None, **changed: Any) -> Any:
    return train_rl(replace(rl_settings(model), **changed), PROMPTS, out, last_step)


def run_sft(model: Path, out: Path, **changed: Any) -> Any:
    return train_sft(replace(sft_settings(model), **changed), ROWS, out)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def same(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy"))


def start(call: str, **variables: str) -> subprocess.Popen[bytes]:
    """A stage in a process of its own, so that it can be killed."""
    code = f"import pathlib, test_stage; test_stage.{call}"
    paths = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parent.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, **variables}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=environment, cwd=ROOT)


def test_rl_killed_in_a_step_ends_with_the_weights_of_an_unbroken_run(
    policy: Path, tmp_path: Path
) -> None:
    killed = start(
        f"run_rl(pathlib.Path({str(policy)!r}), pathlib.Path({str(tmp_path / 'a')!r}))",
        TOY_KILL_AT="4",
    )
    whole = run_rl(policy, tmp_path / "b")
    assert killed.wait() == -9
    assert [one.step for one in find_checkpoints(tmp_path / "a" / "checkpoints")] == [1, 2, 3]
    # and the newest one cut short, as by a kill while it was written
    (tmp_path / "a" / "checkpoints" / "checkpoint-3" / "trainer_state.json").write_text("{")
    again = run_rl(policy, tmp_path / "a")
    assert any("checkpoint-3 is half-written" in note for note in again.notes)
    assert same(again.model, whole.model) and again.steps == whole.steps == 5
    assert not same(again.model, policy)


def test_sft_killed_while_it_runs_ends_with_the_weights_of_an_unbroken_run(
    policy: Path, tmp_path: Path
) -> None:
    killed = start(f"run_sft(pathlib.Path({str(policy)!r}), pathlib.Path({str(tmp_path / 'a')!r}))")
    whole = run_sft(policy, tmp_path / "b")
    while killed.poll() is None and not find_checkpoints(tmp_path / "a" / "checkpoints"):
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() in (-9, 0)
    again = run_sft(policy, tmp_path / "a")
    assert same(again.model, whole.model) and not same(again.model, policy)


def launch(call: str) -> list[int]:
    """A stage in two processes, as accelerate's launcher starts them; their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [start(call, RANK=rank, LOCAL_RANK=rank, **common) for rank in ("0", "1")]
    return [rank.wait(timeout=400) for rank in ranks]


@pytest.mark.timeout(420)
def test_two_processes_train_as_one(policy: Path, tmp_path: Path) -> None:
    sft, rl, traces = tmp_path / "sft", tmp_path / "rl", tmp_path / "traces.jsonl"
    write_jsonl(traces, TRACES)
    words = ", ".join(repr(str(path)) for path in (policy, traces, sft, rl))
    # rank 0 refuses the last call, and rank 1 does not wait for it for ever
    assert launch(f"command_all({words})") == [REFUSED, REFUSED]
    told = json.loads((sft / "trained.json").read_bytes())
    whole = run_sft(policy, tmp_path / "b")
    assert told["steps"] == whole.steps == 8
    assert len(find_checkpoints(sft / "checkpoints")) == 2
    one, other, start_ = weights(sft / "model"), weights(whole.model), weights(policy)
    moved = max(float((one[name] - start_[name]).abs().max()) for name in one)
    apart = max(float((one[name] - other[name]).abs().max()) for name in one)
    assert apart < 1e-3 * moved

    told = json.loads((rl / "trained.json").read_bytes())
    history = json.loads((rl / "history.json").read_bytes())
    # the clock of rank 0 ends both; a step has the groups of both
    assert told["steps"] == 3 and told["n_rows"] == 50 * 2 * 2
    assert [entry["step"] for entry in history if "reward" in entry] == [1, 2, 3]
    assert not same(rl / "model", policy)


def command_all(model: str, traces: str, sft: str, rl: str) -> None:
    """Both stages in this process of several, and one that its folder refuses."""
    commands.run_sft(replace(sft_settings(Path(model)), accumulate=1), Path(traces), Path(sft))
    settings = replace(rl_settings(Path(model)), max_seconds=1e-9, steps=50)
    commands.run_rl(settings, PROMPTS, Path(rl))
    with pytest.raises(R2WError, match="holds another rl"):
        commands.run_rl(replace(settings, steps=49), PROMPTS, Path(rl))
    sys.exit(REFUSED)


def test_a_nan_loss_stops_the_training_before_it_is_saved(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r2w_eval.training.trainer.callbacks import TrainingBroke
    from trl import SFTTrainer

    original = SFTTrainer.compute_loss

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        factor = float("nan") if self.state.global_step >= 2 else 1.0
        return original(self, *args, **kwargs) * factor

    monkeypatch.setattr(SFTTrainer, "compute_loss", broken)
    with pytest.raises(TrainingBroke, match="not a number any more.*last good checkpoint is .*-2"):
        run_sft(policy, tmp_path / "a")
    checkpoints = tmp_path / "a" / "checkpoints"
    assert [one.step for one in find_checkpoints(checkpoints)] == [1, 2]
    broken_weights = {name: tensor * float("inf") for name, tensor in weights(policy).items()}
    save_file(broken_weights, checkpoints / "checkpoint-2" / "model.safetensors")
    sound = last_sound(checkpoints)
    assert sound is not None and sound.step == 1


def test_memory_that_runs_out_names_the_settings() -> None:
    import torch

    with pytest.raises(OutOfMemory, match=r"rl\.group in"), out_of_memory_named("rl.group"):
        torch.empty(10**14)
    with pytest.raises(RuntimeError, match="another"), out_of_memory_named("rl.group"):
        raise RuntimeError("another fault")


def test_a_model_without_a_chat_template_is_refused_before_it_is_loaded(
    policy: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(policy, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    for run in (run_sft, run_rl):
        with pytest.raises(UsageError, match="no chat template"):
            run(bare, tmp_path / "out")
    with pytest.raises(UsageError, match="no chat template"):
        write_rollouts(str(bare), PROMPTS, RolloutSettings(1), tmp_path / "rollouts.jsonl")


def test_a_model_that_does_not_stop_where_its_template_ends_a_turn_is_refused(
    policy: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(policy, tmp_path / "base")
    (base / "chat_template.jinja").write_text(f"{TURNS}{{% if messages[1:] %}}<unk>{{% endif %}}")
    for run in (run_sft, run_rl):
        with pytest.raises(UsageError, match="ends a turn with '<unk>', and it stops at '<eos>'"):
            run(base, tmp_path / "out")
    with pytest.raises(UsageError, match="ends a turn with '<unk>'"):
        write_rollouts(str(base), PROMPTS, RolloutSettings(1), tmp_path / "rollouts.jsonl")
    config = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [1, 2]}))
    assert write_rollouts(str(base), PROMPTS, RolloutSettings(1), tmp_path / "b.jsonl")["n"] == 3


def test_rows_with_an_end_of_turn_in_their_text_are_left_out_and_told(
    policy: Path, tmp_path: Path
) -> None:
    rows = [*ROWS[:2], to_row({"prompt": "sun", "thinking": "rain", "answer": "rain <eos> sun"})]
    made = train_sft(sft_settings(policy), rows, tmp_path / "a")
    assert (made.n_rows, made.n_too_long) == (2, 0)
    assert "1 rows hold special tokens of the tokenizer and were left out" in made.notes
    with pytest.raises(UsageError, match="all 1 traces hold special tokens .* as <eos>"):
        train_sft(sft_settings(policy), rows[2:], tmp_path / "b")


def test_groups_without_any_reward_leave_the_weights_and_are_counted(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import toy_scorer
    from r2w_eval.reward_models.items import ItemScore, ItemStatus

    def lost(self: Any, items: Any) -> list[ItemScore]:
        return [ItemScore(item.id, None, {}, ItemStatus.ERROR, "down") for item in items]

    monkeypatch.setattr(toy_scorer.Rain, "score", lost)
    made = run_rl(policy, tmp_path / "a", steps=2)
    assert same(made.model, policy) and made.loss is None
    assert "16 of 16 rollouts had no valid reward" in made.notes
    assert "4 of 4 groups had none at all and gave no gradient" in made.notes
    assert "All reward functions returned None" not in caplog.text


def test_with_lambda_0_the_axis_effect_changes_no_bit(policy: Path, tmp_path: Path) -> None:
    off = LocalMapping(weight=0.0)
    # an unknown scorer: at lambda 0 nobody opens it
    effect = EffectSettings("scored", scorer="nowhere:scorer")
    plain = run_rl(policy, tmp_path / "a", steps=2, process_mapping=off)
    other = run_rl(policy, tmp_path / "b", steps=2, process_mapping=off, effect=effect)
    assert same(other.model, plain.model)
    with pytest.raises(R2WError, match="nowhere"):
        run_rl(policy, tmp_path / "c", steps=2, effect=effect)


def test_arms_that_run_out_of_time_end_at_one_step(policy: Path, tmp_path: Path) -> None:
    agreed = tmp_path / "arms" / "last-step"
    first = run_rl(policy, tmp_path / "a", agreed, max_seconds=1e-9, steps=50)
    # 1 step until the clock is looked at, and the margin
    assert first.steps == 3 and "ended at step 3 of 50: max_seconds or a decline" in first.notes
    mapping = LocalMapping(weight=0.0)
    other = run_rl(
        policy, tmp_path / "b", agreed, max_seconds=1e-9, steps=50, seed=1,
        process_mapping=mapping,
    )  # fmt: skip
    assert other.steps == 3
    history = json.loads((tmp_path / "b" / "history.json").read_bytes())
    assert history[0]["time/generation_s"] > 0 and history[0]["time/rewards_s"] > 0
    # started again, as after a kill while the model was saved
    again = run_rl(policy, tmp_path / "a", agreed, max_seconds=1e9, steps=50)
    assert again.steps == 3


def test_arms_follow_one_that_takes_all_its_steps_in_time(policy: Path, tmp_path: Path) -> None:
    agreed = tmp_path / "arms" / "last-step"
    fast = run_rl(policy, tmp_path / "a", agreed, max_seconds=1e9, steps=5)
    slow = run_rl(policy, tmp_path / "b", agreed, max_seconds=1e-9, steps=5)
    assert fast.steps == slow.steps == 5 and agreed.read_text() == "5"
    assert not any("ended at" in note or "this arm" in note for note in slow.notes)


def stop_together(agreed: Path, seconds: float, **changed: bool) -> Any:
    from r2w_eval.training.trainer.callbacks import StopTogether

    callback = StopTogether(agreed, seconds, **changed)
    callback.on_train_begin(None, None, None)  # type: ignore[arg-type]
    return callback


def end_of_step(callback: Any, step: int) -> tuple[bool, bool]:
    """Whether training stops after a step, and whether a checkpoint is saved then."""
    from transformers import TrainerControl, TrainerState

    control = TrainerControl()
    callback.on_step_end(None, TrainerState(global_step=step), control)
    return control.should_training_stop, control.should_save


@pytest.mark.parametrize("saves", [False, True])
def test_trainings_that_stop_together_save_where_they_are_asked_to(
    tmp_path: Path, saves: bool
) -> None:
    agreed = tmp_path / "arms" / "last-step"
    first = stop_together(agreed, -1.0, saves=saves)
    other = stop_together(agreed, 1e9, saves=saves)
    assert end_of_step(other, 4) == (False, False) and not agreed.exists()
    # its time is up: all end two steps on, and nothing is saved before
    assert end_of_step(first, 5) == (False, False) and agreed.read_text() == "7"
    assert end_of_step(first, 6) == end_of_step(other, 6) == (False, False)
    # a later proposal changes nothing
    assert agreed.read_text() == "7" and [path.name for path in agreed.parent.iterdir()] == [
        "last-step"
    ]
    assert end_of_step(first, 7) == end_of_step(other, 7) == (True, saves)
    # one that is ahead already, or resumed beyond it, ends at once
    assert end_of_step(stop_together(agreed, 1e9, saves=saves), 12) == (True, saves)


def test_a_save_that_is_due_anyway_is_kept(tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState

    control = TrainerControl(should_save=True)
    ending = stop_together(tmp_path / "last-step", -1.0)
    ending.on_step_end(None, TrainerState(global_step=1), control)
    assert control.should_save and not control.should_training_stop


@pytest.mark.parametrize("is_graphed", [False, True])
def test_a_copy_in_half_precision_writes_with_the_weights_of_its_step(
    policy: Path, is_graphed: bool
) -> None:
    import torch
    from r2w_eval.reward_models.items import ItemScore
    from r2w_eval.training.rl.grpo import ProcessGRPOTrainer
    from toy_policy import count_rain, grpo_config, make_policy, make_tokenizer, prompts, weights_of

    start = weights_of(make_policy())
    trainer = ProcessGRPOTrainer(
        model=make_policy(),
        reward_funcs=count_rain,
        train_dataset=prompts(),
        processing_class=make_tokenizer(),
        args=grpo_config(policy / "checkpoints", max_steps=1),
        score_reflections=lambda items: [ItemScore(item.id, 1.0) for item in items],
        mapping=LocalMapping(),
        schema=TagSchema(),
        half_generation=True,
        graphed_generation=is_graphed,
    )
    trainer.train()
    copy = weights_of(trainer._half)
    # the trainer's own configuration says no: then each token would read the whole text anew
    assert trainer._half.generation_config.use_cache and not trainer.model.config.use_cache
    assert copy.dtype is torch.bfloat16 and copy.equal(start.to(torch.bfloat16))
    # the step went to the whole weights
    assert not weights_of(trainer.model).to(torch.bfloat16).equal(copy)


def test_rollouts_are_of_all_prompts_and_their_tokens_are_counted(
    policy: Path, tmp_path: Path
) -> None:
    settings = RolloutSettings(samples=3, max_tokens=6, batch_size=4)
    made = write_rollouts(str(policy), PROMPTS, settings, tmp_path / "a.jsonl")
    again = write_rollouts(str(policy), PROMPTS, settings, tmp_path / "b.jsonl")
    assert made["n"] == again["n"] == 9
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    rows = list(iter_jsonl(tmp_path / "a.jsonl"))
    assert {(row["prompt_id"], row["sample"]) for row in rows} == {
        (prompt.id, sample) for prompt in PROMPTS for sample in range(3)
    }
    assert all(row["answer_tokens"] == 6 or row["is_ended"] for row in rows)
    assert sum(row["answer_tokens"] for row in rows) == made["tokens"]


def test_rollouts_are_drawn_without_a_models_own_settings(policy: Path, tmp_path: Path) -> None:
    own = shutil.copytree(policy, tmp_path / "own")
    config = json.loads((own / "generation_config.json").read_text())
    wanted = {"do_sample": True, "repetition_penalty": 5.0, "typical_p": 0.2, "min_p": 0.5}
    (own / "generation_config.json").write_text(json.dumps({**config, **wanted}))
    settings = RolloutSettings(samples=8, max_tokens=24)
    for model in (policy, own):
        write_rollouts(str(model), PROMPTS, settings, tmp_path / f"{model.name}.jsonl")
    texts = [(tmp_path / f"{model.name}.jsonl").read_bytes() for model in (policy, own)]
    assert texts[0] == texts[1]
    plain, made = (run_rl(model, tmp_path / f"rl-{model.name}", steps=1) for model in (policy, own))
    assert same(plain.model, made.model)
    # and the model keeps them
    kept = json.loads((made.model / "generation_config.json").read_text())
    assert wanted.items() <= kept.items()


# a watcher whose evaluations all fail
FAILING = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
steps = {int(p.parent.name.split("-")[1]) for p in folder.glob("checkpoint-*/trainer_state.json")}
rows = [{"step": step, "checkpoint": "", "run": "", "error": "no judge"} for step in steps]
text = "".join(json.dumps(row) + "\\n" for row in rows)
(folder / "evaluations" / "progress.jsonl").write_text(text)
"""
# a watcher that knows the scores: step 2 is the best, and from step 3 on there is a decline
WATCHER = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
table = folder / "evaluations" / "progress.jsonl"
old = table.read_text() if table.exists() else ""
done = {json.loads(line)["step"] for line in old.splitlines()}
steps = {int(p.parent.name.split("-")[1]) for p in folder.glob("checkpoint-*/trainer_state.json")}
rows = [{"step": s, "checkpoint": "", "run": "", "score": 9.0 - abs(s - 2)} for s in steps - done]
table.write_text(old + "".join(json.dumps(row) + "\\n" for row in rows))
if max(steps) > 2:
    (folder / "evaluations" / "declined.json").write_text("{}")
"""


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> EvaluationSettings:
    """An evaluation beside training whose scores are known."""

    def command(self: EvaluationSettings, folder: Path) -> list[str]:
        return [sys.executable, "-W", "ignore", "-c", WATCHER, str(folder)]

    monkeypatch.setattr(EvaluationSettings, "command", command)
    return EvaluationSettings(tasks="quickstart")


def test_a_decline_ends_training_and_the_best_checkpoint_is_the_model(
    policy: Path, tmp_path: Path, watched: EvaluationSettings
) -> None:
    made = run_rl(policy, tmp_path / "a", steps=2000, evaluation=watched)
    assert 3 <= made.steps < 2000
    assert any(note.startswith("the model is checkpoint-2, the best") for note in made.notes)
    assert same(made.model, tmp_path / "a" / "checkpoints" / "checkpoint-2")


UNSCORED = "no checkpoint was scored: the model is the last state"


@pytest.mark.parametrize(("keep", "is_told"), [("best", True), ("last", False)])
def test_a_training_of_which_no_checkpoint_was_scored_says_so_and_keeps_its_last_state(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Any, is_told: bool
) -> None:
    def command(self: EvaluationSettings, folder: Path) -> list[str]:
        return [sys.executable, "-W", "ignore", "-c", FAILING, str(folder)]

    monkeypatch.setattr(EvaluationSettings, "command", command)
    # saved by nothing but the common end
    made = run_rl(
        policy, tmp_path / "a", tmp_path / "last-step", steps=50, save_steps=1000,
        max_seconds=1e-9, evaluation=EvaluationSettings(tasks="quickstart", keep=keep),
    )  # fmt: skip
    checkpoints = tmp_path / "a" / "checkpoints"
    assert [one.step for one in find_checkpoints(checkpoints)] == [made.steps] == [3]
    assert same(made.model, checkpoints / "checkpoint-3")
    # it was evaluated once, and failed
    assert [(row.step, row.error) for row in read_progress(checkpoints)] == [(3, "no judge")]
    assert (UNSCORED in made.notes) is is_told


def test_a_training_without_evaluations_tells_nothing_of_them(policy: Path, tmp_path: Path) -> None:
    made = run_rl(policy, tmp_path / "a", steps=1)
    assert UNSCORED not in made.notes


def test_the_best_adapters_are_merged_into_the_model(
    policy: Path, tmp_path: Path, watched: EvaluationSettings
) -> None:
    from peft import AutoPeftModelForCausalLM

    made = run_sft(policy, tmp_path / "a", lora_rank=2, evaluation=watched)
    checkpoint = tmp_path / "a" / "checkpoints" / "checkpoint-2"
    assert (checkpoint / "adapter_config.json").is_file()
    assert not (made.model / "adapter_config.json").exists()
    merged = AutoPeftModelForCausalLM.from_pretrained(checkpoint).merge_and_unload()
    expected, found = merged.state_dict(), weights(made.model)
    assert all(found[name].allclose(expected[name]) for name in found)
    last = AutoPeftModelForCausalLM.from_pretrained(
        tmp_path / "a" / "checkpoints" / f"checkpoint-{made.steps}"
    ).merge_and_unload()
    assert not all(found[name].allclose(last.state_dict()[name]) for name in found)


def references_of(server: str, file: str) -> dict[str, Any]:
    """An outcome against stored references, by a judge on this server."""
    return {"outcome_form": "references", "outcome": f"{server}#judge-0", "references": file}


def run_rl_until(step: int, model: str, out: str, *judged: str) -> None:
    """Killed in the worst moment: the wins of a step are noted, and no checkpoint has it."""
    from r2w_eval.training.rl.references import ReferenceSchedule

    end_step = ReferenceSchedule.end_step

    def end_and_die(self: Any, now: int, won: Any) -> None:
        end_step(self, now, won)
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)

    ReferenceSchedule.end_step = end_and_die  # type: ignore[method-assign]
    run_rl(Path(model), Path(out), **references_of(*judged))


@pytest.mark.timeout(420)
def test_rising_references_of_a_killed_training_are_those_of_an_unbroken_one(
    policy: Path, tmp_path: Path
) -> None:
    texts = ("", "sun", "rain sun", "rain rain")
    file = tmp_path / "references.jsonl"
    rows = [
        {"prompt_id": prompt.id, "text": f"{prompt.prompt} {text}", "score": n}
        for prompt in PROMPTS
        for n, text in enumerate(texts)
    ]
    write_jsonl(file, rows)
    with FakeServer() as server:
        judged = server.base_url, str(file)
        words = ", ".join(map(repr, (3, str(policy), str(tmp_path / "a"), *judged)))
        killed = start(f"run_rl_until({words})")
        whole = run_rl(policy, tmp_path / "b", **references_of(*judged))
        assert killed.wait() == -9
        steps = [one.step for one in find_checkpoints(tmp_path / "a" / "checkpoints")]
        assert steps == [1, 2, 3]
        again = run_rl(policy, tmp_path / "a", **references_of(*judged))
    wins, unbroken = (tmp_path / name / SCHEDULE for name in "ab")
    assert wins.read_bytes() == unbroken.read_bytes() and json.loads(wins.read_bytes())
    assert same(again.model, whole.model) and not same(again.model, policy)
    history = json.loads((tmp_path / "b" / "history.json").read_bytes())
    assert [entry["outcome/reference"] >= 0 for entry in history if "reward" in entry] == [True] * 5


def end_step_on_each_rank(path: str) -> None:
    """Every rank wins a prompt of its own, and learns of the other's."""
    from r2w_eval.training.rl.reference_file import Ranked
    from r2w_eval.training.rl.references import ReferenceSchedule

    from r2w_eval.ranks import from_all

    own = [Ranked(f"p{rank}", ("weak", "strong")) for rank in range(2)]
    schedule = ReferenceSchedule(Path(path))
    for step in range(2):
        schedule.end_step(step, [own[int(os.environ["RANK"])]] if step == 0 else [])
    places = [schedule.index(one, 1) for one in own]
    assert from_all(places) == [[1, 1], [1, 1]]


@pytest.mark.timeout(420)
def test_two_processes_have_one_schedule_and_one_writes_it(tmp_path: Path) -> None:
    path = tmp_path / SCHEDULE
    assert launch(f"end_step_on_each_rank({str(path)!r})") == [0, 0]
    assert json.loads(path.read_bytes()) == {"p0": [0], "p1": [0]}
    assert [one.name for one in tmp_path.iterdir()] == [SCHEDULE]


def test_a_judged_training_with_its_checkpoints_evaluated_beside_it(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2W_CACHE", str(tmp_path / "cache"))
    evaluation = EvaluationSettings(
        tasks="quickstart", judge="r2w-quality", limit=2, gen_kwargs="max_tokens=8"
    )
    with FakeServer() as server:
        made = run_rl(
            policy,
            tmp_path / "a",
            steps=2,
            outcome_form="pairwise",
            outcome=f"{server.base_url}#judge-0",
            groups_per_call=1,
            evaluation=evaluation,
        )
    checkpoints = tmp_path / "a" / "checkpoints"
    rows = read_progress(checkpoints)
    log = (checkpoints / "evaluations" / "watch.log").read_text()
    assert [row.step for row in rows] == [1, 2], log
    assert not any(row.error for row in rows) and all(row.n_expected == 2 for row in rows), log
    scores = {row.step: row.score for row in rows if row.score is not None}
    best = best_checkpoint(checkpoints)
    if scores:
        assert best is not None and best.step == max(sorted(scores), key=lambda s: scores[s])
        assert same(made.model, best.path)
    assert made.loss is not None and 0 <= made.loss <= 1
