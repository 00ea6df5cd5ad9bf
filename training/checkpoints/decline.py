"""Whether the newest checkpoint is worse than the best before it, by a paired test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2w_eval.training.checkpoints.progress import (
    ProgressRow,
    evaluations,
    read_progress,
    worth,
)

from r2w_eval.comparison.scores import load_results
from r2w_eval.estimates import share_of
from r2w_eval.records.collect import latest_responses
from r2w_eval.stats.inference import compare
from r2w_eval.store import RunFolder, write_json
from r2w_eval.types import Cause, Estimate

DECLINE = "declined.json"
# family-wise error rate of the tests of one checkpoint
ALPHA = 0.05
_OF_MODEL = (None, Cause.MODEL)


@dataclass(frozen=True, slots=True)
class Decline:
    """The newest checkpoint is worse than an earlier one, by a paired test on the same items."""

    task: str
    judge: str
    quantity: str
    """`score`, or `answers`: the share of samples that got an answer, from 0 to 1."""
    best_step: int
    step: int
    difference: float
    low: float | None
    """None, like `high`, where all items differ by the same amount."""
    high: float | None
    p: float

    @property
    def is_below(self) -> bool:
        """The difference and its whole interval are below 0."""
        return self.difference < 0 and (self.high is None or self.high < 0)


def find_decline(rows: Sequence[ProgressRow]) -> Decline | None:
    """The first significant decline of the newest checkpoint against the best earlier one, over
    all (task, judge) pairs; None without one.

    Two quantities are compared: the score, and the share of samples that got an answer, since a
    policy that stops answering can keep its mean over the rest. The best of k checkpoints is
    selected by a noisy score, so ALPHA is divided by 2 k for every pair (Bonferroni, two
    quantities), and so by the sum over all pairs: the more suites, the more would fall by chance.
    """
    whole = [row for row in rows if not row.error]
    places = sorted({(row.task, row.judge) for row in whole})
    contests = [
        _contest(row for row in whole if (row.task, row.judge) == place) for place in places
    ]
    n_tests = 2 * sum(len(earlier) for _, earlier in contests)
    for newest, earlier in contests:
        if not earlier:
            continue
        best = max(earlier, key=_rank)
        for quantity, read in (("score", _scores), ("answers", _finished_answers)):
            found = _compare(best, newest, quantity, read)
            if found and found.is_below and found.p <= ALPHA / n_tests:
                return found
    return None


def _contest(rows: Iterable[ProgressRow]) -> tuple[ProgressRow, list[ProgressRow]]:
    """The newest of one pair's rows, and the earlier ones that it can be compared with."""
    *earlier, newest = sorted(rows, key=lambda row: row.step)
    return newest, [row for row in earlier if row.score_key == newest.score_key]


def _rank(row: ProgressRow) -> float:
    own = worth(row)
    return -math.inf if own is None else own


def _compare(
    best: ProgressRow,
    newest: ProgressRow,
    quantity: str,
    read: Callable[[ProgressRow], Estimate | None],
) -> Decline | None:
    new, old = read(newest), read(best)
    if new is None or old is None:
        return None
    paired = compare(new, old)
    if paired.difference is None or paired.p_value is None:
        return None
    place = (newest.task, newest.judge, quantity, best.step, newest.step)
    return Decline(*place, paired.difference, paired.low, paired.high, paired.p_value)


def _scores(row: ProgressRow) -> Estimate | None:
    if row.score is None:
        return None
    place = (row.task, row.judge)
    return next(r.estimate for r in load_results(row.run) if (r.task, r.judge) == place)


def _finished_answers(row: ProgressRow) -> Estimate | None:
    """Share of samples that got an answer; those lost to an endpoint are left out."""
    written = latest_responses(RunFolder.existing(row.run).responses(), []).get(row.task, {})
    known = [(sample, one.response.status.cause) for (sample, _), one in written.items()]
    rows = [(sample, float(cause is None)) for sample, cause in known if cause in _OF_MODEL]
    return share_of("answers", rows, row.n_expected) if rows else None


def tell_decline(folder: Path) -> None:
    """Write the decline to a file, or remove the file when the newest checkpoint has recovered."""
    decline = find_decline(read_progress(folder))
    if decline is not None:
        write_json(evaluations(folder) / DECLINE, decline)
    else:
        (evaluations(folder) / DECLINE).unlink(missing_ok=True)
