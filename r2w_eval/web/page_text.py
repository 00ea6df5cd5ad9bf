"""The readable text of a web page: HTML, plain text, PDF. Run as a process of its own.

What a hostile page can do to a parser (hours of work, all memory, a crash) it does to
`python -m r2w_eval.web.page_text`, which `TextReader` (page_worker) may kill. Requests and replies
are frames: eight bytes of length, then the bytes. A request is two frames, JSON facts and the body.
"""

from __future__ import annotations

import codecs
import io
import json
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import BinaryIO

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
TEXT_TYPES = frozenset({"text/plain", "text/markdown", "text/csv", "application/json"})
PDF_TYPES = frozenset({"application/pdf", "application/x-pdf"})
# Python's codecs that no browser knows: quadratic in the text, or leading to lone surrogates
NO_CHARSETS = frozenset(
    {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"}
)
LENGTH = struct.Struct(">Q")
MAX_MEMORY_BYTES = 2 << 30
READY = b"ready"


@dataclass(frozen=True, slots=True)
class PageText:
    """What a page says; all empty where nothing could be read."""

    title: str = ""
    description: str = ""
    text: str = ""


def find_reader(content_type: str) -> Callable[[bytes, str | None], PageText] | None:
    """What reads this type of content; None for a type that has no text."""
    readers: Mapping[frozenset[str], Callable[[bytes, str | None], PageText]] = {
        HTML_TYPES: read_html,
        TEXT_TYPES: read_plain,
        PDF_TYPES: read_pdf,
    }
    return next((reader for types, reader in readers.items() if content_type in types), None)


def decode(content: bytes, charset: str | None) -> str:
    """Text in its announced charset, else UTF-8; what does not fit is replaced."""
    try:
        name = codecs.lookup(charset or "utf-8").name
        return content.decode("utf-8" if name in NO_CHARSETS else name, "replace")
    except (LookupError, ValueError):
        return content.decode("utf-8", "replace")


def read_plain(content: bytes, charset: str | None) -> PageText:
    """Text as it is."""
    return PageText(text=decode(content, charset))


def read_html(content: bytes, charset: str | None) -> PageText:
    """Title, description and main text, without menus and scripts."""
    import lxml.etree
    import trafilatura

    source = decode(content, charset) if charset else content
    try:
        found = trafilatura.bare_extraction(source, with_metadata=True, include_comments=False)
        if found is None:
            return PageText(text=trafilatura.html2txt(source))
        facts = found if isinstance(found, dict) else found.as_dict()
    except (
        lxml.etree.LxmlError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        AssertionError,
    ):
        return PageText()
    return PageText(*(facts.get(name) or "" for name in PageText.__slots__))


def read_pdf(content: bytes, charset: str | None) -> PageText:
    """Title and the text of all pages. Raises whatever pypdf raises for a broken file."""
    import pypdf

    document = pypdf.PdfReader(io.BytesIO(content))
    pages = (page.extract_text() for page in document.pages)
    facts = document.metadata
    return PageText(title=str(facts.title or "") if facts else "", text="\n\n".join(pages).strip())


def read_frame(file: BinaryIO) -> bytes | None:
    """The next frame; None at the end of the stream."""
    head = file.read(LENGTH.size)
    return file.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


def frame(content: bytes) -> bytes:
    """The bytes with their length before them."""
    return LENGTH.pack(len(content)) + content


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the stream ends. A page that breaks its reader ends the process: its parent
    knows what that means.
    """
    replies.write(frame(READY))
    replies.flush()
    while (facts := read_frame(requests)) is not None:
        content = read_frame(requests) or b""
        asked = json.loads(facts)
        reader = find_reader(asked["content_type"])
        found = reader(content, asked["charset"]) if reader else PageText()
        replies.write(frame(json.dumps(asdict(found)).encode()))
        replies.flush()


def bound_memory() -> None:
    """Let this process have no more than `MAX_MEMORY_BYTES`, where the system can say so."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


def main() -> None:
    """Load the parsers before the first page, so that only pages are timed."""
    import pypdf  # noqa: F401
    import trafilatura  # noqa: F401

    bound_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
