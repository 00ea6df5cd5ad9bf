"""Judges: scorers that ask a chat model, reading its text verdict or its score probabilities.

A `Scorer` takes items and gives verdicts in the same order; judges, reward models and rules are all
scorers. A reply that cannot be read is asked again once (strict) or by the suite's own rule
(parity), and is otherwise a status, never a number (specification: harness sections 4 and 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from r2w_eval.models.chat import (
    CallFailed,
    CallStatus,
    ChatModel,
    ChatRequest,
    LabelProbabilities,
    LabelReader,
    Reply,
)
from r2w_eval.models.thinking import ThinkTags, read_reply_text, without_thinking
from r2w_eval.template import load_prompt
from r2w_eval.types import Decoding, JudgeRequest, JudgeStatus, Message, Scale, Score, Usage
from r2w_eval.waiting import gather

QUOTED_REPLY_CHARS = 2000
MIN_MASS = 0.5

CALL_TO_JUDGE_STATUS = {
    CallStatus.TRANSPORT: JudgeStatus.TRANSPORT,
    CallStatus.TIMEOUT: JudgeStatus.TIMEOUT,
    CallStatus.RATE_LIMITED: JudgeStatus.RATE_LIMITED,
    CallStatus.NOT_SENT: JudgeStatus.NOT_SENT,
    CallStatus.BAD_REQUEST: JudgeStatus.BAD_REQUEST,
    CallStatus.CONTEXT: JudgeStatus.TOO_LONG,
    CallStatus.FILTERED: JudgeStatus.FILTERED,
}


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """One question for a scorer.

    `ask_again` decides after each unreadable reply, told all of them so far; None means our own
    rule: once, with a reminder of the format. `settle` reads replies that all stayed unreadable;
    None means that the reading of the last one stands.
    `prompt` (the writer's task) and `answer` are for scorers that read texts themselves instead of
    `request.messages`, as reward models do. `anew`: an earlier verdict was of no use, and no cache
    may give it again. `is_material`: the reply goes on as a text, so that one that was cut is none.
    """

    request: JudgeRequest
    decoding: Decoding
    parse: Callable[[JudgeRequest, str], Score]
    repeat: int = 0
    ask_again: Callable[[Sequence[str]], bool] | None = None
    settle: Callable[[JudgeRequest, Sequence[str]], Score | None] | None = None
    prompt: str = ""
    answer: str = ""
    anew: bool = False
    is_material: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A score and how it was obtained."""

    score: Score
    asks: tuple[str, ...] = ()
    model_returned: str | None = None
    usage: Usage = Usage()
    latency_s: float = 0.0
    cached: bool = False


class Scorer(Protocol):
    """Anything that scores: batch in, batch out, in order."""

    @property
    def id(self) -> str:
        """The name under which results stand."""

    def describe(self) -> dict[str, Any]:
        """What else changes scores; goes into the identity."""

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        """One verdict per item."""

    async def close(self) -> None:
        """Give back what the scorer holds."""


class TextJudge:
    """Reads the verdict from the text that the judge writes."""

    def __init__(self, model: ChatModel, tags: ThinkTags = ThinkTags()) -> None:
        self._model = model
        self._tags = tags
        self._reminder = load_prompt("reask")

    @property
    def id(self) -> str:
        """The model's name."""
        return self._model.id

    def describe(self) -> dict[str, Any]:
        """Score mode and the model's own facts; how its thinking is read where its chat template
        opens it, which no text shows.
        """
        opened = {"think_opened": True} if self._tags.opened_by_template else {}
        return {"score_mode": "text", **opened, **self._model.describe()}

    async def close(self) -> None:
        """Close the model."""
        await self._model.close()

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        """Ask about all items at once; the model's limiter decides how many are in flight."""
        return await gather([self._score_one(item) for item in items])

    async def _score_one(self, item: ScoreItem) -> Verdict:
        asks: list[str] = []
        messages = item.request.messages
        usage = Usage()
        latency_s = 0.0
        while True:
            request = ChatRequest(messages, item.decoding, item.repeat, len(asks), item.anew)
            try:
                reply = await self._model.complete(request)
            except CallFailed as failure:
                score = Score(None, CALL_TO_JUDGE_STATUS[failure.status], str(failure))
                return Verdict(score, tuple(asks), None, usage, latency_s)
            asks.append(reply.text)
            usage = add_usage(usage, reply.usage)
            latency_s += reply.latency_s
            score = self._read(item, reply)
            if not score.status.is_unreadable or not self._asks_again(item, asks):
                if score.status.is_unreadable and item.settle is not None:
                    score = item.settle(item.request, asks) or score
                return Verdict(score, tuple(asks), reply.model, usage, latency_s, reply.cached)
            if item.ask_again is None:
                # its thinking is nothing to come back to, and would fill the quotation
                said = without_thinking(reply.text, self._tags)
                messages = self._remind(item.request.messages, said, score.reason)

    def _read(self, item: ScoreItem, reply: Reply) -> Score:
        if reply.refusal:
            return Score(None, JudgeStatus.REFUSED, reply.refusal[:300])
        split = read_reply_text(reply, self._tags)
        return read_said(item, split.answer, is_cut=reply.finish_reason == "length")

    def _asks_again(self, item: ScoreItem, asks: Sequence[str]) -> bool:
        return len(asks) < 2 if item.ask_again is None else item.ask_again(asks)

    def _remind(
        self, messages: tuple[Message, ...], reply: str, problem: str
    ) -> tuple[Message, ...]:
        quoted = reply[:QUOTED_REPLY_CHARS] or "(empty)"
        reminder = self._reminder.fill(problem=problem or "no verdict found").strip()
        return (*messages, Message("assistant", quoted), Message("user", reminder))


def read_said(item: ScoreItem, text: str, *, is_cut: bool) -> Score:
    """The verdict of a reply without its thinking. By our own rules, the number at the very end of
    a cut reply may lack digits and is not read, and cut material is none.
    """
    if not is_cut:
        return item.parse(item.request, text)
    if not text:
        return Score(None, JudgeStatus.TRUNCATED, "cut before the verdict")
    # upstream's scripts do not see that a reply was cut
    is_ours = item.ask_again is None
    score = item.parse(item.request, text.rstrip("0123456789.") if is_ours else text)
    if score.value is None or (is_ours and item.is_material):
        return Score(None, JudgeStatus.TRUNCATED, f"cut: {score.reason or 'the end is missing'}")
    return score


@dataclass(frozen=True)
class StoredJudge:
    """A judge of an earlier run, of which only the identity is known: its stored texts can be
    parsed again, but it cannot be asked.
    """

    id: str
    facts: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        """The facts that the run recorded."""
        return dict(self.facts)

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        """Nothing can be asked."""
        return [Verdict(Score(None, JudgeStatus.NOT_SENT, "stored judge")) for _ in items]

    async def close(self) -> None:
        """Nothing to give back."""


class ExpectedScoreJudge:
    """Reads the probability-weighted mean over the labels of the scale instead of a text.

    s = sum(k * p_k) / sum(p_k). A mass sum(p_k) below `min_mass` is `low_mass`: the model was
    about to write something else. With `min_mass=0` there is always a number; the mass is stored
    beside it.
    """

    def __init__(self, reader: LabelReader, model: ChatModel, min_mass: float = MIN_MASS) -> None:
        self._reader = reader
        self._model = model
        self._min_mass = min_mass

    @property
    def id(self) -> str:
        """The model's name, marked: an expected score is another judge than a text verdict."""
        return f"{self._model.id}+expected"

    def describe(self) -> dict[str, Any]:
        """Score mode, mass limit and the model's own facts."""
        return {
            "score_mode": "expected",
            "min_mass": self._min_mass,
            **self._model.describe(),
        }

    async def close(self) -> None:
        """Close the model."""
        await self._model.close()

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        """Read the scale's probabilities for all items."""
        return await gather([self._score_one(item) for item in items])

    async def _score_one(self, item: ScoreItem) -> Verdict:
        scale = item.request.scale
        if scale is None:
            return Verdict(
                Score(None, JudgeStatus.BAD_REQUEST, "this verdict has no discrete scale to read")
            )
        try:
            read = await self._reader.read_labels(item.request.messages, scale)
        except CallFailed as failure:
            return Verdict(Score(None, CALL_TO_JUDGE_STATUS[failure.status], str(failure)))
        score = expected_score(read, scale, self._min_mass)
        return Verdict(score, (), read.model, read.usage, read.latency_s, read.cached)


def expected_score(read: LabelProbabilities, scale: Scale, min_mass: float = MIN_MASS) -> Score:
    """Expectation, argmax, entropy (nats) and mass of a read scale.

    >>> scale = Scale("", {"1": 1.0, "2": 2.0})
    >>> expected_score(LabelProbabilities({"1": 0.3, "2": 0.3}), scale).value
    1.5
    """
    mass = math.fsum(read.probabilities.values())
    # negated, so that a mass of NaN fails too
    if not (mass > 0.0 and mass >= min_mass):
        return Score(None, JudgeStatus.LOW_MASS, f"mass {mass:.3g} under {min_mass}")
    shares = {label: p / mass for label, p in read.probabilities.items()}
    value = math.fsum(share * scale.labels[label] for label, share in shares.items())
    entropy = -math.fsum(share * math.log(share) for share in shares.values() if share > 0)
    best = max(shares, key=lambda label: shares[label])
    parts: Mapping[str, Any] = {
        "argmax": scale.labels[best],
        "entropy": entropy,
        "mass": mass,
        "probabilities": dict(read.probabilities),
    }
    return Score(value, parts=parts)


def add_usage(a: Usage, b: Usage) -> Usage:
    """Sum of two counts; unknown plus known is known.

    >>> add_usage(Usage(prompt_tokens=2), Usage(prompt_tokens=3, completion_tokens=1))
    Usage(prompt_tokens=5, completion_tokens=1, reasoning_tokens=None, cached_tokens=None)
    """

    def add(x: int | None, y: int | None) -> int | None:
        return None if x is None and y is None else (x or 0) + (y or 0)

    return replace(a, **{name: add(getattr(a, name), getattr(b, name)) for name in a.__slots__})
