"""Coverage: how many of the expected queries, and of the expected answers, a score rests on.

Intervals resample queries, so `n_scored` of a metric counts the queries with at least one score.
Where a query has several answers (seeds, `--samples`), most of these may be lost without showing in
that number. Coverage is therefore the smaller of the two shares (specification: harness R2, R6,
I3).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r2w_eval.records.plan import TaskPlan
from r2w_eval.stats.inference import count_scored
from r2w_eval.types import ItemVerdicts, Metric

# as much must be scored for a result to stand for its suite
FULL_COVERAGE = 0.98
# scores over parts of the items that differ by more than this say little beside each other
COVERAGE_GAP = 0.01


@dataclass(frozen=True, slots=True)
class Scored:
    """How many queries or answers have a score, of those that should have one."""

    n_scored: int
    n_expected: int

    @property
    def share(self) -> float:
        """Between 0 and 1; 0 where nothing was expected."""
        return self.n_scored / self.n_expected if self.n_expected else 0.0

    @property
    def is_partial(self) -> bool:
        """Whether a score stands for a part of what was asked for."""
        return 0 < self.n_scored < FULL_COVERAGE * self.n_expected


def count_answers(plan: TaskPlan, items: Sequence[ItemVerdicts]) -> Scored | None:
    """Answers with a score by the suite's own rule; None where no query has several answers.

    The suite's aggregator counts queries. It is called once with the first answer of each query,
    once with the second, and so on, and the counts are added up.
    """
    seen: Counter[str] = Counter()
    rounds: defaultdict[int, list[ItemVerdicts]] = defaultdict(list)
    for item in items:
        query = plan.suite.query_of(item)
        rounds[seen[query]].append(item)
        seen[query] += 1
    if len(rounds) < 2:
        return None
    estimates = [plan.suite.aggregate(own, plan.mode) for own in rounds.values()]
    heads = [next(e for e in own if e.is_headline) for own in estimates]
    return Scored(sum(map(count_scored, heads)), sum(head.n_expected for head in heads))


def scored_of(headline: Metric, answers: Scored | Mapping[str, int] | None) -> Scored:
    """Coverage of queries or of answers, whichever is the smaller share. `answers` are counts as
    `count_answers` gives them, or as read from a file.

    >>> scored_of(Metric("rubric", 15.0, None, None, 32, 32), {"n_scored": 32, "n_expected": 96})
    Scored(n_scored=32, n_expected=96)
    """
    queries = Scored(headline.n_scored, headline.n_expected)
    if answers is None:
        return queries
    own = Scored(**answers) if isinstance(answers, Mapping) else answers
    return own if own.share < queries.share else queries


def is_uneven(shares: Sequence[float]) -> bool:
    """Whether results over such shares of their items do not belong beside each other (harness I3).

    >>> is_uneven([1.0, 0.99]), is_uneven([1.0, 0.98]), is_uneven([])
    (False, True, False)
    """
    return max(shares, default=0.0) - min(shares, default=0.0) > COVERAGE_GAP + 1e-9
