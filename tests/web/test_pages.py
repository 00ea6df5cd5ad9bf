"""Pages: recorded once, replayed without a network, refused where the records end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from r2w_eval.errors import DataError, UsageError
from r2w_eval.results.page_counts import count_pages
from r2w_eval.web.pages import (
    Page,
    PageAccess,
    PageStatus,
    PageStore,
    RecordedPages,
    ReplayedPages,
    read_pages,
)

URL = "https://a.example/x"


class ScriptedFetcher:
    """Gives the pages it was told to, and remembers what it was asked for."""

    def __init__(self, *pages: Page) -> None:
        self.pages = {page.url: page for page in pages}
        self.asked: list[str] = []

    async def fetch(self, url: str) -> Page:
        self.asked.append(url)
        await asyncio.sleep(0)
        return self.pages[url]

    async def close(self) -> None: ...


def record(folder: Path, fetcher: ScriptedFetcher, *urls: str) -> dict[str, Page]:
    return asyncio.run(read_pages(RecordedPages(PageStore(folder), fetcher), urls))


def replay(folder: Path, url: str) -> Page:
    return asyncio.run(ReplayedPages(PageStore(folder)).page(url))


def test_a_page_is_fetched_once_and_replayed_as_it_was(tmp_path: Path) -> None:
    page = Page(URL, PageStatus.OK, "Text\u2028more", "T", http_status=200, fetched="2026-01-01")
    fetcher = ScriptedFetcher(page)
    assert record(tmp_path, fetcher, URL, URL)[URL] == page
    assert record(tmp_path, fetcher, URL)[URL] == page
    assert fetcher.asked == [URL]
    assert replay(tmp_path, URL) == page
    anchored = replay(tmp_path, f" {URL}#:~:text=more")
    assert anchored.text == page.text, "a fragment is a place on the same page"


@pytest.mark.parametrize("url", ["http://[x#y", "http://[x", "https://a.example/\ud800#y", "#"])
def test_a_malformed_address_has_a_record_too(url: str, tmp_path: Path) -> None:
    page = Page(url, PageStatus.BAD_URL, reason="no address")
    assert record(tmp_path, ScriptedFetcher(page), url)[url] == page
    assert replay(tmp_path, url) == page


def test_two_readers_at_once_cause_one_request(tmp_path: Path) -> None:
    fetcher = ScriptedFetcher(Page(URL, PageStatus.OK, "x"))
    source = RecordedPages(PageStore(tmp_path), fetcher)

    async def both() -> list[Page]:
        return list(await asyncio.gather(source.page(URL), source.page(URL)))

    first, second = asyncio.run(both())
    assert first == second and fetcher.asked == [URL]


def test_failures_are_records_and_passing_ones_are_tried_again_by_the_next_run(
    tmp_path: Path,
) -> None:
    gone = Page(URL, PageStatus.HTTP_ERROR, http_status=404)
    slow = Page("https://b.example", PageStatus.TIMEOUT)
    busy = Page("https://c.example", PageStatus.HTTP_ERROR, http_status=503)
    fetcher = ScriptedFetcher(gone, slow, busy)
    urls = (gone.url, slow.url, busy.url)
    pages = record(tmp_path, fetcher, *urls)
    counts = count_pages({url: page.status for url, page in pages.items()})
    assert str(counts) == "0 of 3 read; lost: http_error 2, timeout 1"
    assert replay(tmp_path, slow.url).status is PageStatus.TIMEOUT
    fetcher.asked.clear()
    source = RecordedPages(PageStore(tmp_path), fetcher)
    for _ in range(2):
        asyncio.run(read_pages(source, urls))
    assert sorted(fetcher.asked) == sorted([slow.url, busy.url]), "once more, not twice"


def test_a_page_without_a_record_is_an_error_that_says_how_to_record_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no record of '{URL}'.*--pages record:"):
        replay(tmp_path, URL)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    record(tmp_path, ScriptedFetcher(Page(URL, PageStatus.OK, "x")), URL)
    (path,) = tmp_path.glob("*.json")
    for text in ("{", "[]", "{}", json.dumps({"url": URL, "status": "fine"}), '{"status": "ok"}'):
        path.write_text(text, "utf-8")
        with pytest.raises(DataError, match="not a page record.*Remove it"):
            replay(tmp_path, URL)


@pytest.mark.parametrize("text", ["", "on", "live:x", "record", "record:", "replay:", "Replay:x"])
def test_other_forms_of_access_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected live, record:DIR or replay:DIR"):
        PageAccess.parse(text)


def test_replay_needs_records_and_gets_no_fetcher(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder. Record one first"):
        PageAccess.parse(f"replay:{tmp_path / 'absent'}")
    assert isinstance(PageAccess.parse(f"replay:{tmp_path}").open(tmp_path), ReplayedPages)
    assert isinstance(PageAccess.parse("live").open(tmp_path, offline=True), ReplayedPages)
    with pytest.raises(UsageError, match="--pages-allow"):
        PageAccess.parse("live", "intranet").open(tmp_path)
