"""Load balancing over equal servers behind one endpoint: one queue for all of them.

The first request in the queue goes to the first address with a free slot; among several, to the one
with the lowest load relative to its limit. An address that failed a moment ago gets nothing while
another one works. An address that serves another model than the rest is excluded for the whole
session, so that texts of two models never mix in one run.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence, Set

from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.models.limiter import Limiter

AVOID_FAILING_S = 5.0
# timers may end a little early
TIMER_SLACK_S = 0.001


class Replicas:
    """State of every address of one endpoint."""

    def __init__(self, limiters: Mapping[str, Limiter]) -> None:
        self.limiters = limiters
        self.out: dict[str, str] = {}
        """Addresses that get no more requests, with the reason."""
        self._answered: set[str] = set()
        self._failed_at = dict.fromkeys(limiters, float("-inf"))
        self._returned: str | None = None
        self._waiting: deque[tuple[asyncio.Future[str | None], Set[str]]] = deque()

    def failed(self, url: str) -> None:
        """Prefer other addresses for a while: a dead one has the lowest load, and would otherwise
        attract every request.
        """
        self._failed_at[url] = time.monotonic()
        if len(self.limiters) > 1:
            self._look_again(AVOID_FAILING_S)

    def answered(self, url: str) -> None:
        """A usable reply came from there."""
        self._answered.add(url)

    def answering(self) -> Set[str]:
        """Addresses that have answered since the client was made, as the model of the rest."""
        return self._answered - self.out.keys()

    def can_spare(self, url: str, avoid: Set[str] = frozenset()) -> bool:
        """Whether another address is left for a request that must not go to `avoid`."""
        return any(other != url and other not in avoid for other in self._usable())

    def put_out(self, url: str, reason: str) -> None:
        """Send nothing there any more; what it was asked goes to the others."""
        self.out.setdefault(url, reason)
        self.hand_out()

    def is_same_model(self, url: str, returned: str | None) -> bool:
        """Whether a reply comes from the model of the rest; if not, its address is out.

        The first returned id is the one of the rest, unless `agree` has found it before.
        """
        if len(self.limiters) == 1 or returned is None:
            return True
        self._returned = self._returned or returned
        if returned != self._returned:
            self.put_out(url, f"{url} serves {returned!r}, the rest {self._returned!r}")
        return url not in self.out

    def agree(self, returned: Mapping[str, str]) -> None:
        """Settle which model is served, from the id that each address returned.

        Raises UsageError when they are not the same.
        """
        if not returned:
            return
        ((common, _),) = Counter(returned.values()).most_common(1)
        odd = [f"{url} serves {name!r}" for url, name in returned.items() if name != common]
        if odd:
            raise UsageError(
                f"{', '.join(odd)}, the rest {common!r}: the addresses of one endpoint must "
                f"serve one model. Leave the odd ones out, or run them as models of their own"
            )
        self._returned = common
        self._answered.update(returned)

    async def take(self, avoid: Set[str] = frozenset(), *, is_urgent: bool = False) -> str:
        """An address with a place, which is now taken; what is urgent goes before the rest.

        First come, first served; an address in `avoid` only when no other is left. Raises
        EndpointDown when every address is out.
        """
        place: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if is_urgent else self._waiting.append)((place, avoid))
        self.hand_out()
        try:
            url = await place
        except asyncio.CancelledError:
            # handed a place and cancelled at once: it goes to the next in the queue
            if place.done() and not place.cancelled() and (taken := place.result()) is not None:
                self.release(taken)
            raise
        if url is None:
            raise EndpointDown(f"No address is left: {'; '.join(self.out.values())}")
        return url

    def release(self, url: str) -> None:
        """Give a place back; it passes to the first in the queue."""
        self.limiters[url].in_flight -= 1
        self.hand_out()

    def pause(self, url: str, seconds: float) -> None:
        """Nobody sends there for so long; the others go on."""
        self.limiters[url].pause(seconds)
        self._look_again(self.limiters[url].pause_left_s)

    def hand_out(self) -> None:
        """Give the free places to those who wait; due whenever there may be new ones."""
        if not self._usable():
            self._give_up()
        passed_over = []
        while self._waiting and (free := self._free()):
            place, avoid = self._waiting.popleft()
            wanted = [url for url in free if url not in avoid]
            if place.done():
                continue
            if not wanted and self.can_spare("", avoid):
                passed_over.append((place, avoid))
                continue
            url = min(wanted or free, key=self._load)
            self.limiters[url].in_flight += 1
            place.set_result(url)
        self._waiting.extendleft(reversed(passed_over))

    def _give_up(self) -> None:
        while self._waiting:
            place, _ = self._waiting.popleft()
            if not place.done():
                place.set_result(None)

    def _look_again(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds + TIMER_SLACK_S, self.hand_out)

    def _usable(self) -> Sequence[str]:
        return [url for url in self.limiters if url not in self.out]

    def _free(self) -> Sequence[str]:
        """Addresses with room; one that fails is none while another works, full or not."""
        live = [url for url in self._usable() if not self.limiters[url].is_paused]
        long_ago = time.monotonic() - AVOID_FAILING_S
        working = [url for url in live if self._failed_at[url] < long_ago]
        return [url for url in working or live if self.limiters[url].has_room]

    def _load(self, url: str) -> float:
        return self.limiters[url].in_flight / self.limiters[url].limit
