"""Equal servers behind one endpoint: who takes the next request, and who is out.

A request goes to the address with the least in flight and waiting for its limit; one that pauses or
failed a moment ago comes last. An address that turns out to serve another model than the rest is
out for the whole session, so that texts of two models never mix in one run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set

from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.limiter import Limiter

AVOID_FAILING_S = 5.0


class Replicas:
    """State of every address of one endpoint."""

    def __init__(self, limiters: Mapping[str, Limiter]) -> None:
        self.limiters = limiters
        self.out: dict[str, str] = {}
        """Addresses that get no more requests, with the reason."""
        self._failed_at = dict.fromkeys(limiters, float("-inf"))
        self._returned: str | None = None

    def failed(self, url: str) -> None:
        """Others go first for a while: a dead address is the least loaded, and would draw all."""
        self._failed_at[url] = time.monotonic()

    def can_spare(self, url: str, avoid: Set[str] = frozenset()) -> bool:
        """Whether another address is left for a request that must not go to `avoid`."""
        return any(other != url and other not in avoid for other in self._usable())

    def put_out(self, url: str, reason: str) -> None:
        """Send nothing there any more; what it was asked goes to the others."""
        self.out.setdefault(url, reason)

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

    async def take(
        self, avoid: Set[str] = frozenset(), *, is_urgent: bool = False
    ) -> tuple[str, Limiter]:
        """A slot at the best address; who waits at one that pauses goes to one that does not.

        Raises EndpointDown when every address is out.
        """
        while True:
            usable = self._usable()
            if not usable:
                raise EndpointDown(f"No address is left: {'; '.join(self.out.values())}")
            url = min([u for u in usable if u not in avoid] or usable, key=self._burden)
            elsewhere = any(not self.limiters[u].is_paused for u in usable if u != url)
            limiter = self.limiters[url]
            if await limiter.acquire(leave_when_paused=elsewhere, is_urgent=is_urgent):
                return url, limiter

    def _usable(self) -> Sequence[str]:
        return [url for url in self.limiters if url not in self.out]

    def _burden(self, url: str) -> tuple[bool, bool, float]:
        """What speaks against an address: it pauses, it fails, it carries much already."""
        limiter = self.limiters[url]
        failing = time.monotonic() - self._failed_at[url] < AVOID_FAILING_S
        load = (limiter.in_flight + limiter.n_waiting) / limiter.limit
        return limiter.is_paused, failing, load
