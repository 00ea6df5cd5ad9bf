"""The text of pages: charsets, hostile content, and a reader that a page cannot take along."""

from __future__ import annotations

import asyncio
import io
import json
import time

import pytest

pytest.importorskip("trafilatura", reason="needs pip install 'r2w-eval[pages]'")
pytest.importorskip("pypdf", reason="needs pip install 'r2w-eval[pages]'")

from hypothesis import given, settings
from hypothesis import strategies as st

from r2w_eval.web.page_text import (
    PageText,
    decode,
    find_reader,
    frame,
    read_frame,
    read_html,
    serve,
)
from r2w_eval.web.page_worker import TextReader, UnreadablePage


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "undefined", "utf-7", "zlib", "nonsense", "nul\0"]
)
def test_a_charset_that_no_page_has_is_read_as_utf_8(charset: str) -> None:
    started = time.process_time()
    assert decode("naïve +2AA- ".encode() + b"a9" * 500_000, charset).startswith("naïve +2AA- a9")
    assert time.process_time() - started < 1


def test_a_page_that_breaks_the_parser_has_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise AttributeError("NoneType")

    monkeypatch.setattr("trafilatura.bare_extraction", breaks)
    assert read_html(b"<p>x</p>", None) == PageText()


PIECES = st.sampled_from(
    [b"<html>", b"<body>", b"<p>A ferry came at dawn, and nobody was there to meet it.", b"</p>",
     b"<svg><script>alert(1)</script>", b"<!--", b"]]>", b"<title>", b"<?xml encoding='x'?>",
     b"<meta charset=utf-16>", b"&#xD800;", b"<table><tr><td>", b"<a href='javascript:1'>"]
)  # fmt: skip


@given(
    st.lists(PIECES | st.binary(max_size=12), max_size=8).map(b"".join),
    st.sampled_from([None, "utf-8", "utf-16", "hz", "x"]),
)
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_a_page_with_or_without_text(content: bytes, charset: str | None) -> None:
    for kind in ("text/html", "text/plain"):
        reader = find_reader(kind)
        assert reader is not None
        found = reader(content, charset)
        assert all(isinstance(getattr(found, name), str) for name in PageText.__slots__)
        found.text.encode()


def test_a_page_that_is_a_drawing_has_no_text() -> None:
    """The parser asserts that every element has a parent, which a script in one has not."""
    assert read_html(b"<svg><script>alert(1)</script><html>", None) == PageText()


def test_requests_are_answered_in_order_until_the_stream_ends() -> None:
    asked = [("text/plain", "one"), ("image/png", "two"), ("text/csv", "three")]
    requests = b"".join(
        frame(json.dumps({"content_type": kind, "charset": None}).encode()) + frame(text.encode())
        for kind, text in asked
    )
    replies = io.BytesIO()
    serve(io.BytesIO(requests), replies)
    replies.seek(0)
    assert read_frame(replies) == b"ready"
    texts = [json.loads(read_frame(replies) or b"")["text"] for _ in asked]
    assert texts == ["one", "", "three"] and read_frame(replies) is None


def test_a_page_that_takes_too_long_ends_its_reader_and_not_the_next_page() -> None:
    slow = b"<html><body>" + b"<p>The ferry came on the tenth day at dawn.</p>" * 100_000

    async def job() -> tuple[float, str]:
        reader = TextReader(60.0)
        try:
            # the process is up before the clock runs
            await reader.read(b"x", "text/plain", None)
            reader.timeout_s = 0.1
            started = time.monotonic()
            with pytest.raises(UnreadablePage, match="took over 0.1 s"):
                await reader.read(slow, "text/html", None)
            took = time.monotonic() - started
            reader.timeout_s = 60.0
            return took, (await reader.read("after".encode("utf-16"), "text/plain", "utf-16")).text
        finally:
            await reader.close()

    took, text = asyncio.run(job())
    assert took < 10 and text == "after"
