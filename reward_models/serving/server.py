"""`r2w-eval serve`: a scorer over HTTP, batched while requests wait.

POST /score        our format: {"items": [...]} or one item -> {"scores": [...]}
POST /classify     vLLM's shape: {"input": [texts] | "messages": [...]} -> {"data": [{"probs"}]}
POST /get_reward   OpenRLHF's shape: {"query": [texts], "prompts": [...]} -> {"rewards", "scores"}
GET  /health, /metrics, /selftest, /openapi.json

An item that cannot be scored is HTTP 422 on the shapes that have no room for a status, with its
index; too much waiting work is 503 with Retry-After. Never a 0. Loopback unless told otherwise;
with R2W_SERVE_TOKEN set, a request without that bearer token is 401.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from r2w_eval.reward_models.items import read_item
from r2w_eval.reward_models.scorer import ItemScorer
from r2w_eval.reward_models.serving.batching import Batcher, Overloaded
from r2w_eval.reward_models.serving.openapi import describe_api
from r2w_eval.reward_models.serving.shapes import (
    BadRequest,
    Read,
    TooMany,
    as_classify,
    as_rewards,
    read_classify,
    read_get_reward,
    read_items,
    read_request,
)

from r2w_eval.errors import UsageError

if TYPE_CHECKING:
    from aiohttp import web

LOG = logging.getLogger(__name__)
RETRY_AFTER_S = 1
DRAIN_S = 20.0
TOKEN_VARIABLE = "R2W_SERVE_TOKEN"


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Limits of the server."""

    host: str = "127.0.0.1"
    port: int = 8747
    max_body_bytes: int = 16 << 20
    timeout_s: float = 60.0
    max_waiting: int = 4096
    token: str | None = field(default=None, repr=False)

    def admits(self, authorization: str) -> bool:
        """Whether an Authorization header has the token; compared in constant time."""
        if self.token is None:
            return True
        scheme, _, rest = authorization.partition(" ")
        # the scheme's case does not matter (RFC 9110, 11.1)
        told = rest if scheme.lower() == "bearer" else authorization
        given = told.encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self.token.encode())


def make_app(scorer: ItemScorer, settings: ServeSettings) -> web.Application:
    """The application; its batcher runs from start-up to clean-up."""
    from aiohttp import web

    batcher = Batcher(scorer, settings.max_waiting)
    handlers = Handlers(batcher, settings)

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        return await handlers.guard(request, handler)

    app = web.Application(client_max_size=settings.max_body_bytes, middlewares=[guard])
    app.add_routes(
        [
            web.post("/score", handlers.score),
            web.post("/classify", handlers.classify),
            web.post("/get_reward", handlers.get_reward),
            web.get("/health", handlers.health),
            web.get("/metrics", handlers.metrics),
            web.get("/selftest", handlers.selftest),
            web.get("/openapi.json", handlers.openapi),
        ]
    )

    async def work(app: web.Application) -> Any:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()

    app.cleanup_ctx.append(work)
    return app


