"""A journal of model calls, one row each, that makes a stage restartable.

A stage always runs from the start; a call that finished before is answered from its row, so a kill
loses only the calls in flight. A failed call leaves no row and is sent again by the next run. A
silent endpoint may be restarting: its calls are retried until the client gives the endpoint up and
ends the stage (`EndpointDown`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from r2w_eval.hashing import content_hash
from r2w_eval.models.chat import CallFailed, CallStatus, ChatModel, ChatRequest, Reply
from r2w_eval.models.thinking import ThinkTags, read_reply_text, writer_status
from r2w_eval.store import JsonlWriter, RecordIndex, iter_jsonl
from r2w_eval.types import Decoding, Message, WriterStatus

SILENCE = (CallStatus.TRANSPORT, CallStatus.TIMEOUT)
# temperature at which a greedy role is asked the same once more; our choice
DRAWN = 0.7


@dataclass(frozen=True, slots=True)
class Call:
    """One question. `step` and `round` locate it in the stage; `attempt` counts retries from 0."""

    prompt_id: str
    round: int
    step: str
    text: str
    attempt: int = 0


@dataclass(frozen=True)
class Role:
    """A model in one role of a stage (writer, judge, …), with its sampling settings and the tags of
    its thinking.
    """

    model: ChatModel
    decoding: Decoding
    tags: ThinkTags = ThinkTags()

    def identity(self) -> dict[str, Any]:
        """Everything that affects the text it writes."""
        return {
            "model": self.model.id,
            "decoding": self.decoding.sent(),
            **self.model.describe(),
        }

    def drawn(self) -> Role:
        """The role with sampling on: at temperature 0 a repeated question gets the same answer."""
        if self.decoding.temperature != 0:
            return self
        return replace(self, decoding=replace(self.decoding, temperature=DRAWN))

    def at(self, attempt: int) -> Role:
        """The role for an attempt; retries are sampled, so that they differ from what failed."""
        return self.drawn() if attempt else self


class NoAnswer(Exception):
    """A call returned no usable text; the message says why."""


class UnusableReply(NoAnswer):
    """There was a reply: empty, refused, cut off or all thinking. The next one may be better."""


@dataclass
class Tally:
    """Counts of this process: calls by step, reused and failed ones, tokens."""

    sent: Counter[str] = field(default_factory=Counter)
    reused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Costs:
    """Calls and tokens of a whole journal, earlier runs included.

    Failed calls leave no row, so their cost is not known.
    """

    calls: Mapping[str, int]
    prompt_tokens: int
    completion_tokens: int
    n_without_usage: int


def read_costs(path: Path) -> Costs:
    """The costs of a journal so far."""
    calls: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for row in iter_jsonl(path):
        calls[row["step"]] += 1
        usage = row["usage"] or {}
        counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        tokens.update({name: n for name, n in counts.items() if n is not None})
        tokens["unknown"] += None in counts.values()
    return Costs(
        dict(sorted(calls.items())),
        tokens["prompt_tokens"],
        tokens["completion_tokens"],
        tokens["unknown"],
    )


class Journal:
    """The journal of one folder.

    `patience_s`: seconds after which a call that only meets silence is given up. It must exceed the
    client's own patience; otherwise a dead endpoint looks like a single call that always fails.
    """

    def __init__(self, path: Path, patience_s: float = 0.0) -> None:
        self._patience_s = patience_s
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = JsonlWriter(path)
        self._index = RecordIndex(path)
        self.tally = Tally()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, role: Role, call: Call) -> str:
        """The answer without its thinking, from the journal or the model. Raises NoAnswer,
        UnusableReply, EndpointDown.
        """
        key = content_hash({"call": call, "role": role.identity()})
        stored = self._index.read(key)
        if stored is not None:
            self.tally.reused += 1
            return _answer(stored)
        row = await self._send(role, call)
        self._writer.append({"key": key, **row})
        self.tally.sent[call.step] += 1
        self.tally.prompt_tokens += row["usage"].prompt_tokens or 0
        self.tally.completion_tokens += row["usage"].completion_tokens or 0
        return _answer(row)

    async def _send(self, role: Role, call: Call) -> dict[str, Any]:
        request = ChatRequest(
            (Message("user", call.text),), role.decoding, index=call.round, ask=call.attempt
        )
        reply = await self._complete(role, request, call.step)
        split = read_reply_text(reply, role.tags)
        return {
            "prompt_id": call.prompt_id,
            "round": call.round,
            "step": call.step,
            "attempt": call.attempt,
            "status": writer_status(reply, split),
            "text": split.answer,
            "raw": reply.text,
            "model": reply.model,
            "usage": reply.usage,
        }

    async def _complete(self, role: Role, request: ChatRequest, step: str) -> Reply:
        """The reply; calls that meet silence are retried for `patience_s`. Raises NoAnswer."""
        started = time.monotonic()
        while True:
            try:
                return await role.model.complete(request)
            except CallFailed as failure:
                self.tally.failed[f"{step}: {failure.status}"] += 1
                waited = time.monotonic() - started
                if failure.status not in SILENCE or waited >= self._patience_s:
                    raise NoAnswer(f"{failure.status}: {failure}") from failure


def _answer(row: Mapping[str, Any]) -> str:
    if row["status"] != WriterStatus.OK:
        raise UnusableReply(str(row["status"]))
    return str(row["text"])
