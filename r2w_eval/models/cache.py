"""Response cache shared between runs and processes: SQLite, keyed by all that changes an answer.

Errors are never cached. Sampled replies are: the sample and ask index make them distinct. API keys,
timeouts and try numbers are not part of the key (specification: harness section 4).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from r2w_eval.errors import R2WError, UsageError
from r2w_eval.hashing import content_hash, to_plain
from r2w_eval.models.chat import ChatModel, ChatRequest, LabelProbabilities, LabelReader, Reply
from r2w_eval.types import Message, Scale, Usage

SCHEMA_VERSION = 1
# the file may be one of --cache-dir or --replay, of which `cache prune` knows nothing
WAY_OUT = "Move that file away, use another --cache-dir, or --no-cache"


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What `r2w-eval cache stats` prints; `oldest` is in Unix seconds, None for an empty cache."""

    path: Path
    entries: int
    size_bytes: int
    oldest: float | None


class ReplyCache:
    """Key-value store of replies. Safe for many processes; one thread per instance."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.hits = 0
        try:
            with ExitStack() as opened:
                db = sqlite3.connect(path, timeout=30, isolation_level=None)
                self._db = opened.enter_context(closing(db))
                self._prepare()
                opened.pop_all()
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{path}: not a usable cache ({error}). {WAY_OUT}") from error

    def _prepare(self) -> None:
        # WAL lets readers and one writer of several processes go on side by side
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise UsageError(
                f"{self.path}: cache of version {version}, this program reads {SCHEMA_VERSION}. "
                f"{WAY_OUT}"
            )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, value TEXT, time REAL)"
        )
        self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def get(self, *keys: str) -> dict[str, Any] | None:
        """The reply stored under the first of these keys that has one, or None."""
        for key in keys:
            with self._named_errors():
                row = self._db.execute("SELECT value FROM replies WHERE key = ?", (key,)).fetchone()
            if row is not None:
                self.hits += 1
                value: dict[str, Any] = json.loads(row[0])
                return value
        return None

    def put(self, *keys: str, value: object, anew: bool = False) -> None:
        """Store a reply under all of its keys; the first one stays unless it is asked for anew."""
        rule = "REPLACE" if anew else "IGNORE"
        row = json.dumps(to_plain(value))
        with self._named_errors():
            self._db.executemany(
                f"INSERT OR {rule} INTO replies VALUES (?, ?, ?)",
                [(key, row, time.time()) for key in keys],
            )

    def stats(self) -> CacheStats:
        """Entries, size and age."""
        with self._named_errors():
            row = self._db.execute("SELECT count(*), min(time) FROM replies").fetchone()
        return CacheStats(self.path, row[0], self.path.stat().st_size, row[1])

    def prune(self, older_than_s: float) -> int:
        """Remove entries older than this; returns how many."""
        oldest = time.time() - older_than_s
        with self._named_errors():
            cursor = self._db.execute("DELETE FROM replies WHERE time < ?", (oldest,))
            self._db.execute("VACUUM")
        return cursor.rowcount

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """A full disk, a damaged or a locked file: one clear error instead of SQLite's own."""
        try:
            yield
        except sqlite3.Error as error:
            raise R2WError(
                f"{self.path}: {error}. See that there is space and that it may be written, then "
                f"run the same command again. If it is damaged: {WAY_OUT}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._db.close()


class CachedModel:
    """A `ChatModel` that asks the cache first. `locations` are the addresses of the endpoint, if it
    has any. A reply is kept for all that `answering` names then: those that have answered as one
    model. An address that never did may serve another one, and gets no reply of theirs.
    """

    def __init__(
        self,
        model: ChatModel,
        cache: ReplyCache,
        locations: Sequence[str] = (),
        answering: Callable[[], Collection[str]] | None = None,
    ) -> None:
        self.model = model
        self._cache = cache
        self._locations = locations
        self._answering = answering or (lambda: locations)
        facts = {"schema": SCHEMA_VERSION, "model": model.id, **model.describe()}
        places = [[location] for location in locations] or [[]]
        # earlier versions kept a reply under the whole list
        known = [*places, list(locations)] if len(places) > 1 else places
        self._identities = [{**facts, "location": place} for place in known]

    @property
    def id(self) -> str:
        """The inner model's name."""
        return self.model.id

    def describe(self) -> dict[str, Any]:
        """The inner model's facts."""
        return self.model.describe()

    async def complete(self, request: ChatRequest) -> Reply:
        """From the cache, else from the model; from the model too what is asked anew."""
        plain = to_plain(request)
        del plain["anew"]
        if not request.decoding.response_format:
            # so that replies stay known that were stored before there was such a field
            del plain["decoding"]["response_format"]
        keys = [content_hash({"identity": i, "request": plain}, 64) for i in self._identities]
        stored = None if request.anew else self._cache.get(*keys)
        if stored is not None:
            return Reply(**{**stored, "usage": Usage(**stored["usage"]), "cached": True})
        reply = await self.model.complete(request)
        self._cache.put(*self._own(keys), value=reply, anew=request.anew)
        return reply

    def _own(self, keys: Sequence[str]) -> list[str]:
        """The keys of the places that gave a reply just now."""
        if not self._locations:
            return list(keys)
        answering = self._answering()
        return [
            key for key, place in zip(keys, self._locations, strict=False) if place in answering
        ]

    async def close(self) -> None:
        """Close the inner model; the cache stays open for others."""
        await self.model.close()


class CachedLabelReader:
    """A `LabelReader` that asks the cache first."""

    def __init__(self, reader: LabelReader, model: ChatModel, cache: ReplyCache) -> None:
        self._reader = reader
        self._identity = {"schema": SCHEMA_VERSION, "model": model.id, **model.describe()}
        self._cache = cache

    async def read_labels(self, messages: tuple[Message, ...], scale: Scale) -> LabelProbabilities:
        """From the cache, else from the model."""
        key = content_hash({"identity": self._identity, "labels": scale, "m": messages}, 64)
        if (stored := self._cache.get(key)) is not None:
            return LabelProbabilities(
                **{**stored, "usage": Usage(**stored["usage"]), "cached": True}
            )
        read = await self._reader.read_labels(messages, scale)
        self._cache.put(key, value=replace(read, probabilities=dict(read.probabilities)))
        return read
