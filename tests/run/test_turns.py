"""Conversations: turns that are too short are asked for again, and what breaks off is typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.config import RunConfig
from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.judge.scorers import ScoreItem, Verdict
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.models.thinking import SplitText, split_thinking
from r2w_eval.records.plan import Judging, Progress, TaskPlan, Writing
from r2w_eval.records.rows import derive_seed
from r2w_eval.results.summary import RunFacts, TaskResult, summarise
from r2w_eval.run.dryrun import forecast
from r2w_eval.run.engine import Engine
from r2w_eval.store import RunFolder, iter_jsonl
from r2w_eval.suites.suite import JudgingJob, Suite, TurnRule, load_info
from r2w_eval.types import (
    Answer,
    Decoding,
    Estimate,
    ItemVerdicts,
    JudgeRequest,
    Message,
    Mode,
    Sample,
    Score,
)

RULE = TurnRule(tries=3, wanted_chars=6, accepted_chars=5)
SAMPLE = Sample("quickstart", "1", (Message("user", "Plan."),), "en")


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    chars = [(i.sample_id, float(i.measures["chars"])) for i in items if i.measures]
    graded = [(i.sample_id, 8.0) for i in items if i.scores]
    return [
        as_headline(mean_of("grade", graded, len(items))),
        replace(mean_of("chars", chars, len(items)), bounded=False),
    ]


def measure(answer: Answer) -> dict[str, Any]:
    return {"chars": sum(map(len, answer.turns))}


def ask_grade(job: JudgingJob) -> list[JudgeRequest]:
    return [JudgeRequest("grade", (Message("user", "|".join(job.answer.turns)),))]


def parse(request: JudgeRequest, text: str) -> Score:
    return Score(8.0)


TALK = Suite(
    load_samples=lambda data: [SAMPLE],
    load_templates=lambda data: {},
    criteria=lambda sample: ["grade"],
    plan_judging=ask_grade,
    parse_verdict={Mode.STRICT: parse, Mode.PARITY: parse},
    aggregate=aggregate,
    next_turn=lambda sample, answers: None if len(answers) == 3 else f"Chapter {len(answers)}.",
    n_turns=3,
    turn_rule=RULE,
    measure=measure,
)


@dataclass
class Judge:
    """Reads everything as an 8 and keeps what it was shown."""

    id: str = "judge"
    shown: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None: ...

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        self.shown += [item.request.messages[0].content for item in items]
        return [Verdict(Score(8.0), ("8",)) for _ in items]


@dataclass
class Work:
    """One run of the conversation, answered by a rule of (turn, try)."""

    folder: Path
    rule: Callable[[int, int], str | CallStatus]
    suite: Suite = TALK
    mode: Mode = Mode.STRICT
    is_recorded: bool = False
    asked: list[ChatRequest] = field(default_factory=list)
    judge: Judge = field(default_factory=Judge)

    async def generate(self, sample: Sample, request: ChatRequest) -> tuple[Reply, SplitText]:
        self.asked.append(request)
        said = self.rule(len(request.messages) // 2, request.ask)
        if isinstance(said, CallStatus):
            raise CallFailed(said, "told to fail")
        return Reply(said, "stop"), split_thinking(said)

    @property
    def plan(self) -> TaskPlan:
        samples: Callable[[], Iterable[Sample]] = lambda: [SAMPLE]  # noqa: E731
        return TaskPlan(load_info("quickstart"), self.suite, self.mode, {}, samples, Decoding())

    def run(self, retry_failed: bool = False) -> TaskResult:
        writing = Writing("w", {"model": "w"}, self.generate, 1, is_recorded=self.is_recorded)
        folder = RunFolder(self.folder)
        with folder.open_writers() as writers:
            progress = Progress(responses_expected=3)
            judging = Judging([self.judge], 1)
            engine = Engine(writers, writing, judging, progress, retry_failed)
            asyncio.run(engine.run([self.plan]))
        assert progress.responses_done == progress.responses_expected
        (result,) = summarise(folder, [self.plan], RunFacts({}, 1, {"judge": {}}, 1))
        return result

    def tries(self) -> list[tuple[int, int, str]]:
        rows = iter_jsonl(self.folder / "responses.jsonl")
        return [(row["turn"], row["attempt"], row["status"]) for row in rows]


def long_or(short: dict[tuple[int, int], str | CallStatus]) -> Callable[[int, int], Any]:
    return lambda turn, attempt: short.get((turn, attempt), f"turn {turn}, try {attempt}")


def test_a_short_turn_is_asked_for_again_as_another_question(tmp_path: Path) -> None:
    work = Work(tmp_path, long_or({(1, 0): "12345", (1, 1): " 1 "}))
    result = work.run()
    assert work.tries() == [
        (0, 0, "ok"), (1, 0, "too_short"), (1, 1, "too_short"), (1, 2, "ok"), (2, 0, "ok"),
    ]  # fmt: skip
    assert work.judge.shown == ["turn 0, try 0|turn 1, try 2|turn 2, try 0"]
    assert len({request.decoding.seed for request in work.asked[1:4]}) == 3
    assert [request.messages for request in work.asked[1:3]] == [work.asked[1].messages] * 2
    assert result.headline.value == 8.0 and result.writer.statuses == {"ok": 1}
    assert result.metrics[-1].value == 39.0, "the tries that did not do are not measured"
    keys = [row["key"] for row in iter_jsonl(tmp_path / "responses.jsonl")]
    assert len(set(keys)) == 5


def test_the_last_try_passes_from_a_lower_length_on(tmp_path: Path) -> None:
    result = Work(tmp_path, lambda turn, attempt: "12345" if turn == 1 else "123456").run()
    assert result.writer.statuses == {"ok": 1} and result.headline.value == 8.0


@pytest.mark.parametrize("mode", Mode)
def test_a_second_turn_that_stays_short_is_a_typed_loss(tmp_path: Path, mode: Mode) -> None:
    work = Work(tmp_path, lambda turn, attempt: "1234" if turn == 1 else "123456", mode=mode)
    result = work.run()
    assert work.tries()[1:] == [(1, attempt, "too_short") for attempt in range(3)]
    row = list(iter_jsonl(tmp_path / "responses.jsonl"))[-1]
    assert row["reason"] == "4 characters in try 3 of 3; 6 are wanted"
    assert work.judge.shown == [], "a conversation that broke off is judged in no mode"
    assert result.writer.statuses == {"too_short": 1}
    assert result.headline.value is None and result.headline.n_expected == 1
    assert result.metrics[1].name == "grade:floor" and result.metrics[-1].value is None
    assert result.judging.failures == {"no_answer": 1}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("failure", "status", "n_asked"),
    [
        (CallStatus.TRANSPORT, "error", 2),
        (CallStatus.CONTEXT, "too_long", 2),
        (CallStatus.FILTERED, "content_filter", 2),
        ("", "empty", 4),
        ("<think>on and on", "unclosed_think", 4),
    ],
)
def test_a_second_turn_that_fails_is_a_typed_loss(
    tmp_path: Path, failure: str | CallStatus, status: str, n_asked: int, mode: Mode
) -> None:
    work = Work(tmp_path, lambda turn, attempt: failure if turn == 1 else "123456", mode=mode)
    result = work.run()
    # upstream takes unclosed thinking for text, and long enough
    assert len(work.asked) == (2 if status == "unclosed_think" and mode == "parity" else n_asked)
    assert result.writer.statuses == {status: 1} and result.headline.value is None
    assert work.judge.shown == []


def test_tries_are_resumed_where_they_stopped(tmp_path: Path) -> None:
    rule = long_or({(1, 0): "1", (1, 1): CallStatus.TRANSPORT})
    assert Work(tmp_path, rule).run().writer.statuses == {"error": 1}
    healed = Work(tmp_path, long_or({}))
    assert healed.run().writer.statuses == {"ok": 1}
    assert [(len(r.messages) // 2, r.ask) for r in healed.asked] == [(1, 1), (2, 0)]
    again = Work(tmp_path, long_or({}))
    assert again.run().headline.value == 8.0 and again.asked == []


def test_a_failed_turn_can_be_retried(tmp_path: Path) -> None:
    assert Work(tmp_path, lambda turn, attempt: "1").run().writer.statuses == {"too_short": 1}
    healed = Work(tmp_path, long_or({}))
    assert healed.run(retry_failed=True).writer.statuses == {"ok": 1}
    assert healed.judge.shown == ["turn 0, try 0|turn 1, try 0|turn 2, try 0"]


def test_a_turn_that_a_later_try_has_answered_is_not_asked_for_anew(tmp_path: Path) -> None:
    lost = {(2, 0): "1", (2, 1): "2", (2, 2): "3"}
    before = Work(tmp_path, long_or({(1, 0): "1", **lost})).run()
    assert before.writer.statuses == {"too_short": 1}
    healed = Work(tmp_path, long_or({(2, 0): "1"}))
    assert healed.run(retry_failed=True).writer.statuses == {"ok": 1}
    assert [(len(r.messages) // 2, r.ask) for r in healed.asked] == [(2, 0), (2, 1)]
    assert healed.judge.shown == ["turn 0, try 0|turn 1, try 1|turn 2, try 1"]
    again = Work(tmp_path, long_or({}))
    assert again.run(retry_failed=True).headline.value == 8.0 and again.asked == []


def test_a_conversation_not_at_its_end_is_not_answered(tmp_path: Path) -> None:
    work = Work(tmp_path, long_or({(1, 0): CallStatus.NOT_SENT}))
    result = work.run()
    assert result.writer.statuses == {"not_sent": 1}
    assert result.metrics[-1].value is None, "half a story is not measured"


def test_recorded_turns_are_not_asked_for_again(tmp_path: Path) -> None:
    rule = long_or({(1, 0): "1", (1, 1): CallStatus.NOT_SENT})
    assert Work(tmp_path, rule, is_recorded=True).run().writer.statuses == {"too_short": 1}


def test_the_order_of_the_tries_in_the_file_does_not_matter(tmp_path: Path) -> None:
    work = Work(tmp_path, long_or({(1, 0): "1", (2, 0): "2", (2, 1): "3"}))
    first = work.run()
    path = tmp_path / "responses.jsonl"
    path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))
    assert work.run() == first


def test_the_parsers_facts_are_not_part_of_the_question(tmp_path: Path) -> None:
    work = Work(tmp_path, long_or({}))
    work.run()
    told = JudgeRequest("grade", ask_grade_message(work), facts={"criteria": ["a"]})
    again = Work(tmp_path, long_or({}), replace(TALK, plan_judging=lambda job: [told]))
    assert again.run().headline.value == 8.0 and again.judge.shown == []
    assert hash(told) == hash(replace(told, facts={}))


def ask_grade_message(work: Work) -> tuple[Message, ...]:
    return (Message("user", work.judge.shown[0]),)


def test_a_dry_run_counts_every_turn(tmp_path: Path) -> None:
    write, judge = forecast(Work(tmp_path, long_or({})).plan, RunConfig())
    assert write.calls == 3 and write.completion_tokens == 3 * 1500
    # 0, 1 and 2 earlier answers are sent along
    assert 3 * 1500 < write.prompt_tokens < 3 * 1500 + 60
    assert judge.calls == 1 and judge.prompt_tokens == pytest.approx(3 * 1500, abs=20)


@given(st.integers(0, 2**31), st.integers(0, 9), st.integers(1, 9))
def test_every_try_has_a_seed_of_its_own(seed: int, repeat: int, attempt: int) -> None:
    first, other = derive_seed(seed, SAMPLE, repeat), derive_seed(seed, SAMPLE, repeat, attempt)
    assert first != other and derive_seed(None, SAMPLE, repeat, attempt) is None
    assert json.dumps([first, other])


@given(st.text(max_size=12), st.integers(0, 4))
def test_a_rule_never_gets_stricter_with_the_tries(text: str, attempt: int) -> None:
    if not RULE.is_short(text, attempt):
        assert not RULE.is_short(text, attempt + 1)
    assert not TurnRule().is_short(text, attempt)
