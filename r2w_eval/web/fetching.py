"""Reads web pages politely and within bounds: robots.txt, one request a second and host, few bytes.

Every hop of a redirect is checked like a first request: scheme, address, robots. Nothing that the
other side does is an exception for the caller; it is a `Page` with a status. Needs
pip install 'r2w-eval[pages]'.
"""

from __future__ import annotations

import asyncio
import datetime
import gzip
import io
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

import r2w_eval
from r2w_eval.errors import UsageError
from r2w_eval.web.addresses import AddressRefused, CheckedResolver, Network, check_literal
from r2w_eval.web.page_text import find_reader, read_plain
from r2w_eval.web.page_worker import TextReader, UnreadablePage
from r2w_eval.web.pages import Page, PageStatus

USER_AGENT = f"r2w-eval/{r2w_eval.__version__}"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# RFC 9309 asks crawlers to read at least 500 KiB
MAX_ROBOTS_BYTES = 512 << 10
MAX_CRAWL_DELAY_S = 30.0


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of one fetcher. `allowed` are networks beyond the public ones.

    `timeout_s` is for one request, `read_timeout_s` for finding the text in what came.
    """

    max_bytes: int = 8 << 20
    timeout_s: float = 30.0
    read_timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    max_redirects: int = 5
    tries: int = 3
    host_interval_s: float = 1.0
    concurrency: int = 16
    allowed: tuple[Network, ...] = ()


class Stopped(Exception):
    """The end of a fetch, as the status it gets."""

    def __init__(self, status: PageStatus, reason: str, http_status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.http_status = http_status


@dataclass(frozen=True, slots=True)
class Body:
    """One reply, read within bounds."""

    url: URL
    status: int
    content_type: str
    charset: str | None
    content: bytes
    location: str | None = None


class LiveFetcher:
    """`Fetcher` over the network. `resolver` can be replaced, for tests."""

    def __init__(self, limits: FetchLimits, resolver: AbstractResolver | None = None) -> None:
        require_extra()
        self._limits = limits
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._text = TextReader(limits.read_timeout_s)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._hosts: defaultdict[str, HostPace] = defaultdict(
            lambda: HostPace(limits.host_interval_s)
        )
        self._robots: defaultdict[str, RobotsRules] = defaultdict(RobotsRules)

    async def close(self) -> None:
        """Close all connections, and end the process that reads texts."""
        await self._text.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, url: str) -> Page:
        """The page, or a typed failure after the tries that it deserves."""
        for attempt in range(self._limits.tries):
            page = await self._fetch_once(url)
            if not page.is_passing or attempt + 1 == self._limits.tries:
                break
            await asyncio.sleep(self._limits.host_interval_s * 2**attempt)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return replace(page, fetched=now)

    async def _fetch_once(self, url: str) -> Page:
        try:
            body = await self._follow(read_url(url))
            return await self._read_text(url, body)
        except Stopped as stop:
            return Page(url, stop.status, reason=str(stop), http_status=stop.http_status)
        except AddressRefused as refused:
            return Page(url, PageStatus.REFUSED_ADDRESS, reason=str(refused))
        except TimeoutError:
            return Page(url, PageStatus.TIMEOUT, reason=f"over {self._limits.timeout_s:g} s")
        # a host name that cannot be encoded is found only when it is looked up
        except (aiohttp.InvalidURL, UnicodeError) as error:
            return Page(url, PageStatus.BAD_URL, reason=f"{type(error).__name__}: {error}"[:300])
        except (aiohttp.ClientError, OSError) as error:
            return Page(url, PageStatus.TRANSPORT, reason=f"{type(error).__name__}: {error}"[:300])
        except ValueError as error:
            return Page(url, PageStatus.UNREADABLE, reason=f"{type(error).__name__}: {error}"[:300])

    async def _read_text(self, url: str, body: Body) -> Page:
        """The readable text of a reply."""
        page = Page(
            url,
            PageStatus.OK,
            final_url=str(body.url),
            http_status=body.status,
            content_type=body.content_type,
            n_bytes=len(body.content),
        )
        reader = find_reader(body.content_type)
        if reader is None:
            reason = f"content type {body.content_type[:80]!r}"
            return replace(page, status=PageStatus.UNSUPPORTED_TYPE, reason=reason)
        try:
            if reader is read_plain:
                # nothing to parse, so nothing to be taken along by
                found = await asyncio.to_thread(reader, body.content, body.charset)
            else:
                found = await self._text.read(body.content, body.content_type, body.charset)
        except UnreadablePage as error:
            return replace(page, status=PageStatus.UNREADABLE, reason=str(error))
        if not found.text.strip():
            return replace(page, status=PageStatus.NO_TEXT, reason="the page has no readable text")
        return replace(page, title=found.title, description=found.description, text=found.text)

    async def _follow(self, url: URL) -> Body:
        """The reply at the end of all redirects; every hop is checked anew."""
        for _ in range(self._limits.max_redirects + 1):
            self._check(url)
            await self._obey_robots(url)
            body = await self._get(url, self._limits.max_bytes)
            if body.location is None:
                if not 200 <= body.status < 300:
                    raise Stopped(PageStatus.HTTP_ERROR, f"HTTP {body.status}", body.status)
                return body
            url = url.join(read_url(body.location, relative=True))
        raise Stopped(PageStatus.REDIRECTS, f"over {self._limits.max_redirects} redirects")

    def _check(self, url: URL) -> None:
        """Refuse what no resolver would see, unconnected. Raises AddressRefused, Stopped."""
        if url.scheme not in ("http", "https") or not url.raw_host:
            raise Stopped(PageStatus.BAD_URL, f"{url.scheme or 'no'} scheme: http or https only")
        if url.raw_user is not None:
            raise Stopped(PageStatus.BAD_URL, "credentials in the address")
        check_literal(url.raw_host, self._limits.allowed)

    async def _obey_robots(self, url: URL) -> None:
        """Wait until the rules of the site are known, and obey them. Raises Stopped."""
        rules = self._robots[str(url.origin())]
        async with rules.lock:
            if rules.allows is None:
                await self._read_robots(url, rules)
        assert rules.allows is not None, "read above"
        # a hostile file has many rules: all is matched beside the event loop
        if not await asyncio.to_thread(rules.allows, str(url)):
            raise Stopped(PageStatus.ROBOTS, f"{url.origin()}/robots.txt forbids it")

    async def _read_robots(self, url: URL, rules: RobotsRules) -> None:
        """RFC 9309: no rules (4xx) allow everything, a server in trouble (5xx) nothing."""
        target = url.origin() / "robots.txt"
        body = await self._get(target, MAX_ROBOTS_BYTES, cut=True)
        for _ in range(self._limits.max_redirects):
            if body.location is None:
                break
            target = target.join(read_url(body.location, relative=True))
            self._check(target)
            body = await self._get(target, MAX_ROBOTS_BYTES, cut=True)
        if body.status >= 500 or body.status == 429:
            raise Stopped(PageStatus.ROBOTS, f"robots.txt: HTTP {body.status}", body.status)
        text = body.content.decode("utf-8", "replace") if 200 <= body.status < 300 else ""
        rules.allows, delay_s = await asyncio.to_thread(parse_robots, text)
        pace = self._hosts[str(url.origin())]
        pace.interval_s = max(pace.interval_s, delay_s)

    async def _get(self, url: URL, max_bytes: int, *, cut: bool = False) -> Body:
        """One request, in its turn. Raises Stopped for a body over the bound, unless it is cut."""
        await self._hosts[str(url.origin())].turn()
        async with (
            self._slots,
            asyncio.timeout(self._limits.timeout_s),
            self._open().get(url, allow_redirects=False) as reply,
        ):
            location = reply.headers.get("Location") if reply.status in REDIRECTS else None
            content = b"" if location else await read_content(reply, max_bytes, cut=cut)
            return Body(url, reply.status, reply.content_type, reply.charset, content, location)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            inner = self._resolver or aiohttp.ThreadedResolver()
            resolver = CheckedResolver(inner, self._limits.allowed)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                # unpacked here, within bounds
                auto_decompress=False,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"},
                timeout=aiohttp.ClientTimeout(
                    total=self._limits.timeout_s, sock_connect=self._limits.connect_timeout_s
                ),
            )
        return self._session


class HostPace:
    """Spaces the requests to one site."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._next = float("-inf")

    async def turn(self) -> None:
        """Wait for a turn; who comes later waits longer."""
        now = time.monotonic()
        mine = max(now, self._next)
        self._next = mine + self.interval_s
        await asyncio.sleep(mine - now)


