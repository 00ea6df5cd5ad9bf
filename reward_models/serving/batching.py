"""Batches the items of concurrent requests, so that a scorer is called with many at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from r2w_eval.reward_models.items import Item, ItemScore, WritingItem
from r2w_eval.reward_models.scorer import ItemScorer

LOG = logging.getLogger(__name__)
MAX_BATCH_ITEMS = 256
MAX_BATCH_CHARS = 400_000


@dataclass(slots=True)
class Counters:
    """What /metrics shows."""

    requests: int = 0
    items: int = 0
    unscored: int = 0
    rejected: int = 0
    timeouts: int = 0
    batches: int = 0
    score_seconds: float = 0.0
    chars: int = 0

    def text(self, waiting: int) -> str:
        """Prometheus exposition format."""
        own = {name: getattr(self, name) for name in self.__slots__}
        lines = [f"# TYPE r2w_{name}_total counter\nr2w_{name}_total {value}"
                 for name, value in own.items()]  # fmt: skip
        return "\n".join([*lines, f"# TYPE r2w_waiting gauge\nr2w_waiting {waiting}\n"])


class Overloaded(Exception):
    """The queue is full."""


@dataclass(slots=True)
class Batcher:
    """Queues items, and scores batches of similar length in a thread."""

    scorer: ItemScorer
    max_waiting: int
    counters: Counters = field(default_factory=Counters)
    _queue: deque[tuple[Item, asyncio.Future[ItemScore]]] = field(default_factory=deque)
    _ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> int:
        """Items not scored yet."""
        return len(self._queue)

    async def score(self, items: Sequence[Item | ItemScore]) -> list[ItemScore]:
        """Scores in order. Raises Overloaded, and RuntimeError if the scorer failed."""
        good = [item for item in items if not isinstance(item, ItemScore)]
        if len(self._queue) + len(good) > self.max_waiting:
            raise Overloaded
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in good]
        self._queue.extend(zip(good, futures, strict=True))
        self._ready.set()
        try:
            found = iter(await asyncio.gather(*futures))
        finally:
            # items of a client that has left need not be scored
            for future in futures:
                future.cancel()
        return [item if isinstance(item, ItemScore) else next(found) for item in items]

    async def run(self) -> None:
        """Score until cancelled."""
        while True:
            await self._ready.wait()
            batch = self._take()
            if not batch:
                self._ready.clear()
                continue
            await self._score(batch)

    def _take(self) -> list[tuple[Item, asyncio.Future[ItemScore]]]:
        """The longest-waiting item and those closest to it in length, up to the limits.

        So no item starves. Items that nobody waits for are dropped.
        """
        alive = [entry for entry in self._queue if not entry[1].done()]
        oldest = size(alive[0][0]) if alive else 0
        batch: list[tuple[Item, asyncio.Future[ItemScore]]] = []
        chars = 0
        for entry in sorted(alive, key=lambda e: abs(size(e[0]) - oldest)):
            if batch and (len(batch) >= MAX_BATCH_ITEMS or chars > MAX_BATCH_CHARS):
                break
            batch.append(entry)
            chars += size(entry[0])
        chosen = {id(entry) for entry in batch}
        self._queue = deque(entry for entry in alive if id(entry) not in chosen)
        return batch

    async def _score(self, batch: Sequence[tuple[Item, asyncio.Future[ItemScore]]]) -> None:
        items = [item for item, _ in batch]
        started = time.monotonic()
        try:
            scores = await asyncio.to_thread(self.scorer.score, items)
            if len(scores) != len(items):
                raise ValueError(f"{len(scores)} scores for {len(items)} items")
            unscored = sum(s.value is None for s in scores)
        except Exception as error:  # noqa: BLE001 - a scorer may be anyone's code
            await self._fail(batch, error)
            return
        self.counters.batches += 1
        self.counters.items += len(items)
        self.counters.chars += sum(map(size, items))
        self.counters.unscored += unscored
        self.counters.score_seconds += time.monotonic() - started
        for (_, future), score in zip(batch, scores, strict=True):
            if not future.done():
                future.set_result(score)

    async def _fail(
        self, batch: Sequence[tuple[Item, asyncio.Future[ItemScore]]], error: Exception
    ) -> None:
        """Retry a failed batch item by item, so that one item fails no other client's."""
        if len(batch) > 1:
            LOG.warning("%d items failed together: %s", len(batch), type(error).__name__)
            for entry in batch:
                if not entry[1].done():
                    await self._score([entry])
            return
        LOG.error("scoring failed", exc_info=error)
        for _, future in batch:
            if not future.done():
                future.set_exception(RuntimeError(f"the scorer failed: {type(error).__name__}"))


def size(item: Item) -> int:
    """Characters of an item."""
    if isinstance(item, WritingItem):
        return len(item.prompt) + len(item.response)
    return sum(map(len, (item.prompt, item.draft, item.reflection, item.revision or "")))
