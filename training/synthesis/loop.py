"""The synthesis loop: a writer improves a text under a judge that the trace does not mention.

It starts with a plan, a draft and an assessment. Then follow up to `rounds` times a reflection in
the writer's voice, a revision, and a blind assessment of the revised text. The judge sees only the
text; only the internaliser sees the judge's problems; the writer sees only the reflection
(specification: r2write.md section 3). Prompts, tags and limits are this project's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import fmean

from r2w_eval.reward_models.language.levels import LEVELS
from r2w_eval.training.journal import Call, Journal, NoAnswer, Role, UnusableReply
from r2w_eval.training.judging.assess import (
    Assessment,
    Unreadable,
    read_assessment,
    show_issues,
    show_rubric,
)
from r2w_eval.training.judging.rubrics import propose_rubric
from r2w_eval.training.limits import COUNT, NOT_NEGATIVE, POSITIVE, check_numbers
from r2w_eval.training.prompts import Criterion, Prompt
from r2w_eval.training.synthesis.leaks import Leak, Thought, check_language, find_leak
from r2w_eval.training.wording import load_wording

from r2w_eval.errors import UsageError
from r2w_eval.models.cost import estimate_tokens
from r2w_eval.template import Template, fence_mark
from r2w_eval.trace.patches import apply_patch, numbered
from r2w_eval.waiting import gather

# round numbers from here on are of fresh assessments, which measure the gain and choose nothing
FRESH = 1000
ROUNDING = 1e-9
SECOND_JUDGE = "second_judge"


class Stop(StrEnum):
    """Why an episode ended."""

    ACCEPT = "accept"
    PLATEAU = "plateau"
    MAX_ROUNDS = "max_rounds"
    TOKEN_CAP = "token_cap"
    NO_ISSUES = "no_issues"
    NO_REFLECTION = "no_reflection"
    JUDGE_FAILED = "judge_failed"
    WRITER_FAILED = "writer_failed"


class Label(StrEnum):
    """What a step did to the judge's mean."""

    IMPROVED = "improved"
    NEUTRAL = "neutral"
    DEGRADED = "degraded"


