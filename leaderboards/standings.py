"""The lines of a board: each ranked system's ranks, adjusted score and tokens, best first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from r2w_eval.leaderboards.collect import Entry
from r2w_eval.leaderboards.length import LengthSlope, ScoredItems, adjust, fit_slope
from r2w_eval.leaderboards.rows import Row

from r2w_eval.comparison.scores import item_values
from r2w_eval.models.cost import Price
from r2w_eval.stats.ratings import PairTest, RankRange, rank_ranges, upper_bound_ranks
from r2w_eval.types import Metric

# share of truncated answers from which a line is flagged
TRUNCATED_FLAG = 0.02


@dataclass(frozen=True, slots=True)
class Standing:
    """One line of a board."""

    entry: Entry
    label: str
    rank: RankRange
    rank_upper_bound: int
    """1 + the systems whose interval lies wholly above this one's."""
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
        """The row that the line shows."""
        return self.entry.row

    @property
    def value(self) -> float:
        """The headline."""
        return self.rank.value


def adjust_scores(
    rows: Mapping[str, Row],
) -> tuple[LengthSlope | None, dict[str, float | None]]:
    """The board's length slope, and each system's score at the board's mean length.

    Null baselines are neither fitted nor adjusted.
    """
    scored = {label: scored_items(row) for label, row in rows.items() if not row.is_null}
    slope = fit_slope(scored)
    if slope is None:
        return None, {}
    adjusted = {k: adjust(rows[k].headline.value or 0.0, own, slope) for k, own in scored.items()}
    return slope, adjusted


def scored_items(row: Row) -> ScoredItems:
    """Value (on the headline's scale) and mean answer length of every item that has both."""
    chars: dict[str, list[int]] = defaultdict(list)
    columns = row.items
    judged = {i for i, value in zip(columns.ids, columns.values, strict=True) if value is not None}
    for item, count, value in zip(columns.ids, columns.answer_chars, columns.values, strict=True):
        # where other answers of the item were judged, a failed one does not count
        if value is not None or item not in judged:
            chars[item].append(count)
    known = {i: v for i, v in item_values(row.estimate).items() if any(chars.get(i, ()))}
    means = [sum(chars[item]) / len(chars[item]) for item in known]
    return ScoredItems(tuple(known), np.array([*known.values()]), np.log2(means))


def rank_systems(
    ranked: Mapping[str, Entry],
    tests: Sequence[PairTest],
    adjusted: Mapping[str, float | None],
    prices: Mapping[str, Price],
) -> tuple[Standing, ...]:
    """All lines, best first; keys are labels."""
    if not ranked:
        return ()
    values = {label: entry.row.headline.value or 0.0 for label, entry in ranked.items()}
    ranges = rank_ranges(values, tests)
    upper = _upper_bounds([ranked[rank.model].row.headline for rank in ranges])
    points = {
        label: (tokens, values[label])
        for label, entry in ranked.items()
        if not entry.row.is_null and (tokens := _per_answer(entry.row.tokens.completion, entry.row))
    }
    front = pareto_front(points)
    return tuple(
        _standing(
            ranked[rank.model],
            rank,
            bound,
            adjusted.get(rank.model),
            prices.get(ranked[rank.model].row.model),
            rank.model in front,
        )
        for rank, bound in zip(ranges, upper, strict=True)
    )


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
    price: Price | None,
    is_on_front: bool,
) -> Standing:
    row = entry.row
    prompt, completion, thinking = row.tokens.prompt, row.tokens.completion, row.tokens.thinking
    tokens = _per_answer(completion, row)
    items = zip(row.items.answer_chars, row.items.values, strict=True)
    chars = [count for count, value in items if value is not None]
    return Standing(
        entry=entry,
        label=rank.model,
        rank=rank,
        rank_upper_bound=rank_upper_bound,
        adjusted=adjusted,
        mean_chars=sum(chars) / len(chars) if chars else None,
        tokens_per_answer=tokens,
        thinking_per_answer=None if thinking is None else _per_answer(thinking, row),
        tokens_per_point=tokens / rank.value if tokens and rank.value > 0 else None,
        cost_usd=price.cost_usd(prompt, completion) if price else None,
        is_on_front=is_on_front,
        flags=tuple(_flags(entry)),
    )


def _per_answer(count: int, row: Row) -> float | None:
    """Mean over the expected answers; None if the engine counted no tokens."""
    if not row.n_answers or not row.tokens.completion:
        return None
    return count / row.n_answers


def _flags(entry: Entry) -> Iterator[str]:
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
    """Systems that none beats with as few tokens; points are (tokens, score).

    >>> sorted(pareto_front({"a": (1, 5), "b": (2, 4), "c": (3, 6)}))
    ['a', 'c']
    """
    front, best = set(), float("-inf")
    for name in sorted(points, key=lambda k: (points[k][0], -points[k][1], k)):
        if points[name][1] > best:
            best = points[name][1]
            front.add(name)
    return frozenset(front)