class Handlers:
    """One method a route."""

    def __init__(self, batcher: Batcher, settings: ServeSettings) -> None:
        from aiohttp import web

        self._batcher = batcher
        self._settings = settings
        self._web = web

    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Turn the time limit, overload and errors into HTTP statuses with a JSON reason."""
        counters = self._batcher.counters
        counters.requests += 1
        if not self._settings.admits(request.headers.get("Authorization", "")):
            counters.rejected += 1
            return self._error(401, "send the server's token: Authorization: Bearer TOKEN")
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                response: web.StreamResponse = await handler(request)
                return response
        except Overloaded:
            counters.rejected += 1
            waiting = f"{self._batcher.waiting} items wait; at most {self._settings.max_waiting}"
            reply = self._error(503, f"{waiting}. Send again after {RETRY_AFTER_S} s")
            reply.headers["Retry-After"] = str(RETRY_AFTER_S)
            return reply
        except TooMany as error:
            counters.rejected += 1
            return self._error(413, str(error))
        except TimeoutError:
            counters.timeouts += 1
            return self._error(504, f"not scored within {self._settings.timeout_s} s")
        except self._web.HTTPRequestEntityTooLarge:
            counters.rejected += 1
            limit = self._settings.max_body_bytes
            return self._error(413, f"the body is larger than {limit} bytes; send fewer items")
        except BadRequest as error:
            return self._error(400, str(error))
        except self._web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            reply = self._error(405, f"{request.method} is not allowed here; send {allowed}")
            reply.headers["Allow"] = allowed
            return reply
        except self._web.HTTPNotFound:
            return self._error(404, "no such path; /openapi.json names all of them")
        except RuntimeError as error:
            return self._error(500, str(error))

    def _error(self, status: int, reason: str) -> web.Response:
        return self._web.json_response({"error": reason}, status=status)

    async def score(self, request: web.Request) -> web.Response:
        """Our format."""
        items = await read_request(request, read_items, self._settings.max_waiting)
        scores = await self._batcher.score(items)
        model = self._batcher.scorer.id
        return self._web.json_response({"scores": [s.as_record() for s in scores], "model": model})

    async def classify(self, request: web.Request) -> web.Response:
        """vLLM's shape; the text or the last assistant message is scored as writing."""
        return await self._shaped(request, read_classify, as_classify)

    async def get_reward(self, request: web.Request) -> web.Response:
        """OpenRLHF's shape."""
        return await self._shaped(request, read_get_reward, as_rewards)

    async def _shaped(self, request: web.Request, read: Read, shape: Any) -> web.Response:
        items = await read_request(request, read, self._settings.max_waiting)
        scores = await self._batcher.score(items)
        bad = {str(i): f"{s.status}: {s.reason}" for i, s in enumerate(scores) if s.value is None}
        if bad:
            return self._web.json_response({"error": "items without a score", "items": bad},
                                           status=422)  # fmt: skip
        return self._web.json_response(shape([s.value for s in scores], self._batcher.scorer.id))

    async def health(self, request: web.Request) -> web.Response:
        """That the server is up, and its model."""
        return self._web.json_response({"status": "ok", "model": self._batcher.scorer.id})

    async def metrics(self, request: web.Request) -> web.Response:
        """Counters."""
        return self._web.Response(text=self._batcher.counters.text(self._batcher.waiting))

    async def openapi(self, request: web.Request) -> web.Response:
        """The OpenAPI description."""
        return self._web.json_response(describe_api(self._settings.token is not None))

    async def selftest(self, request: web.Request) -> web.Response:
        """Whether a good remark is scored above a bad one."""
        good = {
            "id": "good",
            "draft": "He go home. It was late.",
            "revision": "He goes home. It was late.",
            "reflection": 'In "He go home." the verb form is wrong. I should write "goes".',
        }
        bad = {**good, "id": "bad", "reflection": "Great work, nothing to change."}
        scores = await self._batcher.score([read_item(good, 1), read_item(bad, 2)])
        values = [s.value for s in scores]
        better, worse = values
        passed = better is not None and worse is not None and better > worse
        return self._web.json_response(
            {"passed": passed, "values": values}, status=200 if passed else 500
        )


def without_stack(record: logging.LogRecord) -> bool:
    """A log filter: malformed HTTP from a client becomes one line instead of a traceback."""
    from aiohttp.http import HttpProcessingError
    from aiohttp.web import RequestPayloadError

    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (HttpProcessingError, RequestPayloadError)):
        record.exc_info = None
        record.msg = f"{record.msg}: {type(error).__name__}"
    return True


def run_server(scorer: ItemScorer, settings: ServeSettings) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are finished first, unless a second signal
    comes.
    """
    from aiohttp import web

    app = make_app(scorer, settings)
    logging.getLogger("aiohttp.server").addFilter(without_stack)

    async def main() -> None:
        runner = web.AppRunner(app, shutdown_timeout=DRAIN_S, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            await runner.cleanup()
            raise UsageError(
                f"--host {settings.host} --port {settings.port}: {error.strerror}. Expected an "
                f"address of this machine and a port that is free. Try: --port 0, which takes one"
            ) from error
        host, port = runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        LOG.warning("serving %s on http://%s:%s", scorer.id, shown, port)
        if settings.token is None and not ipaddress.ip_address(host).is_loopback:
            LOG.warning("anyone who reaches %s may use it: set %s", host, TOKEN_VARIABLE)
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        await stop.wait()
        # a second one ends the process, whatever a scorer is still at
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)
            signal.signal(name, signal.SIG_DFL)
        await runner.cleanup()

    asyncio.run(main())
