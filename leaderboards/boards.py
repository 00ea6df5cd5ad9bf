"""Boards: which rows may be ranked together, and why the others may not.

Rows share a board if their score keys agree and their coverage is within one point of the best.
Ranks are ranges: the ranks that paired tests, corrected over all pairs, leave open (specification:
harness I3, A3, A5, D1).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from r2w_eval.leaderboards.collect import Entry
from r2w_eval.leaderboards.length import LengthSlope
from r2w_eval.leaderboards.naming import label_rows
from r2w_eval.leaderboards.pairs import pair_tests
from r2w_eval.leaderboards.rows import Row
from r2w_eval.leaderboards.standings import Standing, adjust_scores, rank_systems

from r2w_eval.models.cost import Price
from r2w_eval.paths import safe_name
from r2w_eval.results.coverage import is_uneven
from r2w_eval.stats.ratings import PairTest


@dataclass(frozen=True, slots=True)
class BoardOptions:
    """What a user can change about a board; prices in US dollars per million tokens."""

    allow_mixed: bool = False
    pool: bool = False
    prices: Mapping[str, Price] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Apart:
    """A row that is not ranked, and the reason."""

    entry: Entry
    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Board:
    """Systems under one score key, best first."""

    slug: str
    task: str
    version: str
    mode: str
    judge: str
    score_key: str
    identity: Mapping[str, object]
    headline: str
    standings: tuple[Standing, ...]
    tests: tuple[PairTest, ...]
    slope: LengthSlope | None
    apart: tuple[Apart, ...]
    is_smoke_test: bool
    is_mixed: bool = False
    """The user asked to rank rows of unequal coverage together."""
    differs: tuple[str, ...] = ()
    """Fields of the identity that differ from the suite's largest board."""


def build_boards(entries: Sequence[Entry], options: BoardOptions) -> list[Board]:
    """Every board, suites in alphabetical order, each suite's largest board first."""
    by_key: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        by_key[entry.row.task, entry.row.score_key].append(entry)
    boards: dict[str, list[Board]] = defaultdict(list)
    for (task, _), own in by_key.items():
        boards[task].append(build_board(own, options))
    return [board for task in sorted(boards) for board in _largest_first(boards[task])]


def _largest_first(boards: Iterable[Board]) -> list[Board]:
    ordered = sorted(boards, key=lambda b: (-len(b.standings), b.score_key))
    main = ordered[0].identity
    return [
        replace(board, differs=tuple(_differing_fields(main, board.identity))) for board in ordered
    ]


def _differing_fields(first: Mapping[str, object], other: Mapping[str, object]) -> Iterable[str]:
    return (k for k in sorted({**first, **other}) if first.get(k) != other.get(k))


def build_board(entries: Sequence[Entry], options: BoardOptions) -> Board:
    """One board from rows of one score key."""
    labels = label_rows([entry.row for entry in entries])
    named = dict(zip(labels, entries, strict=True))
    apart = set_apart({label: e.row for label, e in named.items()}, options.allow_mixed)
    ranked = {label: entry for label, entry in named.items() if label not in apart}
    tests = pair_tests({label: e.row.estimate for label, e in ranked.items()}) if ranked else ()
    first = entries[0].row
    slope, adjusted = adjust_scores({label: e.row for label, e in ranked.items()})
    return Board(
        slug=f"{safe_name(first.task)}-{safe_name(first.score_key)}",
        task=first.task,
        version=first.version,
        mode=first.mode,
        judge=first.judge,
        score_key=first.score_key,
        identity=first.identity,
        headline=first.headline.name,
        standings=rank_systems(ranked, tests, adjusted, options.prices),
        tests=tests,
        slope=slope,
        apart=tuple(Apart(named[label], label, reason) for label, reason in apart.items()),
        is_smoke_test=any(entry.row.is_smoke_test for entry in entries),
        is_mixed=is_uneven([entry.row.coverage for entry in ranked.values()]),
    )


def set_apart(rows: Mapping[str, Row], allow_mixed: bool) -> dict[str, str]:
    """Labels of rows that may not be ranked, with the reason."""
    best = max((row.coverage for row in rows.values()), default=0.0)
    shapes = Counter(_shape(row) for row in rows.values())
    usual = max(shapes, key=lambda shape: (shapes[shape], shape), default=())
    apart = {}
    for label, row in rows.items():
        head = row.headline
        if head.value is None:
            apart[label] = f"nothing scored of {head.n_expected} items"
        elif _shape(row) != usual:
            apart[label] = "its aggregate is built of other strata than the rest"
        elif is_uneven([best, row.coverage]) and not allow_mixed:
            apart[label] = (
                f"{row.scored_text} scored, the board's best has "
                f"{best:.0%}: finish it with the same command and --retry-failed, or rank it with "
                f"--allow-mixed"
            )
    return apart


def _shape(row: Row) -> tuple[str | float, ...]:
    e = row.estimate
    return (e.name, e.scale, e.offset, *(stratum.weight for stratum in e.strata))
