"""The row of a leaderboard: one system, one suite, one judge, as one signed JSON file.

A row carries everything a board needs (value, interval, items, losses, tokens) and the hashes of
the raw files it was made from. Its signature is the SHA-256 of its content, so that changes show.
Texts stay in the run folder (specification: harness I2, D1).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from r2w_eval.comparison.scores import read_estimate
from r2w_eval.errors import DataError
from r2w_eval.hashing import content_hash, to_plain
from r2w_eval.judge.own_scorer import stated_range
from r2w_eval.paths import safe_name
from r2w_eval.results.coverage import Scored, scored_of
from r2w_eval.results.notices import Notice
from r2w_eval.results.summary import measure_within
from r2w_eval.stats.inference import measure
from r2w_eval.store import write_json
from r2w_eval.suites.suite import load_info, suite_folders
from r2w_eval.types import Estimate, Metric

SCHEMA = 2
# larger numbers would overflow the sums of a board; seeds have up to 64 bits
LARGEST = 1e20
_MALFORMED = (
    OSError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)


class RowInvalid(DataError):
    """A row file that cannot be read or was altered after signing."""


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """One entry per answer, in suite order, stored by column to keep files small.

    `values` are mean verdicts (None when not scored); lengths are in characters.
    """

    ids: tuple[str, ...]
    repeats: tuple[int, ...]
    values: tuple[float | None, ...]
    statuses: tuple[str, ...]
    answer_chars: tuple[int, ...]
    thinking_chars: tuple[int | None, ...]
    response_keys: tuple[str, ...]


def make_columns(columns: Mapping[str, Sequence[Any]]) -> ItemColumns:
    """Columns from lists; ids and statuses, which many rows share, are interned."""
    shared = {name: map(sys.intern, columns[name]) for name in ("ids", "statuses")}
    return ItemColumns(**{name: tuple(own) for name, own in {**columns, **shared}.items()})


def load_shared(content: bytes) -> Any:
    """JSON with equal numbers as one object: scores repeat, and a board holds many rows.

    Raises ValueError, also for numbers that are not finite.
    """
    read = cache(_finite)
    return json.loads(content, parse_float=read, parse_int=cache(_whole), parse_constant=_finite)


def _finite(text: str) -> float:
    if not abs(value := float(text)) < LARGEST:
        raise ValueError(f"the number {text[:20]} is not finite, or too large")
    return value


def _whole(text: str) -> int:
    _finite(text)
    return int(text)


@dataclass(frozen=True, slots=True)
class Losses:
    """What was lost, by cause: answers of the model, verdicts of the judge, infrastructure."""

    model: Mapping[str, int]
    judge: Mapping[str, int]
    infrastructure: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The writer's tokens over the whole run; `thinking` is None if it was not counted."""

    prompt: int
    completion: int
    thinking: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """SHA-256 of each raw file, and their folder relative to the row's file ("": none)."""

    files: Mapping[str, str]
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a board. See the module's docstring."""

    model: str
    system: Mapping[str, Any]
    """Identifies the writer: backend, system prompt, sampling."""
    is_null: bool
    task: str
    version: str
    mode: str
    judge: str
    score_key: str
    identity: Mapping[str, Any]
    headline: Metric
    metrics: tuple[Metric, ...]
    estimate: Estimate = field(repr=False)
    items: ItemColumns = field(repr=False)
    losses: Losses
    tokens: Tokens
    judging: Mapping[str, Any]
    noise: Mapping[str, Any] | None
    reflection: Mapping[str, Any] | None
    is_smoke_test: bool
    changed_settings: tuple[str, ...]
    warnings: tuple[Notice, ...]
    models_returned: tuple[str, ...]
    created: str
    software: str
    seed: int | None
    evidence: Evidence
    n_pooled: int = 1
    signature: str = ""

    @property
    def id(self) -> str:
        """The first digits of the signature; names the row's files."""
        return self.signature[:12]

    @property
    def system_key(self) -> str:
        """The same for all rows of one system on one suite, whatever the seed or day."""
        return content_hash([self.model, self.system], 12)

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies the writer on every suite; the decoding is each suite's own."""
        return {name: value for name, value in self.system.items() if name != "decoding"}

    @property
    def page_key(self) -> str:
        """The same for all rows of one system, whatever the suite, seed or day."""
        return content_hash([self.model, self.settings], 12)

    @property
    def slug(self) -> str:
        """A safe and unique file name."""
        return f"{safe_name(self.model, 40).lower()}-{self.id}"

    @property
    def scored(self) -> Scored:
        """How many items are scored; counted by answer if items lost several of theirs."""
        return scored_of(self.headline, self.judging.get("answers"))

    @property
    def scored_text(self) -> str:
        """`scored` as text: `7 of 8 items`."""
        n, of = self.scored.n_scored, self.scored.n_expected
        return f"{n} of {of} {'items' if of == self.headline.n_expected else 'answers'}"

    @property
    def coverage(self) -> float:
        """Share of what was expected that has a score."""
        return self.scored.share

    @property
    def n_answers(self) -> int:
        """Answers expected of the writer."""
        return len(self.items.ids)


