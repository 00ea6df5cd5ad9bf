"""Segment scores to token advantages: pure functions on numbers, no framework.

A group holds the rollouts of one prompt. The default mapping is `local`: a reflection's score is
credited to its own tokens, centred on the group, divided by the number of reflections, and capped
relative to the outcome advantages (specification: r2write.md section 6.3; fixture: reward-model.md
section 8). The other forms are for comparison; their docstrings name what each can be exploited by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from r2w_eval.training.limits import CAP, COUNT, NOT_NEGATIVE, SHARE, check_numbers

Tokens = npt.NDArray[np.float64]

GROUP_EPS = 1e-4


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """One reflection of a rollout: policy tokens `start` to `end` (exclusive), and its score.

    `score` is in [-1, 1]; None if there is no valid one, and then the segment is ignored.
    """

    start: int
    end: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion of a group: its length in tokens, its outcome reward, its reflections.

    `outcome` is None if it could not be scored; such a rollout gets no gradient at all.
    """

    n_tokens: int
    outcome: float | None
    segments: tuple[SegmentScore, ...] = ()


Form = Literal["local", "sum", "mean", "min", "step_return", "return_to_go", "delta", "local_z"]


@dataclass(frozen=True)
class LocalMapping:
    """Settings of the mapping (r2write.md section 6.3).

    form: `local`, or one of `MAPPINGS`, of which only `weight` and `warmup_share` apply
    weight: lambda, the strength of the process term
    warmup_share: share of the training steps over which lambda rises linearly from 0
    token_cap: kappa, the largest absolute process term of one token, in units of the RMS of the
        group's outcome advantages; inf: no cap
    sum_cap: rho, the largest mean absolute process term over all tokens of a rollout, in the same
        units; inf: no cap
    gate: `acceptable` gives positive credit only to rollouts at or above the group's median
        outcome; `always` to all
    baseline: `floored_mean` subtracts max(0, mean score of the group), `zero` nothing, `mean` the
        mean itself. While all reflections of a model are bad, the first two mostly teach it to
        reflect less; the last rewards the least bad ones
    max_segments: reflections after this many get no credit
    """

    form: Form = "local"
    weight: float = 0.3
    warmup_share: float = 0.1
    token_cap: float = 1.0
    sum_cap: float = 0.5
    gate: Literal["acceptable", "always"] = "acceptable"
    baseline: Literal["floored_mean", "zero", "mean"] = "floored_mean"
    max_segments: int = 8

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of its range."""
        allowed = {
            NOT_NEGATIVE: ("weight",),
            SHARE: ("warmup_share",),
            CAP: ("token_cap", "sum_cap"),
            COUNT: ("max_segments",),
        }
        check_numbers("process_mapping", self, allowed)

    def weight_at(self, progress: float) -> float:
        """lambda after the share `progress` of the training steps.

        >>> LocalMapping(weight=0.3, warmup_share=0.1).weight_at(0.05)
        0.15
        """
        ramp = 1.0 if self.warmup_share <= 0 else min(1.0, progress / self.warmup_share)
        return self.weight * ramp


def valid_scores(rollout: Rollout, max_segments: int | None = None) -> list[SegmentScore]:
    """The reflections with a score and at least one token; empty if there is no outcome."""
    if rollout.outcome is None:
        return []
    scored = [s for s in rollout.segments if s.score is not None and s.end > s.start]
    return scored[:max_segments]


def outcome_advantages(group: Sequence[Rollout], eps: float = GROUP_EPS) -> list[float | None]:
    """(R - mean) / (sample std + eps) over the valid outcomes; None for a rollout without one.

    With fewer than two valid outcomes there is no comparison, and all are None.
    """
    valid = [rollout.outcome for rollout in group if rollout.outcome is not None]
    if len(valid) < 2:
        return [None] * len(group)
    mean, std = float(np.mean(valid)), float(np.std(valid, ddof=1))
    return [None if r.outcome is None else (r.outcome - mean) / (std + eps) for r in group]


def local_terms(
    group: Sequence[Rollout],
    advantages: Sequence[float | None],
    mapping: LocalMapping,
    weight: float | None = None,
) -> list[Tokens]:
    """The process terms p_t of every rollout, to be added to its outcome advantage.

    `advantages` are the group's outcome advantages, None for an invalid outcome; `weight` is
    lambda at this step (default: `mapping.weight`). Groups with fewer than two valid outcomes, or
    with equal ones under a finite cap, get no process term.
    """
    weight = mapping.weight if weight is None else weight
    terms = [np.zeros(rollout.n_tokens) for rollout in group]
    known = [advantage for advantage in advantages if advantage is not None]
    scores = [s.score for r in group for s in valid_scores(r) if s.score is not None]
    if len(known) < 2 or not scores:
        return terms
    rms = math.sqrt(math.fsum(a * a for a in known) / len(known))
    mean = math.fsum(scores) / len(scores)
    centre = {"floored_mean": max(0.0, mean), "zero": 0.0, "mean": mean}[mapping.baseline]
    median = float(np.median([r.outcome for r in group if r.outcome is not None]))
    for rollout, term in zip(group, terms, strict=True):
        _add_local(term, rollout, mapping, (weight, centre, median))
        _cap(term, rms, mapping)
    return terms


def _add_local(
    term: Tokens, rollout: Rollout, mapping: LocalMapping, facts: tuple[float, float, float]
) -> None:
    weight, centre, median = facts
    n_segments = len(valid_scores(rollout))
    is_acceptable = mapping.gate == "always" or rollout.outcome is None or rollout.outcome >= median
    for segment in valid_scores(rollout, mapping.max_segments):
        credit = float(np.clip((segment.score or 0.0) - centre, -1.0, 1.0))
        if credit < 0 or is_acceptable:
            term[segment.start : segment.end] += weight * credit / n_segments


def _cap(term: Tokens, rms: float, mapping: LocalMapping) -> None:
    """Clip each |p_t|, then scale down their sum; both limits are proportional to `rms`."""
    if math.isfinite(mapping.token_cap):
        np.clip(term, -mapping.token_cap * rms, mapping.token_cap * rms, out=term)
    total = float(np.abs(term).sum())
    limit = mapping.sum_cap * len(term) * rms if math.isfinite(mapping.sum_cap) else math.inf
    if total > limit:
        term *= limit / total


def local(group: Sequence[Rollout], mapping: LocalMapping = LocalMapping()) -> list[Tokens]:
    """Outcome advantages on all tokens plus the process terms on the reflections."""
    advantages = outcome_advantages(group)
    terms = local_terms(group, advantages, mapping)
    return [term + (a or 0.0) for term, a in zip(terms, advantages, strict=True)]


def process_terms(
    group: Sequence[Rollout],
    advantages: Sequence[float | None],
    mapping: LocalMapping,
    weight: float | None = None,
) -> list[Tokens]:
    """What a mapping of any form adds to the outcome advantages; see `local_terms`.

    The forms in MAPPINGS return whole advantages, so `outcome_advantages` is subtracted; they
    ignore `advantages`.
    """
    if mapping.form == "local":
        return local_terms(group, advantages, mapping, weight)
    rows = MAPPINGS[mapping.form](group, mapping.weight if weight is None else weight)
    own = outcome_advantages(group)
    return [np.zeros_like(row) if a is None else row - a for row, a in zip(rows, own, strict=True)]


def _broadcast(
    group: Sequence[Rollout], reduce: Callable[[list[float]], float], weight: float
) -> list[Tokens]:
    """One scalar per rollout on all its tokens: outcome plus reduced scores, normalised."""
    totals = [
        None
        if rollout.outcome is None
        else rollout.outcome
        + weight * reduce([float(s.score or 0.0) for s in valid_scores(rollout)])
        for rollout in group
    ]
    scalars = outcome_advantages(
        [Rollout(r.n_tokens, total) for r, total in zip(group, totals, strict=True)]
    )
    return [np.full(r.n_tokens, a or 0.0) for r, a in zip(group, scalars, strict=True)]


def scalar_sum(group: Sequence[Rollout], weight: float = 1.0) -> list[Tokens]:
    """Sum of scores added to the outcome. Exploit: it pays per reflection, wherever it is."""
    return _broadcast(group, math.fsum, weight)


def scalar_mean(group: Sequence[Rollout], weight: float = 1.0) -> list[Tokens]:
    """Mean score added to the outcome. The count does not pay; credit is not localised."""
    return _broadcast(group, lambda own: math.fsum(own) / len(own) if own else 0.0, weight)


def scalar_min(group: Sequence[Rollout], weight: float = 1.0) -> list[Tokens]:
    """Lowest score added to the outcome (PURE, arXiv 2504.15275). One bad score decides."""
    return _broadcast(group, lambda own: min(own, default=0.0), weight)


def _z_scores(group: Sequence[Rollout]) -> Callable[[SegmentScore], float]:
    """A function that brings scores to zero mean and unit sample standard deviation (+ eps)."""
    scores = [float(s.score or 0.0) for r in group for s in valid_scores(r)]
    mean = float(np.mean(scores)) if scores else 0.0
    std = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    return lambda segment: ((segment.score or 0.0) - mean) / (std + GROUP_EPS)


def _with_z_scores(
    group: Sequence[Rollout], weight: float, first: Callable[[SegmentScore, int], int]
) -> list[Tokens]:
    """Outcome advantages, plus each normalised score on the tokens from `first` to its end.

    `first` is given the reflection and where the one before it ends. A rollout without an outcome
    gets nothing at all.
    """
    normalise, rows = _z_scores(group), []
    for rollout, advantage in zip(group, outcome_advantages(group), strict=True):
        term, before = np.zeros(rollout.n_tokens), 0
        for segment in valid_scores(rollout):
            term[first(segment, before) : segment.end] += normalise(segment)
            before = segment.end
        rows.append(np.zeros_like(term) if advantage is None else weight * term + advantage)
    return rows


def step_return(group: Sequence[Rollout], weight: float = 1.0) -> list[Tokens]:
    """A token gets the normalised scores of all reflections that end at or after it.

    GRPO with process supervision (arXiv 2402.03300, section 4.1.3). Exploit: it pays per
    reflection, and a good one is charged for a later bad one.
    """
    return _with_z_scores(group, weight, lambda segment, before: 0)


def delta(group: Sequence[Rollout], weight: float = 1.0) -> list[Tokens]:
    """Differences of successive scores, summed from the token on (arXiv 2410.15115, section 4).

    The sum telescopes: a token gets the score of the next reflection to end, and no other.
    """
    return _with_z_scores(group, weight, lambda segment, before: before)


def local_z(group: Sequence[Rollout], weight: float = 1.0) -> list[Tokens]:
    """The normalised score on the reflection's own tokens. Credit goes to the right tokens; more
    reflections still pay a little.
    """
    return _with_z_scores(group, weight, lambda segment, before: segment.start)


def return_to_go(group: Sequence[Rollout], weight: float = 1.0) -> list[Tokens]:
    """Sum of all later rewards (`reward_row`), whitened over the group's tokens (REINFORCE++).

    Whitening mixes rollouts of different lengths; localising credit would need a critic.
    """
    rewards = [reward_row(rollout, weight) for rollout in group]
    returns = [gae(row, np.zeros(len(row) + 1), 1.0, 1.0) for row in rewards]
    valid = [rollout.outcome is not None for rollout in group]
    known = [row for row, is_valid in zip(returns, valid, strict=True) if is_valid]
    pool = np.concatenate(known) if known else np.zeros(0)
    std = float(pool.std(ddof=1)) if len(pool) > 1 else 0.0
    # a rollout without an outcome neither learns nor shifts the others
    return [
        (row - pool.mean()) / (std + 1e-8) if is_valid else np.zeros_like(row)
        for row, is_valid in zip(returns, valid, strict=True)
    ]


def reward_row(rollout: Rollout, weight: float = 1.0) -> Tokens:
    """Token-level rewards for a critic: lambda * score on the last token of each reflection, the
    outcome on the last token (r2write.md section 6.4).
    """
    row = np.zeros(rollout.n_tokens)
    if rollout.outcome is None or not rollout.n_tokens:
        return row
    for segment in valid_scores(rollout):
        row[segment.end - 1] += weight * (segment.score or 0.0)
    row[-1] += rollout.outcome
    return row


def gae(rewards: Tokens, values: Tokens, gamma: float, gae_lambda: float) -> Tokens:
    """Generalised advantage estimates, A_t = sum (gamma lambda)^l delta_(t+l) (arXiv 1506.02438).

    `values` has one entry more than `rewards`, that of the state after the last token.
    """
    deltas = rewards + gamma * values[1:] - values[:-1]
    advantages = np.zeros_like(rewards)
    carry = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        carry = float(deltas[t]) + gamma * gae_lambda * carry
        advantages[t] = carry
    return advantages


MAPPINGS: dict[str, Callable[[Sequence[Rollout], float], list[Tokens]]] = {
    "sum": scalar_sum,
    "mean": scalar_mean,
    "min": scalar_min,
    "step_return": step_return,
    "return_to_go": return_to_go,
    "delta": delta,
    "local_z": local_z,
}
"""The other forms: functions of a group and lambda that return whole advantages."""
