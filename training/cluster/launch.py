"""Training on a cluster by verl: data files from our prompts, and the command that starts it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from r2w_eval.training.prompts import Prompt, hold_apart

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.records.places import open_place, publish

SOURCE = "r2w"


@dataclass(frozen=True, slots=True)
class ClusterData:
    """Paths or addresses of Parquet files with verl's columns, and the numbers of their rows."""

    train: str
    val: str
    n_train: int
    n_val: int


def config_folder() -> Path:
    """The folder of the shipped configurations of verl."""
    return Path(str(resources.files(__package__).joinpath("verl")))


def write_cluster_data(prompts: Sequence[Prompt], n_val: int, out: str | Path) -> ClusterData:
    """Write `train.parquet`, and `val.parquet` with the `n_val` prompts that `hold_apart` holds
    out. Raises UsageError if either would be empty, since verl reads both.
    """
    if n_val == 0:
        raise UsageError("--val 0: verl reads prompts to validate on. Try: --val 1")
    train, val = hold_apart(prompts, n_val, "--val")
    fs, folder = open_place(str(out))
    files: dict[str, str] = {}
    for split, own in (("train", train), ("val", val)):
        rows = [verl_row(prompt, place, split) for place, prompt in enumerate(own)]
        path = f"{folder}/{split}.parquet"
        publish(fs, path, _as_parquet(rows))
        files[split] = str(fs.unstrip_protocol(path)).removeprefix("file://")
    return ClusterData(**files, n_train=len(train), n_val=len(val))


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
    """The command that starts the training, for where verl is installed. Raises UnknownName."""
    own = {path.stem: path for path in sorted(config_folder().glob("[a-z]*.yaml"))}
    if recipe not in own:
        raise UnknownName("--recipe", recipe, "configuration of verl", own, "r2w-eval train --help")
    return [
        *("python", "-m", "verl.trainer.main_ppo"),
        *("--config-path", str(config_folder()), "--config-name", recipe),
        f"data.train_files={_quoted(data.train)}",
        f"data.val_files={_quoted(data.val)}",
        f"actor_rollout_ref.model.path={_quoted(model)}",
    ]


def _quoted(value: str) -> str:
    """A value in an override of Hydra, whose grammar knows `=`, `,`, blanks and brackets."""
    if re.fullmatch(r"[\w./:@+-]+", value):
        return value
    return "'" + value.replace("'", "\\'") + "'"
