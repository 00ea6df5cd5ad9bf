"""Boards: rows that may be ranked together, and for every other row the reason why it may not.

Rows share a board when their score keys agree and their coverage lies within one point of the
best. Ranks are ranges: what the paired tests, corrected over all pairs, leave open (specification:
harness I3, A3, A5, D1).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from r2w_eval.leaderboards.collect import Entry
from r2w_eval.leaderboards.length import LengthSlope, Scored, adjust, fit_slope
from r2w_eval.leaderboards.naming import label_rows
from r2w_eval.leaderboards.pairs import pair_tests
from r2w_eval.leaderboards.rows import Row

from r2w_eval.comparison.scores import item_values
from r2w_eval.models.cost import Price
from r2w_eval.paths import safe_name
from r2w_eval.results.coverage import is_uneven
from r2w_eval.stats.ratings import PairTest, RankRange, rank_ranges, upper_bound_ranks
from r2w_eval.types import Metric

TRUNCATED_FLAG = 0.02


@dataclass(frozen=True, slots=True)
class BoardOptions:
    """What a user may change about a board; prices in US dollars per million tokens."""

    allow_mixed: bool = False
    pool: bool = False
    prices: Mapping[str, Price] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """One line of a board. Lists of other systems hold their labels."""

    entry: Entry
    label: str
    rank: RankRange
    rank_upper_bound: int
    """1 + systems whose lower bound lies above this one's upper bound (marginal intervals)."""
    adjusted: float | None
    mean_chars: float | None
    tokens_per_answer: float | None
    thinking_per_answer: float | None
    tokens_per_point: float | None
    cost_usd: float | None
    is_on_front: bool
    flags: tuple[str, ...]

    @property
    def row(self) -> Row:
        """The row behind the line."""
        return self.entry.row

    @property
    def value(self) -> float:
        """The headline."""
        return self.rank.value


@dataclass(frozen=True, slots=True)
class Apart:
    """A row that is not ranked, and why."""

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
    """Rows of unequal coverage are ranked together, because the user asked for it."""
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
    slope, scores = fit_lengths({label: e.row for label, e in ranked.items()})
    standings = _stand(ranked, tests, slope, scores, options.prices)
    return Board(
        slug=f"{safe_name(first.task)}-{safe_name(first.score_key)}",
        task=first.task,
        version=first.version,
        mode=first.mode,
        judge=first.judge,
        score_key=first.score_key,
        identity=first.identity,
        headline=first.headline.name,
        standings=standings,
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
                f"{row.told_scored} scored, the board's best has "
                f"{best:.0%}: finish it with the same command, or rank it with --allow-mixed"
            )
    return apart


def _shape(row: Row) -> tuple[str | float, ...]:
    e = row.estimate
    return (e.name, e.scale, e.offset, *(stratum.weight for stratum in e.strata))


def fit_lengths(
    rows: Mapping[str, Row],
) -> tuple[LengthSlope | None, dict[str, Scored]]:
    """The board's length slope, without null baselines, and every row's scored items."""
    scores = {label: scored_items(row) for label, row in rows.items()}
    return fit_slope({k: v for k, v in scores.items() if not rows[k].is_null}), scores


def scored_items(row: Row) -> Scored:
    """Value (on the headline's scale) and mean answer length of every item that has both."""
    chars: dict[str, list[int]] = defaultdict(list)
    columns = row.items
    judged = {i for i, value in zip(columns.ids, columns.values, strict=True) if value is not None}
    for item, count, value in zip(columns.ids, columns.answer_chars, columns.values, strict=True):
        # an answer that failed has no length beside those that were judged
        if value is not None or item not in judged:
            chars[item].append(count)
    known = {i: v for i, v in item_values(row.estimate).items() if any(chars.get(i, ()))}
    means = [sum(chars[item]) / len(chars[item]) for item in known]
    return Scored(tuple(known), np.array([*known.values()]), np.log2(means))


