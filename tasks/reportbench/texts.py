"""Addresses, titles and blocks of reports. Pure functions."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from itertools import pairwise
from urllib.parse import urlsplit

from r2w_eval.hashing import text_hash

URL = re.compile(r"https?://[^\s\)\]\"\'>]+")
HEADER = re.compile(r"#{1,3} ")
BLOCK_CHARS = 16_384
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_title(title: str) -> str:
    """Lower case, ASCII punctuation removed, single blanks.

    >>> normalise_title("Attention  Is All You Need!")
    'attention is all you need'
    """
    return " ".join(title.lower().translate(_NO_PUNCTUATION).split())


def title_key(title: str) -> int | None:
    """The normalised title as a number; None if it is empty."""
    normal = normalise_title(title)
    return int(text_hash(normal)[:13], 16) if normal else None


def find_references(report: str) -> list[str]:
    """The addresses of a report, the first for each scheme, host and path."""
    found: dict[str, str] = {}
    for url in URL.findall(report):
        found.setdefault(strip_query(url), url)
    return list(found.values())


def strip_query(url: str) -> str:
    """Scheme, host and path.

    >>> strip_query("https://a.example/x?y=1#z")
    'https://a.example/x'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def split_blocks(report: str, max_chars: int = BLOCK_CHARS) -> list[str]:
    """Pieces of whole sections, cut as upstream does.

    A section that would make a piece too long becomes a piece of its own, of any length. A report
    without headers is cut between lines.
    """
    lines = report.split("\n")
    headers = [n for n, line in enumerate(lines) if HEADER.match(line)]
    if not headers:
        return [block for block in _cut_lines(lines, max_chars) if block.strip()]
    bounds = [*dict.fromkeys([0, *headers]), len(lines)]
    blocks: list[str] = []
    open_block: list[str] = []
    for start, end in pairwise(bounds):
        section = lines[start:end]
        if len("\n".join([*open_block, *section])) <= max_chars:
            open_block += section
            continue
        blocks += ["\n".join(open_block), "\n".join(section)]
        open_block = []
    return [block for block in (*blocks, "\n".join(open_block)) if block.strip()]


def _cut_lines(lines: Sequence[str], max_chars: int) -> list[str]:
    blocks: list[list[str]] = [[]]
    size = 0
    for line in lines:
        if size + len(line) + 1 > max_chars and blocks[-1]:
            blocks.append([])
            size = 0
        blocks[-1].append(line)
        size += len(line) + 1
    return ["\n".join(block) for block in blocks]
