"""Generates and judges everything that a run still owes, concurrently, into one run folder.

One event loop and one writer. Every answer is judged as soon as it is on disk. What is owed is the
plan minus the content keys found in the folder, so the same command goes on where it was stopped
and a finished run sends nothing (specification: harness R1, R7, J1, "Resume").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from r2w_eval.hashing import content_hash
from r2w_eval.judge.scorers import ScoreItem, Scorer, Verdict, read_said
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest
from r2w_eval.models.prefixes import ask_by_prefix
from r2w_eval.models.replay import naming
from r2w_eval.models.thinking import ThinkTags, split_thinking, without_thinking
from r2w_eval.records.plan import Judging, Progress, TaskPlan, Writing
from r2w_eval.records.rows import (
    Case,
    Turn,
    answer_to_judge,
    apply_turn_rule,
    derive_seed,
    holds_verdict,
    judgement_key,
    make_judgement,
    make_response,
    response_key,
    settled_judgement,
    settled_response,
    verdict_name,
)
from r2w_eval.run.ending import Ending
from r2w_eval.store import RecordIndex, RunWriters, read_judgement, read_response
from r2w_eval.suites.suite import JudgingJob
from r2w_eval.types import (
    Decoding,
    Judgement,
    JudgeRequest,
    JudgeStatus,
    Message,
    Mode,
    Response,
    Sample,
    Score,
    WriterStatus,
)
from r2w_eval.waiting import first_leaf, gather
from r2w_eval.web.pages import Page, read_pages

CALL_TO_WRITER_STATUS = {
    CallStatus.CONTEXT: WriterStatus.TOO_LONG,
    CallStatus.FILTERED: WriterStatus.CONTENT_FILTER,
    CallStatus.NOT_SENT: WriterStatus.NOT_SENT,
}


class Engine:
    """Runs plans into the folder of its writers. One instance per run."""

    def __init__(
        self,
        writers: RunWriters,
        writing: Writing,
        judging: Judging,
        progress: Progress,
        retry_failed: bool = False,
    ) -> None:
        self._writers = writers
        self._writing = writing
        self._judging = judging
        self._progress = progress
        self._retry_failed = retry_failed
        self._responses = RecordIndex(writers.folder.responses_path)
        self._judgements = RecordIndex(writers.folder.judgements_path)
        self._ending = Ending()

    async def run(self, plans: Sequence[TaskPlan]) -> None:
        """Generate and judge everything that the folder lacks. Raises EndpointDown, OSError;
        whatever was finished stays on disk, and pending requests to other endpoints are awaited
        before EndpointDown is raised.
        """
        try:
            await self._run(plans)
        except ExceptionGroup as group:
            raise first_leaf(group) from group
        self._ending.check()

    async def _run(self, plans: Sequence[TaskPlan]) -> None:
        work = _interleave([self._owed(plan) for plan in plans])
        judging = asyncio.Semaphore(max(1, self._judging.concurrency))
        async with asyncio.TaskGroup() as group:

            async def write_some() -> None:
                # the shared iterator hands every worker another item
                for plan, sample, repeat in work:
                    if self._ending.cause:
                        return
                    response, turns = await self._converse(plan, sample, repeat)
                    await judging.acquire()
                    asked = self._judge(plan, sample, response, turns)
                    try:
                        task = group.create_task(asked)
                    except RuntimeError:
                        # another task has failed, and the group takes no more
                        asked.close()
                        raise
                    task.add_done_callback(lambda _: judging.release())

            for _ in range(max(1, self._writing.concurrency)):
                group.create_task(write_some())

    def _owed(self, plan: TaskPlan) -> Iterator[tuple[TaskPlan, Sample, int]]:
        for sample in plan.samples():
            for repeat in range(self._writing.n_repeats):
                yield plan, sample, repeat

    async def _converse(
        self, plan: TaskPlan, sample: Sample, repeat: int
    ) -> tuple[Response, tuple[str, ...]]:
        """All turns of one sample; ends at the first turn without an answer."""
        messages = sample.messages
        if self._writing.system_prompt:
            messages = (Message("system", self._writing.system_prompt), *messages)
        answers: list[str] = []
        while True:
            response = await self._turn(Turn(plan, sample, messages, repeat, len(answers)))
            answers.append(response.answer)
            if plan.suite.next_turn is None or response.status.cause is not None:
                self._progress.responses_expected -= max(0, plan.suite.n_turns - len(answers))
                break
            following = plan.suite.next_turn(sample, answers)
            if following is None:
                break
            messages = (
                *messages,
                Message("assistant", response.answer),
                Message("user", following),
            )
        return response, tuple(answers)

    async def _turn(self, turn: Turn) -> Response:
        """The first answer that is long enough for the suite, or the last that it allows."""
        response, again = await self._try(turn)
        while again:
            turn = replace(turn, attempt=turn.attempt + 1)
            self._progress.responses_expected += 1
            following, again = await self._try(turn)
            if following.status is WriterStatus.NOT_SENT and self._writing.is_recorded:
                break
            response = following
        return response

    async def _try(self, turn: Turn) -> tuple[Response, bool]:
        """One answer, stored or new, and whether the suite asks for another one."""
        sample, decoding = turn.sample, self._decoding(turn)
        prompt_hash = content_hash(turn.messages)
        key = response_key(turn, prompt_hash, self._writing.identity, decoding)
        # recorded answers are what they are
        again = self._retry_failed and not self._writing.is_recorded
        retry_failed = again and not self._is_answered(turn, prompt_hash)
        stored = settled_response(self._responses.read(key), retry_failed)
        if stored is not None:
            self._progress.count(stored, is_new=False)
            return apply_turn_rule(turn, stored)
        anew = retry_failed and key in self._responses
        request = ChatRequest(turn.messages, decoding, turn.repeat, turn.attempt, anew)
        facts: dict[str, Any] = {
            "key": key,
            "task": sample.task,
            "sample_id": sample.id,
            "model": self._writing.model,
            "seed": decoding.seed,
            "repeat": turn.repeat,
            "turn": turn.turn,
            "attempt": turn.attempt,
            "prompt_hash": prompt_hash,
        }
        response = await self._generate(sample, request, facts)
        response, again = apply_turn_rule(turn, response)
        # what was never sent is no record: the next run sends it
        if response.status is not WriterStatus.NOT_SENT:
            self._writers.responses.append(response)
        self._progress.count(response, is_new=True)
        return response, again

    def _decoding(self, turn: Turn) -> Decoding:
        planned, sample = turn.plan.decoding, turn.sample
        seed = derive_seed(self._writing.seed, sample, turn.repeat, turn.attempt)
        bounds = [n for n in (planned.max_tokens, sample.max_tokens) if n is not None]
        return replace(planned, seed=seed, max_tokens=min(bounds, default=None))

    def _is_answered(self, turn: Turn, prompt_hash: str) -> bool:
        """Some try at this turn gave a usable answer: the ones before it are no failures."""
        tries = (replace(turn, attempt=n) for n in range(turn.plan.suite.turn_rule.tries))
        keys = (
            response_key(one, prompt_hash, self._writing.identity, self._decoding(one))
            for one in tries
        )
        found = map(self._responses.read, keys)
        return any(record and read_response(record).status.cause is None for record in found)

    async def _generate(
        self, sample: Sample, request: ChatRequest, facts: Mapping[str, Any]
    ) -> Response:
        try:
            with naming(f"{sample.task} {sample.id}, answer"), self._ending.watch():
                reply, split = await self._writing.generate(sample, request)
        except CallFailed as failure:
            status = CALL_TO_WRITER_STATUS.get(failure.status, WriterStatus.ERROR)
            reason = f"{failure.status}: {failure}"
            return Response(raw="", answer="", thinking=None, status=status, reason=reason, **facts)
        return make_response(reply, split, facts)

    async def _judge(
        self, plan: TaskPlan, sample: Sample, response: Response, turns: tuple[str, ...]
    ) -> None:
        answer = answer_to_judge(plan, response, turns)
        if answer is None:
            lost = len(plan.suite.criteria(sample)) * len(self._judging.scorers)
            self._progress.judgements_expected -= lost * self._judging.n_repeats
            return
        case = Case(plan, sample, response, answer)
        await gather([self._judge_by(case, scorer) for scorer in self._judging.scorers])

    async def _judge_by(self, case: Case, scorer: Scorer) -> None:
        """Ask one judge until the suite wants nothing more; later stages see earlier verdicts.

        Questions about an answer, repeats included, leave in an order from which servers that cache
        prefixes profit (see `prefixes`).
        """
        plan, repeats = case.plan, range(self._judging.n_repeats)
        shown = (case.sample, case.answer, plan.templates, plan.mode)
        done: list[dict[str, tuple[Score, str]]] = [{} for _ in repeats]
        pages: list[dict[str, Page]] = [{} for _ in repeats]
        while True:
            jobs = [
                await self._with_pages(plan, scorer, JudgingJob(*shown, known), read)
                for known, read in zip(done, pages, strict=True)
            ]
            owed = [
                (request, repeat)
                for repeat, job in enumerate(jobs)
                for request in plan.suite.plan_judging(job)
                if verdict_name(request) not in done[repeat]
            ]
            if not owed:
                return
            found = await ask_by_prefix(owed, _prompt_of, partial(self._ask, case, scorer))
            for (request, repeat), judgement in zip(owed, found, strict=True):
                text = judgement.asks[-1] if judgement.asks else ""
                said = without_thinking(text, _tags_of(scorer))
                done[repeat][verdict_name(request)] = (judgement.score, said)
            named = {request.criterion for request, _ in owed}
            if not plan.suite.stages and named.issuperset(plan.suite.criteria(case.sample)):
                return

    async def _with_pages(
        self, plan: TaskPlan, scorer: Scorer, job: JudgingJob, pages: dict[str, Page]
    ) -> JudgingJob:
        """The job with the web pages that it needs; those read before are in `pages`."""
        if self._judging.pages is None or plan.suite.pages is None:
            return job
        wanted = [url for url in plan.suite.pages(job) if url not in pages]
        found = await read_pages(self._judging.pages, wanted)
        pages.update(found)
        statuses = self._progress.pages.setdefault((plan.info.name, scorer.id), {})
        statuses.update((url, page.status) for url, page in found.items())
        return replace(job, pages=pages)

    async def _ask(self, case: Case, scorer: Scorer, asked: tuple[JudgeRequest, int]) -> Judgement:
        request, repeat = asked
        item = _item(case, request)
        key = judgement_key(case, scorer, item.decoding, request, repeat)
        if self._judging.reparse:
            return self._read_again(case, scorer, key, asked)
        stored = settled_judgement(self._judgements.read(key), self._retry_failed)
        if stored is not None:
            self._progress.count(stored, is_new=False)
            return stored
        anew = self._retry_failed and key in self._judgements
        item = replace(item, repeat=repeat, anew=anew)
        with naming(f"{case.sample.task} {case.sample.id}, verdict {request.criterion!r:.80}"):
            verdict = await self._ending.ask(scorer, item)
        judgement = replace(
            make_judgement(key, case.response, scorer.id, asked, verdict),
            at=round(time.time(), 3),
            echoed=holds_verdict(case, request),
        )
        if judgement.score.status is not JudgeStatus.NOT_SENT:
            self._writers.judgements.append(judgement)
        self._progress.count(judgement, is_new=True)
        return judgement

    def _read_again(
        self, case: Case, scorer: Scorer, key: str, asked: tuple[JudgeRequest, int]
    ) -> Judgement:
        """The stored verdict by today's parser; a changed score is appended and replaces the
        old.
        """
        record = self._judgements.read(key)
        if record is None:
            lost = Verdict(Score(None, JudgeStatus.NOT_SENT, "never asked"))
            return make_judgement(key, case.response, scorer.id, asked, lost)
        judgement = read_judgement(record)
        status = judgement.score.status
        # with any other status the last text is not what the judge answered in the end
        if judgement.asks and (status is JudgeStatus.OK or status.is_unreadable):
            text = split_thinking(judgement.asks[-1], _tags_of(scorer)).answer
            item, was_cut = _item(case, asked[0]), status is JudgeStatus.TRUNCATED
            score = read_said(item, text, is_cut=was_cut)
            if score.status.is_unreadable and item.settle is not None:
                score = item.settle(asked[0], judgement.asks) or score
            still_cut = was_cut and score.value is None
            if score != judgement.score and not still_cut:
                judgement = replace(judgement, score=score)
                self._writers.judgements.append(judgement)
        self._progress.count(judgement, is_new=False)
        return judgement


def _item(case: Case, request: JudgeRequest) -> ScoreItem:
    """One question about an answer, with the rules that its reply is read by."""
    plan = case.plan
    rules = plan.suite.parity if plan.mode is Mode.PARITY else None
    return ScoreItem(
        request,
        plan.suite.decoding_for(request, plan.info.judge_decoding),
        plan.suite.parse_verdict[plan.mode],
        ask_again=partial(rules.asks_again, request) if rules else None,
        settle=rules.settle if rules else None,
        prompt=case.sample.messages[-1].content,
        answer=case.answer.text,
        is_material=not plan.suite.is_verdict(request.criterion),
    )


def _tags_of(scorer: Scorer) -> ThinkTags:
    """How a judge marks its thinking in a stored text."""
    return ThinkTags(opened_by_template=bool(scorer.describe().get("think_opened")))


def _prompt_of(asked: tuple[JudgeRequest, int]) -> str:
    return "\n".join(message.content for message in asked[0].messages)


def _interleave(
    streams: Sequence[Iterator[tuple[TaskPlan, Sample, int]]],
) -> Iterator[tuple[TaskPlan, Sample, int]]:
    """One item of each task in turn (round robin), so that no task waits for another to end."""
    live = list(streams)
    while live:
        for stream in list(live):
            item = next(stream, None)
            if item is None:
                live.remove(stream)
            else:
                yield item
