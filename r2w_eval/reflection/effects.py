"""Scores the text before and after each reflective step, through the scorer protocol.

Every distinct text of a prompt is scored once, alone: the judge sees no round, no reflection and
no other version. Any `Scorer` works; a score that failed leaves its steps unscored.
"""

from __future__ import annotations

from collections.abc import Sequence

from r2w_eval.judge.parsing import TEN_POINTS, read_ten_points
from r2w_eval.judge.scorers import ScoreItem, Scorer
from r2w_eval.reflection.analysis import DEAD_BAND, Analysis, Effect, own_outcomes, with_effects
from r2w_eval.template import fence_mark, load_prompt
from r2w_eval.types import Decoding, JudgeRequest, Message, Score

DECODING = Decoding(max_tokens=300, temperature=0.0)

# (prompt, text)
Version = tuple[str, str]


def score_items(versions: Sequence[Version]) -> list[ScoreItem]:
    """One item a text, in order: the question for chat judges, and the texts themselves for scorers
    that read these.
    """
    return [
        ScoreItem(_question(prompt, text), DECODING, read_ten_points, prompt=prompt, answer=text)
        for prompt, text in versions
    ]


def _question(prompt: str, text: str) -> JudgeRequest:
    system, user = load_prompt("reflect_system"), load_prompt("reflect_user")
    mark = fence_mark(prompt, text)
    filled = user.fill(prompt=prompt or "(unknown)", text=text, mark=mark)
    return JudgeRequest(
        "quality", (Message("system", system.text), Message("user", filled)), TEN_POINTS
    )


async def score_effects(
    analyses: Sequence[Analysis], scorer: Scorer, dead_band: float = DEAD_BAND
) -> list[Analysis]:
    """The analyses with an effect for every step that has a text before and after it."""
    versions = list(
        dict.fromkeys(
            (analysis.source.prompt, text)
            for analysis in analyses
            for _, link in own_outcomes(analysis)
            for text in (link.base or "", link.outcome or "")
        )
    )
    verdicts = await scorer.score(score_items(versions))
    scores = {v: verdict.score for v, verdict in zip(versions, verdicts, strict=True)}
    return [_with_scores(analysis, scores, dead_band) for analysis in analyses]


def _with_scores(analysis: Analysis, scores: dict[Version, Score], dead_band: float) -> Analysis:
    prompt = analysis.source.prompt
    return with_effects(
        analysis,
        {
            index: Effect(
                scores[prompt, link.base or ""], scores[prompt, link.outcome or ""], dead_band
            )
            for index, link in own_outcomes(analysis)
        },
    )
