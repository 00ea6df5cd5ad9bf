"""Circuit breaker of one endpoint: when every further call would fail, none is sent.

A wrong key or model name must not cost thousands of calls, and a server that died must not turn the
rest of a run into losses (specification: harness J6).
"""

from __future__ import annotations

import time
from collections import Counter
from typing import NoReturn

from r2w_eval.errors import EndpointDown, EndpointSilent
from r2w_eval.models.chat import CallStatus

SYSTEMATIC_FAILURES = 20
SILENCE = (CallStatus.TRANSPORT, CallStatus.TIMEOUT)


class Health:
    """Is told of every reply and failure of one endpoint; `down` says why nothing more is sent.

    A server may restart. One that has not answered for longer than `patience_s` is taken for dead,
    and `silent` says so: no new request is sent. Requests already being retried use up their tries
    (unless `is_strict`), since they may be the only ones that this server cannot answer.
    """

    def __init__(self, name: str, patience_s: float, *, is_strict: bool = False) -> None:
        self.down: str | None = None
        self.silent: str | None = None
        self._is_silence = False
        self._name = name
        self._patience_s = patience_s
        self._is_strict = is_strict
        self._has_answered = False
        self._failures: Counter[str] = Counter()
        self._silent_since: float | None = None

    @property
    def has_answered(self) -> bool:
        """Whether a usable reply ever came."""
        return self._has_answered

    def check(self, is_again: bool) -> None:
        """Raises EndpointDown when a request is not worth sending, and its subclass EndpointSilent
        when the reason is silence and not what the endpoint replied. `is_again`: it is a retry.
        """
        if self.down:
            raise EndpointSilent(self.down) if self._is_silence else EndpointDown(self.down)
        goes_on = is_again and not self._is_strict
        if self.silent and not goes_on:
            raise EndpointSilent(self.silent)

    def refuse(self, reason: str) -> NoReturn:
        """Raises EndpointDown, now and for every request after it: the endpoint said what ends all
        work there, whatever its silence before.
        """
        self.down, self._is_silence = reason, False
        raise EndpointDown(reason)

    def replied(self) -> None:
        """A usable reply came."""
        self._has_answered = True
        self._failures.clear()
        self._silent_since = self.silent = None

    def lost(self, status: CallStatus) -> None:
        """A try failed and will be repeated. A refusal (429) shows that the server is alive."""
        if status is CallStatus.RATE_LIMITED:
            self._silent_since = self.silent = None
            return
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since > self._patience_s:
            self.silent = (
                f"{self._name} has answered nobody for {now - self._silent_since:.0f} s "
                f"({status!s}). See that it runs, then run the same command again"
            )

    def failed(self, status: CallStatus, message: str) -> None:
        """A call failed for good; `message` is what the server said.

        Before the first reply of the session, repeated failures of any kind mean that the endpoint
        does not work. After it, only repeated rate limits do: everything else is a failure of a
        single request, or silence.
        """
        if self.down:
            # what the endpoint said stands
            return
        if status not in SILENCE:
            self._silent_since = self.silent = None
        if self._has_answered and status is not CallStatus.RATE_LIMITED:
            self._failures.clear()
            return
        self._failures[status] += 1
        if (count := self._failures[status]) >= SYSTEMATIC_FAILURES:
            self._is_silence = status in SILENCE
            calls = "last" if self._has_answered else "first"
            self.down = (
                f"The {calls} {count} calls to {self._name} all failed with {status!s}, at last: "
                f"{message}. Where that names a parameter, leave it out with --omit NAME or set it "
                f"with --gen-kwargs or --judge-kwargs; else check the address and the model name. "
                f"Then run the same command again"
            )
