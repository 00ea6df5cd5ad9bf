"""Which checkpoint is the best, and the command that evaluates them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from r2w_eval.training.checkpoints.progress import ROWS, ProgressRow, evaluations, reflection_share
from r2w_eval.training.checkpoints.validation import (
    EvaluationSettings,
    Watcher,
    best_step,
    tell_uncompared,
)
from r2w_eval.training.checkpoints.watch import _only_watcher

from r2w_eval.cli import cli
from r2w_eval.store import write_jsonl


def row(
    step: int,
    score: float | None,
    task: str = "a",
    key: str = "k",
    floor: float | None = None,
) -> ProgressRow:
    return ProgressRow(step, f"checkpoint-{step}", "run", task, "j", key, score, floor=floor)


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([], None),
        ([row(1, None)], None),
        ([row(1, 5.0), row(2, 7.0), row(3, 6.0)], 2),
        ([row(1, 5.0), row(2, 5.0)], 1),
        # ranks, not sums: the scale of a suite is not its weight
        ([row(1, 5.0), row(2, 6.0), row(1, 90.0, "b"), row(2, 89.0, "b"), row(2, 2.0, "c"),
          row(1, 1.0, "c")], 2),
        # a step that lacks a suite is not compared
        ([row(1, 5.0), row(2, 9.0), row(1, 50.0, "b")], 1),
        # who stops answering what is hard has a high mean over the rest
        ([row(1, 6.0, floor=6.0), row(2, 6.2, floor=1.5)], 1),
        # nor is a score of an earlier identity
        ([row(1, 9.0, key="old"), row(2, 5.0), row(3, 4.0)], 2),
    ],
)  # fmt: skip
def test_the_best_step_has_the_lowest_mean_rank(
    rows: list[ProgressRow], expected: int | None
) -> None:
    assert best_step(rows) == expected


def test_checkpoints_that_could_not_be_compared_are_told(tmp_path: Path) -> None:
    evaluations(tmp_path).mkdir()
    whole = [row(step, 5.0, task) for step in (1, 2) for task in "ab"]
    for lost, note in (((), ""), ((3,), "only 2 of 3 evaluated"), ((3, 4), "only 2 of 4")):
        write_jsonl(evaluations(tmp_path) / ROWS, [*whole, *(row(step, 6.0) for step in lost)])
        told = tell_uncompared(tmp_path)
        assert bool(told) == bool(note) and all(note in one for one in told)


def test_an_evaluation_that_fails_before_its_first_row_is_not_started_at_every_step(
    tmp_path: Path,
) -> None:
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
    watcher = Watcher(tmp_path, EvaluationSettings(tasks="quickstart"))
    evaluations(tmp_path).mkdir()
    with _only_watcher(tmp_path):
        watcher.start()
        for _ in range(3):
            if watcher._running is not None:
                watcher._running.wait()
            watcher.go_on()
    log = (evaluations(tmp_path) / "watch.log").read_text()
    assert log.count("another process evaluates") == 1, log


def test_the_command_names_what_was_chosen_and_nothing_else() -> None:
    settings = EvaluationSettings(tasks="quickstart", judge="r2w-quality", limit=5)
    command = settings.command(Path("out/checkpoints"))
    assert command[1:] == [
        "-m", "r2w_eval", "watch", "out/checkpoints", "--once",
        "--tasks", "quickstart", "--judge", "r2w-quality", "--limit", "5",
    ]  # fmt: skip
    assert settings.is_on and not EvaluationSettings().is_on


def test_a_row_without_thinking_has_no_reflection_measure() -> None:
    assert reflection_share(row(1, 5.0), "repeats") is None


def test_a_folder_without_checkpoints_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["watch", str(tmp_path), "--once"])
    assert done.exit_code == 0 and f"{tmp_path}: no checkpoint-N" in done.output
