"""The shipped reward model `r2w-reward`: items in, scores out, in order.

    from r2w_eval.reward_models.scorer import load_reward
    scores = load_reward().score([ReflectionItem("1", prompt, draft, reflection, revision)])
    print(scores[0].value, scores[0].parts)

Reflections get relevance, constructiveness, efficiency and, with a revision, effect; the value is a
head of its own, trained on their weighted mean. Writings get the outcome. All values are in
[-1, 1]. No torch is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from r2w_eval.reward_models.items import (
    Item,
    ItemScore,
    ItemStatus,
    ReflectionItem,
    WritingItem,
    failed,
    unscorable,
)
from r2w_eval.reward_models.linear.arrays import FORM_FILE, HEADS_FILE, PROSE_FILE
from r2w_eval.reward_models.linear.features import MAX_CHARS, reflection_features
from r2w_eval.reward_models.linear.heads import HEADS, Heads, load_heads
from r2w_eval.reward_models.linear.outcome import Outcome, load_form
from r2w_eval.reward_models.linear.prose import load_prose

from r2w_eval.errors import R2WError, UnknownName
from r2w_eval.hashing import file_hash, text_hash
from r2w_eval.named_objects import load_object

NAME = "r2w-reward"
JUDGE = "judge:"
# versions of the features of reflections and of writings; part of the identity
READING, WRITING = "reading 6", "reading 4"
SCORERS = {
    NAME: "r2w_eval.reward_models.scorer:load_reward",
    "r2w-ensemble": "r2w_eval.reward_models.ensemble:load_ensemble",
    "r2w-rules": "r2w_eval.reward_models.rules:RulesScorer",
}


class ItemScorer(Protocol):
    """Scores batches of items."""

    @property
    def id(self) -> str:
        """Name and version of the weights."""

    def describe(self) -> Mapping[str, Any]:
        """Everything else that affects scores."""

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item, in order; without a value for an item that cannot be scored."""


