"""Outcome rewards of finished answers, from a scorer or an LLM judge.

scorer      the value of a scorer of writings
pointwise   weighted mean of a judge's rubric marks, mapped to [0, 1]
pairwise, in_group, references
            points against other answers of the group, or against stored ones (contests.py,
            references.py)

An answer without a valid verdict has the reward None, which is left out of the group's statistics
(specification: r2write.md section 6.1). A rollout whose thinking never ends has no answer; its
reward is None or the setting `unanswered`.
"""

from __future__ import annotations

import functools
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from r2w_eval.reward_models.items import WritingItem
from r2w_eval.training.judging.assess import (
    HIGHEST,
    LOWEST,
    Unreadable,
    ask_marks,
    read_assessment,
)
from r2w_eval.training.prompts import Criterion
from r2w_eval.training.rl.completions import TAGS

from r2w_eval.config import RunConfig
from r2w_eval.judge.scorers import ScoreItem
from r2w_eval.models.completions import last_turn
from r2w_eval.models.thinking import ThinkTags, answer_of
from r2w_eval.run.patient import Background, Patience, PatientJudge
from r2w_eval.types import Decoding, JudgeRequest, JudgeStatus, Message, Score

RUBRIC_DECODING = Decoding(temperature=0.0, max_tokens=1024)

Answers = Sequence[str | None]
Rewards = list[float | None]


def open_judge(model: str, patience_s: float) -> PatientJudge:
    """The judge that `model` names, in the words of --judge. Raises UsageError.

    Without the reply cache: every text of a training is new, and would only fill the disk.
    """
    from r2w_eval.run.roles import model_options

    options = model_options(RunConfig(cache=False), None)
    return PatientJudge(model, options, Patience(patience_s))


def pay_unanswered(rewards: Rewards, answers: Answers, value: float | None) -> Rewards:
    """The rewards, with `value` for completions without an answer.

    An answer that lost its verdict keeps None: that is not the policy's fault.

    >>> pay_unanswered([None, None, 0.5], [None, "lost", "good"], -1.0)
    [-1.0, None, 0.5]
    """
    return [
        value if answer is None else reward for reward, answer in zip(rewards, answers, strict=True)
    ]


class ScorerOutcome:
    """A reward function for TRL that calls a scorer of writings; None if there is no valid score.

    `tags` are the thinking tags of completions.
    """

    __name__ = "outcome"

    def __init__(
        self, scorer: Any, unanswered: float | None = None, tags: ThinkTags = TAGS
    ) -> None:
        self._scorer = scorer
        self._unanswered = unanswered
        self._tags = tags

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> Rewards:
        """One number per completion."""
        answers = [
            answer_of(last_turn(completion, "assistant"), self._tags) for completion in completions
        ]
        items = [
            WritingItem(str(place), last_turn(prompts[place], "user"), answer)
            for place, answer in enumerate(answers)
            if answer is not None
        ]
        values = {score.id: score.value for score in self._scorer.score(items)} if items else {}
        rewards = [values.get(str(place)) for place in range(len(completions))]
        return pay_unanswered(rewards, answers, self._unanswered)


class GroupReward(Protocol):
    """Rewards of a group of answers to one prompt, which may depend on each other."""

    def __call__(self, prompt: str, answers: Answers, step: int) -> Coroutine[Any, Any, Rewards]:
        """One reward or None per answer. `step` counts finished training steps."""


def step_of(columns: Mapping[str, Any]) -> int:
    """Finished training steps, from what TRL passes to a reward function; 0 outside training."""
    state = columns.get("trainer_state")
    return 0 if state is None else int(state.global_step)


class JudgedOutcome:
    """A reward function for TRL that asks an LLM judge.

    `begin` asks about finished groups while others are still generated.
    """

    __name__ = "outcome"

    def __init__(
        self,
        judge: PatientJudge,
        reward: GroupReward,
        group: int,
        unanswered: float | None = None,
        tags: ThinkTags = TAGS,
    ) -> None:
        self._judge = judge
        self._tags = tags
        self._reward = reward
        self._group = group
        self._unanswered = unanswered
        self._background = Background()
        self._begun: list[tuple[list[str], Future[Rewards]]] = []

    def run(self, job: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the judge's event loop and wait for it."""
        return self._background.submit(job).result()

    def begin(self, prompts: Sequence[Any], completions: Sequence[Any], step: int = 0) -> None:
        """Start asking about whole groups; the next call of this object collects the rewards."""
        texts = [last_turn(completion, "assistant") for completion in completions]
        for start in range(0, len(texts), self._group):
            own = texts[start : start + self._group]
            job = self._reward(last_turn(prompts[start], "user"), self._answers(own), step)
            self._begun.append((own, self._background.submit(job)))

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> Rewards:
        """One reward per completion; each group is consecutive and of one prompt."""
        # read before asking: a fast judge may be done before the next line
        waited = self._judge.waited_s
        texts = [last_turn(completion, "assistant") for completion in completions]
        begun, self._begun = self._begun, []
        if [text for own, _ in begun for text in own] != texts:
            self.begin(prompts, completions, step_of(columns))
            begun, self._begun = self._begun, []
        rewards = [reward for _, future in begun for reward in future.result()]
        if log := columns.get("log_metric"):
            log("judge/waited_s", self._judge.waited_s - waited)
            log("judge/asked", float(self._judge.asked))
        return pay_unanswered(rewards, self._answers(texts), self._unanswered)

    def _answers(self, texts: Sequence[str]) -> list[str | None]:
        return [answer_of(text, self._tags) for text in texts]


class Pointwise:
    """Rubric marks of a judge for each answer; `rubrics` are by prompt text."""

    def __init__(self, judge: PatientJudge, rubrics: Mapping[str, Sequence[Criterion]]) -> None:
        self._judge = judge
        self._rubrics = rubrics

    async def __call__(self, prompt: str, answers: Answers, step: int = 0) -> Rewards:
        """Weighted mean of the marks, mapped to [0, 1]; None without a rubric or a verdict."""
        rubric = self._rubrics.get(prompt)
        places = [i for i, answer in enumerate(answers) if answer is not None and rubric]
        items = [self._item(prompt, answers[i] or "", rubric or ()) for i in places]
        scores = await self._judge.score(items) if items else []
        values = dict(zip(places, (score.value for score in scores), strict=True))
        return [values.get(i) for i in range(len(answers))]

    def _item(self, prompt: str, answer: str, rubric: Sequence[Criterion]) -> ScoreItem:
        request = JudgeRequest("rubric", (Message("user", ask_marks(prompt, answer, rubric)),))
        return ScoreItem(request, RUBRIC_DECODING, functools.partial(read_marks, rubric))


def read_marks(rubric: Sequence[Criterion], request: JudgeRequest, reply: str) -> Score:
    """The weighted mean of a reply's marks, mapped to [0, 1].

    >>> rubric = [Criterion("a", ""), Criterion("b", "", 3.0)]
    >>> read_marks(rubric, None, '{"scores": {"a": 1, "b": 10}}').value
    0.75
    """
    try:
        mean = read_assessment(reply, "", rubric).mean(rubric)
    except Unreadable as error:
        return Score(None, JudgeStatus.PARSE_ERROR, str(error))
    return Score((mean - LOWEST) / (HIGHEST - LOWEST))
