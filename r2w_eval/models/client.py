"""OpenAI-compatible chat endpoints over HTTP: one async client, retries by class of error.

A request goes to the least loaded of an endpoint's base URLs, waits for its limiter, and is retried
only where another try can help (table in the harness specification, section 4). API keys come from
the environment, go into one header, and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, NoReturn

import aiohttp

from r2w_eval.errors import EndpointDown, EndpointSilent, UsageError
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.models.completions import (
    Left,
    Retry,
    TooSmall,
    build_body,
    compare_contexts,
    compare_names,
    read_bill,
    read_models,
    read_refusal,
    read_reply,
    read_retry_after,
    refuses_all,
    tell_absent,
    tell_redirect,
)
from r2w_eval.models.endpoint import ClientSettings, Endpoint, Traffic
from r2w_eval.models.health import Health
from r2w_eval.models.keys import key_header, key_names, read_key, redact
from r2w_eval.models.limiter import Limiter
from r2w_eval.models.prefixes import FOLLOWS
from r2w_eval.models.replicas import Replicas
from r2w_eval.types import Decoding, Message, Usage

MAX_TRIES = 6
MAX_BACKOFF_S = 60.0
RATE_LIMIT_PATIENCE_S = 1800.0
MAX_REPLY_BYTES = 64 << 20
JSON_HEADERS = {"Content-Type": "application/json"}
PROBE_TIMEOUT_S = 30.0
TRANSIENT_HTTP = frozenset({408, 409, 425, *range(500, 600)})


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
            url: Limiter(
                settings.max_connections,
                fixed=settings.fixed_concurrency,
                timeout_s=settings.timeout_s,
            )
            for url in endpoint.base_urls
        }
        self.retries: dict[str, int] = {}
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._random = random.Random(0)
        name = f"{endpoint.base_urls[0]} (model {endpoint.model!r})"
        patience_s = max(settings.patience_s, settings.timeout_s)
        self._health = Health(name, patience_s, is_strict=settings.strict_patience)
        self.replicas = Replicas(self.limiters)
        self.on_lost: Callable[[ChatRequest, Usage | None], None] = lambda request, usage: None
        """Told of every try without a usable reply, and what the endpoint may bill for it."""

    @property
    def id(self) -> str:
        """The requested model name."""
        return self.endpoint.model

    def describe(self) -> dict[str, Any]:
        """The kind of backend; where it runs changes no answer and is not part of an identity."""
        return {"backend": "http", **({"extra_body": self._extra} if self._extra else {})}

    async def close(self) -> None:
        """Close the connections; what still waits for a reply or for its next try ends as
        EndpointSilent.
        """
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    def traffic(self) -> Traffic:
        """Retries and limits so far."""
        limiters = self.limiters.values()
        return Traffic(
            self.id,
            {str(status): n for status, n in sorted(self.retries.items())},
            sum(limiter.cuts for limiter in limiters),
            tuple(int(limiter.limit) for limiter in limiters),
            tuple(self.replicas.out.values()),
        )

    async def complete(self, request: ChatRequest) -> Reply:
        """Send until there is a reply or a failure that another try cannot mend.

        Raises CallFailed for this request, EndpointDown when no request can succeed.
        """
        # made while it waits for its turn, so that a free slot is not kept waiting for it
        body = json.dumps({**build_body(self.endpoint.model, request), **self._extra}).encode()
        tries = 0
        is_again = False
        refused_at: float | None = None
        too_small: set[str] = set()
        while True:
            self._health.check(is_again)
            try:
                reply = await self._send(body, too_small, is_again=is_again)
            except TooSmall as refusal:
                too_small.add(refusal.url)
            except Retry as retry:
                is_again = True
                self.retries[retry.status] = self.retries.get(retry.status, 0) + 1
                self._health.lost(retry.status)
                self.on_lost(request, retry.usage)
                if retry.status is CallStatus.RATE_LIMITED:
                    # a pause that the endpoint asked for does not use up tries; neither does the
                    # wait for a slot before the first of them
                    refused_at = refused_at or time.monotonic()
                    is_over = time.monotonic() - refused_at > RATE_LIMIT_PATIENCE_S
                else:
                    tries += not isinstance(retry, Left)
                    is_over = tries >= MAX_TRIES
                if is_over:
                    self._health.failed(retry.status, str(retry))
                    raise CallFailed(retry.status, str(retry)) from retry
                if retry.wait_s is None:
                    await asyncio.sleep(self._backoff(tries))
            except CallFailed as failure:
                self.on_lost(request, failure.usage)
                self._check_schema(request, str(failure))
                self._health.failed(failure.status, str(failure))
                raise
            else:
                self._health.replied()
                return reply

    def _check_schema(self, request: ChatRequest, refusal: str) -> None:
        """Raises EndpointDown where the endpoint refuses schemas for replies: it refuses all."""
        marks = ("response_format", "json_schema", "structured output")
        if request.decoding.response_format and any(mark in refusal.lower() for mark in marks):
            self._health.refuse(
                f"{self.endpoint.base_urls[0]} refuses the JSON schema that this suite sends for "
                f"the reply: {refusal}. Try: --omit response_format (recorded)"
            )

    async def check(self) -> str | None:
        """Ask every address for its model list before any work; several must serve one model.

        Returns a warning when an address is lost or our model is not on a list. Raises UsageError
        when nothing answers or models differ, EndpointDown when the key is refused.
        """
        lost: dict[str, str] = {}
        lists: dict[str, bytes] = {}
        for url in self.endpoint.base_urls:
            try:
                lists[url] = await self._list_models(url)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                lost[url] = _unreachable(url, error)
                self.replicas.failed(url)
        if not lists:
            url = self.endpoint.base_urls[0]
            raise UsageError(
                f"{'. '.join(lost.values())}. Expected an OpenAI-compatible server there. "
                f"Try: curl {url}/models"
            )
        if len(lists) > 1:
            self.replicas.agree(await self._probe(lists))
        names = (compare_names(self.endpoint.model, url, content) for url, content in lists.items())
        warnings = [*lost.values(), *filter(None, names), *compare_contexts(lists)]
        return "; ".join(warnings) or None

    async def served(self) -> tuple[str, ...]:
        """Names on the first address's model list. Raises UsageError, EndpointDown."""
        url = self.endpoint.base_urls[0]
        try:
            content = await self._list_models(url)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UsageError(_unreachable(url, error)) from error
        return tuple(str(entry["id"]) for entry in read_models(content) if "id" in entry)

    async def _list_models(self, url: str) -> bytes:
        headers = key_header(url, self.endpoint.api_key_env)
        path = f"{url}/models"
        async with self._open().get(path, headers=headers, allow_redirects=False) as http:
            content = await self._read(url, http.content)
        # 403 is also said to keys that may ask models and not list them
        if http.status == 401:
            raise EndpointDown(self._refusal(url, f"HTTP {http.status}"))
        return content if http.status == 200 else b""

    async def _probe(self, urls: Iterable[str]) -> dict[str, str]:
        """The model id that each address returns with one token; absent where none comes."""
        request = ChatRequest((Message("user", "Hi"),), Decoding(max_tokens=1))
        body = json.dumps({**build_body(self.endpoint.model, request), **self._extra}).encode()
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)

        async def ask(url: str) -> str | None:
            try:
                async with self._post(url, body, timeout=timeout) as http:
                    return read_reply(await self._read(url, http.content)).model
            except (aiohttp.ClientError, OSError, TimeoutError, Retry, CallFailed):
                return None

        urls = list(urls)
        found = await asyncio.gather(*map(ask, urls))
        return {url: model for url, model in zip(urls, found, strict=True) if model}

    def _refusal(self, url: str, message: str) -> str:
        own, shared, *_ = key_names(url, self.endpoint.api_key_env)
        return (
            f"{url} refuses model {self.endpoint.model!r}: {message}. The key is read from "
            f"${shared} (or ${own}, for this host alone); set it and run again"
        )

    def _post(
        self, url: str, body: bytes, **settings: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Follows no redirect: another address would get the texts, and perhaps the key."""
        headers = {**JSON_HEADERS, **key_header(url, self.endpoint.api_key_env)}
        return self._open().post(
            f"{url}/chat/completions", data=body, headers=headers, allow_redirects=False, **settings
        )

    async def _take(self, avoid: Set[str], *, is_again: bool) -> str:
        """An address with room, if a request is still worth sending when it has some."""
        url = await self.replicas.take(avoid, is_urgent=is_again or FOLLOWS.get())
        try:
            self._health.check(is_again)
        except EndpointDown:
            self.replicas.release(url)
            raise
        return url

    async def _send(self, body: bytes, avoid: Set[str], *, is_again: bool) -> Reply:
        url = await self._take(avoid, is_again=is_again)
        limiter = self.limiters[url]
        started, answered = time.monotonic(), limiter.answered
        try:
            async with self._post(url, body) as http:
                content = await self._read(url, http.content, self._settings.idle_timeout_s)
                status, headers = http.status, http.headers
        except TimeoutError as error:
            limiter.timed_out(started, limiter.answered - answered)
            self.replicas.failed(url)
            raise Retry(CallStatus.TIMEOUT, f"no reply from {url} in time") from error
        except (aiohttp.ClientError, OSError) as error:
            self.replicas.failed(url)
            raise Retry(CallStatus.TRANSPORT, f"{url}: {type(error).__name__}: {error}") from error
        finally:
            self.replicas.release(url)
        if status in TRANSIENT_HTTP:
            self.replicas.failed(url)
        if status != 200:
            try:
                self._raise_for(status, headers, content, url)
            except CallFailed as failure:
                # where one of several addresses lacks the context, others are asked
                if failure.status is CallStatus.CONTEXT and self.replicas.can_spare(url, avoid):
                    raise TooSmall(url) from failure
                raise
        try:
            reply = read_reply(content)
        except (Retry, CallFailed) as lost:
            lost.usage = read_bill(content)
            if isinstance(lost, Retry):
                self.replicas.failed(url)
            raise
        if not self.replicas.is_same_model(url, reply.model):
            raise Left(self.replicas.out[url])
        self.replicas.answered(url)
        latency_s = time.monotonic() - started
        limiter.succeeded(latency_s)
        self.replicas.hand_out()
        return replace(reply, latency_s=latency_s)

    def _leave(self, url: str, reason: str) -> NoReturn:
        """Nothing more is sent there; without another address the endpoint is down."""
        if self.replicas.can_spare(url):
            self.replicas.put_out(url, reason)
            raise Left(reason)
        self._health.refuse(reason)

    def _raise_for(self, status: int, headers: Mapping[str, str], content: bytes, url: str) -> None:
        """An HTTP error is a retry, a failure of this request, or the end of the address."""
        text = content[:2000].decode("utf-8", "replace")
        message = f"HTTP {status}: {text[:300]}"
        wait_s = read_retry_after(headers)
        if refuses_all(status, content):
            self._leave(url, self._refusal(url, message))
        if status == 404 and (self.replicas.can_spare(url) or not self._health.has_answered):
            # no such path or model, which the next request would be told too
            self._leave(url, tell_absent(url, self.endpoint.model, message))
        if 300 <= status < 400:
            place = headers.get("Location", "").encode("utf-8", "replace")
            self._leave(url, tell_redirect(url, status, redact(place, self._key(url))))
        if status == 429 or (status == 503 and wait_s is not None):
            self.limiters[url].refused()
            # "now" (or a date in the past) from a server that refuses is no leave to hammer it
            self.replicas.pause(url, wait_s or self._backoff(2))
            raise Retry(CallStatus.RATE_LIMITED, message, wait_s=0.0)
        if status in TRANSIENT_HTTP:
            if status == 503:
                self.limiters[url].refused()
            raise Retry(CallStatus.TRANSPORT, message)
        raise CallFailed(read_refusal(text), message)

    def _open(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise EndpointSilent(f"{self.endpoint.base_urls[0]}: the connections were closed")
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=settings.timeout_s,
                    sock_connect=settings.connect_timeout_s,
                ),
            )
        return self._session

    def _key(self, url: str) -> str:
        return read_key(url, self.endpoint.api_key_env)

    async def _read(
        self, url: str, stream: aiohttp.StreamReader, idle_s: float | None = None
    ) -> bytes:
        """The body without the key: servers quote the one they refuse, some gateways with 200."""
        return redact(await _read_bounded(stream, idle_s), self._key(url))

    def _backoff(self, tries: int) -> float:
        """Exponential, up to 60 s, full jitter."""
        longest = self._settings.backoff_s * 2.0 ** max(tries - 1, 0)
        return self._random.uniform(0.0, min(MAX_BACKOFF_S, longest))


def _unreachable(url: str, error: Exception) -> str:
    told = f"{url}: unreachable ({type(error).__name__}: {error})"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        # there is no switch that turns the check off
        told += (
            ". Its certificate is not trusted: if the server is yours, put its authority's file "
            "(PEM) in SSL_CERT_FILE"
        )
    return told


async def list_models(endpoint: Endpoint, timeout_s: float) -> tuple[str, ...]:
    """The models that the first address lists; none where it gives no list. Raises as `check`."""
    client = HttpModel(endpoint, ClientSettings(timeout_s=timeout_s, connect_timeout_s=timeout_s))
    try:
        return await client.served()
    finally:
        await client.close()


async def _read_bounded(stream: aiohttp.StreamReader, idle_s: float | None = None) -> bytes:
    """The whole body; a body over the limit is cut, which makes it unreadable and so a retry.

    Raises TimeoutError when a body that has begun stands still for `idle_s`: before its first byte
    a reply may take as long as the whole request, because it is written before it is sent.
    """
    content = bytearray()
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(idle_s) as limit:
        while chunk := await stream.readany():
            content += chunk
            if len(content) > MAX_REPLY_BYTES:
                break
            if idle_s is not None and not stream.is_eof():
                limit.reschedule(clock() + idle_s)
    return bytes(content)
