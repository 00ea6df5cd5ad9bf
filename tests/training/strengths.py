"""A judge of texts such as "strength 5": the stronger wins, whatever it cannot read is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from r2w_eval.types import Score


def text_of(strength: int) -> str:
    return f"strength {strength}"


@dataclass
class Strengths:
    """`lost` are strengths whose second showing gets no verdict; `first_wins` looks at no text."""

    lost: frozenset[int] = frozenset()
    first_wins: bool = False
    waited_s: float = 0.0
    shown: list[tuple[int, int]] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return len(self.shown)

    async def score(self, items: Sequence[Any]) -> list[Score]:
        return [item.parse(item.request, self._reply(item.request)) for item in items]

    def _reply(self, request: Any) -> str:
        content = request.messages[-1].content
        first, second = map(int, re.findall(r"strength (\d+)", content))
        self.shown.append((first, second))
        if second in self.lost:
            return "I would rather not say."
        label = "A>B" if self.first_wins or first > second else "A=B" if first == second else "B>A"
        return f'{{"verdict": "{label}"}}'
