"""Outcome rewards from comparisons with stored answers, and the schedule that raises the bar.

Specification: r2write.md section 6.1; the schedule is an idea of Writing-RL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.training.rl.contests import TIE, judge_pairs
from r2w_eval.training.rl.outcomes import Answers, JudgedOutcome, Rewards, step_of
from r2w_eval.training.rl.reference_file import Ranked

from r2w_eval.errors import DataError
from r2w_eval.models.completions import last_turn
from r2w_eval.ranks import from_all, on_first
from r2w_eval.run.patient import PatientJudge
from r2w_eval.store import write_json

# the wins of a training, in its folder
SCHEDULE = "references.json"


class AgainstReferences:
    """Mean points against the stored references of a prompt, or with a schedule against the
    current one alone.

    An answer that lost any verdict has no reward: the mean over the rest might leave out the
    strongest reference. `references` are by prompt text.
    """

    def __init__(
        self,
        judge: PatientJudge,
        references: Mapping[str, Ranked],
        schedule: ReferenceSchedule | None = None,
    ) -> None:
        self._judge = judge
        self._references = references
        self._schedule = schedule

    async def __call__(self, prompt: str, answers: Answers, step: int = 0) -> Rewards:
        """Mean over the references of 1 for a win, 1/2 for a tie, 0 for a loss."""
        texts = self._texts(self._references[prompt], step)
        known = [i for i, answer in enumerate(answers) if answer is not None]
        pairs = [(answers[i] or "", text) for i in known for text in texts]
        won = await judge_pairs(self._judge, prompt, pairs)
        own = {i: won[n * len(texts) : (n + 1) * len(texts)] for n, i in enumerate(known)}
        return [mean_of_all(own.get(i, ())) for i in range(len(answers))]

    def _texts(self, own: Ranked, step: int) -> Sequence[str]:
        if self._schedule is None:
            return own.texts
        return (own.texts[self._schedule.index(own, step)],)


def mean_of_all(won: Sequence[float | None]) -> float | None:
    """The mean; None if a value is missing or there are none.

    >>> mean_of_all([1.0, 0.5]), mean_of_all([1.0, None]), mean_of_all([])
    (0.75, None, None)
    """
    known = [own for own in won if own is not None]
    return sum(known) / len(known) if known and len(known) == len(won) else None


class ReferenceSchedule:
    """The current reference of each prompt: it starts with the weakest and advances on each win.

    `path` holds the steps in which each prompt was won, so that a training resumed from an earlier
    step finds the references of that step, whatever was recorded after it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wins: dict[str, list[int]] = on_first(lambda: _read_wins(path))

    def index(self, own: Ranked, step: int) -> int:
        """The index in `own.texts` of the current reference after `step` steps."""
        wins = sum(win < step for win in self._wins.get(own.prompt_id, ()))
        return min(wins, len(own.texts) - 1)

    def end_step(self, step: int, won: Iterable[Ranked]) -> None:
        """Record the prompts won in this step. All ranks must call it; rank 0 writes."""
        names = from_all([ranked.prompt_id for ranked in won])
        self._wins = note_wins(self._wins, step, {name for own in names for name in own})
        on_first(lambda: write_json(self._path, self._wins))


def note_wins(
    wins: Mapping[str, Sequence[int]], step: int, won: Iterable[str]
) -> dict[str, list[int]]:
    """The wins with those of this step; records of this or later steps, from before a kill, go.

    >>> note_wins({"a": [0, 4], "b": [7]}, 4, ["b"])
    {'a': [0], 'b': [4]}
    """
    found = {name: [win for win in own if win < step] for name, own in wins.items()}
    for name in sorted(won):
        found.setdefault(name, []).append(step)
    return {name: own for name, own in found.items() if own}


def _read_wins(path: Path) -> dict[str, list[int]]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
        return {str(name): [int(step) for step in own] for name, own in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: not the schedule of references ({error}). Move it away, and every prompt "
            f"begins at its weakest again; or use another --out"
        ) from error


class RisingReferences:
    """An outcome against the current references that advances the schedule after each step.

    A group wins if the mean of its valid rewards is above 1/2. Exactly 1/2 is no win: a judge that
    always prefers the text shown first makes every pair a tie.
    """

    __name__ = "outcome"

    def __init__(
        self,
        outcome: JudgedOutcome,
        schedule: ReferenceSchedule,
        references: Mapping[str, Ranked],
        group: int,
    ) -> None:
        self._outcome = outcome
        self._schedule = schedule
        self._references = references
        self._group = group
        self.begin: Callable[..., None] = outcome.begin

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> Rewards:
        """One reward per completion; groups follow each other, all of one prompt."""
        rewards = self._outcome(prompts, completions, **columns)
        starts = range(0, len(prompts), self._group)
        groups = [
            (self._references[last_turn(prompts[i], "user")], rewards[i : i + self._group])
            for i in starts
        ]
        step = step_of(columns)
        if log := columns.get("log_metric"):
            places = [self._schedule.index(ranked, step) for ranked, _ in groups]
            log("outcome/reference", sum(places) / len(places))
        self._schedule.end_step(step, [ranked for ranked, own in groups if is_won(own)])
        return rewards


def is_won(rewards: Rewards) -> bool:
    """Whether a group has won against its current reference.

    >>> is_won([1.0, 0.5, None]), is_won([0.5, 0.5]), is_won([None])
    (True, False, False)
    """
    known = [reward for reward in rewards if reward is not None]
    return bool(known) and sum(known) / len(known) > TIE
