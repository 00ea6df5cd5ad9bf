"""A judge for rewards: asked from the training's thread, and waited for while it is down.

A judge that does not answer for minutes makes training wait, with growing pauses, for at most a
stated time; what is unanswered then has a status and no value, never 0.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from r2w_eval.errors import EndpointDown, EndpointSilent, UnknownName, UsageError
from r2w_eval.judge.scorers import ScoreItem, Scorer, TextJudge, add_usage
from r2w_eval.models.chat import ChatModel
from r2w_eval.models.thinking import ThinkTags
from r2w_eval.run.opening import ModelOptions, ModelPool
from r2w_eval.types import JudgeStatus, Score, Usage
from r2w_eval.waiting import gather

T = TypeVar("T")
LONGEST_PAUSE_S = 60.0
LONGEST_END_S = 10.0


class Background:
    """An event loop in a thread of its own: rewards are asked for while the model generates."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()

    def submit(self, job: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a job; its result is there when the future is done."""
        return asyncio.run_coroutine_threadsafe(job, self._loop)

    def finish(self, job: Coroutine[Any, Any, None]) -> None:
        """Submit a last job and wait for it, except in the loop's own thread, from which the
        garbage collector may call.
        """
        done = self.submit(job)
        if threading.current_thread() is not self._thread:
            done.result(LONGEST_END_S)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a silent judge is waited for, and the first pause; seconds."""

    limit_s: float = 1800.0
    first_pause_s: float = 1.0


class PatientJudge:
    """A chat judge behind `--judge`'s words that outlives the absence of its endpoint.

    `asked`, `statuses`, `waited_s` and `usage` count over the life of this object; `tags` are those
    of the model once it is open.
    """

    def __init__(self, spec: str, options: ModelOptions, patience: Patience = Patience()) -> None:
        self._spec = spec
        self._options = options
        self._patience = patience
        self._pool: ModelPool | None = None
        self._chat: ChatModel | None = None
        self._judge: Scorer | None = None
        self._opening = asyncio.Lock()
        self.tags = ThinkTags()
        self.asked = 0
        self.statuses: Counter[str] = Counter()
        self.waited_s = 0.0
        self.usage = Usage()

    async def open(self, instead_of: Scorer | None = None) -> ChatModel:
        """Open the endpoint, unless another task has already replaced `instead_of`.

        Raises UsageError when nothing answers, EndpointDown when the key is refused.
        """
        async with self._opening:
            if self._chat is not None and self._judge is not instead_of:
                return self._chat
            await self._close()
            pool = ModelPool(self._options)
            try:
                opened = await pool.model(self._spec, "R2W_JUDGE_API_KEY")
            except BaseException:
                await pool.close()
                raise
            self._pool, self._chat, self.tags = pool, opened.chat, opened.tags
            self._judge = TextJudge(opened.chat, opened.tags)
            return opened.chat

    async def close(self) -> None:
        """Give back the connections."""
        async with self._opening:
            await self._close()

    async def _close(self) -> None:
        pool, self._pool, self._chat, self._judge = self._pool, None, None, None
        if pool is not None:
            await pool.close()

    async def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """One score per item, in order; unanswered ones have a status.

        Raises EndpointDown when the endpoint is there and refuses all work (a wrong key or name),
        and UnknownName when no judge is called so: waiting would not mend that.
        """
        found: dict[int, Score] = {}
        waiting = list(range(len(items)))
        deadline = time.monotonic() + self._patience.limit_s
        pause = self._patience.first_pause_s
        while True:
            scores = await self._ask([items[i] for i in waiting])
            found |= dict(zip(waiting, scores, strict=True))
            waiting = [i for i in waiting if found[i].status.is_transient]
            if not waiting or time.monotonic() + pause > deadline:
                break
            await asyncio.sleep(pause)
            self.waited_s += pause
            pause = min(2 * pause, LONGEST_PAUSE_S)
        self.asked += len(items)
        self.statuses.update(str(score.status) for score in found.values())
        return [found[i] for i in range(len(items))]

    async def _ask(self, items: Sequence[ScoreItem]) -> list[Score]:
        try:
            if self._judge is None:
                await self.open()
        except UnknownName:
            # no judge of that name will ever come
            raise
        except UsageError as error:
            return [_unanswered(error)] * len(items)
        judge = self._judge
        if judge is None:
            # closed again meanwhile
            return await self._ask(items)
        return await gather([self._ask_one(judge, item) for item in items])

    async def _ask_one(self, judge: Scorer, item: ScoreItem) -> Score:
        """By itself: an endpoint that goes down takes no verdict with it that has been given."""
        try:
            (verdict,) = await judge.score([item])
        except EndpointSilent as error:
            # it may have come back meanwhile: its health begins anew
            await self._is_there(judge)
            return _unanswered(error)
        except EndpointDown as error:
            if judge is self._judge and await self._is_there(judge):
                raise
            return _unanswered(error)
        self.usage = add_usage(self.usage, verdict.usage)
        return verdict.score

    async def _is_there(self, judge: Scorer) -> bool:
        """Whether the endpoint answers. One that does, and refuses, is not worth waiting for."""
        try:
            await self.open(instead_of=judge)
        except UsageError:
            return False
        return True


def _unanswered(error: Exception) -> Score:
    return Score(None, JudgeStatus.TRANSPORT, str(error))