@dataclass(frozen=True)
class RewardModel:
    """The fitted process heads and outcome model.

    train_run: hash of the data that it was fitted on
    """

    heads: Heads
    outcome: Outcome
    weights_hash: str
    outcome_hash: str
    """Hash of the weights that score writing: refitting process heads does not change a judge."""
    train_run: str = ""

    @property
    def id(self) -> str:
        """`r2w-reward@` and the beginning of the hash of the weights."""
        return f"{NAME}@{self.weights_hash[:12]}"

    def describe(self) -> Mapping[str, Any]:
        """Weights and limits."""
        return {"weights_sha256": self.weights_hash, "data": self.train_run,
                "max_chars": MAX_CHARS}  # fmt: skip

    @cached_property
    def _column(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(HEADS)}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item, in order."""
        problems = {i: why for i, item in enumerate(items) if (why := unscorable(item))}
        found = {i: failed(items[i].id, *problem) for i, problem in problems.items()}
        good = {i: item for i, item in enumerate(items) if i not in problems}
        reflections = {i: item for i, item in good.items() if isinstance(item, ReflectionItem)}
        writings = {i: item for i, item in good.items() if isinstance(item, WritingItem)}
        found |= self._score_reflections(reflections)
        if writings:
            values = self.outcome.values(list(writings.values()))
            for (i, writing), value in zip(writings.items(), values, strict=True):
                cut = _cut(len(writing.response))
                found[i] = _finite(writing.id, float(np.tanh(value)), cut)
        return [found[i] for i in range(len(items))]

    def _score_reflections(self, items: Mapping[int, ReflectionItem]) -> dict[int, ItemScore]:
        # reflections on one draft follow each other, so that the draft is read once
        order = sorted(items, key=lambda i: (items[i].draft, items[i].revision or ""))
        features = {i: reflection_features(items[i]) for i in order}
        if not features:
            return {}
        rows = self.heads.values(list(features.values()))
        return {i: self._as_score(items[i], row) for i, row in zip(features, rows, strict=True)}

    def _as_score(self, item: ReflectionItem, row: Any) -> ItemScore:
        axes = ["relevance", "constructiveness", "efficiency"]
        if item.revision is not None:
            axes.append("effect")
        parts: dict[str, Any] = {axis: round(float(row[self._column[axis]]), 6) for axis in axes}
        longest = max(len(item.draft), len(item.revision or ""), len(item.reflection))
        return _finite(item.id, float(row[self._column["value"]]), {**parts, **_cut(longest)})


def _cut(length: int) -> dict[str, Any]:
    """How many characters were not read; empty for texts up to MAX_CHARS."""
    return {"unread_chars": length - MAX_CHARS} if length > MAX_CHARS else {}


def _finite(item_id: str, value: float, parts: Mapping[str, Any]) -> ItemScore:
    if not math.isfinite(value):
        return failed(item_id, ItemStatus.NOT_FINITE, "the weights gave a value that is no number")
    return ItemScore(item_id, round(value, 6), parts)


def load_reward(folder: Path | None = None) -> RewardModel:
    """The shipped weights, or those in `folder`. Raises DataError."""
    root = folder or Path(str(resources.files(__package__).joinpath("weights")))
    heads, facts = load_heads(root / HEADS_FILE)
    outcome = Outcome(load_prose(root / PROSE_FILE), load_form(root / FORM_FILE))
    hashes = [file_hash(root / name) for name in (HEADS_FILE, PROSE_FILE, FORM_FILE)]
    whole, writing = (
        text_hash("".join([*hashes, READING])),
        text_hash("".join([*hashes[1:], WRITING])),
    )
    return RewardModel(heads, outcome, whole, writing, facts.get("data", ""))


def open_scorer(spec: str, patience_s: float | None = None) -> ItemScorer:
    """A scorer by name, by `module:attr`, or a folder: fitted weights, or an exported artefact.

    `judge:MODEL` is an LLM judge, with MODEL as in --judge; it is waited for while it is silent,
    for `patience_s` at most (None: half an hour). Raises UsageError, EndpointDown.
    """
    if spec.startswith(JUDGE):
        from r2w_eval.reward_models.judge import open_item_judge

        return open_item_judge(spec.removeprefix(JUDGE), patience_s)
    target = SCORERS.get(spec, spec)
    if (Path(spec) / HEADS_FILE).is_file():
        return load_reward(Path(spec))
    if Path(spec).is_dir():
        from r2w_eval.reward_models.transformer.scorer import ArtifactScorer

        return ArtifactScorer.load(Path(spec))
    if ":" not in target:
        known = [*SCORERS, "an exported folder", "judge:MODEL", "MODULE:ATTR"]
        raise UnknownName(
            "--scorer", spec, "scorer", known,
            "r2w-eval score --scorer r2w-reward --input items.jsonl --output scores.jsonl",
        )  # fmt: skip
    scorer: ItemScorer = load_object("--scorer", target, ("id", "score"))
    return scorer


def score_all(
    scorer: ItemScorer, items: Iterable[Item | ItemScore], batch: int = 256
) -> Iterator[ItemScore]:
    """Score a stream in batches, in order; items that could not be read keep their failed score."""
    waiting: list[Item | ItemScore] = []
    for item in items:
        waiting.append(item)
        if len(waiting) == batch:
            yield from _score_batch(scorer, waiting)
            waiting = []
    yield from _score_batch(scorer, waiting)


def _score_batch(scorer: ItemScorer, waiting: Sequence[Item | ItemScore]) -> Iterator[ItemScore]:
    good = [item for item in waiting if not isinstance(item, ItemScore)]
    scores = scorer.score(good) if good else []
    if len(scores) != len(good):
        raise R2WError(
            f"{scorer.id}: {len(scores)} scores for {len(good)} items, so which is whose cannot be "
            f"told. A scorer gives one for each, in order; a status where it has no value"
        )
    left = iter(scores)
    for item in waiting:
        yield item if isinstance(item, ItemScore) else next(left)


def best_of_n(scorer: ItemScorer, items: Sequence[Item]) -> int | None:
    """Index of the highest value, of the first one in a tie; None if no item has a value."""
    scores = scorer.score(items)
    known = [(s.value, -i) for i, s in enumerate(scores) if s.value is not None]
    return -max(known)[1] if known else None
