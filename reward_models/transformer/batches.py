"""Which trees each step of a training takes, and what they count."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from r2w_eval.reward_models.transformer.config import TrainConfig
from r2w_eval.reward_models.transformer.packing import by_budget
from r2w_eval.reward_models.transformer.trees import Tree

# trees among which those of like length are put together
POOL = 512


def tree_weights(trees: Sequence[Tree], config: TrainConfig) -> list[float]:
    """What a tree counts, one on average: a source counts with the root of its readings.

    Without `every_row` the counts of the configuration are the balance, and every tree is one.
    """
    if not config.every_row:
        return [1.0] * len(trees)
    sizes: Counter[tuple[str, bool]] = Counter()
    for tree in trees:
        sizes[tree.source, tree.is_outcome] += len(tree.readings)
    raw = [
        len(tree.readings) / math.sqrt(sizes[tree.source, tree.is_outcome])
        * (config.outcome_weight if tree.is_outcome else 1.0)
        for tree in trees
    ]  # fmt: skip
    return [weight * len(raw) / math.fsum(raw) for weight in raw]


def batches(trees: Sequence[Tree], config: TrainConfig, rng: random.Random) -> list[list[int]]:
    """One epoch: indices of trees by batch; of like length out of a random pool."""
    if not config.batch_tokens:
        return [[i] for i in range(len(trees))]
    order = rng.sample(range(len(trees)), len(trees))
    found: list[list[int]] = []
    for start in range(0, len(order), POOL):
        pool = order[start : start + POOL]
        sizes = [len(trees[i].pack.ids) for i in pool]
        found += [[pool[k] for k in own] for own in by_budget(sizes, config.batch_tokens)]
    rng.shuffle(found)
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """A batch of trees, and how far the run is after it by count."""

    trees: tuple[int, ...]
    scale: float
    """One over the mean weight of a batch, so that rates hold for any batch size."""
    progress: float


def steps(trees: Sequence[Tree], weights: Sequence[float], config: TrainConfig) -> Iterator[Step]:
    """All batches of all epochs."""
    rng, seen, total = random.Random(config.seed), 0, len(trees) * config.epochs
    for _ in range(config.epochs):
        epoch = batches(trees, config, rng)
        scale = len(epoch) / math.fsum(weights)
        for batch in epoch:
            yield Step(tuple(batch), scale, seen / total)
            seen += len(batch)
