"""OpenAI-compatible chat endpoints over HTTP: one async client, retries by class of error.

A request goes to the least loaded of an endpoint's base URLs, waits for its limiter, and is retried
only where another try can help (table in the harness specification, section 4). API keys come from
the environment, go into one header, and nowhere else.
"""

from __future__ import annotations

import asyncio
import difflib
import email.utils
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from r2w_eval.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.hashing import to_plain
from r2w_eval.limiter import Limiter
from r2w_eval.types import Usage

MAX_TRIES = 6
MAX_BACKOFF_S = 60.0
RATE_LIMIT_PATIENCE_S = 1800.0
MAX_REPLY_BYTES = 64 << 20
SYSTEMATIC_FAILURES = 20
AVOID_FAILING_S = 5.0
TRANSIENT_HTTP = frozenset({408, 409, 425, 500, 502, 503, 504, 529})
CONTEXT_MARKS = (
    "context_length",
    "context length",
    "exceed_context",
    "maximum context",
    "too long",
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served. Several base URLs share the load; credentials are never part of
    it.
    """

    base_urls: tuple[str, ...]
    model: str
    api_key_env: str = "R2W_API_KEY"

    @classmethod
    def parse(cls, text: str, api_key_env: str = "R2W_API_KEY") -> Endpoint:
        """Read `http://host:port/v1#model`, several URLs separated by commas. Raises UsageError.

        >>> Endpoint.parse("http://a/v1,http://b/v1#m").base_urls
        ('http://a/v1', 'http://b/v1')
        """
        urls, _, model = text.partition("#")
        # first of all, so that no later message repeats them
        if "@" in urls or "?" in urls:
            raise UsageError(
                f"Credentials and parameters in a URL are not accepted (they would end up in "
                f"run.json). Put the key in ${api_key_env}"
            )
        clean = tuple(_clean_url(url.strip()) for url in urls.split(","))
        if not model or "" in clean:
            raise UsageError(
                f"{text!r}: not an endpoint. Expected http://HOST:PORT/v1#MODEL, for example "
                f"http://127.0.0.1:8000/v1#my-model"
            )
        return cls(clean, model, api_key_env)


def _clean_url(url: str) -> str:
    """Scheme, host, port and path; "" for what is no such address."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return ""
    path = parts.path.rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", "")) if usable else ""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Limits of the client; seconds unless the name says otherwise."""

    max_connections: int = 256
    fixed_concurrency: bool = False
    timeout_s: float = 600.0
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 120.0
    backoff_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """One endpoint in one session: tries that had to be repeated, by class, and its limits."""

    model: str
    retries: Mapping[str, int]
    limit_cuts: int
    """How often a 429, 503 or timeout cut the number of connections."""
    connections: tuple[int, ...]
    """Connections allowed at the end, by address."""


class Retry(Exception):
    """One failed try that deserves another one."""

    def __init__(self, status: CallStatus, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.wait_s = wait_s


class HttpModel:
    """`ChatModel` over one endpoint (or several equal ones)."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: ClientSettings = ClientSettings(),
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._extra = dict(extra_body or {})
        self.limiters = {
            url: Limiter(settings.max_connections, fixed=settings.fixed_concurrency)
            for url in endpoint.base_urls
        }
        self.retries: dict[str, int] = {}
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._random = random.Random(0)
        self._finished = 0
        self._failures: dict[str, int] = {}
        self._down: str | None = None
        self._failed_at = dict.fromkeys(endpoint.base_urls, float("-inf"))

    @property
    def id(self) -> str:
        """The requested model name."""
        return self.endpoint.model

    def describe(self) -> dict[str, Any]:
        """The kind of backend; where it runs changes no answer and is not part of an identity."""
        return {"backend": "http", **({"extra_body": self._extra} if self._extra else {})}

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def traffic(self) -> Traffic:
        """Retries and limits so far."""
        limiters = self.limiters.values()
        return Traffic(
            self.id,
            {str(status): n for status, n in sorted(self.retries.items())},
            sum(limiter.cuts for limiter in limiters),
            tuple(int(limiter.limit) for limiter in limiters),
        )

    async def complete(self, request: ChatRequest) -> Reply:
        """Send until there is a reply or a failure that another try cannot mend.

        Raises CallFailed for this request, EndpointDown when no request can succeed.
        """
        body = {**build_body(self.endpoint.model, request), **self._extra}
        started = time.monotonic()
        tries = 0
        while True:
            if self._down:
                raise EndpointDown(self._down)
            try:
                reply = await self._send(body)
            except Retry as retry:
                self.retries[retry.status] = self.retries.get(retry.status, 0) + 1
                # a pause that the endpoint asked for does not use up tries
                tries += retry.status is not CallStatus.RATE_LIMITED
                waited = time.monotonic() - started
                if tries >= MAX_TRIES or waited > RATE_LIMIT_PATIENCE_S:
                    self._note(retry.status)
                    raise CallFailed(retry.status, str(retry)) from retry
                if retry.wait_s is None:
                    await asyncio.sleep(self._backoff(tries))
            except CallFailed as failure:
                self._note(failure.status)
                raise
            else:
                self._note(None)
                return reply

    async def check(self) -> str | None:
        """Ask for the model list before any work. Returns a warning when our model is not on it.

        Raises UsageError when nothing answers there, EndpointDown when the key is refused.
        """
        for url in self.endpoint.base_urls:
            try:
                async with self._open().get(f"{url}/models") as http:
                    content = await _read_bounded(http.content)
                    status = http.status
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise UsageError(
                    f"{url}: unreachable ({type(error).__name__}: {error}). Expected an "
                    f"OpenAI-compatible server there. Try: curl {url}/models"
                ) from error
            if status in (401, 403):
                raise EndpointDown(self._refusal(f"HTTP {status}"))
        return self._compare_names(content) if status == 200 else None

    def _compare_names(self, content: bytes) -> str | None:
        try:
            served = [str(entry["id"]) for entry in json.loads(content)["data"]]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        if not served or self.endpoint.model in served:
            return None
        close = difflib.get_close_matches(self.endpoint.model, served, n=3) or served[:3]
        return (
            f"{self.endpoint.base_urls[-1]} does not list model {self.endpoint.model!r}; "
            f"it lists {', '.join(close)}"
        )

    def _refusal(self, message: str) -> str:
        return (
            f"{self.endpoint.base_urls[0]} refuses model {self.endpoint.model!r}: {message}. "
            f"The key is read from ${self.endpoint.api_key_env}; set it and run again"
        )

    async def _send(self, body: Mapping[str, Any]) -> Reply:
        url, limiter = await self._take_slot()
        if self._down:
            limiter.release()
            raise EndpointDown(self._down)
        started = time.monotonic()
        try:
            async with self._open().post(f"{url}/chat/completions", json=body) as http:
                content = await _read_bounded(http.content)
                status, headers = http.status, http.headers
        except TimeoutError as error:
            limiter.congested()
            self._failed_at[url] = time.monotonic()
            raise Retry(CallStatus.TIMEOUT, f"no reply from {url} in time") from error
        except (aiohttp.ClientError, OSError) as error:
            self._failed_at[url] = time.monotonic()
            raise Retry(CallStatus.TRANSPORT, f"{url}: {type(error).__name__}: {error}") from error
        finally:
            limiter.release()
        if status in TRANSIENT_HTTP:
            self._failed_at[url] = time.monotonic()
        if status != 200:
            self._raise_for(status, headers, content, limiter)
        reply = read_reply(content)
        limiter.succeeded()
        return replace(reply, latency_s=time.monotonic() - started)

    async def _take_slot(self) -> tuple[str, Limiter]:
        """A slot at the best address; who waits at one that pauses goes to another that does
        not.
        """
        while True:
            url = min(self.limiters, key=self._burden)
            limiter = self.limiters[url]
            elsewhere = any(not other.is_paused for other in self.limiters.values())
            if await limiter.acquire(leave_when_paused=elsewhere):
                return url, limiter

    def _burden(self, url: str) -> tuple[bool, bool, float]:
        """What speaks against an address: it pauses, it fails, it carries much already."""
        limiter = self.limiters[url]
        # a dead address is the least loaded one, and would draw everything
        failing = time.monotonic() - self._failed_at[url] < AVOID_FAILING_S
        load = (limiter.in_flight + limiter.n_waiting) / limiter.limit
        return limiter.is_paused, failing, load

    def _raise_for(
        self, status: int, headers: Mapping[str, str], content: bytes, limiter: Limiter
    ) -> None:
        """Turn an HTTP error into a retry, a failure of this request, or the end of the
        endpoint.
        """
        text = self._redact(content[:2000].decode("utf-8", "replace"))
        message = f"HTTP {status}: {text[:300]}"
        wait_s = read_retry_after(headers)
        if status in (402, 401, 403) or "insufficient_quota" in text:
            self._down = self._refusal(message)
            raise EndpointDown(self._down)
        if status == 429 or (status == 503 and wait_s is not None):
            limiter.congested()
            # "now" (or a date in the past) from a server that refuses is no leave to hammer it
            limiter.pause(wait_s or self._backoff(2))
            raise Retry(CallStatus.RATE_LIMITED, message, wait_s=0.0)
        if status in TRANSIENT_HTTP:
            if status == 503:
                limiter.congested()
            raise Retry(CallStatus.TRANSPORT, message)
        if any(mark in text.lower() for mark in CONTEXT_MARKS):
            raise CallFailed(CallStatus.CONTEXT, message)
        if "content_filter" in text:
            raise CallFailed(CallStatus.FILTERED, message)
        raise CallFailed(CallStatus.BAD_REQUEST, message)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            key = self._key()
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=aiohttp.ClientTimeout(
                    total=settings.timeout_s,
                    sock_connect=settings.connect_timeout_s,
                    sock_read=settings.idle_timeout_s,
                ),
            )
        return self._session

    def _key(self) -> str:
        """The API key, or ""; a line break at its end is a slip of the shell, not part of it."""
        names = (self.endpoint.api_key_env, "OPENAI_API_KEY")
        key = next((value for name in names if (value := os.environ.get(name))), "").strip()
        if not key.isprintable():
            raise UsageError(f"${names[0]}: the key holds control characters. Set it again")
        return key

    def _redact(self, text: str) -> str:
        """Servers quote the key they refuse; it must not reach records or messages."""
        key = self._key()
        return text.replace(key, "[key]") if key else text

    def _note(self, status: CallStatus | None) -> None:
        """Stop early when the first calls all fail alike: a wrong name should not cost
        thousands.
        """
        self._finished += 1
        if self._finished > SYSTEMATIC_FAILURES or status is None:
            self._failures.clear()
            self._finished = SYSTEMATIC_FAILURES
            return
        self._failures[status] = self._failures.get(status, 0) + 1
        if self._failures[status] == SYSTEMATIC_FAILURES:
            self._down = (
                f"The first {SYSTEMATIC_FAILURES} calls to {self.endpoint.base_urls[0]} (model "
                f"{self.endpoint.model!r}) all failed with {status!s}. Check the address and the "
                f"model name, then run the same command again"
            )

    def _backoff(self, tries: int) -> float:
        """Exponential, up to 60 s, full jitter."""
        longest = self._settings.backoff_s * 2.0 ** max(tries - 1, 0)
        return self._random.uniform(0.0, min(MAX_BACKOFF_S, longest))


async def _read_bounded(stream: aiohttp.StreamReader) -> bytes:
    """The whole body; a body over the limit is cut, which makes it unreadable and so a retry."""
    content = bytearray()
    async for chunk in stream.iter_any():
        content += chunk
        if len(content) > MAX_REPLY_BYTES:
            break
    return bytes(content)


def build_body(model: str, request: ChatRequest) -> dict[str, Any]:
    """The JSON body of a chat completion; only what is set is sent."""
    return {"model": model, "messages": to_plain(request.messages), **request.decoding.sent()}


def read_reply(content: bytes) -> Reply:
    """Read a chat completion. Raises `Retry` for a broken one, CallFailed for a filtered one."""
    try:
        data = json.loads(content)
        choice = data["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        usage = data.get("usage")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        shown = content[:200].decode("utf-8", "replace")
        raise Retry(CallStatus.TRANSPORT, f"not a chat completion: {shown!r}") from error
    if not isinstance(text, str):
        raise Retry(CallStatus.TRANSPORT, f"content is {type(text).__name__}, not text")
    if choice.get("finish_reason") == "content_filter":
        raise CallFailed(CallStatus.FILTERED, "finish_reason content_filter")
    return Reply(
        text=text,
        finish_reason=_text(choice.get("finish_reason")),
        reasoning=_text(message.get("reasoning_content")) or _text(message.get("reasoning")),
        model=_text(data.get("model")),
        fingerprint=_text(data.get("system_fingerprint")),
        usage=read_usage(usage),
        refusal=_text(message.get("refusal")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def read_usage(usage: Any) -> Usage:
    """Token counts of an OpenAI-style usage object; whatever is no count is unknown.

    >>> read_usage({"prompt_tokens": 3, "completion_tokens": "many"}).completion_tokens
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
    return value if type(value) is int and value >= 0 else None


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or HTTP date).

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
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
