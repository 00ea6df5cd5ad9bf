"""Encodes a rollout's rewards as one number per token, the only form verl passes to its estimators.

There are two encodings; in both, the outcome is part of the row's sum:

`dense_row`    for `r2w_local`: the outcome on the first token, which is never part of a reflection
               (a draft comes before it); on the last token of each reflection its score, and a
               marker on its other tokens, so that the span can be decoded
`reward_row`   (advantages.py) for a critic: lambda times the score where a reflection ends, the
               outcome on the last token

Between processes a row is sent as runs `[start, end, value]`, since most of it is 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from r2w_eval.training.rl.advantages import Rollout, SegmentScore, Tokens, valid_scores

# vanishes in a sum of 32-bit floats and is never a score; its negative stands for a score of 0
MARK = 2.0**-100

Runs = list[tuple[int, int, float]]


def dense_row(rollout: Rollout) -> Tokens:
    """The row of a rollout with an outcome; `read_row` decodes it.

    >>> dense_row(Rollout(5, 0.5, (SegmentScore(2, 3, -1.0),))).tolist()
    [0.5, 0.0, -1.0, 0.0, 0.0]
    """
    row = np.zeros(rollout.n_tokens)
    if rollout.outcome is None or not rollout.n_tokens:
        return row
    for segment in valid_scores(rollout):
        score = float(segment.score or 0.0)
        row[segment.start : segment.end] = MARK
        row[segment.end - 1] = score if abs(score) > MARK else -MARK
    row[0] = rollout.outcome
    return row


def read_row(row: Tokens, n_tokens: int) -> Rollout:
    """The rollout encoded in the first `n_tokens` of a dense row; for 0 tokens without an outcome.

    >>> read_row(np.array([0.5, MARK, -1.0, 0.0]), 4)
    Rollout(n_tokens=4, outcome=0.5, segments=(SegmentScore(start=1, end=3, score=-1.0),))
    """
    if not n_tokens:
        return Rollout(0, None)
    segments = []
    start: int | None = None
    for place in np.flatnonzero(row[1:n_tokens]) + 1:
        start = int(place) if start is None else start
        value = float(row[place])
        if value != MARK:
            score = 0.0 if value == -MARK else value
            segments.append(SegmentScore(start, int(place) + 1, score))
            start = None
    return Rollout(n_tokens, float(row[0]), tuple(segments))


def to_runs(row: Tokens) -> Runs:
    """The stretches of a row that are not 0, as `(start, end, value)`.

    >>> to_runs(np.array([0.0, 0.5, 0.5, 0.0]))
    [(1, 3, 0.5)]
    """
    runs, start = [], 0
    for value, same in itertools.groupby(row.tolist()):
        end = start + len(list(same))
        if value:
            runs.append((start, end, value))
        start = end
    return runs


def from_runs(runs: Sequence[Sequence[float]], n_tokens: int) -> Tokens:
    """The row of `n_tokens` with these runs."""
    row = np.zeros(n_tokens)
    for start, end, value in runs:
        row[int(start) : int(end)] = value
    return row
