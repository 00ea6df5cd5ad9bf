"""What a training of the transformer is set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from r2w_eval.reward_models.transformer.backbone import BackboneConfig

from r2w_eval.errors import UsageError


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that changes the result; stored with the weights.

    `trees_per_source` and `outcome_trees` name how many; a recipe with `every_row` takes all trees
    of all sources instead, each row in one of them, or of a source in `tree_shares` that share of
    its trees of reflections: long drafts take tokens from short ones. `batch_tokens` 0: one tree a
    step. `dtype` of the base weights; empty: bfloat16 on a GPU, float32 elsewhere, since bfloat16
    pays on a processor only where it has matrix units (AMX). `start`: hash of the adapters that it
    began from, empty for fresh ones. Raises UsageError for a share that is none.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    dtype: Literal["", "float32", "bfloat16"] = ""
    learning_rate: float = 7e-4
    head_rate: float = 2e-3
    weight_decay: float = 0.01
    gamma: float = 0.01
    axis_weight: float = 0.5
    max_tokens: int = 640
    outcome_tokens: int = 640
    batch_tokens: int = 0
    every_row: bool = False
    tree_shares: Mapping[str, float] = field(default_factory=dict)
    outcome_weight: float = 1.0
    seed: int = 0
    epochs: int = 1
    max_seconds: float = 3000.0
    trees_per_source: Mapping[str, int] = field(default_factory=dict)
    outcome_trees: Mapping[str, int] = field(default_factory=dict)
    start: str = ""

    def __post_init__(self) -> None:
        for source, share in self.tree_shares.items():
            if not 0 < share <= 1:
                raise UsageError(
                    f"tree_shares of {source!r}: {share!r}. Expected more than 0 and at most 1; "
                    f"leave the source out to take all of its trees"
                )


def default_config() -> TrainConfig:
    """The mix for a CPU (see EXPERIMENTS.md)."""
    return TrainConfig(
        backbone=BackboneConfig(layers=6, adapted=4, rank=8),
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