class RobotsRules:
    """What robots.txt of one site says; `allows` is None until it was read."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.allows: Callable[[str], bool] | None = None


def require_extra() -> None:
    """Raises UsageError when the packages that read pages are not installed."""
    try:
        import protego  # noqa: F401
        import pypdf  # noqa: F401
        import trafilatura  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--pages reads the web with packages that are not installed ({error.name}). "
            f"Try: pip install 'r2w-eval[pages]', or replay recorded pages: --pages replay:DIR"
        ) from error


def read_url(text: str, *, relative: bool = False) -> URL:
    """An address as it will be asked for. Raises Stopped for what is none."""
    try:
        url = URL(text.strip()).with_fragment(None)
    except (ValueError, TypeError) as error:
        raise Stopped(PageStatus.BAD_URL, f"{type(error).__name__}: {error}"[:300]) from error
    if not relative and not url.absolute:
        raise Stopped(PageStatus.BAD_URL, "not a full address, as in https://host/path")
    return url


def parse_robots(text: str) -> tuple[Callable[[str], bool], float]:
    """Which addresses may be read, and the seconds that the site wants between two requests."""
    from protego import Protego

    rules = Protego.parse(text)

    def allows(url: str) -> bool:
        return bool(rules.can_fetch(url, USER_AGENT))

    return allows, min(MAX_CRAWL_DELAY_S, float(rules.crawl_delay(USER_AGENT) or 0.0))


async def read_content(reply: aiohttp.ClientResponse, max_bytes: int, *, cut: bool) -> bytes:
    """The body, unpacked; stops at the bound instead of reading on. Raises Stopped."""
    if (reply.content_length or 0) > max_bytes and not cut:
        raise Stopped(PageStatus.TOO_LARGE, f"{reply.content_length} bytes announced")
    packed = bytearray()
    async for chunk in reply.content.iter_any():
        packed += chunk
        if len(packed) > max_bytes:
            break
    if len(packed) > max_bytes and not cut:
        raise Stopped(PageStatus.TOO_LARGE, f"over {max_bytes} bytes")
    encoding = reply.headers.get("Content-Encoding", "identity").strip().lower()
    content = await asyncio.to_thread(unpack, bytes(packed), encoding, max_bytes)
    if len(content) > max_bytes and not cut:
        raise Stopped(PageStatus.TOO_LARGE, f"over {max_bytes} bytes")
    return content[:max_bytes]


def unpack(packed: bytes, encoding: str, max_bytes: int) -> bytes:
    """At most one byte over the bound, whatever a small body unpacks to. Raises Stopped."""
    if encoding in ("", "identity"):
        return packed
    try:
        if encoding in ("gzip", "x-gzip"):
            # reads all members of the file, one after another
            return gzip.GzipFile(fileobj=io.BytesIO(packed)).read(max_bytes + 1)
        if encoding == "deflate":
            return zlib.decompressobj().decompress(packed, max_bytes + 1)
    except (zlib.error, OSError, EOFError) as error:
        raise Stopped(PageStatus.TRANSPORT, f"broken {encoding}: {error}") from error
    raise Stopped(PageStatus.UNSUPPORTED_TYPE, f"content encoding {encoding[:40]!r}")
