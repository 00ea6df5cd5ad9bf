"""Training rows as trees of token segments: one draft, its reflections, their revisions.

The draft is computed once for all reflections on it. Each reading has targets per axis in [-1, 1]
and a pair name, for the ranking loss.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from r2w_eval.reward_models.axes import combine
from r2w_eval.reward_models.data.rows import SAME_REFLECTION, Row
from r2w_eval.reward_models.transformer.packing import Pack, Segment, lay_out
from r2w_eval.reward_models.transformer.plans import EncodeAll, Tokens, n_tokens, tokenise
from r2w_eval.reward_models.transformer.render import Unit, render


@dataclass(frozen=True, slots=True)
class Reading:
    """A position of the pack with what is known there."""

    position: int
    value: float
    axes: Mapping[str, float]
    pair: str
    weight: float


@dataclass(frozen=True, slots=True)
class Tree:
    """A pack and its readings; `outcome` trees hold texts of one prompt instead."""

    source: str
    pack: Pack
    readings: tuple[Reading, ...]
    is_outcome: bool = False


@dataclass(slots=True)
class _Builder:
    tokens: Tokens
    segments: list[Segment] = field(default_factory=list)
    index: dict[tuple[str, int | None], int] = field(default_factory=dict)
    readings: list[tuple[int, float, Mapping[str, float], str, float]] = field(default_factory=list)
    size: int = 0
    """Tokens of all segments."""

    def add(self, text: str, parent: int | None) -> int:
        """The segment with this text under this parent, made once."""
        key = (text, parent)
        if key not in self.index:
            self.segments.append(Segment(self.tokens[text], parent))
            self.size += len(self.segments[-1].ids)
            self.index[key] = len(self.segments) - 1
        return self.index[key]

    def read(self, at: int, labels: Mapping[str, float], pair: str, weight: float) -> None:
        """Note a reading at the end of a segment."""
        if labels:
            self.readings.append((at, combine(labels), labels, pair, weight))

    def tree(self, source: str, is_outcome: bool = False) -> Tree:
        """Lay everything out."""
        pack = lay_out(self.segments)
        readings = tuple(
            Reading(pack.ends[at], value, axes, pair, weight)
            for at, value, axes, pair, weight in self.readings
        )
        return Tree(source, pack, readings, is_outcome)


def reflection_trees(
    rows: Sequence[Row],
    encode: EncodeAll,
    max_tokens: int,
    rng: random.Random,
    spill: bool = False,
) -> list[Tree]:
    """Trees of the reflections on each draft, at most about `max_tokens` each, whole pairs first.

    Rows that do not fit are left out, or with `spill` go to a further tree of the same draft.
    """
    units = [render(row.item) for row in rows]
    tokens = tokenise(units, encode)
    by_head: defaultdict[str, list[tuple[Row, Unit]]] = defaultdict(list)
    for row, unit in zip(rows, units, strict=True):
        by_head[unit.head].append((row, unit))
    trees = []
    for head, members in by_head.items():
        if len(tokens[head]) > max_tokens // 2:
            continue
        rng.shuffle(members)
        builder = _Builder(tokens)
        for row, unit in sorted(members, key=lambda member: member[0].pair_id):
            if builder.size > max_tokens:
                if not spill:
                    break
                trees.append(builder.tree(row.source))
                builder = _Builder(tokens)
            _add_row(builder, builder.add(head, None), row, unit)
        trees.append(builder.tree(members[0][0].source))
    return [tree for tree in trees if tree.readings]


def _add_row(builder: _Builder, root: int, row: Row, unit: Unit) -> None:
    at = builder.add(unit.reflection, root)
    before = {axis: v for axis, v in row.labels.items() if axis != "effect"}
    if row.kind not in SAME_REFLECTION:
        builder.read(at, before, f"{row.pair_id}:close", row.weight)
    if unit.revision is not None:
        end = builder.add(unit.revision, at)
        builder.read(end, row.labels, f"{row.pair_id}:end", row.weight)


def outcome_trees(
    rows: Sequence[Row], encode: EncodeAll, max_tokens: int, spill: bool = False
) -> list[Tree]:
    """One tree a set of texts to compare; texts beyond `max_tokens` are left out.

    With `spill`, a prompt with more than `max_tokens` of texts gets several trees.
    """
    units = [render(row.item) for row in rows]
    tokens = tokenise(units, encode)
    by_pair: defaultdict[str, list[tuple[Row, Unit]]] = defaultdict(list)
    for row, unit in zip(rows, units, strict=True):
        if n_tokens(unit, tokens) <= max_tokens:
            by_pair[row.pair_id].append((row, unit))
    trees = []
    for members in by_pair.values():
        builder = _Builder(tokens)
        for row, unit in members:
            if spill and builder.size and builder.size + n_tokens(unit, tokens) > max_tokens:
                trees.append(builder.tree(row.source, is_outcome=True))
                builder = _Builder(tokens)
            at = builder.add(unit.reflection, None)
            builder.read(at, row.labels, row.pair_id, row.weight)
        trees.append(builder.tree(members[0][0].source, is_outcome=True))
    return [tree for tree in trees if len(tree.readings) > 1]
