"""Money: a price file the user can edit, a cap that stops cleanly, and token estimates.

    # prices.yaml, US dollars per million tokens
    my-model: {input: 3.0, output: 15.0}

A model that is not in the file has no price: its cost is "n/a", never 0 (specification: harness
section 4, "Dry run and cost").
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r2w_eval.errors import UsageError
from r2w_eval.models.chat import CallFailed, CallStatus, ChatModel, ChatRequest, Reply
from r2w_eval.types import Message, Usage

LATIN_CHARS_PER_TOKEN = 4.0
CJK_CHARS_PER_TOKEN = 1.5
# Until a model has answered once, an answer is taken to be this long (tokens)
FIRST_GUESS_TOKENS = 1500
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

# all that a made-up price file can bring about
_UNREADABLE = (
    OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float

    def cost_usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Dollars for these tokens.

        >>> Price(2.0, 10.0).cost_usd(500_000, 100_000)
        2.0
        """
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6

    def cost_of(self, usage: Usage) -> float:
        """Dollars for what an endpoint counted."""
        return self.cost_usd(usage.prompt_tokens or 0, usage.completion_tokens or 0)


def load_prices(path: str | None) -> dict[str, Price]:
    """Read a price file; no file, no prices. Raises UsageError."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return {
            str(model): Price(_dollars(price["input"]), _dollars(price["output"]))
            for model, price in content.items()
        }
    except _UNREADABLE as error:
        raise UsageError(
            f"--prices {path!r}: {type(error).__name__}: {error}. Expected lines such as "
            f"my-model: {{input: 3.0, output: 15.0}} (US dollars per million tokens)"
        ) from error


def _dollars(value: Any) -> float:
    price = float(value)
    if not (math.isfinite(price) and price >= 0):
        raise ValueError(f"{price} is no price")
    return price


def estimate_tokens(text: str) -> int:
    """About 4 Latin or 1.5 CJK characters a token.

    >>> estimate_tokens("abcdefgh"), estimate_tokens("写作测试")
    (2, 3)
    """
    cjk = len(_CJK.findall(text))
    return round((len(text) - cjk) / LATIN_CHARS_PER_TOKEN + cjk / CJK_CHARS_PER_TOKEN)


def estimate_prompt(messages: Iterable[Message]) -> int:
    """Tokens of all turns of a prompt, about."""
    return sum(estimate_tokens(message.content) for message in messages)


class Budget:
    """What a run folder, or the arms of an experiment, may cost in all. Calls reserve their
    estimate before they are sent.
    """

    def __init__(self, cap_usd: float) -> None:
        self.cap_usd = cap_usd
        self.spent_usd = 0.0
        self.reserved_usd = 0.0
        self.is_reached = False

    def reserve(self, usd: float) -> bool:
        """Take `usd` out of what is left; False, and no call after it, when it does not fit."""
        if self.is_reached or self.spent_usd + self.reserved_usd + usd > self.cap_usd:
            self.is_reached = True
            return False
        self.reserved_usd += usd
        return True

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """A call has ended: its reservation becomes what it really cost."""
        self.reserved_usd -= reserved_usd
        self.spent_usd += spent_usd


class MeteredModel:
    """A `ChatModel` under a budget: what does not fit is not sent; what is in flight is
    finished.
    """

    def __init__(self, model: ChatModel, price: Price, budget: Budget) -> None:
        self._model = model
        self._price = price
        self._budget = budget
        self._answer_tokens = 0
        self._answers = 0

    @property
    def id(self) -> str:
        """The inner model's name."""
        return self._model.id

    def describe(self) -> dict[str, Any]:
        """The inner model's facts: a budget changes no answer."""
        return self._model.describe()

    async def close(self) -> None:
        """Close the inner model."""
        await self._model.close()

    async def complete(self, request: ChatRequest) -> Reply:
        """Send if the budget allows. Raises CallFailed(NOT_SENT) otherwise."""
        prompt = estimate_prompt(request.messages)
        expected_usd = self._price.cost_usd(prompt, self._expected_tokens(request))
        if not self._budget.reserve(expected_usd):
            raise CallFailed(CallStatus.NOT_SENT, f"--max-cost {self._budget.cap_usd} reached")
        spent_usd = 0.0
        try:
            reply = await self._model.complete(request)
            tokens = reply.usage.completion_tokens or estimate_tokens(reply.text)
            spent_usd = self._price.cost_usd(reply.usage.prompt_tokens or prompt, tokens)
            self._answer_tokens += tokens
            self._answers += 1
            return reply
        finally:
            self._budget.settle(expected_usd, spent_usd)

    def charge(self, request: ChatRequest, usage: Usage | None) -> None:
        """Count a try without a usable reply: nothing where the endpoint refused it, else what it
        says of it, else the estimate.
        """
        if usage is None:
            return
        prompt = usage.prompt_tokens or estimate_prompt(request.messages)
        tokens = usage.completion_tokens or self._expected_tokens(request)
        self._budget.settle(0.0, self._price.cost_usd(prompt, tokens))

    def _expected_tokens(self, request: ChatRequest) -> float:
        mean = self._answer_tokens / self._answers if self._answers else FIRST_GUESS_TOKENS
        return min(mean, request.decoding.max_tokens or mean)
