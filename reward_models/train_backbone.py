"""Trains adapters, head and axis heads of the transformer on trees of rows.

Loss (specification: reward model, section 4), with s the head's output at a reading:

    Huber(s, y) + rank over pairs of one draft + gamma * mean(s)^2, plus Huber per axis head;
    Bradley-Terry between texts of one prompt for outcome trees.

Stops at a wall-clock limit, so that a shared machine can be planned for; writes its log as JSON
lines and its weights at the end and every few hundred steps.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from r2w_eval.reward_models.backbone import (
    BackboneConfig,
    adapter_state,
    add_adapters,
    load_backbone,
    load_tokenizer,
)
from r2w_eval.reward_models.packing import collate
from r2w_eval.reward_models.rows import Row
from r2w_eval.reward_models.trees import (
    HEAD_AXES,
    Reading,
    Tree,
    outcome_trees,
    reflection_trees,
)
from torch.nn import functional as F

RANK_MARGIN = 0.3


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that changes the result; stored with the weights."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    learning_rate: float = 7e-4
    head_rate: float = 2e-3
    gamma: float = 0.01
    axis_weight: float = 0.5
    max_tokens: int = 640
    seed: int = 0
    epochs: int = 1
    max_seconds: float = 3000.0
    trees_per_source: Mapping[str, int] = field(default_factory=dict)
    outcome_trees: Mapping[str, int] = field(default_factory=dict)


def default_config(max_seconds: float) -> TrainConfig:
    """The mix of the shipped transformer (see EXPERIMENTS.md)."""
    return TrainConfig(
        backbone=BackboneConfig(layers=6, adapted=4, rank=8),
        max_seconds=max_seconds,
        trees_per_source={
            "lamp_train": 170,
            "generated_flaws": 190,
            "tetra_train": 110,
            "fgrlhf_longform_qa": 60,
            "f1000rd_train": 260,
            "substanreview_train": 60,
        },
        outcome_trees={"lamp_train": 70, "generated_flaws": 30},
    )


def choose_trees(rows: Sequence[Row], config: TrainConfig, tokenizer: Any) -> list[Tree]:
    """The training trees of every source, as many as the configuration names, shuffled."""
    rng = random.Random(config.seed)

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return ids

    chosen: list[Tree] = []
    training = [row for row in rows if row.part == "train"]
    for source, count in config.trees_per_source.items():
        own = [r for r in training if r.source == source and "outcome" not in r.labels]
        groups = sorted({row.split_group for row in own})
        rng.shuffle(groups)
        keep = set(groups[:count])
        picked = [row for row in own if row.split_group in keep]
        trees = reflection_trees(picked, encode, config.max_tokens, rng)
        chosen += rng.sample(trees, min(count, len(trees)))
    for source, count in config.outcome_trees.items():
        own = [r for r in training if r.source == source and "outcome" in r.labels]
        trees = outcome_trees(own, encode, config.max_tokens)
        chosen += rng.sample(trees, min(count, len(trees)))
    rng.shuffle(chosen)
    return chosen


def tree_loss(
    values: torch.Tensor, axes: torch.Tensor, tree: Tree, config: TrainConfig
) -> torch.Tensor:
    """Loss of one tree; `values` (readings,), `axes` (readings, 4)."""
    targets = torch.tensor([r.value for r in tree.readings])
    weights = torch.tensor([r.weight for r in tree.readings])
    better, worse = ranked(tree.readings)
    loss = config.gamma * values.mean() ** 2
    if better:
        gaps = values[better] - values[worse]
        loss = loss - F.logsigmoid(2.0 * gaps).mean()
    loss = loss + (weights * F.huber_loss(values, targets, reduction="none")).mean()
    known = [(i, j, r.axes[a]) for i, r in enumerate(tree.readings)
             for j, a in enumerate(HEAD_AXES) if a in r.axes]  # fmt: skip
    if known:
        rows, columns, labels = zip(*known, strict=True)
        found = axes[list(rows), list(columns)]
        loss = loss + config.axis_weight * F.huber_loss(found, torch.tensor(labels))
    return loss


def ranked(readings: Sequence[Reading]) -> tuple[list[int], list[int]]:
    """Indices (better, worse) of readings of one pair whose targets differ clearly."""
    better, worse = [], []
    for i, one in enumerate(readings):
        for j, other in enumerate(readings):
            if one.pair == other.pair and one.value - other.value > RANK_MARGIN:
                better.append(i)
                worse.append(j)
    return better, worse


def train(rows: Sequence[Row], config: TrainConfig, out: Path) -> Path:
    """Train and write `adapter.safetensors`, `train.json` and `log.jsonl`; returns `out`."""
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    from r2w_eval.embedded import convert_to_hf

    base = convert_to_hf()
    tokenizer = load_tokenizer(base)
    model = load_backbone(config.backbone, tokenizer, base)
    trained = add_adapters(model, config.backbone)
    axis_head = torch.nn.Parameter(torch.zeros(len(HEAD_AXES), model.config.hidden_size))
    trees = choose_trees(rows, config, tokenizer) * config.epochs
    optimizer = torch.optim.AdamW(
        [
            {"params": trained[:-1], "lr": config.learning_rate},
            {"params": [trained[-1], axis_head], "lr": config.head_rate},
        ],
        weight_decay=0.01,
    )
    _loop(model, axis_head, trees, optimizer, config, out, tokenizer.pad_token_id)
    return out


def _loop(  # noqa: PLR0913
    model: Any,
    axis_head: torch.nn.Parameter,
    trees: Sequence[Tree],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    out: Path,
    pad_id: int,
) -> None:
    started, tokens = time.monotonic(), 0
    base = [group["lr"] for group in optimizer.param_groups]
    with (out / "log.jsonl").open("a") as log:
        for step, tree in enumerate(trees):
            spent = time.monotonic() - started
            progress = max(step / len(trees), spent / config.max_seconds)
            if progress >= 1.0:
                break
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = rate * schedule(progress)
            hidden = model.model(**collate([tree.pack], pad_id)).last_hidden_state[0]
            at = hidden[[r.position for r in tree.readings]]
            loss = tree_loss(model.score(at)[:, 0], at @ axis_head.T, tree, config)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(
                [p for g in optimizer.param_groups for p in g["params"]], 1.0
            )
            optimizer.step()
            tokens += len(tree.pack.ids)
            record = {"step": step, "source": tree.source, "loss": round(float(loss), 4),
                      "tokens": tokens, "seconds": round(spent, 1)}  # fmt: skip
            log.write(json.dumps(record) + "\n")
            log.flush()
            if step % 100 == 99:
                save(model, axis_head, config, out)
    save(model, axis_head, config, out)


def schedule(progress: float) -> float:
    """Linear warm-up over 5 %, then cosine to 5 %.

    >>> schedule(0.05), round(schedule(1.0), 3)
    (1.0, 0.05)
    """
    if progress < 0.05:
        return max(0.05, progress / 0.05)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))


def save(model: Any, axis_head: torch.Tensor, config: TrainConfig, out: Path) -> None:
    """Adapters, head and axis heads as float16 safetensors, with the configuration beside."""
    from safetensors.torch import save_file

    state = adapter_state(model)
    state["axes.weight"] = axis_head.detach().to(torch.float16).contiguous()
    save_file(state, out / "adapter.safetensors")
    (out / "train.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
