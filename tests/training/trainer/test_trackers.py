"""Losses and rewards in the trackers that a recipe names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs the train extra: pip install 'r2w-eval[train]'")

from click.testing import CliRunner
from r2w_eval.training.prompts import Prompt
from r2w_eval.training.recipe import read_settings
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.rl.train import train_rl
from r2w_eval.training.trainer.sft import SFTSettings, to_row, train_sft
from r2w_eval.training.trainer.trackers import require_trackers
from toy_policy import save_policy

from r2w_eval.cli.app import cli
from r2w_eval.errors import UsageError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ABSENT = "clearml"


def events(out: Path) -> bytes:
    """What the stage sent to TensorBoard."""
    return b"".join(path.read_bytes() for path in out.rglob("events.out.tfevents.*"))


def test_tensorboard_gets_losses_and_rewards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    rows = [to_row({"prompt": "sun", "thinking": "rain", "answer": "sun"})] * 2
    sft = SFTSettings(str(save_policy(tmp_path / "policy")), epochs=1.0, report_to=("tensorboard",))
    made = train_sft(sft, rows, tmp_path / "sft")
    assert b"train/loss" in events(tmp_path)
    rl = RLSettings(
        str(made.model), outcome="toy_scorer:Rain", process="toy_scorer:Rain", validity="waived",
        steps=1, group=2, groups_per_step=1, max_completion_tokens=8, report_to=("tensorboard",),
    )  # fmt: skip
    train_rl(rl, [Prompt("p", "en", "toy", "sun rain")], tmp_path / "rl")
    found = events(tmp_path)
    assert b"train/reward" in found and b"train/process/" in found
    train_sft(replace(sft, report_to=()), rows, tmp_path / "quiet")
    assert events(tmp_path) == found


@pytest.mark.parametrize("kind", [SFTSettings, RLSettings])
def test_a_tracker_is_no_part_of_the_identity(kind: type[SFTSettings] | type[RLSettings]) -> None:
    settings = read_settings(kind, {"report_to": ["wandb"]}, "recipe: stage")
    assert settings.report_to == ("wandb",) and settings.work() == kind().work()
    assert "report_to" not in settings.work()


def test_an_unknown_tracker_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"rl\.report_to: 'wandbb': expected .*wandb"):
        read_settings(RLSettings, {"report_to": ["wandbb"]}, "recipe: rl")


def test_a_tracker_that_is_not_installed_ends_a_pipeline_before_its_first_stage(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match=f"'{ABSENT}': not installed here"):
        require_trackers([ABSENT])
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(f"rl: {{report_to: [{ABSENT}]}}\n")
    done = CliRunner().invoke(cli, ["train", "pipeline", str(recipe), "--out", str(out)])
    assert isinstance(done.exception, UsageError) and ABSENT in str(done.exception)
    assert not list(out.glob("*/record.json"))
