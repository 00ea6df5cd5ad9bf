"""`r2w-eval train cluster`: verl's data files, and the command that starts it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from r2w_eval.training.cluster.launch import config_folder, launch_command, write_cluster_data
from r2w_eval.training.prompts import Criterion, Prompt, hold_apart, starter_prompts

from r2w_eval.cli.train import train
from r2w_eval.errors import UnknownName, UsageError

pq = pytest.importorskip("pyarrow.parquet")


def test_prompts_become_verls_rows_and_the_command_names_files_that_exist(tmp_path: Path) -> None:
    out = tmp_path / "data"
    words = ["cluster", "--n", "12", "--val", "3", "--model", "sft/model", "--out", str(out)]
    done = CliRunner().invoke(train, words, catch_exceptions=False)
    assert done.exit_code == 0
    argv = shlex.split(done.stdout)
    settings = dict(word.split("=", 1) for word in argv if "=" in word)
    assert settings["actor_rollout_ref.model.path"] == "sft/model"
    assert (Path(argv[argv.index("--config-path") + 1]) / "local.yaml").is_file()
    rows = [pq.read_table(settings[f"data.{part}_files"]).to_pylist() for part in ("train", "val")]
    assert [len(own) for own in rows] == [9, 3]
    ids = {row["extra_info"]["id"] for own in rows for row in own}
    assert len(ids) == 12 and {row["extra_info"]["split"] for row in rows[1]} == {"val"}
    assert [row["extra_info"]["index"] for row in rows[0]] == list(range(9))
    # the pipeline and verl hold the same prompts apart
    _, held = hold_apart(starter_prompts(12), 3)
    assert [row["extra_info"]["id"] for row in rows[1]] == [prompt.id for prompt in held]


def test_a_rubric_travels_with_its_prompt_and_other_numbers_are_refused(tmp_path: Path) -> None:
    rubric = (Criterion("plain", "Plain words.", 2.0),)
    prompts = [Prompt(str(n), "en", "essay", f"Write {n}.", rubric) for n in range(4)]
    data = write_cluster_data(prompts, 1, tmp_path)
    (row,) = pq.read_table(data.val).to_pylist()
    assert [Criterion(**entry) for entry in json.loads(row["extra_info"]["rubric"])] == [*rubric]
    for n, words in ((4, "--val 4: expected 0 to 3"), (0, "--val 0: verl reads")):
        with pytest.raises(UsageError, match=words):
            write_cluster_data(prompts, n, tmp_path)
    with pytest.raises(UnknownName, match="Did you mean local"):
        launch_command("locall", "m", data)


def test_odd_paths_and_object_stores_are_named_as_hydra_and_verl_read_them(tmp_path: Path) -> None:
    pytest.importorskip("hydra", reason="comes with verl")
    from hydra.core.override_parser.overrides_parser import OverridesParser

    folder = tmp_path / "lr=1e-6, it's [a] test"
    data = write_cluster_data(starter_prompts(4), 1, folder)
    argv = launch_command("local", "org/name@v1", data)
    found = {
        one.key_or_group: one.value()
        for one in OverridesParser.create().parse_overrides([word for word in argv if "=" in word])
    }
    assert found["data.train_files"] == str(folder / "train.parquet")
    assert found["actor_rollout_ref.model.path"] == "org/name@v1"


def test_data_for_an_object_store_stay_there() -> None:
    data = write_cluster_data(starter_prompts(4), 1, "memory://cluster/data")
    assert data.train == "memory:///cluster/data/train.parquet"
    argv = launch_command("local", "m", data)
    assert "data.val_files=memory:///cluster/data/val.parquet" in argv
    odd = replace(data, val="/a b/it's,val")
    assert r"data.val_files='/a b/it\'s,val'" in launch_command("local", "m", odd)


def test_configurations_differ_in_the_algorithm_alone() -> None:
    found = {p.stem: yaml.safe_load(p.read_text("utf-8")) for p in config_folder().glob("*.yaml")}
    assert set(found) == {"_common", "local", "gae"}
    for name in ("local", "gae"):
        assert found[name]["defaults"] == ["ppo_trainer", "_common", "_self_"]
    assert found["_common"]["actor_rollout_ref"]["model"]["path"] == "???"