@dataclass(frozen=True)
class SynthSettings:
    """Limits of the loop (r2write.md sections 3.1 to 3.4; all are choices of this project).

    rounds: most reflections per prompt
    accept: weighted mean (1 to 10) from which a text without a major problem is accepted
    delta: smaller changes of the mean are neutral; should be at least the judge's noise (one sd)
    issues: most problems that one reflection takes up
    token_cap: most tokens of thinking (estimated)
    patch_tokens: longer drafts are revised by a patch instead of being written out again
    tries: attempts at a reflection that passes the leak filter, and at a readable assessment
    fresh: sampled assessments of the first and of the best text, by the second judge if there is
        one; the difference of their means is reported as the gain; 0: no gain is reported
    concurrency: prompts in progress at a time
    writer_tokens, judge_tokens: most tokens per reply of the writer and of the judge
    patience_s: seconds that one reply may take; an endpoint that answers no call for that long is
        given up and the synthesis ends; the same command resumes it
    """

    rounds: int = 3
    accept: float = 8.5
    delta: float = 0.25
    issues: int = 3
    token_cap: int = 12_000
    patch_tokens: int = 800
    tries: int = 3
    fresh: int = 2
    concurrency: int = 32
    writer_tokens: int = 4096
    judge_tokens: int = 2048
    patience_s: float = 600.0

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of its range."""
        counts = ("rounds", "issues", "token_cap", "tries", "concurrency")
        allowed = {
            COUNT: (*counts, "writer_tokens", "judge_tokens"),
            NOT_NEGATIVE: ("accept", "delta", "patch_tokens", "fresh"),
            POSITIVE: ("patience_s",),
        }
        check_numbers("synth", self, allowed)

    def work(self) -> SynthSettings:
        """The settings that affect texts; the others are reset to their defaults."""
        usual = SynthSettings()
        return replace(self, concurrency=usual.concurrency, patience_s=usual.patience_s)


@dataclass(frozen=True)
class Roles:
    """The models of the loop; one may have all roles. The second judge only measures the gain."""

    writer: Role
    judge: Role
    internaliser: Role
    second_judge: Role | None = None


@dataclass(frozen=True, slots=True)
class SynthStep:
    """One reflection and its outcome.

    base, text: the whole text before and after the revision
    written: the revision as the writer gave it, the full text or a patch
    before, after: marks by criterion; gain: the change of their weighted mean
    """

    round: int
    reflection: str
    level: str
    written: str
    text: str
    base: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    gain: float
    label: Label


@dataclass
class Episode:
    """The course of the loop for one prompt: `chain` are the improving steps of the trace, `side`
    the others.
    """

    prompt: Prompt
    rubric: tuple[Criterion, ...] = ()
    plan: str = ""
    draft: str = ""
    best: str = ""
    mean_first: float | None = None
    mean_best: float | None = None
    fresh_gain: float | None = None
    chain: list[SynthStep] = field(default_factory=list)
    side: list[SynthStep] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    n_discarded: int = 0
    stop: Stop | None = None
    reason: str = ""

    @property
    def steps(self) -> list[SynthStep]:
        """All steps in order."""
        return sorted([*self.chain, *self.side], key=lambda step: step.round)

    def thinking_tokens(self, *more: SynthStep) -> int:
        """Estimated tokens of the stitched thinking, with `more` steps at its end."""
        texts = [self.plan, self.draft]
        texts += [part for step in (*self.chain, *more) for part in (step.reflection, step.written)]
        return sum(map(estimate_tokens, texts))


class _Ended(Exception):
    """Raised to end an episode."""

    def __init__(self, stop: Stop, reason: str = "") -> None:
        super().__init__(reason)
        self.stop = stop
        self.reason = reason


def load_templates() -> dict[str, Template]:
    """The prompt templates of the loop by name."""
    names = ("plan", "draft", "rubric", "judge", "internalise", "revise_full", "revise_patch")
    return {name: load_wording(name) for name in names}


async def synthesise(
    prompts: Sequence[Prompt], roles: Roles, journal: Journal, settings: SynthSettings
) -> list[Episode]:
    """One episode per prompt, in order. Finished calls of an earlier run are reused.

    Raises UsageError for a prompt in a language other than en and zh.
    """
    for prompt in prompts:
        check_language(prompt.id, prompt.lang)
    loop = _Loop(roles, journal, settings, load_templates())
    slots = asyncio.Semaphore(settings.concurrency)

    async def one(prompt: Prompt) -> Episode:
        async with slots:
            return await loop.run(prompt)

    return await gather([one(prompt) for prompt in prompts])


@dataclass(frozen=True)
class _Loop:
    roles: Roles
    journal: Journal
    settings: SynthSettings
    templates: Mapping[str, Template]

    async def run(self, prompt: Prompt) -> Episode:
        episode = Episode(prompt, prompt.rubric)
        try:
            await self._begin(episode)
            assessment = await self._assess(episode, episode.draft, 0)
            episode.mean_first = episode.mean_best = assessment.mean(episode.rubric)
            await self._improve(episode, assessment)
        except _Ended as end:
            episode.stop, episode.reason = end.stop, end.reason
        if episode.chain and self.settings.fresh:
            await self._measure_gain(episode)
        return episode

    async def _begin(self, episode: Episode) -> None:
        text = episode.prompt.prompt
        if not episode.rubric:
            episode.rubric = await self._propose_rubric(episode)
        episode.plan = await self._write(episode, 0, "plan", prompt=text)
        episode.draft = await self._write(episode, 0, "draft", prompt=text, plan=episode.plan)
        episode.best = episode.draft

    async def _improve(self, episode: Episode, assessment: Assessment) -> None:
        """Rounds until a stop rule ends the episode."""
        misses = 0
        for number in range(1, self.settings.rounds + 1):
            self._check(episode, assessment, misses)
            step, after = await self._round(episode, assessment, number)
            if step.label is Label.IMPROVED:
                if episode.thinking_tokens(step) > self.settings.token_cap:
                    # a good step, and no part of a trace that it would make too long
                    episode.side.append(step)
                    raise _Ended(Stop.TOKEN_CAP)
                episode.chain.append(step)
                episode.best, assessment, misses = step.text, after, 0
                episode.mean_best = after.mean(episode.rubric)
            else:
                episode.side.append(step)
                misses += 1
        self._check(episode, assessment, misses)
        raise _Ended(Stop.MAX_ROUNDS)

    def _check(self, episode: Episode, assessment: Assessment, misses: int) -> None:
        is_good = assessment.mean(episode.rubric) >= self.settings.accept
        if is_good and not assessment.has_major_issue:
            raise _Ended(Stop.ACCEPT)
        if misses >= 2:
            raise _Ended(Stop.PLATEAU)
        if episode.thinking_tokens() > self.settings.token_cap:
            raise _Ended(Stop.TOKEN_CAP)
        if not assessment.issues:
            raise _Ended(Stop.NO_ISSUES, "the judge found nothing that it could quote")

    async def _round(
        self, episode: Episode, before: Assessment, number: int
    ) -> tuple[SynthStep, Assessment]:
        issues = before.gravest(self.settings.issues)
        base = episode.best
        reflection = await self._reflect(episode, show_issues(issues), number)
        written, text = await self._revise(episode, reflection, number)
        # a text that stays as it is gains nothing, however the judge's marks of it waver
        is_same = text.split() == base.split()
        after = before if is_same else await self._assess(episode, text, number)
        gain = after.mean(episode.rubric) - before.mean(episode.rubric)
        step = SynthStep(
            round=number,
            reflection=reflection,
            level=issues[0].level,
            written=written,
            text=text,
            base=base,
            before=before.marks,
            after=after.marks,
            gain=gain,
            label=label_of(gain, self.settings.delta),
        )
        return step, after

    async def _reflect(self, episode: Episode, issues: str, number: int) -> str:
        """A reflection that passes the leak filter, in at most `tries` attempts."""
        filled = self.templates["internalise"].fill(draft=episode.best, issues=issues)
        earlier = tuple(step.reflection for step in episode.steps)
        prompt = episode.prompt
        for attempt in range(self.settings.tries):
            call = Call(prompt.id, number, "reflect", filled, attempt)
            internaliser = self.roles.internaliser.at(attempt)
            try:
                text = await self._ask(internaliser, call, Stop.WRITER_FAILED)
            except UnusableReply:
                text = ""
            leak = find_leak(Thought(text, prompt.lang, prompt.prompt, episode.best, earlier))
            if leak is None:
                return text
            episode.leaks.append(leak)
        raise _Ended(Stop.NO_REFLECTION, ", ".join(episode.leaks[-self.settings.tries :]))

    async def _revise(self, episode: Episode, reflection: str, number: int) -> tuple[str, str]:
        """The revision as written, and the revised text. A patch that fails becomes a rewrite."""
        base, prompt = episode.best, episode.prompt.prompt
        if estimate_tokens(base) > self.settings.patch_tokens:
            fields = {"prompt": prompt, "draft": numbered(base), "reflection": reflection}
            written = await self._write(episode, number, "revise_patch", **fields)
            try:
                return written, apply_patch(base, written)
            except UsageError:
                pass
        fields = {"prompt": prompt, "draft": base, "reflection": reflection}
        written = await self._write(episode, number, "revise_full", **fields)
        return written, written

    async def _measure_gain(self, episode: Episode) -> None:
        """Measure the gain by fresh assessments: the marks that chose the best are biased."""
        gains = []
        try:
            for number in range(FRESH, FRESH + 2 * self.settings.fresh, 2):
                first = await self._assess(episode, episode.draft, number)
                best = await self._assess(episode, episode.best, number + 1)
                gains.append(best.mean(episode.rubric) - first.mean(episode.rubric))
        except _Ended:
            return
        episode.fresh_gain = fmean(gains)

    async def _write(self, episode: Episode, number: int, step: str, **fields: str) -> str:
        text = self.templates[step].fill(**fields)
        call = Call(episode.prompt.id, number, step, text)
        try:
            return await self._ask(self.roles.writer, call, Stop.WRITER_FAILED)
        except UnusableReply as error:
            raise _Ended(Stop.WRITER_FAILED, f"{step}: {error}") from error

    async def _propose_rubric(self, episode: Episode) -> tuple[Criterion, ...]:
        text = self.templates["rubric"].fill(prompt=episode.prompt.prompt)
        asked = (self.journal, self.roles.judge, episode.prompt, text, self.settings.tries)
        try:
            return await propose_rubric(*asked)
        except (NoAnswer, Unreadable) as error:
            raise _Ended(Stop.JUDGE_FAILED, f"rubric: {error}") from error

    async def _assess(self, episode: Episode, text: str, number: int) -> Assessment:
        fields = {"prompt": episode.prompt.prompt, "text": text, "mark": fence_mark(text)}
        rubric, levels = show_rubric(episode.rubric), ", ".join(LEVELS)
        filled = self.templates["judge"].fill(rubric=rubric, levels=levels, **fields)
        reason = ""
        role, step = self._assessor(number)
        for attempt in range(self.settings.tries):
            call = Call(episode.prompt.id, number, step, filled, attempt)
            try:
                reply = await self._ask(role.at(attempt), call, Stop.JUDGE_FAILED)
                assessment = read_assessment(reply, text, episode.rubric)
            except (Unreadable, UnusableReply) as error:
                reason = str(error)
                continue
            episode.n_discarded += assessment.n_discarded
            return assessment
        raise _Ended(Stop.JUDGE_FAILED, reason)

    def _assessor(self, number: int) -> tuple[Role, str]:
        """The judge of a round, and the name of the call. Fresh assessments are sampled: a greedy
        judge would only repeat the selecting one.
        """
        if number < FRESH:
            return self.roles.judge, "judge"
        if self.roles.second_judge is None:
            return self.roles.judge.drawn(), "judge"
        return self.roles.second_judge.drawn(), SECOND_JUDGE

    async def _ask(self, role: Role, call: Call, stop: Stop) -> str:
        try:
            return await self.journal.ask(role, call)
        except UnusableReply:
            raise
        except NoAnswer as error:
            raise _Ended(stop, f"{call.step}: {error}") from error


def label_of(gain: float, delta: float) -> Label:
    """Improved, neutral or degraded; a gain that misses `delta` by rounding alone reaches it.

    >>> label_of(8.2 - 8.0, 0.2), label_of(-0.2, 0.25)
    (<Label.IMPROVED: 'improved'>, <Label.NEUTRAL: 'neutral'>)
    """
    if abs(gain) < delta - ROUNDING:
        return Label.NEUTRAL
    return Label.IMPROVED if gain > 0 else Label.DEGRADED if gain < 0 else Label.NEUTRAL
