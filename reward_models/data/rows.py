"""Rows of training data: an item with its labels and its source.

Rows with the same `pair_id` belong to one draft and differ in one respect. All rows of one draft,
paper, writer or prompt share a `split_group` and so are in the same part of the split.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from r2w_eval.reward_models.items import Item, ReflectionItem, WritingItem

AXES = ("relevance", "constructiveness", "efficiency", "effect", "outcome")
POSITIVE = "pos"
# of everything drawn at random; another seed makes another corpus
SEED = 0
# negatives with the positive's own reflection, wrong because of their revision
SAME_REFLECTION = frozenset({"neg_revision", "neg_unchanged", "neg_wrong_edit", "neg_rewrite"})
Part = Literal["train", "calibrate", "test"]
# of 100 split groups; the rest is for testing
_TRAIN, _CALIBRATE = 60, 80


@dataclass(frozen=True, slots=True)
class Row:
    """One training item; `labels` has the known axes, in [-1, 1]."""

    id: str
    source: str
    licence: str
    split_group: str
    lang: str
    kind: str
    pair_id: str
    item: Item
    labels: Mapping[str, float]
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for axis, value in self.labels.items():
            if axis not in AXES or not -1.0 <= value <= 1.0:
                raise ValueError(f"row {self.id}: label {axis}={value} is not in [-1, 1]")

    @property
    def part(self) -> Part:
        """The part of the split that the row's group belongs to."""
        return part_of(self.split_group)


def negative(
    positive: Row, kind: str, labels: Mapping[str, float], weight: float = 1.0, **changed: Any
) -> Row:
    """The positive with one thing changed; `changed` are fields of its item."""
    item_id = f"{positive.pair_id}:{kind}"
    item = replace(positive.item, id=item_id, **changed)
    return replace(positive, id=item_id, kind=kind, item=item, labels=dict(labels), weight=weight)


def part_of(split_group: str) -> Part:
    """Train, calibrate or test, by a hash of the group's name.

    >>> part_of("lamp:W1") == part_of("lamp:W1")
    True
    """
    place = int.from_bytes(hashlib.sha256(split_group.encode()).digest()[:4]) % 100
    return "train" if place < _TRAIN else "calibrate" if place < _CALIBRATE else "test"


def read_row(record: Mapping[str, Any]) -> Row:
    """A row from its JSON form (`to_plain(row)`)."""
    item = record["item"]
    kind = WritingItem if "response" in item else ReflectionItem
    if "earlier" in item:
        item = {**item, "earlier": tuple(item["earlier"])}
    return Row(**{**record, "item": kind(**item)})


def count(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Number of rows by source and kind."""
    table: dict[str, Counter[str]] = {}
    for row in rows:
        table.setdefault(row.source, Counter())[row.kind] += 1
    return {source: dict(sorted(kinds.items())) for source, kinds in sorted(table.items())}
