"""Items and scores: the public JSON-lines interface of every scorer of this package.

In: reflection items `{"id", "prompt", "draft", "reflection", "revision"?, "earlier"?: [..]}` and
writing items `{"id", "prompt", "response"}`. Out, in input order:
`{"id", "value": float|null, "parts": {..}, "status", "reason"?}`. A value is None unless the status
is `ok`; a failure is never 0 (specification: reward model, section 3, validity channel).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Integral, Real
from typing import Any

from r2w_eval.trace.types import MAX_EARLIER
from r2w_eval.types import JudgeStatus

MAX_ITEM_CHARS = 4_000_000
# a judge that was silent owes these; the same question may get its answer later
TRANSIENT = frozenset(str(status) for status in JudgeStatus if status.is_transient)


class ItemStatus(StrEnum):
    """Why an item has or has not got a value; LLM judges also use `JudgeStatus`."""

    OK = "ok"
    BAD_ITEM = "bad_item"
    NO_SEGMENT = "no_segment"
    NO_DRAFT = "no_draft"
    EMPTY = "empty"
    UNCLOSED_THINK = "unclosed_think"
    TOO_LONG = "too_long"
    NOT_FINITE = "not_finite"
    STALE_ARTIFACT = "stale_artifact"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ReflectionItem:
    """One reflection in context: the unit (x, d, r, d', E) of the specification.

    draft, revision: the text before and after it; earlier: reflections before it, oldest first
    """

    id: str
    prompt: str
    draft: str
    reflection: str
    revision: str | None = None
    earlier: tuple[str, ...] = ()

    @property
    def latest(self) -> tuple[str, ...]:
        """The earlier reflections that this one is compared with: the last MAX_EARLIER."""
        return self.earlier[-MAX_EARLIER:]


@dataclass(frozen=True, slots=True)
class WritingItem:
    """One piece of writing."""

    id: str
    prompt: str
    response: str


Item = ReflectionItem | WritingItem


@dataclass(frozen=True, slots=True)
class ItemScore:
    """A value and its parts; or, with a status other than `ok`, no value and a reason."""

    id: str
    value: float | None
    parts: Mapping[str, Any] = field(default_factory=dict)
    status: ItemStatus | JudgeStatus = ItemStatus.OK
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.status is ItemStatus.OK):
            raise ValueError(f"ItemScore {self.id!r}: value {self.value!r} with {self.status!r}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"ItemScore {self.id!r}: value {self.value!r} is not finite")
        # a scorer of one's own gives the numbers of its library, which JSON does not know
        if self.value is not None:
            object.__setattr__(self, "value", float(self.value))
        object.__setattr__(self, "parts", _plain(self.parts))

    def as_record(self) -> dict[str, Any]:
        """The score as a JSON object."""
        record: dict[str, Any] = {
            "id": self.id,
            "value": self.value,
            "parts": dict(self.parts),
            "status": str(self.status),
        }
        return {**record, "reason": self.reason} if self.reason else record


def _plain(value: Any) -> Any:
    """A part as JSON has it: a real number as a float, and None for one that is not finite."""
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    if isinstance(value, Real) and not isinstance(value, (int, float)):
        value = int(value) if isinstance(value, Integral) else float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def failed(item_id: str, status: ItemStatus | JudgeStatus, reason: str) -> ItemScore:
    """A score without a value.

    >>> failed("a", ItemStatus.EMPTY, "no text").as_record()
    {'id': 'a', 'value': None, 'parts': {}, 'status': 'empty', 'reason': 'no text'}
    """
    return ItemScore(item_id, None, {}, status, reason)


def as_status(text: str) -> ItemStatus | JudgeStatus:
    """A status by its public word. Raises ValueError."""
    return ItemStatus(text) if text in set(ItemStatus) else JudgeStatus(text)


def read_score(record: Mapping[str, Any]) -> ItemScore:
    """A score from its JSON form. Raises KeyError, ValueError, TypeError for what is none."""
    status, reason = as_status(str(record["status"])), str(record.get("reason") or "")
    return ItemScore(str(record["id"]), record["value"], record["parts"], status, reason)


def read_item(record: Any, number: int | str) -> Item | ItemScore:
    """An item from its JSON form, or a failed score that says what is wrong with it.

    `number`, counted from 1 in a file by itself, is the id of an item without one.
    """
    if not isinstance(record, Mapping):
        return failed(str(number), ItemStatus.BAD_ITEM, "expected a JSON object")
    own_id = record.get("id")
    item_id = str(number if own_id is None else own_id)
    if not is_text(item_id):
        return failed(str(number), ItemStatus.BAD_ITEM, "id: expected text, of whole characters")
    problem = _problem(record)
    if problem is not None:
        return failed(item_id, *problem)
    if record.get("response") is not None:
        return WritingItem(item_id, record.get("prompt") or "", record["response"])
    return ReflectionItem(
        item_id,
        record.get("prompt") or "",
        record["draft"],
        record["reflection"],
        record.get("revision"),
        tuple(record.get("earlier") or ()),
    )


def _problem(record: Mapping[str, Any]) -> tuple[ItemStatus, str] | None:
    texts = {
        k: record[k]
        for k in ("prompt", "draft", "reflection", "revision", "response")
        if record.get(k) is not None
    }
    wrong = [name for name, text in texts.items() if not is_text(text)]
    earlier = record.get("earlier") or []
    if not isinstance(earlier, list) or not all(map(is_text, earlier)):
        wrong.append("earlier")
    if wrong:
        return ItemStatus.BAD_ITEM, f"{', '.join(wrong)}: expected text, of whole characters"
    size = sum(map(len, texts.values())) + sum(map(len, earlier))
    if size > MAX_ITEM_CHARS:
        return too_long(size)
    if {"response", "reflection"} <= texts.keys():
        return ItemStatus.BAD_ITEM, "response and reflection: expected one of the two"
    if "response" in texts:
        return _blank(texts["response"])
    if "reflection" not in texts:
        return ItemStatus.BAD_ITEM, "expected either response, or draft and reflection"
    return _lacking(texts.get("draft", ""), texts["reflection"])


def too_long(size: int) -> tuple[ItemStatus, str]:
    """The status of an item of so many characters, and the reason."""
    return ItemStatus.TOO_LONG, f"{size} characters; at most {MAX_ITEM_CHARS} are read"


def is_text(value: Any) -> bool:
    """Whether a value is text without lone surrogates, which JSON allows and tokenizers reject.

    >>> is_text(chr(0x1F600)), is_text(chr(0xD83D)), is_text(1)
    (True, False, False)
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def unscorable(item: Item) -> tuple[ItemStatus, str] | None:
    """Why an item cannot be scored; None if it can. Items read from JSON were checked before."""
    if isinstance(item, WritingItem):
        return _blank(item.response)
    return _lacking(item.draft, item.reflection)


def _blank(response: str) -> tuple[ItemStatus, str] | None:
    return None if response.strip() else (ItemStatus.EMPTY, "the response is empty")


def _lacking(draft: str, reflection: str) -> tuple[ItemStatus, str] | None:
    if not draft.strip():
        return ItemStatus.NO_DRAFT, "a reflection is scored against its draft, which is missing"
    if not reflection.strip():
        return ItemStatus.NO_SEGMENT, "the reflection is empty"
    return None
