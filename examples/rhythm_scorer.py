"""A scorer of one's own: r2w-eval --judge rhythm_scorer:judge (with this folder on PYTHONPATH)."""

import re
import statistics

from r2w_eval.judge.scorers import Verdict
from r2w_eval.types import JudgeStatus, Score


def rhythm(text: str) -> float:
    """How much sentences differ in length, 1 to 10: one score of text, not of quality."""
    words = [len(s.split()) for s in re.split(r"[.!?。！？]+", text) if s.strip()]
    return min(10.0, 1.0 + statistics.pstdev(words)) if words else 1.0


class RhythmScorer:
    """Batch in, batch out, in order."""

    id = "rhythm"

    def describe(self):
        return {"version": 1, "range": [1, 10]}

    async def score(self, items):
        return [Verdict(Score(rhythm(item.answer), JudgeStatus.OK)) for item in items]

    async def close(self): ...


judge = RhythmScorer
