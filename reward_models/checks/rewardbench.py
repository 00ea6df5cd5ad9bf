"""Scores a reward model on RewardBench 2, by the formulas of its leaderboard.

    rows = [bench_row(record) for record in iter_jsonl(path)]
    print(evaluate(load_reward(), rows))

Source: allenai/reward-bench, January 2026; specification: reward model, section 2.1. The package
itself pins a transformers that cannot be installed beside ours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from r2w_eval.reward_models.items import WritingItem
from r2w_eval.reward_models.scorer import ItemScorer

from r2w_eval.errors import DataError
from r2w_eval.estimates import share_of
from r2w_eval.stats import measure
from r2w_eval.types import Metric

TIES = "Ties"


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One prompt and its completions, the `n_correct` right ones first."""

    id: str
    subset: str
    prompt: str
    completions: tuple[str, ...]
    n_correct: int


_Read = tuple[BenchRow, list[float] | None]


def bench_row(record: Mapping[str, Any]) -> BenchRow:
    """A row of the published file: id, subset, prompt, chosen, rejected. Raises DataError."""
    try:
        chosen, rejected = record["chosen"], record["rejected"]
        row = BenchRow(str(record["id"]), record["subset"], record["prompt"],
                       (*chosen, *rejected), len(chosen))  # fmt: skip
    except (KeyError, TypeError) as error:
        raise DataError(
            f"RewardBench 2 row {record!r:.80}: {error}. Wanted: id, subset, prompt, and lists "
            f"chosen and rejected, as in allenai/reward-bench-2"
        ) from error
    if not chosen or not rejected:
        raise DataError(f"RewardBench 2 row {row.id!r}: chosen and rejected must hold a text each")
    return row


def evaluate(scorer: ItemScorer, rows: Sequence[BenchRow]) -> dict[str, Metric]:
    """A metric by subset; a row with a text that could not be scored counts in n_expected only.

    Ties have no interval: their score is no mean over rows.
    """
    by_subset: defaultdict[str, list[_Read]] = defaultdict(list)
    for row, values in zip(rows, _values(scorer, rows), strict=True):
        by_subset[row.subset].append((row, values))
    return {
        name: _ties(own) if name == TIES else _accuracy(name, own)
        for name, own in by_subset.items()
    }


def _values(scorer: ItemScorer, rows: Sequence[BenchRow]) -> Iterator[list[float] | None]:
    """The values of each row's completions; None for a row with a completion without a value."""
    items = [WritingItem(f"{row.id}:{k}", row.prompt, text)
             for row in rows for k, text in enumerate(row.completions)]  # fmt: skip
    scores = iter(scorer.score(items))
    for row in rows:
        own = [score.value for score in islice(scores, len(row.completions))]
        known = [value for value in own if value is not None]
        yield known if len(known) == len(own) else None


def _accuracy(name: str, read: Sequence[_Read]) -> Metric:
    scored = [(row.id, row_score(values)) for row, values in read if values is not None]
    return measure(share_of(name, scored, len(read)))


def _ties(read: Sequence[_Read]) -> Metric:
    found = {row.id: ties_row(v, row.n_correct) for row, v in read if v is not None}
    tied = [name for name in found if name.startswith("tied:") and _reference(name) in found]
    value = None
    if tied:
        value = ties_score([found[_reference(name)] for name in tied], [found[n] for n in tied])
    return Metric(TIES, value, None, None, 2 * len(tied), len(read))


def _reference(tied: str) -> str:
    return f"ref:{tied.removeprefix('tied:')}"


def row_score(scores: Sequence[float]) -> float:
    """Score of a row whose first completion is correct: 1/k if k completions share the maximum.

    >>> row_score([0.5, 0.5, 0.1, 0.2]), row_score([0.1, 0.5, 0.2, 0.3])
    (0.5, 0.0)
    """
    top = max(scores)
    return 1 / sum(s == top for s in scores) if scores[0] == top else 0.0


def ties_row(scores: Sequence[float], n_correct: int) -> tuple[bool, float | None, float | None]:
    """(all correct above all wrong, spread of the correct, gap to the best wrong one).

    >>> ties_row([3.0, 2.5, 1.0], 2)
    (True, 0.5, 1.5)
    """
    correct, wrong = scores[:n_correct], scores[n_correct:]
    gap = min(correct) - max(wrong)
    spread = max(correct) - min(correct) if len(correct) > 1 else None
    return gap > 0, spread, gap


def ties_score(
    reference: Sequence[tuple[bool, float | None, float | None]],
    tied: Sequence[tuple[bool, float | None, float | None]],
) -> float:
    """The ties subset from rows of `ties_row`, paired by id (ref:n with tied:n).

    0.30 tied accuracy + 0.30 reference accuracy + 0.20 share of gaps above the spread
    + 0.20 the same with the smaller gap of both + 0.01 mean tanh(min gap / spread - 1).

    >>> round(ties_score([(True, None, 2.0)], [(True, 0.5, 1.0)]), 4)
    1.0076
    """
    pairs = [
        (spread, gap, min(gap, ref_gap))
        for (_, _, ref_gap), (_, spread, gap) in zip(reference, tied, strict=True)
        if spread is not None and gap is not None and ref_gap is not None
    ]
    n = len(pairs) or 1
    above = sum(gap > spread for spread, gap, _ in pairs) / n
    hard = sum(least > spread for spread, _, least in pairs) / n
    margin = sum(math.tanh(least / spread - 1) if spread else 0.0 for spread, _, least in pairs) / n
    accuracy = [sum(ok for ok, _, _ in rows) / len(rows) for rows in (tied, reference)]
    return 0.30 * accuracy[0] + 0.30 * accuracy[1] + 0.20 * above + 0.20 * hard + 0.01 * margin
