"""Questions outside a suite: asked of all judges side by side, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r2w_eval.errors import EndpointDown
from r2w_eval.judge.scorers import ScoreItem, Verdict
from r2w_eval.records.plan import Judging, Progress
from r2w_eval.run.questions import Question, Questioner
from r2w_eval.store import RunFolder
from r2w_eval.types import Decoding, JudgeRequest, Message, Score

N = 9


class Judge:
    """Says 7 after a while; a refusing one ends at its third question."""

    def __init__(self, name: str, refuses: bool = False) -> None:
        self.id = name
        self.refuses = refuses
        self.asked = 0

    def describe(self) -> dict[str, Any]:
        return {}

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        self.asked += 1
        if self.refuses and self.asked == 3:
            raise EndpointDown("wrong key")
        await asyncio.sleep(0.0 if self.refuses else 0.02)
        return [Verdict(Score(7.0)) for _ in items]

    async def close(self) -> None: ...


def ask(folder: Path, *judges: Judge) -> Progress:
    questions = [
        Question(
            "t", str(n), JudgeRequest("q", (Message("user", str(n)),)), lambda r, t: Score(7.0)
        )
        for n in range(N)
    ]
    run, progress = RunFolder(folder), Progress()
    with run.open_writers() as writers:
        asker = Questioner(writers, Judging(judges, 8), Decoding(), progress)
        asyncio.run(asker.ask_all({judge.id: questions for judge in judges}))
    return progress


def test_one_judge_that_ends_the_work_costs_no_verdict_of_another(tmp_path: Path) -> None:
    first = Judge("first")
    with pytest.raises(EndpointDown, match="wrong key"):
        ask(tmp_path, first, Judge("second", refuses=True))
    assert 0 < first.asked < N
    progress = ask(tmp_path, first, Judge("second"))
    assert first.asked == N and progress.judgements_done == 2 * N
