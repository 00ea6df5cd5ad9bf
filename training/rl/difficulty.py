"""Chooses prompts that are neither too easy nor too hard for the current policy.

The policy answers each prompt a few times, and a judge marks the answers by the prompt's rubric. A
prompt is kept if the mean mark lies in a band, the marks differ, and the best known text is better
by a margin; where a language and domain have too many, the widest margins stay (specification:
r2write.md section 3.5; the margin rule is Writing-RL's). Answers without a mark are left out.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from r2w_eval.training.journal import Call, Journal, NoAnswer, Role, UnusableReply
from r2w_eval.training.judging.assess import Unreadable, ask_marks, read_assessment
from r2w_eval.training.judging.rubrics import complete_rubrics
from r2w_eval.training.limits import COUNT, FINITE, NOT_NEGATIVE, check_numbers
from r2w_eval.training.prompts import Prompt

from r2w_eval.errors import UsageError
from r2w_eval.waiting import gather


@dataclass(frozen=True)
class DifficultySettings:
    """Values of the choice (r2write.md section 3.5).

    samples: answers of the policy per prompt
    least_scored: how many of them must have a mark
    low, high: band of the mean mark, from 1 to 10
    margin: how much better than that mean the best known text must be
    quota: most prompts per language and domain; 0: no limit
    tries: attempts at a readable reply of the judge
    """

    samples: int = 4
    least_scored: int = 3
    low: float = 4.0
    high: float = 8.0
    margin: float = 0.5
    quota: int = 0
    tries: int = 3

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of its range, or a choice that no prompt can pass."""
        allowed = {
            COUNT: ("samples", "least_scored", "tries"),
            NOT_NEGATIVE: ("quota",),
            FINITE: ("low", "high", "margin"),
        }
        check_numbers("choice", self, allowed)
        if self.least_scored > self.samples:
            raise UsageError(
                f"choice.least_scored {self.least_scored}: expected at most choice.samples, "
                f"{self.samples}. Lower it, or raise samples"
            )
        if self.low > self.high:
            raise UsageError(f"choice.low {self.low}: expected at most choice.high, {self.high}")


class Unfit(StrEnum):
    """Why a prompt is left out."""

    UNSCORED = "unscored"
    TOO_HARD = "too_hard"
    TOO_EASY = "too_easy"
    NO_SPREAD = "no_spread"
    NO_REFERENCE = "no_reference"
    NARROW_MARGIN = "narrow_margin"
    OVER_QUOTA = "over_quota"


@dataclass(frozen=True, slots=True)
class Tried:
    """A prompt with the marks of the policy's answers (None: not marked) and that of the best known
    text (`reference`).
    """

    prompt: Prompt
    marks: tuple[float | None, ...]
    reference: float | None = None

    @property
    def known(self) -> list[float]:
        """The marks that are not None."""
        return [mark for mark in self.marks if mark is not None]

    @property
    def mean(self) -> float:
        """Mean of the known marks, of which there must be one."""
        return math.fsum(self.known) / len(self.known)

    @property
    def margin(self) -> float | None:
        """How much better the best known text is than the mean; None without such a text."""
        return None if self.reference is None else self.reference - self.mean


def unfit(tried: Tried, settings: DifficultySettings, has_references: bool) -> Unfit | None:
    """The first rule that a prompt breaks. The margin is checked only if references are known."""
    if len(tried.known) < settings.least_scored:
        return Unfit.UNSCORED
    if not settings.low <= tried.mean <= settings.high:
        return Unfit.TOO_HARD if tried.mean < settings.low else Unfit.TOO_EASY
    if len(set(tried.known)) < 2:
        return Unfit.NO_SPREAD
    if not has_references:
        return None
    if tried.margin is None:
        return Unfit.NO_REFERENCE
    return Unfit.NARROW_MARGIN if tried.margin < settings.margin else None


def choose(
    tried: Sequence[Tried], settings: DifficultySettings
) -> tuple[list[Tried], dict[str, int]]:
    """The kept prompts in the order in which they were given, and the others by reason.

    A quota takes the widest margins of each (language, domain). The order stays, because the end of
    a prompt file is what is held apart (`hold_apart`): by margin, or by domain, it would be another
    kind of prompts.
    """
    has_references = any(one.reference is not None for one in tried)
    left_out: Counter[str] = Counter()
    groups: dict[tuple[str, str], list[Tried]] = defaultdict(list)
    for one in tried:
        if reason := unfit(one, settings, has_references):
            left_out[reason] += 1
        else:
            groups[one.prompt.lang, one.prompt.domain].append(one)
    kept: set[str] = set()
    for own in groups.values():
        ranked = sorted(own, key=lambda one: -(one.margin or 0.0))
        within = ranked[: settings.quota or len(ranked)]
        kept |= {one.prompt.id for one in within}
        if len(ranked) > len(within):
            left_out[Unfit.OVER_QUOTA] += len(ranked) - len(within)
    return [one for one in tried if one.prompt.id in kept], dict(sorted(left_out.items()))


@dataclass(frozen=True)
class Trial:
    """A policy and a judge that try prompts; the journal makes a repeated run free of calls."""

    policy: Role
    judge: Role
    journal: Journal
    settings: DifficultySettings

    async def run(
        self, prompts: Sequence[Prompt], references: Mapping[str, float], concurrency: int = 32
    ) -> list[Tried]:
        """Try every prompt, in order; missing rubrics are proposed first and added to it."""
        rubrics = await complete_rubrics(prompts, self.journal, self.judge, self.settings.tries)
        slots = asyncio.Semaphore(concurrency)

        async def one(prompt: Prompt) -> Tried:
            own = replace(prompt, rubric=rubrics.get(prompt.prompt, ()))
            async with slots:
                marks = [await self._mark(own, i) for i in range(self.settings.samples)]
            return Tried(own, tuple(marks), references.get(prompt.id))

        return await gather([one(prompt) for prompt in prompts])

    async def _mark(self, prompt: Prompt, number: int) -> float | None:
        if not prompt.rubric:
            return None
        try:
            answer = await self.journal.ask(
                self.policy, Call(prompt.id, number, "sample", prompt.prompt)
            )
            text = ask_marks(prompt.prompt, answer, prompt.rubric)
            return await self._read(prompt, number, text)
        except NoAnswer:
            return None

    async def _read(self, prompt: Prompt, number: int, text: str) -> float | None:
        for attempt in range(self.settings.tries):
            call = Call(prompt.id, number, "mark", text, attempt)
            try:
                reply = await self.journal.ask(self.judge.at(attempt), call)
                return read_assessment(reply, "", prompt.rubric).mean(prompt.rubric)
            except (Unreadable, UnusableReply):
                continue
        return None
