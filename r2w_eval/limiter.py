"""Adaptive concurrency for one endpoint (specification: harness J2, J3).

Starts at 20 in flight, doubles per clean round until the first congestion, then cuts by a fifth at
most once in 15 s and grows by 5 % per clean round. `Retry-After` pauses the whole endpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

START = 20
CUT = 0.8
CUT_INTERVAL_S = 15.0
GROWTH = 1.05
MAX_PAUSE_S = 300.0


class Limiter:
    """Hands out slots; `fixed` switches the adaptation off."""

    def __init__(
        self, ceiling: int, *, fixed: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.ceiling = ceiling
        self.limit = float(ceiling if fixed else min(START, ceiling))
        self.in_flight = 0
        self.cuts = 0
        self._fixed = fixed
        self._clock = clock
        self._congested = False
        self._clean = 0
        self._last_cut = float("-inf")
        self._paused_until = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def n_waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    @property
    def is_paused(self) -> bool:
        """The endpoint asked for a pause that is not over."""
        return self._paused_until > self._clock()

    async def acquire(self, *, leave_when_paused: bool = False) -> bool:
        """Wait for a slot and for the end of a pause.

        With `leave_when_paused` a pause ends the wait: False, and no slot was taken.
        """
        while True:
            pause = self._paused_until - self._clock()
            if pause > 0 and leave_when_paused:
                return False
            if pause > 0:
                await asyncio.sleep(pause)
            elif self.in_flight >= int(self.limit):
                await self._wait()
            else:
                break
        self.in_flight += 1
        return True

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # woken and cancelled at once: the slot goes to the next in the queue
            if waiter.done() and not waiter.cancelled():
                self._wake()
            raise

    def release(self) -> None:
        """Give the slot back and wake whoever can go now."""
        self.in_flight -= 1
        self._wake()

    def succeeded(self) -> None:
        """A clean reply: after as many of them as the limit, the limit grows."""
        self._clean += 1
        if self._fixed or self._clean < int(self.limit):
            return
        self._clean = 0
        grown = self.limit * GROWTH if self._congested else self.limit * 2
        self.limit = min(float(self.ceiling), max(grown, self.limit + 1))
        self._wake()

    def congested(self) -> None:
        """A 429, 503 or timeout: cut the limit, at most once in 15 s."""
        self._clean = 0
        self._congested = True
        now = self._clock()
        if self._fixed or now - self._last_cut < CUT_INTERVAL_S:
            return
        self._last_cut = now
        self.cuts += 1
        self.limit = max(1.0, self.limit * CUT)

    def pause(self, seconds: float) -> None:
        """Nobody sends for this long (capped at 300 s)."""
        until = self._clock() + min(max(seconds, 0.0), MAX_PAUSE_S)
        self._paused_until = max(self._paused_until, until)
        # those in the queue may have another endpoint to go to
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _wake(self) -> None:
        free = int(self.limit) - self.in_flight
        while free > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1
