"""Items as packs of tokens: rendered once, grouped by draft, tokenised many at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r2w_eval.reward_models.transformer.packing import Pack, Segment, lay_out
from r2w_eval.reward_models.transformer.render import Unit

# reflections on one draft in one pack: attention to a tree costs the square of its tokens
MAX_BRANCHES = 16
# what is tokenised at a time: enough to keep all cores busy, little enough to overlap with a device
WINDOW_CHARS = 1 << 18

EncodeAll = Callable[[list[str]], list[list[int]]]
Tokens = Mapping[str, tuple[int, ...]]


def encode_with(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of many texts, on all cores; without a warning of long ones, which are seen to."""
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    return ids


@dataclass(frozen=True, slots=True)
class Plan:
    """A pack and the items in it. `places[k]`: where the k-th member is read, first to last."""

    pack: Pack
    members: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]


def windows(units: Mapping[int, Unit]) -> Iterator[list[list[int]]]:
    """Groups of items that share a pack, short ones first, WINDOW_CHARS at a time."""
    by_head: defaultdict[str, list[int]] = defaultdict(list)
    alone = [[i] for i, unit in units.items() if not unit.head]
    for i, unit in units.items():
        if unit.head:
            by_head[unit.head].append(i)
    groups = [own[k : k + MAX_BRANCHES] for own in by_head.values()
              for k in range(0, len(own), MAX_BRANCHES)]  # fmt: skip
    window: list[list[int]] = []
    size = 0
    for group in sorted([*alone, *groups], key=lambda g: _chars(units, g)):
        window.append(group)
        size += _chars(units, group)
        if size >= WINDOW_CHARS:
            yield window
            window, size = [], 0
    if window:
        yield window


def _chars(units: Mapping[int, Unit], group: Sequence[int]) -> int:
    parts = sum(len(t) for i in group for t in units[i].texts)
    return parts - (len(group) - 1) * len(units[group[0]].head)


def tokenise(units: Iterable[Unit], encode: EncodeAll) -> Tokens:
    """Token ids of every part, each text once; tags are single tokens, so parts join exactly."""
    texts = list(dict.fromkeys(text for unit in units for text in unit.texts))
    return dict(zip(texts, map(tuple, encode(texts)), strict=True)) if texts else {}


def n_tokens(unit: Unit, tokens: Tokens) -> int:
    """Length of the whole text."""
    return sum(len(tokens[text]) for text in unit.texts)


def within(
    group: Sequence[int], units: Mapping[int, Unit], tokens: Tokens, limit: int
) -> Iterator[list[int]]:
    """The group in parts whose packs hold at most `limit` tokens, for items that do so alone.

    Attention to a pack is a square of its tokens, so sixteen long revisions are not one pack.
    """
    part: list[int] = []
    size = 0
    for i in group:
        own = n_tokens(units[i], tokens)
        shared = len(tokens[units[i].head]) if part and units[i].head else 0
        if part and size + own - shared > limit:
            yield part
            part, size, shared = [], 0, 0
        part.append(i)
        size += own - shared
    if part:
        yield part


def plan(group: Sequence[int], units: Mapping[int, Unit], tokens: Tokens) -> Plan:
    """The pack of one group, and where its members are read."""
    head = units[group[0]].head
    segments = [Segment(tokens[head], None)] if head else []
    root = 0 if head else None
    reads = []
    for unit in (units[i] for i in group):
        own = [len(segments)]
        segments.append(Segment(tokens[unit.reflection], root))
        if unit.revision:
            own.append(len(segments))
            segments.append(Segment(tokens[unit.revision], own[0]))
        reads.append(own)
    pack = lay_out(segments)
    return Plan(pack, tuple(group), tuple(tuple(pack.ends[s] for s in own) for own in reads))
