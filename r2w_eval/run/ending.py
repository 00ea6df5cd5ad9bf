"""How the work of a run ends when one of its endpoints refuses all of it.

Nothing new is sent then; what others were asked is waited for and kept, since it is paid for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from r2w_eval.errors import EndpointDown
from r2w_eval.judge.scorers import ScoreItem, Scorer, Verdict
from r2w_eval.models.chat import CallFailed, CallStatus
from r2w_eval.types import JudgeStatus, Score


class Ending:
    """The first endpoint that was down, of all that a run asks."""

    def __init__(self) -> None:
        self.cause: EndpointDown | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Around a call to an endpoint. Raises CallFailed(NOT_SENT) when that one is down, and for
        every later call.
        """
        if self.cause is not None:
            raise CallFailed(CallStatus.NOT_SENT, str(self.cause))
        try:
            yield
        except EndpointDown as error:
            self.cause = self.cause or error
            raise CallFailed(CallStatus.NOT_SENT, str(error)) from error

    async def ask(self, scorer: Scorer, item: ScoreItem) -> Verdict:
        """The verdict on one item; `not_sent` where an endpoint is down."""
        try:
            with self.watch():
                (verdict,) = await scorer.score([item])
        except CallFailed as failure:
            return Verdict(Score(None, JudgeStatus.NOT_SENT, str(failure)))
        return verdict

    def check(self) -> None:
        """Raises EndpointDown, once nothing is on its way any more."""
        if self.cause is not None:
            raise self.cause
