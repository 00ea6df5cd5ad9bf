"""Heat maps of a board: its systems against the groups of prompts of one dimension."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r2w_eval.leaderboards.boards import Board
from r2w_eval.leaderboards.rows import Row

from r2w_eval.estimates import ALIKE, SINGLE
from r2w_eval.types import Metric

MAX_HEAT_LINES = 30
MAX_HEAT_GROUPS = 40
HEAT_LEVELS = 8


@dataclass(frozen=True, slots=True)
class HeatCell:
    """A value and its shade, 0 (lowest) to 7."""

    value: float | None
    level: int | None


@dataclass(frozen=True, slots=True)
class HeatLine:
    """One system of a heat map."""

    label: str
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True, slots=True)
class HeatGroup:
    """One column of a heat map: `n` prompts, and what the suite says of the figure."""

    name: str
    n: int
    note: str


@dataclass(frozen=True, slots=True)
class Heat:
    """Systems against the groups of one dimension; a `note` is of all groups."""

    dimension: str
    groups: tuple[HeatGroup, ...]
    note: str
    lines: tuple[HeatLine, ...]
    n_hidden: int


def group_metrics(row: Row) -> dict[str, dict[str, Metric]]:
    """Metrics named `dimension/group`, by dimension."""
    found: dict[str, dict[str, Metric]] = defaultdict(dict)
    for metric in row.metrics:
        dimension, slash, group = metric.name.partition("/")
        if slash:
            found[dimension][group] = metric
    return found


def heat_maps(board: Board) -> list[Heat]:
    """One map per dimension with at least two groups and not more than a page can hold."""
    shown = board.standings[:MAX_HEAT_LINES]
    tables = {s.label: group_metrics(s.row) for s in shown}
    dimensions = list(dict.fromkeys(d for own in tables.values() for d in own))
    heats = []
    for dimension in dimensions:
        own = {label: table.get(dimension, {}) for label, table in tables.items()}
        names = {name: metric for groups in own.values() for name, metric in groups.items()}
        if 2 <= len(names) <= MAX_HEAT_GROUPS:
            values = {
                label: [_value(groups.get(name)) for name in names] for label, groups in own.items()
            }
            groups, note = _heat_groups(names)
            n_hidden = len(board.standings) - len(shown)
            heats.append(Heat(dimension, groups, note, shade(values), n_hidden))
    return heats


def _heat_groups(metrics: Mapping[str, Metric]) -> tuple[tuple[HeatGroup, ...], str]:
    """The columns, and the note that all of them share."""
    notes = [own_note(metric) for metric in metrics.values()]
    shared = notes[0] if len(set(notes)) == 1 else ""
    return tuple(
        HeatGroup(name, metric.n_expected, "" if shared else note)
        for (name, metric), note in zip(metrics.items(), notes, strict=True)
    ), shared


def own_note(metric: Metric) -> str:
    """What the suite says of a figure, without what is said of its interval.

    >>> own_note(Metric("length/qa", 9.0, None, None, 1, 1, note=f"words; {SINGLE}"))
    'words'
    """
    note = metric.note
    for end in (ALIKE, SINGLE):
        note = note.removesuffix(end).removesuffix("; ")
    return note


def _value(metric: Metric | None) -> float | None:
    return metric.value if metric else None


def shade(values: Mapping[str, Sequence[float | None]]) -> tuple[HeatLine, ...]:
    """Cells shaded by their place between the lowest and the highest value."""
    present = [v for own in values.values() for v in own if v is not None]
    low, high = min(present, default=0.0), max(present, default=0.0)

    def level(value: float | None) -> int | None:
        if value is None or high == low:
            return None
        return min(HEAT_LEVELS - 1, int((value - low) / (high - low) * HEAT_LEVELS))

    return tuple(
        HeatLine(label, tuple(HeatCell(value, level(value)) for value in own))
        for label, own in values.items()
    )
