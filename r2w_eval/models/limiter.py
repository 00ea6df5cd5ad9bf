"""Adaptive concurrency for one address (specification: harness J2, J3).

A round is as many clean replies as the limit. The limit starts at 20 requests in flight.

Growth: until the first refusal or wave of timeouts, a round doubles the limit, or quadruples it
while replies are about as fast as in the fastest round so far, because then the server has room.
After that a round adds 5 %.

Cuts: a refusal (429, 503) cuts the limit by a fifth, at most once in 15 s; the first one halves a
limit that has just grown. Where a tenth of a round times out, the limit is halved, or cut to three
quarters of the replies that came meanwhile if that is less; once for requests sent together.

Queues: an overloaded server may queue requests instead of refusing them. By Little's law latency
then grows with what is in flight, so the limit grows fast only while replies would still come
within half of the time limit, and not at all where they would take three quarters of it.
`Retry-After` pauses the address.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

START = 20
CUT = 0.8
CUT_INTERVAL_S = 15.0
LATE_SHARE = 0.1
HALF = 0.5
GROWTH = 1.05
DOUBLE, FAST = 2.0, 4.0
# Mean latency of a round over the fastest round's, up to which nothing queues at the server
FLAT = 1.5
# Mean latency as a share of the time limit: up to where doubling may lead, and where growth ends
BEARABLE = 0.5
TOO_SLOW = 0.75
MAX_PAUSE_S = 300.0


class Limiter:
    """How many requests one address may have in flight; `fixed` switches the adaptation off.

    `timeout_s` is how long a request waits for its reply. The queue over all addresses decides who
    gets a free place (see `replicas`).
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
        self.answered = 0
        """Clean replies so far."""
        self._fixed = fixed
        self._timeout_s = timeout_s
        self._clock = clock
        self._congested = self._has_stood = False
        self._fastest_s = math.inf
        self._start_round()
        self._last_cut = -math.inf
        self._paused_until = -math.inf

    @property
    def is_paused(self) -> bool:
        """The address asked for a pause that is not over."""
        return self.pause_left_s > 0

    @property
    def pause_left_s(self) -> float:
        """Seconds until the end of the pause, if there is one."""
        return max(0.0, self._paused_until - self._clock())

    @property
    def has_room(self) -> bool:
        """One more request may be sent now."""
        return self.in_flight < int(self.limit) and not self.is_paused

    def succeeded(self, latency_s: float = 0.0) -> None:
        """A clean reply after this long: as many of them as the limit are a round, and it grows."""
        self.answered += 1
        self._clean += 1
        self._clean_s += latency_s
        if self._fixed or self._clean < int(self.limit):
            return
        mean_s = self._clean_s / self._clean
        share = mean_s / self._timeout_s
        self._start_round()
        pace = self._pace(mean_s)
        if share > 0:
            pace = min(pace, max(GROWTH, BEARABLE / share))
        grown = min(float(self.ceiling), max(self.limit * pace, self.limit + 1))
        self._has_stood = grown == self.limit
        if share * grown / self.limit <= TOO_SLOW:
            self.limit = grown

    def _pace(self, mean_s: float) -> float:
        self._fastest_s = min(self._fastest_s, mean_s)
        if self._congested:
            return GROWTH
        return FAST if mean_s <= FLAT * self._fastest_s else DOUBLE

    def refused(self) -> None:
        """A reply 429 or 503: cut the limit, at most once in 15 s."""
        # a growth that no clean round has followed may have gone four times too far
        is_known = self._congested or self._has_stood
        self._cut(CUT if is_known else HALF, self._clock() - CUT_INTERVAL_S)

    def timed_out(self, sent_at: float, answered: int) -> None:
        """A request sent at `sent_at` timed out, while `answered` others got their reply.

        A single timeout may be a request that hangs, whatever the limit, and changes nothing. When
        they reach a tenth of a round, the limit is cut.
        """
        if sent_at <= self._last_cut:
            return
        self._late += 1
        if self._late >= self.limit * LATE_SHARE:
            bearable = math.ceil(TOO_SLOW * answered) if answered else math.inf
            self._cut(min(HALF, bearable / self.limit), sent_at)

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
