"""Trains adapters, head and axis heads of the transformer on trees of rows.

The loss is in `losses.py`. On GPUs base weights in bfloat16, trained ones in float32, batches of
trees of like length; on a CPU what the recipe says. Several processes (`accelerate launch`) take a
batch each and step by the mean of their gradients. It stops at a wall-clock limit, so that a shared
machine can be planned for; writes its log as JSON lines and, once a minute, its weights and all
that it takes to go on after a kill.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from r2w_eval.reward_models.axes import HEAD_AXES
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.transformer.backbone import (
    ADAPTERS,
    adapter_state,
    add_adapters,
    base_of,
    load_adapters,
    load_backbone,
    load_tokenizer,
    read_adapters,
)
from r2w_eval.reward_models.transformer.batches import Step, steps, tree_weights
from r2w_eval.reward_models.transformer.config import TrainConfig
from r2w_eval.reward_models.transformer.losses import Targets, batch_loss, join, targets_of
from r2w_eval.reward_models.transformer.packing import hidden_at
from r2w_eval.reward_models.transformer.plans import EncodeAll, encode_with
from r2w_eval.reward_models.transformer.scorer import ArtifactScorer
from r2w_eval.reward_models.transformer.state import (
    Progress,
    read_state,
    remove_state,
    require_one_start,
    run_identity,
    write_state,
    write_tensors,
)
from r2w_eval.reward_models.transformer.trees import Tree, outcome_trees, reflection_trees

from r2w_eval.hashing import file_hash
from r2w_eval.ranks import (
    device_of_rank,
    from_all,
    is_first,
    n_processes,
    on_first,
    rank,
    share_gradients,
)
from r2w_eval.store import iter_jsonl, write_json, write_jsonl

SAVE_EVERY_S = 60.0


class Reader(torch.nn.Module):
    """The classifier with axis heads: values (readings,) and axes (readings, 4) of a batch."""

    def __init__(self, model: Any, pad_id: int) -> None:
        super().__init__()
        self.model = model
        self.pad_id = pad_id
        self.axes = torch.nn.Parameter(torch.zeros(len(HEAD_AXES), model.config.hidden_size))

    def forward(self, trees: Sequence[Tree]) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass over the packs of all trees, read at their readings."""
        places = [[r.position for r in tree.readings] for tree in trees]
        packs = [tree.pack for tree in trees]
        at = hidden_at(self.model.model, packs, places, self.pad_id).float()
        return self.model.score(at)[:, 0], at @ self.axes.T


@dataclass(frozen=True)
class Learner:
    """What is being trained, and its optimizer."""

    reader: Reader
    tokenizer: Any
    optimizer: torch.optim.Optimizer
    config: TrainConfig

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.reader.axes.device

    def parameters(self) -> list[torch.nn.Parameter]:
        """All that is trained."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids."""
        return encode_with(self.tokenizer, texts)

    def scorer(self) -> ArtifactScorer:
        """Scores with the weights as they are, before they are merged and exported."""
        axes = self.reader.axes.detach()
        return ArtifactScorer(Path("in training"), self.reader.model, self.tokenizer, axes)

    def save(self, out: Path) -> None:
        """Adapters, head and axis heads as float16 safetensors, with the configuration beside."""
        state = adapter_state(self.reader.model)
        state["axes.weight"] = self.reader.axes.detach().to("cpu", torch.float16).contiguous()
        write_tensors(out / ADAPTERS, state)
        write_json(out / "train.json", asdict(self.config))


def new_learner(config: TrainConfig, device: str | None = None) -> Learner:
    """Base, fresh adapters and heads, the same on every rank; default device: a GPU where there is
    one, of several the rank's own.
    """
    torch.manual_seed(config.seed)
    device = device or device_of_rank()
    on_gpu = device.startswith("cuda")
    tokenizer = load_tokenizer(base_of(config.backbone))
    dtype = config.dtype or ("bfloat16" if on_gpu else "float32")
    model = load_backbone(config.backbone, tokenizer, dtype)
    trained = add_adapters(model, config.backbone)
    reader = Reader(model, tokenizer.pad_token_id).to(device)
    optimizer = torch.optim.AdamW(
        [
            {"params": trained[:-1], "lr": config.learning_rate},
            {"params": [trained[-1], reader.axes], "lr": config.head_rate},
        ],
        weight_decay=config.weight_decay,
        fused=on_gpu,
    )
    return Learner(reader, tokenizer, optimizer, config)


def learner_from(start: Path, config: TrainConfig) -> Learner:
    """A learner with the adapters and heads that an earlier training left in a folder.

    Raises UsageError if there are none, or those of another shape.
    """
    state, _ = read_adapters(start)
    learner = new_learner(replace(config, start=file_hash(start / ADAPTERS)[:24]))
    axes = load_adapters(learner.reader.model, config.backbone, state, start)
    with torch.no_grad():
        learner.reader.axes.copy_(axes)
    return learner


def train(
    rows: Sequence[Row], config: TrainConfig, out: Path, start: Path | None = None
) -> Learner:
    """Train and write `adapter.safetensors`, `train.json` and `log.jsonl` to `out`; from fresh
    adapters, or from those that an earlier training left in the folder `start`.

    The seconds count from here: reading the base and making trees are part of them. A training of
    the same configuration and rows that was stopped goes on from its last minute; one of others is
    refused (UsageError).
    """
    started = time.monotonic()
    on_first(lambda: out.mkdir(parents=True, exist_ok=True))
    learner = new_learner(config) if start is None else learner_from(start, config)
    config = learner.config
    trees = choose_trees(rows, config, learner.encode)
    identity = run_identity(asdict(config), trees)
    begun = read_state(out, identity, learner.parameters(), learner.optimizer)
    require_one_start(from_all(begun), out)
    _loop(learner, trees, out, _Clock(identity, begun, started + config.max_seconds))
    return learner