def measure_headline(row: Row, estimate: Estimate) -> Metric:
    """An estimate's headline, its interval cut at the judge's stated scale, else the suite's."""
    facts = row.identity.get("judge_facts")
    scale = stated_range(facts) if isinstance(facts, Mapping) else None
    if scale is None and row.task in suite_folders():
        scale = load_info(row.task).score_range
    return measure(estimate) if scale is None else measure_within(estimate, scale)


def sign(row: Row) -> Row:
    """The row with its signature, which does not cover the location of its raw files."""
    plain = to_plain(row)
    plain.pop("signature")
    plain["evidence"].pop("folder")
    return replace(row, signature=content_hash(plain, 64))


def check_signature(row: Row) -> None:
    """Raises RowInvalid when the content is not what was signed."""
    if (actual := sign(row).signature) != row.signature:
        raise RowInvalid(
            f"row of {row.model!r:.100} on {row.task}: its content hashes to {actual[:12]}, its "
            f"signature says {row.signature[:12]!r}. It was altered after signing. "
            f"Try: r2w-eval leaderboard submit RUN, which writes it again"
        )


def write_row(path: Path, row: Row) -> None:
    """Write a row as one JSON file."""
    write_json(path, {"schema": SCHEMA, **to_plain(row)})


def read_row(path: Path) -> Row:
    """Read a row and check its signature and content. Raises RowInvalid."""
    from r2w_eval.leaderboards.validity import check_row

    try:
        record = load_shared(path.read_bytes())
        if record["schema"] != SCHEMA:
            raise RowInvalid(
                f"{path}: schema {record['schema']!r:.50}, this version reads {SCHEMA}. "
                f"Try: r2w-eval leaderboard submit RUN"
            )
        row = _from_plain(record)
        check_signature(row)
        check_row(row)
    except _MALFORMED as error:
        raise RowInvalid(
            f"{path}: not a row ({type(error).__name__}: {error}). Expected a file made by "
            f"r2w-eval leaderboard submit RUN"
        ) from error
    return row


def _from_plain(record: Mapping[str, Any]) -> Row:
    known = {name: record[name] for name in Row.__slots__}
    lists = ("changed_settings", "models_returned")
    return Row(
        **{
            **known,
            **{name: tuple(known[name]) for name in lists},
            "headline": Metric(**known["headline"]),
            "metrics": tuple(Metric(**metric) for metric in known["metrics"]),
            "estimate": read_estimate(known["estimate"]),
            "items": make_columns(known["items"]),
            "warnings": tuple(Notice(**notice) for notice in known["warnings"]),
            "losses": Losses(**known["losses"]),
            "tokens": Tokens(**known["tokens"]),
            "evidence": Evidence(**known["evidence"]),
        }
    )
