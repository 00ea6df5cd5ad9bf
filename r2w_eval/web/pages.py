"""Web pages that citation metrics read: one interface, recorded when fetched, replayed later.

`--pages live` records into the run folder, `--pages record:DIR` into a folder that runs share,
`--pages replay:DIR` reads such a folder and never the network: a page without a record is an error
(specification: harness R8). What could not be read is a record too, with a typed status.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from urllib.parse import urldefrag

from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import content_hash, path_hash, to_plain
from r2w_eval.store import write_json
from r2w_eval.waiting import gather

# a server that says so may answer later
PASSING_HTTP = frozenset({408, 425, 429, 500, 502, 503, 504})
FORMS = "live, record:DIR or replay:DIR"
RUN_PAGES = "pages"


class PageStatus(StrEnum):
    """What became of one address."""

    OK = "ok"
    BAD_URL = "bad_url"
    REFUSED_ADDRESS = "refused_address"
    ROBOTS = "robots"
    HTTP_ERROR = "http_error"
    REDIRECTS = "redirects"
    TOO_LARGE = "too_large"
    UNSUPPORTED_TYPE = "unsupported_type"
    NO_TEXT = "no_text"
    UNREADABLE = "unreadable"
    TIMEOUT = "timeout"
    TRANSPORT = "transport"


@dataclass(frozen=True, slots=True)
class Page:
    """What one address gave: its readable text, or why there is none. `fetched` is ISO 8601, UTC.

    `url` is the address asked for, `final_url` where redirects led; sizes are in bytes.
    """

    url: str
    status: PageStatus
    text: str = ""
    title: str = ""
    description: str = ""
    reason: str = ""
    final_url: str = ""
    http_status: int | None = None
    content_type: str = ""
    n_bytes: int = 0
    fetched: str = ""

    @property
    def is_passing(self) -> bool:
        """A failure that may be over later: another try is worth it, although there is a record."""
        is_lost = self.status in (PageStatus.TIMEOUT, PageStatus.TRANSPORT)
        return is_lost or self.http_status in PASSING_HTTP


@dataclass(frozen=True, slots=True)
class PageCounts:
    """How many addresses one judging of a task asked for, and by status how many gave no text."""

    n_wanted: int
    failures: Mapping[str, int]

    def __str__(self) -> str:
        lost = ", ".join(f"{status} {n}" for status, n in self.failures.items())
        n_read = self.n_wanted - sum(self.failures.values())
        return f"{n_read} of {self.n_wanted} read" + (f"; lost: {lost}" if lost else "")


class PageSource(Protocol):
    """Where a run gets its pages from."""

    async def page(self, url: str) -> Page:
        """The page, or why there is none. Raises DataError where a record is missing."""

    async def close(self) -> None:
        """Give back what the source holds."""


class Fetcher(Protocol):
    """Reads one address from the network."""

    async def fetch(self, url: str) -> Page:
        """The page, or a typed failure; raises nothing for what the other side does."""

    async def close(self) -> None:
        """Close all connections."""


async def read_pages(source: PageSource, urls: Iterable[str]) -> dict[str, Page]:
    """All pages at once, by address as given."""
    wanted = list(dict.fromkeys(urls))
    pages = await gather([source.page(url) for url in wanted])
    return dict(zip(wanted, pages, strict=True))


def page_key(url: str) -> str:
    """The name of a page's record: a fragment leads to another place on the same page.

    >>> page_key("https://a.example/x#:~:text=y") == page_key(" https://a.example/x ")
    True
    """
    bare = url.strip()
    try:
        return content_hash(urldefrag(bare).url)
    except ValueError:
        return content_hash(bare.partition("#")[0])


class PageStore:
    """A folder of page records, one JSON file each, written atomically."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, url: str) -> Page | None:
        """The record of this address, or None. Raises DataError for a broken one."""
        path = self.folder / f"{page_key(url)}.json"
        try:
            record = json.loads(path.read_bytes())
            page = Page(**{**record, "status": PageStatus(record["status"])})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not a page record ({type(error).__name__}: {error}). Remove it and "
                f"record it again: --pages record:{self.folder}"
            ) from error
        return replace(page, url=url)

    def write(self, page: Page) -> None:
        """Keep a page; a later record of the same address replaces it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"{page_key(page.url)}.json", to_plain(page))


class ReplayedPages:
    """Records only; there is no way from here to the network."""

    def __init__(self, store: PageStore) -> None:
        self._store = store

    async def page(self, url: str) -> Page:
        """The recorded page. Raises DataError when there is none."""
        page = await asyncio.to_thread(self._store.read, url)
        if page is None:
            raise DataError(
                f"--pages replay: {self._store.folder} has no record of {url[:300]!r}. Record it "
                f"with the same command and --pages record:{self._store.folder}"
            )
        return page

    async def close(self) -> None:
        """Nothing to give back."""


class RecordedPages:
    """Fetches what has no record yet and records it, each address once."""

    def __init__(self, store: PageStore, fetcher: Fetcher) -> None:
        self._store = store
        self._fetcher = fetcher
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tried: set[str] = set()

    async def page(self, url: str) -> Page:
        """The recorded page, else the fetched one; a passing failure of an earlier run is tried
        again.
        """
        key = page_key(url)
        async with self._locks[key]:
            page = await asyncio.to_thread(self._store.read, url)
            if page is None or (page.is_passing and key not in self._tried):
                page = await self._fetcher.fetch(url)
                await asyncio.to_thread(self._store.write, page)
                self._tried.add(key)
        return page

    async def close(self) -> None:
        """Close the fetcher."""
        await self._fetcher.close()


@dataclass(frozen=True, slots=True)
class PageAccess:
    """`--pages`, read: whether the network may be asked, and where the records lie.

    `folder` is None for the run's own folder.
    """

    is_live: bool
    folder: Path | None
    allowed: str = ""

    @classmethod
    def parse(cls, text: str, allowed: str = "") -> PageAccess:
        """Read `live`, `record:DIR` or `replay:DIR`. Raises UsageError.

        >>> PageAccess.parse("record:pages").is_live
        True
        """
        kind, _, folder = text.partition(":")
        if kind not in ("live", "record", "replay") or bool(folder) == (kind == "live"):
            raise UsageError(f"--pages {text[:200]!r}: expected {FORMS}")
        if kind == "replay" and not Path(folder).is_dir():
            raise UsageError(
                f"--pages {text!r}: no such folder. Record one first: --pages record:{folder}"
            )
        return cls(kind != "replay", Path(folder) if folder else None, allowed)

    def open(self, run_folder: Path, *, offline: bool = False) -> PageSource:
        """The source of a run; `offline` forbids the network whatever the user asked for."""
        store = PageStore(self.folder or run_folder / RUN_PAGES)
        if offline or not self.is_live:
            return ReplayedPages(store)
        from r2w_eval.web.addresses import parse_networks
        from r2w_eval.web.fetching import FetchLimits, LiveFetcher

        return RecordedPages(store, LiveFetcher(FetchLimits(allowed=parse_networks(self.allowed))))


@asynccontextmanager
async def open_pages(
    text: str | None, allowed: str, run_folder: Path, *, offline: bool = False
) -> AsyncIterator[PageSource | None]:
    """The pages of a run, by `--pages` and `--pages-allow`; None without. Raises UsageError."""
    if text is None:
        yield None
        return
    source = PageAccess.parse(text, allowed).open(run_folder, offline=offline)
    try:
        yield source
    finally:
        await source.close()


def identify_pages(suite: str, needs: str, text: str | None, allowed: str) -> dict[str, str]:
    """Which pages a suite reads: `live`, or the hash of the records. Raises UsageError.

    `needs` is "", "optional" or "required". The web is another one every day, so that a score over
    live pages has an identity of its own.
    """
    if text is None and needs == "required":
        raise UsageError(f"{suite} reads web pages: it needs --pages {FORMS}")
    if text is None or not needs:
        return {}
    access = PageAccess.parse(text, allowed)
    if access.is_live or access.folder is None:
        return {"pages": "live"}
    return {"pages": path_hash(access.folder)}
