"""Quoted tables: figures that others published, with their source, judge and date.

They are never ranked with measured rows and are shown apart from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from r2w_eval.errors import DataError
from r2w_eval.paths import packaged_text

FILE = "references.json"


@dataclass(frozen=True, slots=True)
class Quoted:
    """One published figure."""

    model: str
    value: float


@dataclass(frozen=True, slots=True)
class QuotedTable:
    """Figures of one source, best first."""

    suite: str
    title: str
    metric: str
    scale: str
    judge: str
    source: str
    url: str
    date: str
    note: str
    rows: tuple[Quoted, ...]


def load_references() -> list[QuotedTable]:
    """All quoted tables of the package."""
    return read_references(json.loads(packaged_text(f"data/{FILE}", "r2w_eval.leaderboards")))


def read_references(records: Iterable[Mapping[str, Any]]) -> list[QuotedTable]:
    """Tables from JSON. Raises DataError, which names the table and the problem."""
    tables = []
    for number, record in enumerate(records):
        try:
            rows = tuple(Quoted(str(name), float(v)) for name, v in record["rows"].items())
            ordered = tuple(sorted(rows, key=lambda row: (-row.value, row.model)))
            tables.append(QuotedTable(**{**record, "rows": ordered}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{FILE}, table {number}: {type(error).__name__}: {error}. Expected suite, title, "
                f"metric, scale, judge, source, url, date, note and rows {{model: value}}"
            ) from error
    return tables
