"""Outcome rewards from comparisons with stored answers, and the schedule that raises the bar.

A file has one JSON object per line, `{"prompt_id", "text", "score"?}`, several for a prompt;
instead of `prompt_id` it may have `prompt`, the prompt's text. A prompt's references are ranked
from weak to strong by their scores or, if they have none, by their order in the file
(specification: r2write.md section 6.1; the schedule is an idea of Writing-RL).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.training.limits import FINITE
from r2w_eval.training.prompts import Prompt
from r2w_eval.training.rl.contests import TIE, judge_pairs
from r2w_eval.training.rl.outcomes import Answers, JudgedOutcome, Rewards, step_of

from r2w_eval.data import read_jsonl
from r2w_eval.errors import DataError, UsageError
from r2w_eval.models.completions import last_turn
from r2w_eval.ranks import from_all, on_first
from r2w_eval.run.patient import PatientJudge
from r2w_eval.store import write_json

# the wins of a training, in its folder
SCHEDULE = "references.json"
EXAMPLE = '{"prompt_id": "1", "text": "…", "score": 6.5}'


@dataclass(frozen=True, slots=True)
class Reference:
    """One line of a file; `prompt` is the id or the text of a prompt."""

    prompt: str
    text: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """The references of one prompt, from weak to strong."""

    prompt_id: str
    texts: tuple[str, ...]


def check_references(section: str, form: str, file: str) -> None:
    """Raise UsageError if references are given but not used, or needed but not given."""
    if form == "references" and not file:
        raise UsageError(
            f"{section}.outcome_form references: no file of them. Set {section}.references: FILE, "
            f"with lines like {EXAMPLE}"
        )
    if file and form != "references":
        raise UsageError(
            f"{section}.references {file!r} with outcome_form {form}, which reads none. Set "
            f"{section}.outcome_form: references, or leave the file out"
        )


def read_reference_file(path: Path) -> dict[str, list[Reference]]:
    """The references of a file by prompt id or text. Raises DataError, UsageError with the line."""
    if not path.is_file():
        raise UsageError(f"references {str(path)!r}: no such file. Expected lines like {EXAMPLE}")
    found: dict[str, list[Reference]] = {}
    for n, record in enumerate(read_jsonl(path), 1):
        reference = _read_reference(record, f"{path}, record {n}")
        found.setdefault(reference.prompt, []).append(reference)
    if not found:
        raise UsageError(f"{path}: empty. Expected lines like {EXAMPLE}")
    return found


def _read_reference(record: Any, where: str) -> Reference:
    if not isinstance(record, dict):
        raise UsageError(f"{where}: {str(record)[:80]!r} is not an object. Expected {EXAMPLE}")
    name = "prompt_id" if "prompt_id" in record else "prompt"
    for key in (name, "text"):
        value = record.get(key)
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{where}: {key} is {str(value)[:80]!r}. Expected text: {EXAMPLE}")
    score = record.get("score")
    is_number = isinstance(score, (int, float)) and not isinstance(score, bool)
    if score is not None and not (is_number and score in FINITE):
        raise UsageError(
            f"{where}: score is {str(score)[:80]!r}. Expected a finite number, or leave it out of "
            f"all references of the prompt, from weak to strong"
        )
    return Reference(record[name], record["text"], score)


def rank_references(
    stored: Mapping[str, Sequence[Reference]], prompt_id: str, prompt: str
) -> Ranked:
    """The ranked references of a prompt, possibly none.

    Raises UsageError if only some of them have a score.

    >>> stored = {"p": [Reference("p", "good", 7.0), Reference("p", "poor", 2.0)]}
    >>> rank_references(stored, "p", "Write.").texts
    ('poor', 'good')
    """
    own = [one for name in dict.fromkeys((prompt_id, prompt)) for one in stored.get(name, ())]
    scores = [one.score for one in own if one.score is not None]
    if scores and len(scores) < len(own):
        raise UsageError(
            f"references of prompt {prompt_id[:80]!r}: {len(scores)} of {len(own)} have a score, "
            f"so they have no order. Give all of them one, or none, from weak to strong"
        )
    ranked = sorted(own, key=lambda one: one.score or 0.0)
    return Ranked(prompt_id, tuple(one.text for one in ranked))


def match_references(
    stored: Mapping[str, Sequence[Reference]], prompts: Sequence[Prompt]
) -> dict[str, Ranked]:
    """The ranked references of every prompt, by prompt text. Raises UsageError naming the prompts
    without any, since their rollouts could not be rewarded.
    """
    found = {one.prompt: rank_references(stored, one.id, one.prompt) for one in prompts}
    without = [ranked.prompt_id for ranked in found.values() if not ranked.texts]
    if without:
        shown = ", ".join(repr(name[:80]) for name in without[:5])
        raise UsageError(
            f"{len(without)} of {len(found)} prompts without a reference: {shown}"
            f"{', …' if len(without) > 5 else ''}. Give each a line in the file, as "
            f"{EXAMPLE}, or take them out of the prompts"
        )
    return found


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
