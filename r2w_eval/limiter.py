"""Adaptive concurrency for one endpoint (specification: harness J2, J3).

Starts at 20 in flight and doubles per clean round. Refusals (429, 503) cut it by a fifth, at most
once in 15 s; where a tenth of a round runs out of time it is halved, once for all requests that
were on the way together; after either it grows by 5 % per clean round. A server that queues answers
late instead of refusing: by Little's law the wait grows with what is in flight, so the limit
doubles only where replies would still come within half of the time limit, and stays where they take
three quarters of it. `Retry-After` pauses the whole endpoint.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

START = 20
CUT = 0.8
CUT_INTERVAL_S = 15.0
LATE_SHARE = 0.1
LATE_CUT = 0.5
GROWTH = 1.05
# Mean latency as a share of the time limit: up to where doubling may lead, and where growth ends
BEARABLE = 0.5
TOO_SLOW = 0.75
MAX_PAUSE_S = 300.0


class Limiter:
    """Hands out slots, first come, first served; `fixed` switches the adaptation off.

    `timeout_s` is how long a request waits for its reply.
    """

    def __init__(
        self,
        ceiling: int,
        *,
        fixed: bool = False,
        timeout_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ceiling = ceiling
        self.limit = float(ceiling if fixed else min(START, ceiling))
        self.in_flight = 0
        self.cuts = 0
        self._fixed = fixed
        self._timeout_s = timeout_s
        self._clock = clock
        self._congested = False
        self._start_round()
        self._last_cut = -math.inf
        self._paused_until = -math.inf
        self._waiting: deque[tuple[asyncio.Future[bool], bool]] = deque()

    @property
    def n_waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    @property
    def is_paused(self) -> bool:
        """The endpoint asked for a pause that is not over."""
        return self._paused_until > self._clock()

    async def acquire(self, *, leave_when_paused: bool = False, is_urgent: bool = False) -> bool:
        """Wait for a slot and for the end of a pause; what is urgent goes before the rest.

        With `leave_when_paused` a pause ends the wait: False, and no slot was taken.
        """
        if self.is_paused and leave_when_paused:
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (waiter, leave_when_paused)
        (self._waiting.appendleft if is_urgent else self._waiting.append)(entry)
        self._hand_out()
        try:
            return await waiter
        except asyncio.CancelledError:
            # handed a slot and cancelled at once: it goes to the next in the queue
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self.release()
            raise

    def release(self) -> None:
        """Give the slot back; it passes to the first in the queue."""
        self.in_flight -= 1
        self._hand_out()

    def succeeded(self, latency_s: float = 0.0) -> None:
        """A clean reply after this long: as many of them as the limit are a round, and it grows."""
        self._clean += 1
        self._clean_s += latency_s
        if self._fixed or self._clean < int(self.limit):
            return
        share = self._clean_s / self._clean / self._timeout_s
        self._start_round()
        pace = GROWTH if self._congested else 2.0
        if share > 0:
            pace = min(pace, max(GROWTH, BEARABLE / share))
        grown = min(float(self.ceiling), max(self.limit * pace, self.limit + 1))
        if share * grown / self.limit <= TOO_SLOW:
            self.limit = grown
        self._hand_out()

    def refused(self) -> None:
        """A 429 or 503: cut the limit, at most once in 15 s."""
        self._cut(CUT, self._clock() - CUT_INTERVAL_S)

    def timed_out(self, sent_at: float) -> None:
        """No reply in time to a request sent then: with a tenth of a round like it, halve the
        limit. Single ones are hangs, whatever the limit.
        """
        if sent_at < self._last_cut:
            return
        self._late += 1
        if self._late >= self.limit * LATE_SHARE:
            self._cut(LATE_CUT, sent_at)

    def _cut(self, factor: float, since: float) -> None:
        """Unless a cut after `since` has answered this already."""
        self._start_round()
        self._congested = True
        if self._fixed or self._last_cut > since:
            return
        self._last_cut = self._clock()
        self.cuts += 1
        self.limit = max(1.0, self.limit * factor)

    def _start_round(self) -> None:
        self._clean, self._clean_s, self._late = 0, 0.0, 0

    def pause(self, seconds: float) -> None:
        """Nobody sends for this long (capped at 300 s)."""
        # in this order, a NaN is no pause
        seconds = min(max(0.0, seconds), MAX_PAUSE_S)
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        # those in the queue may have another endpoint to go to
        queue, self._waiting = self._waiting, deque()
        for waiter, may_leave in queue:
            if not may_leave:
                self._waiting.append((waiter, may_leave))
            elif not waiter.done():
                waiter.set_result(False)
        asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        # timers end a little early, and a later refusal may have made the pause longer
        if (left := self._paused_until - self._clock()) > 0:
            asyncio.get_running_loop().call_later(left, self._resume)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and not self.is_paused and self.in_flight < int(self.limit):
            waiter, _ = self._waiting.popleft()
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(True)
