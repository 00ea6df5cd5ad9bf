"""The words of the chat-completions API: bodies out, replies, counts and model lists in.

What an endpoint sends is read as it comes; a field of the wrong kind is unknown, never an error.
"""

from __future__ import annotations

import difflib
import email.utils
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from r2w_eval.hashing import to_plain
from r2w_eval.models.chat import BROKEN_OFF, CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.types import Usage

# of tokens; a larger number is none, and fits no column of 64 bits
MAX_COUNT = 2**53
CONTEXT_MARKS = (
    "context_length",
    "context length",
    "exceed_context",
    "maximum context",
    "too long",
)
# of OpenAI and Azure, OpenRouter (HTTP 403), DashScope
FILTER_MARKS = (
    "content_filter",
    "content_policy_violation",
    "flagged_input",
    "data_inspection_failed",
    "datainspectionfailed",
)
# codes of an account that has to be paid for first, with HTTP 400 or 429
UNPAID_CODES = frozenset({"insufficient_quota", "billing_not_active", "Arrearage"})
UNPAID_START = "Your credit balance is too low"


class Retry(Exception):
    """One failed try that deserves another one; `usage` is what the endpoint counted of it."""

    def __init__(self, status: CallStatus, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.wait_s = wait_s
        # one that ran out of time may have been written to its end
        self.usage = Usage() if status is CallStatus.TIMEOUT else None


class Left(Retry):
    """The address is out for the session; to ask another one instead costs no try."""

    def __init__(self, reason: str) -> None:
        super().__init__(CallStatus.TRANSPORT, reason, wait_s=0.0)


class TooSmall(Exception):
    """A prompt over the context of one address, while others may have a longer one."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


def build_body(model: str, request: ChatRequest) -> dict[str, Any]:
    """The JSON body of a chat completion; only what is set is sent."""
    sent = request.decoding.sent()
    if schema := sent.get("response_format"):
        sent["response_format"] = {"type": "json_schema", "json_schema": json.loads(schema)}
    return {"model": model, "messages": to_plain(request.messages), **sent}


def read_reply(content: bytes) -> Reply:
    """Read a chat completion. Raises `Retry` for a broken one, CallFailed for a filtered one."""
    try:
        data = json.loads(content)
        choice = data["choices"][0]
        message = choice["message"]
        text, thinking = read_content(message.get("content"))
        usage = data.get("usage")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        shown = content[:200].decode("utf-8", "replace")
        raise Retry(CallStatus.TRANSPORT, f"not a chat completion: {shown!r}") from error
    finish_reason = _text(choice.get("finish_reason"))
    if finish_reason == "content_filter":
        raise CallFailed(CallStatus.FILTERED, "finish_reason content_filter")
    if finish_reason in BROKEN_OFF:
        raise Retry(CallStatus.TRANSPORT, f"the server broke off: finish_reason {finish_reason}")
    return Reply(
        text=text,
        # Mistral's word for a context that is full
        finish_reason="length" if finish_reason == "model_length" else finish_reason,
        reasoning=_text(message.get("reasoning_content"))
        or _text(message.get("reasoning"))
        or thinking,
        model=_text(data.get("model")),
        fingerprint=_text(data.get("system_fingerprint")),
        usage=read_usage(usage),
        refusal=_text(message.get("refusal")),
    )


def read_bill(content: bytes) -> Usage:
    """What the endpoint counted of a reply that is of no use; a reply was written in any case."""
    try:
        return read_usage(json.loads(content)["usage"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return Usage()


def read_content(content: Any) -> tuple[str, str | None]:
    """Text and thinking of a message, which some servers send in parts. Raises TypeError.

    >>> read_content([{"type": "thinking", "thinking": "Plan."}, {"type": "text", "text": "Once."}])
    ('Once.', 'Plan.')
    """
    if isinstance(content, str) or not content:
        return content or "", None
    text, thinking = _join_parts(content, "text"), _join_parts(content, "thinking")
    if not text and not thinking:
        raise TypeError("content is neither text nor parts of text")
    return text, thinking or None


def last_turn(conversation: Any, role: str) -> str:
    """Text of a conversation's last turn of a role, or the text that stands in its place; "" where
    there is none.

    >>> last_turn([{"role": "user", "content": [{"type": "text", "text": "Write."}]}], "user")
    'Write.'
    """
    if isinstance(conversation, str):
        return conversation
    turns = [turn for turn in conversation if isinstance(turn, Mapping)]
    own = [turn.get("content") for turn in turns if turn.get("role") == role]
    return _join_parts(own[-1], "text") if own else ""


def _join_parts(parts: Any, kind: str) -> str:
    """The parts of one kind; what stands in one may come in parts again."""
    if not isinstance(parts, list):
        return parts if isinstance(parts, str) else ""
    own = (part.get(kind) for part in parts if isinstance(part, dict) and part.get("type") == kind)
    return "".join(value if isinstance(value, str) else _join_parts(value, "text") for value in own)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def read_usage(usage: Any) -> Usage:
    """Token counts of an OpenAI-style usage object; whatever is no count is unknown.

    >>> read_usage({"prompt_tokens": 3, "completion_tokens": "many"}).completion_tokens
    >>> read_usage({"completion_tokens": 2**70}).completion_tokens
    """
    return Usage(
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        reasoning_tokens=_count(usage, "completion_tokens_details", "reasoning_tokens"),
        cached_tokens=_count(usage, "prompt_tokens_details", "cached_tokens"),
    )


def _count(value: Any, *keys: str) -> int | None:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if type(value) is int and 0 <= value < MAX_COUNT else None


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or HTTP date).

    A date is on the server's clock, which its own `Date` tells; ours may differ.

    >>> read_retry_after({"retry-after-ms": "1500"})
    1.5
    """
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        value = headers.get("Retry-After") or headers.get("retry-after")
        if value is None:
            return None
        if value.strip().isdigit():
            return float(value)
        sent = headers.get("Date")
        return max(0.0, _read_date(value) - (_read_date(sent) if sent else time.time()))
    except ValueError:
        return None


def _read_date(text: str) -> float:
    return email.utils.parsedate_to_datetime(text).timestamp()


def read_refusal(text: str) -> CallStatus:
    """What an error that no other try can mend says of the request.

    >>> str(read_refusal("Maximum context is 4096 tokens")), str(read_refusal("no such model"))
    ('context', 'bad_request')
    """
    lower = text.lower()
    if any(mark in lower for mark in CONTEXT_MARKS):
        return CallStatus.CONTEXT
    is_filtered = any(mark in lower for mark in FILTER_MARKS)
    return CallStatus.FILTERED if is_filtered else CallStatus.BAD_REQUEST


def refuses_all(status: int, content: bytes) -> bool:
    """Whether an error is about the key or the account, so that no other request will pass either.

    >>> refuses_all(401, b""), refuses_all(403, b'{"error": {"metadata": {"flagged_input": "x"}}}')
    (True, False)
    """
    if status == 403:
        return read_refusal(content.decode("utf-8", "replace")) is not CallStatus.FILTERED
    return status in (401, 402) or _is_unpaid(content)


def _is_unpaid(content: bytes) -> bool:
    # the code and the beginning of the message alone: the rest may quote the prompt
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return False
    error = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return False
    named = {error.get(name) for name in ("code", "type") if isinstance(error.get(name), str)}
    return bool(named & UNPAID_CODES) or str(error.get("message", "")).startswith(UNPAID_START)


def tell_redirect(url: str, status: int, place: bytes) -> str:
    """What to do about an address that sends requests elsewhere; `place` is its `Location`."""
    return (
        f"{url} redirects (HTTP {status}) to {place[:200].decode('utf-8', 'replace')!r}. Texts are "
        f"sent only where you said: if that is the right address, give it, up to /v1, in place of "
        f"this one"
    )


def tell_absent(url: str, model: str, message: str) -> str:
    """What to do about an address that knows no such path, or no such model.

    >>> tell_absent("http://a:1", "m", "HTTP 404").partition(". ")[2]
    'Is /v1 missing? Try: http://a:1/v1#m'
    """
    root = urlsplit(url)._replace(path="/v1").geturl()
    if urlsplit(url).path:
        way = f"Is the name right? Try: r2w-eval doctor --endpoint {url}#{model}"
    else:
        way = f"Is /v1 missing? Try: {root}#{model}"
    return f"{url} does not serve model {model!r}: {message}. {way}"


def read_models(content: bytes) -> list[dict[str, Any]]:
    """The entries of a model list; empty for anything else."""
    try:
        entries = json.loads(content)["data"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def compare_names(model: str, url: str, content: bytes) -> str | None:
    """A warning when a model list does not hold `model`."""
    served = [str(entry["id"]) for entry in read_models(content) if "id" in entry]
    if not served or model in served:
        return None
    close = difflib.get_close_matches(model, served, n=3) or served[:3]
    return f"{url} does not list model {model!r}; it lists {', '.join(close)}"


def compare_contexts(lists: Mapping[str, bytes]) -> list[str]:
    """A warning where vLLM-like servers state contexts of different lengths."""
    lengths = {
        url: length
        for url, content in lists.items()
        for entry in read_models(content)[:1]
        if type(length := entry.get("max_model_len")) is int
    }
    if len(set(lengths.values())) < 2:
        return []
    told = ", ".join(f"{url} {length:,}" for url, length in lengths.items())
    return [
        f"contexts differ ({told} tokens): prompts over the shorter one go to the longer one, and "
        f"answers without --gen-kwargs max_tokens may be cut earlier at the shorter one"
    ]
