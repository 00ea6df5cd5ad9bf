"""Outcome rewards from pairwise comparisons by a judge: 1 for a win, 1/2 for a tie, 0 for a loss.

Each pair is judged in both orders; disagreeing orders are a tie, and a pair that lost a verdict has
no points. Here are the two rewards within a group; comparisons with stored answers are in
references.py (specification: r2write.md section 6.1):

pairwise    mean points against several other answers of the group
in_group    points against one answer of the group, drawn anew for each step
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from r2w_eval.training.rl.outcomes import Answers, Rewards

from r2w_eval.comparison.pairwise import Contest, build_request, own_form
from r2w_eval.judge.scorers import ScoreItem
from r2w_eval.run.patient import PatientJudge
from r2w_eval.stats.orders import OrderPair, combined_label

TIE = 0.5


async def judge_pairs(
    judge: PatientJudge, prompt: str, pairs: Sequence[tuple[str, str]]
) -> list[float | None]:
    """Points of the first text of each pair; None for a pair that lost a verdict."""
    form = own_form()
    requests = [
        build_request(Contest("rl", "a", "b", prompt, *pair), order)
        for pair in pairs
        for order in ("ab", "ba")
    ]
    items = [ScoreItem(request, form.decoding, form.parse) for request in requests]
    scores = await judge.score(items) if items else []
    return points([score.value for score in scores])


def points(margins: Sequence[float | None]) -> list[float | None]:
    """Points of the first text of each pair; None for a pair that lost a verdict.

    `margins` has two entries per pair, each in favour of the text shown first: with the first text
    shown first, then with the second.

    >>> points([2.0, -1.0, 1.0, 1.0, -1.0, 2.0, 1.0, None])
    [1.0, 0.5, 0.0, None]
    """
    labels = (
        combined_label(OrderPair("", "a", "b", forwards, None if back is None else -back))
        for forwards, back in zip(margins[::2], margins[1::2], strict=True)
    )
    return [None if label is None else (1 + label) / 2 for label in labels]


class Pairwise:
    """Mean points against the `opponents` next and previous answers, the group in a circle."""

    def __init__(self, judge: PatientJudge, opponents: int) -> None:
        self._judge = judge
        self._opponents = opponents

    async def __call__(self, prompt: str, answers: Answers, step: int = 0) -> Rewards:
        """Mean points over the comparisons that have a verdict in both orders."""
        known = [i for i, answer in enumerate(answers) if answer is not None]
        pairs = circle(known, self._opponents)
        texts = [(answers[a] or "", answers[b] or "") for a, b in pairs]
        return shares(pairs, await judge_pairs(self._judge, prompt, texts), len(answers))


def circle(members: Sequence[int], opponents: int) -> list[tuple[int, int]]:
    """Pairs of each member with the `opponents` after it in a circle; no pair twice.

    >>> circle([0, 1, 2], 1), len(circle(range(4), 9))
    ([(0, 1), (1, 2), (0, 2)], 6)
    """
    n = len(members)
    pairs: dict[tuple[int, int], None] = {}
    for step in range(1, min(opponents, n - 1) + 1):
        for i in range(n):
            a, b = sorted((members[i], members[(i + step) % n]))
            pairs[a, b] = None
    return list(pairs)


def shares(
    pairs: Sequence[tuple[int, int]], won: Sequence[float | None], n: int
) -> list[float | None]:
    """Mean points of `n` members; None for one without a judged pair.

    `won` are the points of the first member of each pair.

    >>> shares([(0, 1), (0, 2)], [1.0, 0.5], 4), shares([(0, 1)], [None], 2)
    ([0.75, 0.0, 0.5, None], [None, None])
    """
    found: dict[int, list[float]] = {}
    for (a, b), own in zip(pairs, won, strict=True):
        if own is not None:
            found.setdefault(a, []).append(own)
            found.setdefault(b, []).append(1 - own)
    return [sum(found[i]) / len(found[i]) if i in found else None for i in range(n)]


class InGroup:
    """Points against one answer of the group, drawn from (seed, step, prompt).

    All answers meet the same opponent, as in BRPO of Writing-Zero (arXiv 2506.00103), so that GRPO
    compares rewards from one yardstick; separate draws would reward luck. The drawn answer gets
    1/2 without being asked about. BRPO uses the reward as the advantage; here the group is
    normalised like every other outcome.
    """

    def __init__(self, judge: PatientJudge, seed: int) -> None:
        self._judge = judge
        self._seed = seed

    async def __call__(self, prompt: str, answers: Answers, step: int = 0) -> Rewards:
        """None for an answer that lost its verdict, and for all if no answer has one."""
        known = [i for i, answer in enumerate(answers) if answer is not None]
        if not known:
            return [None] * len(answers)
        drawn = draw(known, self._seed, step, prompt)
        others = [i for i in known if i != drawn]
        texts = [(answers[i] or "", answers[drawn] or "") for i in others]
        won = dict(zip(others, await judge_pairs(self._judge, prompt, texts), strict=True))
        if any(own is not None for own in won.values()):
            won[drawn] = TIE
        return [won.get(i) for i in range(len(answers))]


def draw(members: Sequence[int], seed: int, step: int, prompt: str) -> int:
    """One of the members; the same on every machine and in a resumed training."""
    return random.Random(f"{seed}/{step}/{prompt}").choice(members)
