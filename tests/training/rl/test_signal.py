"""Would RL see a signal: every measure by hand, from texts to the pipeline's record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from r2w_eval.training.pipeline.dryrun import print_forecast
from r2w_eval.training.pipeline.job import job_of, run_stage
from r2w_eval.training.pipeline.plan import plan_pipeline
from r2w_eval.training.pipeline.recipe import load_recipe
from r2w_eval.training.pipeline.records import Record, describe_outputs, read_record, write_record
from r2w_eval.training.pipeline.report import write_pipeline_report
from r2w_eval.training.pipeline.runner import Pipeline, tell
from r2w_eval.training.pipeline.stages import RUNNERS
from r2w_eval.training.rl.advantages import LocalMapping, Rollout, SegmentScore
from r2w_eval.training.rl.signal import Group, read_signal, score_groups, tell_signal, warnings
from toy_scorer import Rain

FREE = LocalMapping(weight=1.0, token_cap=float("inf"), sum_cap=float("inf"), gate="always")


def rollout(outcome: float | None, *scores: float | None) -> Rollout:
    """100 tokens; reflections of 10 each."""
    parts = tuple(SegmentScore(10 * i, 10 * i + 10, score) for i, score in enumerate(scores))
    return Rollout(100, outcome, parts)


def text(prompt_id: str, reflection: str, answer: str | None) -> dict[str, str]:
    thinking = f"<draft>sun</draft><reflection>{reflection}</reflection>"
    end = "" if answer is None else f"</think>{answer}"
    return {"prompt_id": prompt_id, "prompt": "Write.", "text": f"<think>{thinking}{end}"}


def test_measures_by_hand() -> None:
    groups = [
        # equal outcomes: no advantage, and hence no process term
        Group("equal", (rollout(1.0, 0.5), rollout(1.0, -0.5))),
        Group("both", (rollout(1.0, -0.8), rollout(0.0, -0.2, -0.2), rollout(None, 0.9))),
        # nothing to compare with: its reflections count within the trace alone
        Group("alone", (rollout(1.0, 0.4, -0.4),)),
    ]
    signal = read_signal(groups, FREE)
    assert signal.n_rollouts == 6
    assert signal.value("groups whose outcomes differ") == pytest.approx(1 / 2)
    # -0.8 x 10 tokens in one, -0.2 / 2 x 10 tokens twice in the other
    assert signal.value("groups whose process terms differ") == pytest.approx(2 / 2)
    assert signal.value("rollouts with a process term") == pytest.approx(4 / 5)
    assert signal.value("rollouts without a scored reflection") == pytest.approx(1 / 6)
    assert signal.value("rollouts whose own reflections differ in score") == pytest.approx(1 / 6)
    # "equal": 5 + 5 tokens; "both": 8 + 2; outcome 0.7071 on 100 tokens twice (eps 1e-4)
    size = signal.value("size of the process term beside the outcome")
    assert size == pytest.approx(20 / (200 * 0.70701), rel=1e-4)
    assert signal.value("part of the process term below zero") == pytest.approx(15 / 20)
    assert signal.value("mean score of a reflection") == pytest.approx(-1.2 / 7)
    assert signal.value("variance of outcomes within groups") == pytest.approx(0.5 / 0.75)
    capped = read_signal(groups, LocalMapping(weight=1.0, gate="always"))
    # the cap vanishes with the spread of the outcomes
    assert capped.value("rollouts with a process term") == pytest.approx(2 / 5)
    alone = read_signal(groups[2:], FREE)
    assert alone.value("groups whose outcomes differ") is None
    assert alone.value("variance of reflection scores within traces") == pytest.approx(1.0)
    assert "  groups whose outcomes differ: n/a (n 0)" in [*tell_signal(alone)]


def test_correlation_is_that_within_groups() -> None:
    """Between the groups it is the other way round."""
    groups = [
        Group(str(n), (rollout(n + 0.25, -n / 8 + 0.0625), rollout(float(n), -n / 8)))
        for n in range(4)
    ]
    signal = read_signal(groups, FREE)
    assert signal.value("correlation of outcome and process within groups") == pytest.approx(1.0)


def test_texts_are_read_as_rollouts_are_and_a_lost_answer_has_no_outcome() -> None:
    texts = [
        text("p", "more rain", "rain rain"),
        text("p", "more sun", "rain"),
        text("q", "", None),
    ]
    first, second = score_groups(texts, Rain(), Rain())
    assert [one.outcome for one in first.rollouts] == [2.0, 1.0]
    assert [one.segments[0].score for one in first.rollouts] == [1.0, -1.0]
    segment = first.rollouts[0].segments[0]
    assert "more rain" in texts[0]["text"][segment.start : segment.end]
    assert second.rollouts[0].outcome is None


def test_what_two_policies_wrote_is_not_compared_and_silence_has_its_price() -> None:
    texts = [
        {**text("p", "", answer), "policy": policy}
        for policy, answer in (("a", "rain"), ("a", "rain"), ("b", "rain rain"), ("b", None))
    ]
    first, second = score_groups(texts, Rain(), Rain(), unanswered=-0.5)
    assert [one.outcome for one in first.rollouts] == [1.0, 1.0]
    assert [one.outcome for one in second.rollouts] == [2.0, -0.5]


def test_warnings_say_what_would_be_learnt_instead() -> None:
    bad = [Group(str(n), (rollout(1.0, -0.9), rollout(0.0, -0.5))) for n in range(4)]
    told = " ".join(warnings(read_signal(bad, FREE)))
    assert "less reflection" in told and "few traces" in told and "most groups" not in told
    # less the mean as it is, the better of two bad ones is paid
    mean = LocalMapping(weight=1.0, gate="always", baseline="mean")
    assert "less reflection" not in " ".join(warnings(read_signal(bad, mean)))
    silent = [Group(str(n), (rollout(1.0), rollout(1.0))) for n in range(4)]
    told = " ".join(warnings(read_signal(silent, FREE)))
    assert "equal outcomes" in told and "no process term" in told


def test_the_pipeline_tells_before_rl_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "own.yaml", tmp_path / "out"
    rl = {"outcome": "toy_scorer:Rain", "process": "toy_scorer:Rain"}
    path.write_text(json.dumps({
        "prompts": {"held": 2}, "rollouts": {"samples": 2}, "rl": rl,
        "grid": {"seeds": [0, 1], "lambdas": [0.0, 0.3]}, "evaluate": {"judge": ["r2w-quality"]},
    }))  # fmt: skip
    recipe = load_recipe(str(path))
    stages = plan_pipeline(recipe)
    names = [stage.name for stage in stages]
    signal = stages[names.index("signal")]
    assert signal.inputs == ("rollouts-sft-seed0", "rollouts-sft-seed1", "reward")
    assert names.index("signal") < names.index("rl-lambda0-seed0")
    print_forecast(recipe, stages, out, None)
    assert "Not known yet" in capsys.readouterr().out
    for stage in stages:
        if stage.name not in signal.inputs:
            continue
        folder = stage.folder(out)
        folder.mkdir(parents=True)
        rows = [text("p", "more rain", "rain"), text("p", "<b>", "rain rain")]
        file = folder / "rollouts.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_record(folder, Record(
            stage.name, stage.kind, stage.key, {}, stage.settings, describe_outputs(folder, [file]),
            "", {}, "", 1.0, 1.0, 1, None, 1, {},
        ))  # fmt: skip
    run_stage(job_of(recipe, stages, signal, out), RUNNERS, "a command")
    record = read_record(signal.folder(out))
    assert record is not None and record.facts["n"] == 4
    # two seeds and two samples are one group of four; lambda 0 has nothing to tell
    assert [arm["weight"] for arm in record.facts["arms"]] == [0.3]
    assert "! few traces" in tell(record)
    print_forecast(recipe, stages, out, None)
    assert "groups whose outcomes differ: 1.000" in capsys.readouterr().out
    page = write_pipeline_report(Pipeline(recipe.name, stages, out)).read_text("utf-8")
    assert "Would RL see a signal?" in page and "mean score of a reflection" in page