def choose_trees(rows: Sequence[Row], config: TrainConfig, encode: EncodeAll) -> list[Tree]:
    """The training trees, as many of each source as the configuration says, shuffled."""
    rng = random.Random(config.seed)
    training = [row for row in rows if row.part == "train"]
    chosen: list[Tree] = []
    if config.every_row:
        for source in sorted({row.source for row in training}):
            own = [row for row in training if row.source == source]
            process = [row for row in own if "outcome" not in row.labels]
            outcome = [row for row in own if "outcome" in row.labels]
            trees = reflection_trees(process, encode, config.max_tokens, rng, spill=True)
            share = config.tree_shares.get(source, 1.0)
            chosen += rng.sample(trees, math.ceil(share * len(trees)))
            chosen += outcome_trees(outcome, encode, config.outcome_tokens, spill=True)
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
        trees = outcome_trees(own, encode, config.outcome_tokens)
        chosen += rng.sample(trees, min(count, len(trees)))
    rng.shuffle(chosen)
    return chosen


@dataclass(frozen=True)
class _Clock:
    """Which run this is, where it goes on, and when it has to end."""

    identity: str
    begun: Progress
    deadline: float


def _loop(learner: Learner, trees: Sequence[Tree], out: Path, clock: _Clock) -> None:
    config, at = learner.config, clock.begun
    weights = tree_weights(trees, config)
    known = [targets_of(tree) for tree in trees]
    base = [group["lr"] for group in learner.optimizer.param_groups]
    now = time.monotonic()
    # what was spent before a stop counts: the limit is that of the whole training
    started, saved, available = now - at.seconds, at.seconds, max(1.0, clock.deadline - now)
    # reading a loss waits for the device
    log_every = 20 if learner.device.type == "cuda" else 1
    ahead = itertools.islice(steps(trees, weights, config), at.batches, None)
    log = _Log(out / "log.jsonl", at.batches)
    for number, own in enumerate(rounds(ahead)):
        spent = time.monotonic() - started
        progress = agreed(max(own[0].progress, spent / available))
        if progress >= 1.0:
            break
        for group, rate in zip(learner.optimizer.param_groups, base, strict=True):
            group["lr"] = rate * schedule(progress)
        mine = own[rank()] if rank() < len(own) else Step((), 0.0, 0.0)
        loss = _update(learner, [trees[i] for i in mine.trees], [known[i] for i in mine.trees],
                       [weights[i] * mine.scale for i in mine.trees], len(own))  # fmt: skip
        chosen = [trees[i] for step in own for i in step.trees]
        tokens = at.tokens + sum(len(tree.pack.ids) for tree in chosen)
        if number % log_every == 0:
            log.add({"step": at.batches, "source": chosen[0].source, "loss": round(float(loss), 4),
                     "tokens": tokens, "seconds": round(spent, 1)})  # fmt: skip
        at = Progress(at.batches + len(own), tokens, time.monotonic() - started)
        if at.seconds - saved > SAVE_EVERY_S and is_first():
            saved = at.seconds
            learner.save(out)
            write_state(out, clock.identity, learner.parameters(), learner.optimizer, at)
    if is_first():
        learner.save(out)
        remove_state(out)


class _Log:
    """Records as JSON lines, by rank 0 alone; those that a resumed run makes again are dropped."""

    def __init__(self, path: Path, begins: int) -> None:
        self._path = path
        if is_first():
            write_jsonl(path, [r for r in iter_jsonl(path) if r["step"] < begins])

    def add(self, record: Mapping[str, Any]) -> None:
        if is_first():
            with self._path.open("a") as file:
                file.write(json.dumps(record) + "\n")


def rounds(batches: Iterator[Step]) -> Iterator[list[Step]]:
    """One batch for each process, or fewer in the last round."""
    while own := list(itertools.islice(batches, n_processes())):
        yield own


def agreed(progress: float) -> float:
    """What the clock of rank 0 says, on every rank: rates and the end are the same for all."""
    return on_first(lambda: progress)


def _update(
    learner: Learner,
    trees: Sequence[Tree],
    known: Sequence[Targets],
    weights: Sequence[float],
    n_batches: int,
) -> torch.Tensor:
    """One step of the optimizer by the mean gradient of `n_batches` batches, of which this process
    has the one of `trees`, or none; its loss, left on the device.
    """
    config = learner.config
    loss = torch.zeros((), device=learner.device)
    learner.optimizer.zero_grad()
    if trees:
        values, axes = learner.reader(trees)
        batch = join(known, weights, learner.device)
        loss = batch_loss(values, axes, batch, config.axis_weight, config.gamma)
        torch.autograd.backward(loss)
    if n_processes() > 1:
        share_gradients(learner.parameters(), n_batches)
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    learner.optimizer.step()
    return loss.detach()


def schedule(progress: float) -> float:
    """Linear warm-up over 5 %, then cosine to 5 %.

    >>> schedule(0.05), round(schedule(1.0), 3)
    (1.0, 0.05)
    """
    if progress < 0.05:
        return max(0.05, progress / 0.05)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))
