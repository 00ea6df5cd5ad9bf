"""Training on a cluster by verl: data files from our prompts, and the command that starts it."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from r2w_eval.training.prompts import Prompt

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.places import open_place, publish

SOURCE = "r2w"


@dataclass(frozen=True, slots=True)
class ClusterData:
    """Parquet files in verl's columns, and how many prompts each has."""

    train: Path
    val: Path
    n_train: int
    n_val: int


def config_folder() -> Path:
    """Where our configurations of verl lie."""
    return Path(str(resources.files(__package__).joinpath("verl")))


def write_cluster_data(prompts: Sequence[Prompt], n_val: int, seed: int, out: Path) -> ClusterData:
    """Write `train.parquet` and `val.parquet`, the latter with `n_val` prompts drawn by `seed`.

    Raises UsageError when nothing would be left to train on.
    """
    if not 0 < n_val < len(prompts):
        raise UsageError(
            f"--val {n_val}: expected 1 to {len(prompts) - 1}, for there are {len(prompts)} "
            f"prompts. Try: --val {max(1, len(prompts) // 10)}"
        )
    held = set(random.Random(seed).sample(range(len(prompts)), n_val))
    parts = {
        "train": [prompt for place, prompt in enumerate(prompts) if place not in held],
        "val": [prompts[place] for place in sorted(held)],
    }
    fs, folder = open_place(str(out))
    for split, own in parts.items():
        rows = [verl_row(prompt, place, split) for place, prompt in enumerate(own)]
        publish(fs, f"{folder}/{split}.parquet", _as_parquet(rows))
    return ClusterData(
        out / "train.parquet", out / "val.parquet", len(parts["train"]), len(parts["val"])
    )


def verl_row(prompt: Prompt, place: int, split: str) -> dict[str, Any]:
    """One row of verl's data set; the reward manager reads `extra_info`."""
    return {
        "data_source": SOURCE,
        "prompt": [{"role": "user", "content": prompt.prompt}],
        "reward_model": {"style": "rule", "ground_truth": ""},
        "extra_info": {
            "index": place,
            "split": split,
            "id": prompt.id,
            "rubric": json.dumps([asdict(criterion) for criterion in prompt.rubric]),
        },
    }


def _as_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()


def launch_command(recipe: str, model: str, data: ClusterData) -> list[str]:
    """What starts the training where verl is installed. Raises UnknownName for a configuration."""
    own = {path.stem: path for path in sorted(config_folder().glob("[a-z]*.yaml"))}
    if recipe not in own:
        raise UnknownName("--recipe", recipe, "configuration of verl", own, "r2w-eval train --help")
    return [
        *("python", "-m", "verl.trainer.main_ppo"),
        *("--config-path", str(config_folder()), "--config-name", recipe),
        f"data.train_files={data.train.resolve()}",
        f"data.val_files={data.val.resolve()}",
        f"actor_rollout_ref.model.path={model}",
    ]
