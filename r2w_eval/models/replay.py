"""`--replay DIR`: every reply from the records of an earlier run, and nothing from a model.

The records are that run's reply cache (`--cache-dir DIR`) and its web pages (`--pages
record:DIR/pages`). What they lack ends the run (specification: harness R8).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r2w_eval.errors import DataError, UsageError
from r2w_eval.models.cache import ReplyCache
from r2w_eval.models.chat import ChatModel, ChatRequest, LabelProbabilities, Reply
from r2w_eval.paths import CACHE_FILE
from r2w_eval.types import Message, Scale


class MissingRecord(DataError):
    """The records hold no reply to a request."""


class ReplayedModel:
    """Stands behind the cache where a model would, under its name and with its facts, and has no
    way to ask it.
    """

    def __init__(self, model: ChatModel, folder: str) -> None:
        self._model = model
        self._folder = folder

    @property
    def id(self) -> str:
        """The model's name."""
        return self._model.id

    def describe(self) -> dict[str, Any]:
        """The model's facts."""
        return self._model.describe()

    async def complete(self, request: ChatRequest) -> Reply:
        """Raises MissingRecord: the cache had none."""
        ask = f", ask {request.ask + 1}" if request.ask else ""
        raise self._missing(f"request to {self.id}{ask} with repeat {request.index + 1}")

    async def read_labels(self, messages: tuple[Message, ...], scale: Scale) -> LabelProbabilities:
        """Raises MissingRecord: the cache had none."""
        raise self._missing(f"reading of probabilities by {self.id}")

    async def close(self) -> None:
        """Close the model."""
        await self._model.close()

    def _missing(self, what: str) -> MissingRecord:
        return MissingRecord(
            f"--replay {self._folder} has no record of this {what}. Record it: the same command "
            f"with --cache-dir {self._folder} instead of --replay"
        )


def open_records(folder: str) -> ReplyCache:
    """The reply cache of the recorded run. Raises UsageError."""
    path = Path(folder) / CACHE_FILE
    if not path.is_file():
        raise UsageError(
            f"--replay {folder!r}: no {CACHE_FILE} there. Record a run first: the same command "
            f"with --cache-dir {folder} instead"
        )
    return ReplyCache(path)


@contextmanager
def naming(work: str) -> Iterator[None]:
    """Put what was being done before the message of a missing record."""
    try:
        yield
    except MissingRecord as missing:
        raise MissingRecord(f"{work}: {missing}") from missing