def _stand(
    ranked: Mapping[str, Entry],
    tests: Sequence[PairTest],
    slope: LengthSlope | None,
    scores: Mapping[str, Scored],
    prices: Mapping[str, Price],
) -> tuple[Standing, ...]:
    values = {label: e.row.headline.value or 0.0 for label, e in ranked.items()}
    ranges = rank_ranges(values, tests) if values else ()
    heads = [ranked[r.model].row.headline for r in ranges]
    upper = dict(zip((r.model for r in ranges), _upper_bounds(heads), strict=True))
    front = pareto_front(
        {
            label: (tokens, values[label])
            for label, e in ranked.items()
            if not e.row.is_null and (tokens := _per_answer(e.row.tokens.completion, e.row))
        }
    )
    return tuple(
        _standing(
            ranked[r.model],
            r,
            upper[r.model],
            _adjusted(ranked[r.model].row, r.value, scores[r.model], slope),
            (prices, r.model in front),
        )
        for r in ranges
    )


def _adjusted(row: Row, value: float, scored: Scored, slope: LengthSlope | None) -> float | None:
    """Score at the board's mean length; none for null baselines, which are left out of the fit."""
    return None if slope is None or row.is_null else adjust(value, scored, slope)


def _upper_bounds(heads: Sequence[Metric]) -> list[int]:
    """Rank(UB); a row without an interval is a point."""
    return upper_bound_ranks(
        [float((m.low if m.low is not None else m.value) or 0.0) for m in heads],
        [float((m.high if m.high is not None else m.value) or 0.0) for m in heads],
    )


def _standing(
    entry: Entry,
    rank: RankRange,
    rank_upper_bound: int,
    adjusted: float | None,
    more: tuple[Mapping[str, Price], bool],
) -> Standing:
    row, (prices, is_on_front) = entry.row, more
    tokens = _per_answer(row.tokens.completion, row)
    thinking = row.tokens.thinking
    price = prices.get(row.model)
    chars = [
        n for n, v in zip(row.items.answer_chars, row.items.values, strict=True) if v is not None
    ]
    return Standing(
        entry=entry,
        label=rank.model,
        rank=rank,
        rank_upper_bound=rank_upper_bound,
        adjusted=adjusted,
        mean_chars=sum(chars) / len(chars) if chars else None,
        tokens_per_answer=tokens,
        thinking_per_answer=None if thinking is None or not tokens else _per_answer(thinking, row),
        tokens_per_point=tokens / rank.value if tokens and rank.value > 0 else None,
        cost_usd=price.cost_usd(row.tokens.prompt, row.tokens.completion) if price else None,
        is_on_front=is_on_front,
        flags=tuple(_flags(entry)),
    )


def _per_answer(count: int, row: Row) -> float | None:
    """Mean over the answers expected; None where the engine counted nothing."""
    if not row.n_answers or not row.tokens.completion:
        return None
    return count / row.n_answers


def _flags(entry: Entry) -> Iterable[str]:
    row = entry.row
    if not entry.has_raw:
        yield "raw data gone"
    truncated = row.items.statuses.count("truncated")
    if row.n_answers and truncated / row.n_answers > TRUNCATED_FLAG:
        yield f"{truncated / row.n_answers:.0%} cut"
    if row.changed_settings:
        yield "settings changed"
    if (status := row.judging.get("status")) != "success":
        yield "no verdict" if status == "excluded" else "verdicts lost"
    if len(row.judging.get("models_returned", ())) > 1:
        yield "judge changed"
    if row.n_pooled > 1:
        yield f"{row.n_pooled} runs pooled"


def pareto_front(points: Mapping[str, tuple[float, float]]) -> frozenset[str]:
    """The Pareto front: systems such that none scores higher with at most as many tokens; points
    are (tokens, score).

    >>> sorted(pareto_front({"a": (1, 5), "b": (2, 4), "c": (3, 6)}))
    ['a', 'c']
    """
    front, best = set(), float("-inf")
    for name in sorted(points, key=lambda k: (points[k][0], -points[k][1], k)):
        if points[name][1] > best:
            best = points[name][1]
            front.add(name)
    return frozenset(front)
