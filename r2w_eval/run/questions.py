"""Single questions to judges outside a suite: asked once, recorded, found again.

The records are `Judgement`s in a run folder's judgements.jsonl, keyed by all that changes a
verdict, so that the same command goes on where it was stopped and a finished one sends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from r2w_eval.hashing import content_hash, text_hash
from r2w_eval.judge.scorers import ScoreItem, Scorer, Verdict
from r2w_eval.records.plan import Judging, Progress
from r2w_eval.records.rows import settled_judgement, verdict_facts
from r2w_eval.run.ending import Ending
from r2w_eval.store import RecordIndex, RunWriters
from r2w_eval.types import Decoding, Judgement, JudgeRequest, JudgeStatus, Score
from r2w_eval.waiting import first_leaf


@dataclass(frozen=True, slots=True)
class Question:
    """One verdict to ask for. `task` and `sample_id` name it in the records; `prompt` and `answer`
    are what scorers read that take texts instead of a judge's prompt.
    """

    task: str
    sample_id: str
    request: JudgeRequest
    parse: Callable[[JudgeRequest, str], Score]
    prompt: str = ""
    answer: str = ""
    repeat: int = 0


class Questioner:
    """Asks all judges of `judging` everything that the writers' folder does not hold yet."""

    def __init__(
        self,
        writers: RunWriters,
        judging: Judging,
        decoding: Decoding,
        progress: Progress,
        retry_failed: bool = False,
    ) -> None:
        self._writers = writers
        self._index = RecordIndex(writers.folder.judgements_path)
        self._judging = judging
        self._decoding = decoding
        self._progress = progress
        self._retry_failed = retry_failed
        self._ending = Ending()

    async def ask_all(self, questions: Mapping[str, Sequence[Question]]) -> None:
        """Each judge's questions, by its id, all judges side by side.

        Raises EndpointDown, OSError; whatever was answered stays on disk, and what other judges
        were asked is waited for before EndpointDown.
        """
        self._progress.judgements_expected = sum(map(len, questions.values()))
        try:
            async with asyncio.TaskGroup() as group:
                for scorer in self._judging.scorers:
                    group.create_task(self._ask_one_judge(scorer, questions[scorer.id]))
        except ExceptionGroup as errors:
            raise first_leaf(errors) from errors
        self._ending.check()

    async def _ask_one_judge(self, scorer: Scorer, questions: Sequence[Question]) -> None:
        # the shared iterator hands every worker another question, in order
        work: Iterator[Question] = iter(questions)

        async def ask_some() -> None:
            for question in work:
                if self._ending.cause:
                    return
                await self._ask(scorer, question)

        n_workers = max(1, self._judging.concurrency // len(self._judging.scorers))
        async with asyncio.TaskGroup() as group:
            for _ in range(n_workers):
                group.create_task(ask_some())

    def read_all(self, questions: Mapping[str, Sequence[Question]]) -> dict[str, list[Judgement]]:
        """What is on disk, in the order of the questions, by judge; `not_sent` where nothing is."""
        newest = {judgement.key: judgement for judgement in self._writers.folder.judgements()}
        lost = Verdict(Score(None, JudgeStatus.NOT_SENT, "not asked yet"))
        return {
            scorer.id: [
                newest.get(key) or _record(key, scorer.id, question, lost)
                for question in questions[scorer.id]
                for key in [question_key(scorer, self._decoding, question)]
            ]
            for scorer in self._judging.scorers
        }

    async def _ask(self, scorer: Scorer, question: Question) -> None:
        key = question_key(scorer, self._decoding, question)
        stored = settled_judgement(self._index.read(key), self._retry_failed)
        if stored is not None:
            self._progress.count(stored, is_new=False)
            return
        item = ScoreItem(
            question.request,
            self._decoding,
            question.parse,
            question.repeat,
            prompt=question.prompt,
            answer=question.answer,
            anew=self._retry_failed and key in self._index,
        )
        verdict = await self._ending.ask(scorer, item)
        judgement = _record(key, scorer.id, question, verdict)
        if judgement.score.status is not JudgeStatus.NOT_SENT:
            self._writers.judgements.append(judgement)
        self._progress.count(judgement, is_new=True)


def question_key(scorer: Scorer, decoding: Decoding, question: Question) -> str:
    """Everything that changes the verdict."""
    return content_hash(
        {
            "judge": [scorer.id, scorer.describe()],
            "decoding": decoding.sent(),
            "request": question.request,
            "place": [question.task, question.sample_id],
            "repeat": question.repeat,
        }
    )


def _record(key: str, judge: str, question: Question, verdict: Verdict) -> Judgement:
    return Judgement(
        key=key,
        response_key=text_hash(question.answer)[:24],
        task=question.task,
        sample_id=question.sample_id,
        judge=judge,
        criterion=question.request.criterion,
        repeat=question.repeat,
        order=question.request.order,
        **verdict_facts(verdict),
    )
