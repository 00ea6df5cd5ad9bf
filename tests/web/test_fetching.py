"""The fetcher against a site of its own on loopback: every way in which pages misbehave."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

pytest.importorskip("trafilatura", reason="needs pip install 'r2w-eval[pages]'")
pytest.importorskip("protego", reason="needs pip install 'r2w-eval[pages]'")
pytest.importorskip("pypdf", reason="needs pip install 'r2w-eval[pages]'")

import r2w_eval
from r2w_eval.web.addresses import parse_networks
from r2w_eval.web.fetching import FetchLimits, LiveFetcher, parse_robots, unpack
from r2w_eval.web.pages import Page, PageStatus

ARTICLE = (
    "<html><head><title>On Ferries</title><meta name='description' content='A short study'></head>"
    "<body><nav>Home | About</nav><article><p>The ferry did not come for nine days, and the island "
    "began to speak more quietly.</p><p>On the tenth day it came at dawn.</p></article>"
    "<script>track()</script></body></html>"
)
BOMB = gzip.compress(b"x" * 10_000_000, 1)
LIMITS = FetchLimits(
    max_bytes=100_000,
    timeout_s=1.0,
    tries=1,
    host_interval_s=0.0,
    allowed=parse_networks("127.0.0.0/8"),
)


class Site:
    """A web site on loopback that counts what it is asked for."""

    def __init__(self, robots: str | None = None) -> None:
        self.robots = robots
        self.seen: Counter[str] = Counter()
        self.times: list[float] = []
        self.agents: set[str] = set()
        self.megabytes = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen[request.path] += 1
        self.times.append(time.monotonic())
        self.agents.add(request.headers["User-Agent"])
        if request.path == "/robots.txt":
            return web.Response(text=self.robots) if self.robots else web.Response(status=404)
        name = request.path.strip("/").replace("-", "_")
        answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = getattr(self, name)
        return await answer(request)

    async def article(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=ARTICLE, content_type="text/html")

    async def plain(self, _: web.Request) -> web.StreamResponse:
        return web.Response(
            body="naïve\u2028text".encode("utf-16"), content_type="text/plain", charset="utf-16"
        )

    async def latin(self, _: web.Request) -> web.StreamResponse:
        body = ARTICLE.replace("quietly", "très bas").encode("latin-1")
        return web.Response(body=body, content_type="text/html", charset="latin-1")

    async def gone(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=404, text="no such page")

    async def busy_once(self, request: web.Request) -> web.StreamResponse:
        ready = self.seen[request.path] > 1
        return await self.plain(request) if ready else web.Response(status=503)

    async def huge(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        for _ in range(300):
            await response.write(b"x" * 1_000_000)
            self.megabytes += 1
        return response

    async def announced(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 200_000, content_type="text/plain")

    async def bomb(self, _: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        return web.Response(body=BOMB, headers=headers)

    async def members(self, _: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        body = gzip.compress(b"First. ") + gzip.compress(b"Second.")
        return web.Response(body=body, headers=headers)

    async def half_packed(self, _: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        return web.Response(body=gzip.compress(b"never all of it" * 99)[:-20], headers=headers)

    async def paper(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=make_pdf("On the tenth day"), content_type="application/pdf")

    async def broken_paper(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=b"%PDF-1.7\nand no more", content_type="application/pdf")

    async def binary(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(range(256)), content_type="application/octet-stream")

    async def nothing(self, _: web.Request) -> web.StreamResponse:
        return web.Response(
            text="<html><body><script>app()</script></body></html>", content_type="text/html"
        )

    async def loop(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/loop"})

    async def moved(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=301, headers={"Location": "plain?from=moved#part"})

    async def inwards(self, _: web.Request) -> web.StreamResponse:
        return web.Response(
            status=302, headers={"Location": "http://169.254.169.254/latest/meta-data"}
        )

    async def to_file(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})

    async def slow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x")
            await asyncio.sleep(0.1)
        return response

    async def cut(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/html", "Content-Length": "1000"}
        )
        await response.prepare(request)
        await response.write(b"<html>")
        assert request.transport is not None
        request.transport.abort()
        return response


def make_pdf(text: str) -> bytes:
    """A PDF of one page, as small as the format allows."""
    stream = f"BT /F 12 Tf ({text}) Tj ET"
    font = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        f"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F {font}>>>>>>",
        f"<</Length {len(stream)}>>stream\n{stream}\nendstream",
    ]
    body = "%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj{content}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 5\n0000000000 65535 f \n{table}trailer<</Size 5/Root 1 0 R>>\n"
    return f"{body}{end}startxref\n{len(body)}\n%%EOF".encode()


class Names(AbstractResolver):
    """Leads names to addresses, and counts the look-ups."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(hostname=host, host=a, port=port, family=socket.AF_INET, proto=0, flags=0)
            for a in self.addresses
        ]

    async def close(self) -> None: ...


