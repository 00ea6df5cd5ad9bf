"""Answers compared in pairs by a judge: a win is 1, a tie 1/2, a loss 0.

Each pair is judged in both orders; orders that disagree are a tie, and a pair that lost one of them
has no points. Two rewards within a group stand here, those against stored answers in references.py
(specification: r2write.md section 6.1):

pairwise    share won against several other answers of the group
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
    """Points of the first text of each pair."""
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
    """Points of the first text of each pair; None for a pair that lost an order.

    `margins` are those of the text shown first, two a pair: the first text shown first, and then
    the second.

    >>> points([2.0, -1.0, 1.0, 1.0, -1.0, 2.0, 1.0, None])
    [1.0, 0.5, 0.0, None]
    """
    labels = (
        combined_label(OrderPair("", "a", "b", forwards, None if back is None else -back))
        for forwards, back in zip(margins[::2], margins[1::2], strict=True)
    )
    return [None if label is None else (1 + label) / 2 for label in labels]


class Pairwise:
    """Share won against the next `opponents` and the previous ones, in a circle of the group."""

    def __init__(self, judge: PatientJudge, opponents: int) -> None:
        self._judge = judge
        self._opponents = opponents

    async def __call__(self, prompt: str, answers: Answers, step: int = 0) -> Rewards:
        """Mean points over the contests that have a verdict in both orders."""
        known = [i for i, answer in enumerate(answers) if answer is not None]
        pairs = circle(known, self._opponents)
        texts = [(answers[a] or "", answers[b] or "") for a, b in pairs]
        return shares(pairs, await judge_pairs(self._judge, prompt, texts), len(answers))


def circle(members: Sequence[int], opponents: int) -> list[tuple[int, int]]:
    """Each member against the `opponents` that follow it, round the circle, no pair twice.

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
    """Mean points by member; None for one without a judged pair. `won` are the first members'.

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

    One for the whole group, as in BRPO of Writing-Zero (arXiv 2506.00103): rewards that GRPO
    compares then come from one yardstick, where a draw for each answer would pay the luck of the
    draw. The drawn answer ties with itself, 1/2, unasked: above a group that loses against it,
    below one that wins. BRPO takes the reward for the advantage; here the group is normalised as
    for every other outcome.
    """

    def __init__(self, judge: PatientJudge, seed: int) -> None:
        self._judge = judge
        self._seed = seed

    async def __call__(self, prompt: str, answers: Answers, step: int = 0) -> Rewards:
        """None for an answer that lost its verdict, and for all where nobody has one."""
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
    """One of the members: the same on every machine, and in a resumed training."""
    return random.Random(f"{seed}/{step}/{prompt}").choice(members)
