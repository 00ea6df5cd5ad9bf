"""The engine with suites made for the test: conversations, judging in stages, several judges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r2w_eval.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.engine import Engine
from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.judge import ScoreItem, Verdict
from r2w_eval.plan import Judging, Progress, TaskPlan, Writing
from r2w_eval.store import RunFolder, iter_jsonl
from r2w_eval.suites import JudgingJob, Suite, load_info
from r2w_eval.summary import RunFacts, TaskResult, summarise
from r2w_eval.types import (
    Decoding,
    Estimate,
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Message,
    Mode,
    Sample,
    Score,
)


def samples() -> Iterable[Sample]:
    for number in range(4):
        yield Sample("quickstart", str(number), (Message("user", f"Write {number}."),), "en")


def plan_in_stages(job: JudgingJob) -> list[JudgeRequest]:
    """A gate first; the grade is asked for only when the gate lets the answer through."""
    gate = JudgeRequest("gate", (Message("user", job.answer.text),))
    if "gate" not in job.done:
        return [gate]
    score, text = job.done["gate"]
    return [gate, JudgeRequest("grade", (Message("user", text),))] if score.value else [gate]


def parse(request: JudgeRequest, text: str) -> Score:
    return Score(float(text)) if text.isdigit() else Score(None, JudgeStatus.PARSE_ERROR, text)


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    graded = [(i.sample_id, i.scores["grade"][0].value) for i in items if "grade" in i.scores]
    pairs = [(sample, value) for sample, value in graded if value is not None]
    return [as_headline(mean_of("grade", pairs, len(items)))]


STAGED = Suite(
    load_samples=lambda data: samples(),
    load_templates=lambda data: {},
    criteria=lambda sample: ["gate", "grade"],
    plan_judging=plan_in_stages,
    parse_verdict={Mode.STRICT: parse, Mode.PARITY: parse},
    aggregate=aggregate,
)
CHAPTERS = ("Go on.", "End it.")
TURNS = replace(
    STAGED,
    plan_judging=lambda job: [
        JudgeRequest("grade", (Message("user", "|".join(job.answer.turns)),))
    ],
    criteria=lambda sample: ["grade"],
    next_turn=lambda sample, answers: (
        CHAPTERS[len(answers) - 1] if len(answers) <= len(CHAPTERS) else None
    ),
)


class Judge:
    """Lets even samples through the gate and grades them 8."""

    def __init__(self, name: str = "judge") -> None:
        self.id = name
        self.asked: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": "rule"}

    async def close(self) -> None: ...

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        return [self._verdict(item.request) for item in items]

    def _verdict(self, request: JudgeRequest) -> Verdict:
        text = request.messages[0].content
        self.asked.append(f"{request.criterion}:{text}")
        gate = "1" if text.endswith(("0", "2")) else "0"
        answer = gate if request.criterion == "gate" else "8"
        return Verdict(parse(request, answer), (answer,))


class Writer:
    """Answers with the length of the conversation and the last character before the full stop."""

    def __init__(self, broken_turn: int | None = None) -> None:
        self.sent: list[ChatRequest] = []
        self.broken_turn = broken_turn

    async def generate(self, sample: Sample, request: ChatRequest) -> Reply:
        self.sent.append(request)
        turn = len(request.messages) // 2
        if turn == self.broken_turn and sample.id == "1":
            raise CallFailed(CallStatus.TRANSPORT, "connection lost")
        return Reply(f"turn {turn} of {sample.id}", "stop")


def run(
    folder: Path, suite: Suite, writer: Writer, *judges: Judge, mode: Mode = Mode.STRICT
) -> list[TaskResult]:
    plan = TaskPlan(load_info("quickstart"), suite, mode, {}, samples, Decoding(max_tokens=9))
    writing = Writing("w", {"model": "w"}, writer.generate, 2)
    run_folder = RunFolder(folder)
    with run_folder.open_writers() as writers:
        judging = Judging(judges, 2)
        engine = Engine(run_folder, writers, writing, judging, Progress())
        asyncio.run(engine.run([plan]))
    facts = RunFacts({}, 1, {judge.id: judge.describe() for judge in judges}, 1)
    return summarise(run_folder, [plan], facts)


def test_later_stages_see_earlier_verdicts_and_are_resumed(tmp_path: Path) -> None:
    judge, writer = Judge(), Writer()
    (result,) = run(tmp_path, STAGED, writer, judge)
    assert sorted(judge.asked) == ["gate:turn 0 of 0", "gate:turn 0 of 1", "gate:turn 0 of 2",
                                   "gate:turn 0 of 3", "grade:1", "grade:1"]  # fmt: skip
    assert result.headline.value == 8.0 and result.headline.n_scored == 2
    again = Judge()
    run(tmp_path, STAGED, writer, again)
    assert again.asked == [] and len(writer.sent) == 4


def test_a_conversation_is_a_record_a_turn_and_goes_on_in_the_middle(tmp_path: Path) -> None:
    broken = Writer(broken_turn=1)
    run(tmp_path, TURNS, broken, Judge())
    assert len(broken.sent) == 3 * 3 + 2
    healed, judge = Writer(), Judge()
    (result,) = run(tmp_path, TURNS, healed, judge)
    assert [len(request.messages) for request in healed.sent] == [3, 5]
    assert judge.asked == ["grade:turn 0 of 1|turn 1 of 1|turn 2 of 1"]
    assert result.headline.n_scored == 4
    assert healed.sent[1].messages[-1] == Message("user", "End it.")


def test_two_judges_are_asked_about_the_same_answers(tmp_path: Path) -> None:
    results = run(tmp_path, STAGED, Writer(), Judge("a"), Judge("b"))
    assert [result.judge for result in results] == ["a", "b"]
    rows = list(iter_jsonl(tmp_path / "judgements.jsonl"))
    assert {row["judge"] for row in rows} == {"a", "b"} and len(rows) == 12


def test_a_judge_that_raises_ends_the_run_but_keeps_what_was_done(tmp_path: Path) -> None:
    class Broken(Judge):
        async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run(tmp_path, STAGED, Writer(), Broken())
    assert list(iter_jsonl(tmp_path / "responses.jsonl"))
    (result,) = run(tmp_path, STAGED, Writer(), Judge())
    assert result.headline.value == 8.0


def test_the_order_of_records_does_not_change_the_result(tmp_path: Path) -> None:
    (first,) = run(tmp_path, STAGED, Writer(), Judge())
    for name in ("responses.jsonl", "judgements.jsonl"):
        lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
        (tmp_path / name).write_bytes(b"".join(reversed(lines)))
    (second,) = run(tmp_path, STAGED, Writer(), Judge())
    assert first == second
    assert json.dumps(str(first)) == json.dumps(str(second))