def fetch_all(
    site: Site,
    *paths: str,
    limits: FetchLimits = LIMITS,
    resolver: AbstractResolver | None = None,
    host: str = "127.0.0.1",
) -> list[Page]:
    """The pages at these paths of the site, or at full addresses."""

    async def job() -> list[Page]:
        app = web.Application()
        app.router.add_get("/{path:.*}", site.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        listener = web.TCPSite(runner, "127.0.0.1", 0)
        await listener.start()
        port = runner.addresses[0][1]
        fetcher = LiveFetcher(limits, resolver)
        try:
            urls = [p if "://" in p else f"http://{host}:{port}{p}" for p in paths]
            return list(await asyncio.gather(*(fetcher.fetch(url) for url in urls)))
        finally:
            await fetcher.close()
            await runner.cleanup()

    return asyncio.run(job())


def test_html_and_pdf_are_read_for_their_text() -> None:
    site = Site()
    page, latin, paper, broken, nothing = fetch_all(
        site, "/article", "/latin", "/paper", "/broken-paper", "/nothing"
    )
    assert page.status is PageStatus.OK, page
    assert "nine days" in page.text and "tenth day" in page.text
    assert "track" not in page.text and "About" not in page.text
    assert (page.title, page.description) == ("On Ferries", "A short study")
    assert page.http_status == 200 and page.fetched.endswith("+00:00")
    assert site.agents == {f"r2w-eval/{r2w_eval.__version__}"}
    assert "très bas" in latin.text
    assert (paper.status, paper.text) == (PageStatus.OK, "On the tenth day")
    assert broken.status is PageStatus.UNREADABLE and "broke the reader" in broken.reason
    assert (nothing.status, nothing.text) == (PageStatus.NO_TEXT, "")


def test_other_charsets_are_read() -> None:
    (plain,) = fetch_all(Site(), "/plain")
    assert plain.text == "naïve\u2028text"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gone", PageStatus.HTTP_ERROR),
        ("/announced", PageStatus.TOO_LARGE),
        ("/bomb", PageStatus.TOO_LARGE),
        ("/binary", PageStatus.UNSUPPORTED_TYPE),
        ("/half-packed", PageStatus.TRANSPORT),
        ("/loop", PageStatus.REDIRECTS),
        ("/inwards", PageStatus.REFUSED_ADDRESS),
        ("/to-file", PageStatus.BAD_URL),
        ("/slow", PageStatus.TIMEOUT),
        ("/cut", PageStatus.TRANSPORT),
        ("ftp://example.org/x", PageStatus.BAD_URL),
        ("http://user:secret@example.org/", PageStatus.BAD_URL),
        ("http://[::1", PageStatus.BAD_URL),
        ("http:///x", PageStatus.BAD_URL),
    ],
)
def test_pages_that_misbehave_are_statuses(path: str, status: PageStatus) -> None:
    started = time.monotonic()
    (page,) = fetch_all(Site(), path)
    assert (page.status, page.text) == (status, ""), page
    assert page.reason and "secret" not in page.reason
    assert time.monotonic() - started < 4


def test_all_members_of_a_packed_body_are_read() -> None:
    (page,) = fetch_all(Site(), "/members")
    assert (page.status, page.text) == (PageStatus.OK, "First. Second.")


def test_only_a_bad_address_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (long_label,) = fetch_all(Site(), f"http://{'x' * 70}.test/")
    assert long_label.status is PageStatus.BAD_URL

    async def breaks(*_: object, **__: object) -> bytes:
        raise ValueError("a header that is no number")

    monkeypatch.setattr("r2w_eval.web.fetching.read_content", breaks)
    (page,) = fetch_all(Site(), "/article")
    assert page.status is PageStatus.UNREADABLE and "no number" in page.reason


