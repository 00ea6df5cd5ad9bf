"""Scorers for trainings of the toy policy; one of them ends its process as a kill would."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from r2w_eval.reward_models.items import ItemScore, ReflectionItem


class Rain:
    """Counts rain in writings; reflections that speak of it are good.

    With TOY_KILL_AT=n the process is killed at the n-th batch of writings.
    """

    id = "rain"

    def __init__(self) -> None:
        self.batches = 0

    def describe(self) -> Mapping[str, Any]:
        return {}

    def score(self, items: Sequence[Any]) -> list[ItemScore]:
        if items and not isinstance(items[0], ReflectionItem):
            self.batches += 1
            if self.batches == int(os.environ.get("TOY_KILL_AT", "0")):
                os.kill(os.getpid(), signal.SIGKILL)
        return [ItemScore(item.id, self._value(item)) for item in items]

    def _value(self, item: Any) -> float:
        if isinstance(item, ReflectionItem):
            return 1.0 if "rain" in item.reflection else -1.0
        return float(item.response.count("rain"))
