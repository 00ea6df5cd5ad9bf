"""Ablations of the transformer reward model at equal tokens: tasks, heads, base sizes, sets.

    python benchmarks/reward_arms.py --reward-data DIR --work DIR --out benchmarks/results

Each arm is trained from fresh adapters by the recipe `smollm2-cpu` on as many tokens as the others
(`--tokens`), from a share of the groups of every set that it reads, then read on the sample of
`reward_sample.py`. So arms compare with each other; the shipped weights saw many times as much.
An arm that stands in the work folder is not trained again, and one that was stopped goes on.
`--arm NAME` takes that one alone, repeatable. About a quarter of an hour an arm on one core with
matrix units; `--at-most N` reads N pairs of each source, which shows that it works.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.data.recipe import build_corpus, reflection_rows
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.transformer.backbone import base_of, load_tokenizer
from r2w_eval.reward_models.transformer.config import TrainConfig
from r2w_eval.reward_models.transformer.plans import encode_with
from r2w_eval.reward_models.transformer.recipe import load_recipe
from r2w_eval.reward_models.transformer.train import choose_trees, train
from reward_sample import lamp_pairs, sample, scorer_of, shown, tables, values_of

from r2w_eval.store import iter_jsonl, write_json

RECIPE = "smollm2-cpu"
REVIEWS = ("f1000rd_train", "substanreview_train")


@dataclass(frozen=True, slots=True)
class Arm:
    """What one training does otherwise than the recipe: `task` is the kind of rows that it reads
    (empty: both), `layers` of the base 0 for the recipe's, `without` sets left out.
    """

    task: str = ""
    layers: int = 0
    axis_heads: bool = True
    without: tuple[str, ...] = ()

    def reads(self, row: Row) -> bool:
        """Whether the arm trains on this row."""
        kind = "outcome" if "outcome" in row.labels else "process"
        return row.source not in self.without and self.task in ("", kind)

    def config(self, recipe: TrainConfig) -> TrainConfig:
        """The recipe as this arm has it, without a limit of time."""
        n = self.layers or recipe.backbone.layers
        backbone = replace(recipe.backbone, layers=n, adapted=n)
        axis_weight = recipe.axis_weight if self.axis_heads else 0.0
        return replace(recipe, backbone=backbone, axis_weight=axis_weight, max_seconds=math.inf)


ARMS = {
    "all": Arm(),
    "process alone": Arm(task="process"),
    "outcome alone": Arm(task="outcome"),
    "no axis heads": Arm(axis_heads=False),
    "6 layers": Arm(layers=6),
    "18 layers": Arm(layers=18),
    "without planted flaws": Arm(without=("generated_flaws",)),
    "without LAMP": Arm(without=("lamp_train",)),
    "without TETRA": Arm(without=("tetra_train",)),
    "without FG-RLHF": Arm(without=("fgrlhf_longform_qa",)),
    "without reviews": Arm(without=REVIEWS),
}


def place(row: Row) -> float:
    """Where a row's group stands between 0 and 1, whatever else is read."""
    digest = hashlib.sha256(f"arms:{row.source}:{row.split_group}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def of_budget(
    rows: Sequence[Row], config: TrainConfig, tokens: int
) -> tuple[list[Row], TrainConfig]:
    """The groups whose trees have about `tokens` tokens in all, in as many epochs as that takes."""
    tokenizer = load_tokenizer(base_of(config.backbone))
    trees = choose_trees(rows, config, lambda texts: encode_with(tokenizer, texts))
    total = sum(len(tree.pack.ids) for tree in trees)
    epochs = math.ceil(tokens / total)
    share = tokens / (total * epochs)
    return [row for row in rows if place(row) < share], replace(config, epochs=epochs)


def trained(arm: Arm, rows: Sequence[Row], tokens: int, out: Path) -> Mapping[str, Any]:
    """Train the arm unless its weights are there; what it took: tokens, seconds, epochs, layers."""
    config = arm.config(load_recipe(RECIPE))
    own = [row for row in rows if row.part == "train" and arm.reads(row)]
    chosen, config = of_budget(own, config, tokens)
    if not (out / "done").exists():
        train(chosen, config, out)
        (out / "done").touch()
    last = list(iter_jsonl(out / "log.jsonl"))[-1]
    return {"tokens": last["tokens"], "seconds": last["seconds"], "epochs": config.epochs,
            "layers": config.backbone.layers, "rows": len(chosen)}  # fmt: skip


def main() -> None:
    """All arms as JSON, a line a task and arm."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reward-data", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path, help="weights of the arms")
    parser.add_argument("--out", required=True, type=Path, help="folder of reward_arms.json")
    parser.add_argument("--tokens", type=int, default=500_000)
    parser.add_argument("--arm", action="append", choices=ARMS, help="default: all of them")
    parser.add_argument("--at-most", type=int, default=1000, metavar="N")
    options = parser.parse_args()
    rows = build_corpus(options.reward_data).rows
    held_out = sample(reflection_rows(rows), options.at_most)
    found: dict[str, Any] = {}
    for name in options.arm or ARMS:
        folder = options.work / name.replace(" ", "_")
        took = trained(ARMS[name], rows, options.tokens, folder)
        scorer = scorer_of(folder)
        values = values_of(scorer, [row.item for row in held_out])
        tasks = tables(held_out, {r.id: v for r, v in zip(held_out, values, strict=True)})
        tasks["LAMP validation pairs"] = lamp_pairs(scorer, options.reward_data, options.at_most)
        found[name] = {**took, "tasks": tasks}
        write_json(options.out / "reward_arms.json", found)
        for task, row in tasks.items():
            print(name, task, row["n"], shown(row), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