def test_of_300_megabytes_little_is_read() -> None:
    site = Site()
    (page,) = fetch_all(site, "/huge", limits=replace(LIMITS, timeout_s=20.0))
    assert page.status is PageStatus.TOO_LARGE
    assert site.megabytes < 30, "what the sockets' buffers took"


def test_redirects_are_followed_and_recorded() -> None:
    (page,) = fetch_all(Site(), "/moved")
    assert page.status is PageStatus.OK and page.final_url.endswith("/plain?from=moved")
    assert page.url.endswith("/moved")


def test_a_site_in_trouble_is_asked_again() -> None:
    site = Site()
    (page,) = fetch_all(site, "/busy-once", limits=replace(LIMITS, tries=3))
    assert page.status is PageStatus.OK and site.seen["/busy-once"] == 2


def test_robots_are_asked_once_and_obeyed() -> None:
    site = Site(
        "User-agent: *\nDisallow: /art*\nAllow: /plain\n\nUser-agent: r2w-eval\nDisallow: /gone"
    )
    article, plain, gone = fetch_all(site, "/article", "/plain", "/gone")
    assert [p.status for p in (article, plain, gone)] == [
        PageStatus.OK,
        PageStatus.OK,
        PageStatus.ROBOTS,
    ]
    assert site.seen["/robots.txt"] == 1 and site.seen["/gone"] == 0, (
        "our own group of rules counts"
    )
    site = Site("User-agent: *\nDisallow: /art*")
    (article,) = fetch_all(site, "/article")
    assert article.status is PageStatus.ROBOTS and site.seen == {"/robots.txt": 1}


def test_crawl_delay_is_kept_within_reason() -> None:
    assert parse_robots("User-agent: *\nCrawl-delay: 2.5")[1] == 2.5
    assert parse_robots("User-agent: *\nCrawl-delay: 86400")[1] == 30
    allows, delay_s = parse_robots("<html>not robots</html>")
    assert allows("https://a.example/x") and delay_s == 0


def test_requests_to_one_site_are_spaced() -> None:
    site = Site()
    fetch_all(site, "/plain", "/binary", "/gone", limits=replace(LIMITS, host_interval_s=0.15))
    gaps = [later - sooner for sooner, later in zip(site.times, site.times[1:], strict=False)]
    assert len(gaps) == 3 and min(gaps) > 0.1


def test_a_name_is_resolved_once_a_connection_and_connected_to_what_was_checked() -> None:
    names = Names("127.0.0.1")
    (page,) = fetch_all(Site(), "/plain", host="site.test", resolver=names)
    assert page.status is PageStatus.OK
    assert set(names.asked) == {"site.test"} and len(names.asked) <= 2


@pytest.mark.parametrize(
    "addresses",
    [
        ("10.0.0.5",),
        ("169.254.169.254",),
        ("1.1.1.1", "192.168.0.1"),
        ("::1",),
        ("::ffff:127.0.0.1",),
    ],
)
def test_a_name_that_leads_inside_is_refused_before_any_connection(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []

    async def never(*args: Any, **kwargs: Any) -> None:
        connected.append(args)
        raise OSError("a connection was tried")

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", never)
    names = Names(*addresses)
    urls = (
        "http://inside.test/",
        "http://10.0.0.5/",
        "http://[::1]/",
        "http://127.1/",
        "http://0x7f.1/",
    )
    pages = fetch_all(Site(), *urls, limits=replace(LIMITS, allowed=()), resolver=names)
    statuses = {page.url: page.status for page in pages}
    assert statuses.pop("http://127.1/") in (PageStatus.REFUSED_ADDRESS, PageStatus.BAD_URL)
    assert set(statuses.values()) == {PageStatus.REFUSED_ADDRESS}
    assert connected == []


def test_unpacking_stops_at_the_bound() -> None:
    assert len(unpack(gzip.compress(b"x" * 10_000_000), "gzip", 1000)) == 1001
    assert unpack(b"as is", "identity", 1) == b"as is"
