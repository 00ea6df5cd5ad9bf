"""The engine with suites made for the tests: conversations, stages, several judges, failures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2w_eval.errors import EndpointDown
from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.judge.scorers import Scorer, StoredJudge, TextJudge
from r2w_eval.models.chat import CallFailed, CallStatus, ChatModel, ChatRequest, Reply
from r2w_eval.models.client import HttpModel
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.models.thinking import SplitText, ThinkTags, read_reply_text
from r2w_eval.records.plan import Judging, Progress, TaskPlan, Writing
from r2w_eval.results.summary import RunFacts, TaskResult, summarise
from r2w_eval.run.engine import Engine
from r2w_eval.store import RunFolder, iter_jsonl
from r2w_eval.suites.suite import JudgingJob, ParityRules, Suite, load_info
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


PLAIN = replace(
    STAGED,
    plan_judging=lambda job: [JudgeRequest("grade", (Message("user", job.answer.text),))],
    criteria=lambda sample: ["grade"],
)


class Chat:
    """A chat model that answers by a rule from the request and the number of the call."""

    def __init__(self, rule: Callable[[ChatRequest, int], Reply], name: str = "chat") -> None:
        self.id = name
        self.requests: list[ChatRequest] = []
        self.rule = rule

    def describe(self) -> dict[str, Any]:
        return {"kind": "rule"}

    async def close(self) -> None: ...

    async def complete(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        await asyncio.sleep(0)
        return self.rule(request, len(self.requests))

    async def generate(self, sample: Sample, request: ChatRequest) -> tuple[Reply, SplitText]:
        reply = await self.complete(request)
        return reply, read_reply_text(reply, ThinkTags())


def says(text: str, finish: str = "stop") -> Chat:
    return Chat(lambda request, number: Reply(text, finish))


def tell_turns(broken_turn: int | None = None) -> Chat:
    """A writer that names turn and sample; sample 1 is lost at `broken_turn`."""

    def rule(request: ChatRequest, number: int) -> Reply:
        turn, sample = len(request.messages) // 2, request.messages[0].content[-2]
        if turn == broken_turn and sample == "1":
            raise CallFailed(CallStatus.TRANSPORT, "connection lost")
        return Reply(f"turn {turn} of {sample}", "stop")

    return Chat(rule)


def keep_the_gate(name: str = "chat") -> Chat:
    """A judge that lets even samples through the gate and grades everything else 8."""

    def rule(request: ChatRequest, number: int) -> Reply:
        text = request.messages[0].content
        is_gate = text.startswith("turn") and "|" not in text
        return Reply(str(int(text.endswith(("0", "2")))) if is_gate else "8", "stop")

    return Chat(rule, name)


@dataclass
class Work:
    """One run of the engine, with everything that can be set."""

    folder: Path
    suite: Suite = PLAIN
    mode: Mode = Mode.STRICT
    n_samples: int = 1
    n_repeats: int = 1
    retry_failed: bool = False
    reparse: bool = False
    concurrency: int = 2
    judge_tags: ThinkTags = ThinkTags()
    samples: Callable[[], Iterable[Sample]] = samples
    decoding: Decoding = Decoding()

    def run(self, writer: Chat, *judges: ChatModel) -> list[TaskResult]:
        scorers: list[Scorer] = [TextJudge(judge, self.judge_tags) for judge in judges]
        if self.reparse:
            scorers = [StoredJudge(scorer.id, scorer.describe()) for scorer in scorers]
        plan = TaskPlan(
            load_info("quickstart"), self.suite, self.mode, {}, self.samples, self.decoding
        )
        folder = RunFolder(self.folder)
        writing = Writing(
            "w", {"model": "w"}, writer.generate, self.concurrency, n_repeats=self.n_samples
        )
        judging = Judging(scorers, self.concurrency, self.n_repeats, self.reparse)
        with folder.open_writers() as writers:
            engine = Engine(writers, writing, judging, Progress(), self.retry_failed)

            async def job() -> None:
                try:
                    await engine.run([plan])
                finally:
                    await asyncio.gather(*(scorer.close() for scorer in scorers))

            asyncio.run(job())
        facts = {scorer.id: scorer.describe() for scorer in scorers}
        return summarise(folder, [plan], RunFacts({}, self.n_samples, facts, self.n_repeats))

    def rows(self, name: str) -> list[dict[str, Any]]:
        return list(iter_jsonl(self.folder / f"{name}.jsonl"))


def refuse(status: CallStatus) -> Callable[[ChatRequest, int], Reply]:
    def rule(request: ChatRequest, number: int) -> Reply:
        raise CallFailed(status, "HTTP 4xx")

    return rule


@pytest.mark.parametrize(
    ("said", "tags"),
    [
        ("<think>```json [3] ```</think>1", ThinkTags()),
        ("a plan</think>\n1", ThinkTags(opened_by_template=True)),
        (" 1\n", ThinkTags()),
    ],
)
def test_a_later_stage_is_asked_about_what_the_judge_said_and_not_what_it_thought(
    tmp_path: Path, said: str, tags: ThinkTags
) -> None:
    work = Work(tmp_path, STAGED, judge_tags=tags)
    judge = says(said)
    for _ in range(2):
        work.run(says("story"), judge)
    asked = {request.messages[0].content for request in judge.requests}
    assert asked == {"story", said if "think" not in said else "1"} and len(judge.requests) == 8


def asked(judge: Chat) -> list[str]:
    return [request.messages[0].content for request in judge.requests]


def test_later_stages_see_earlier_verdicts_and_are_resumed(tmp_path: Path) -> None:
    judge, writer = keep_the_gate(), tell_turns()
    (result,) = Work(tmp_path, STAGED).run(writer, judge)
    gates = [f"turn 0 of {n}" for n in range(4)]
    assert sorted(asked(judge)) == sorted([*gates, "1", "1"])
    assert result.headline.value == 8.0 and result.headline.n_scored == 2
    again = keep_the_gate()
    Work(tmp_path, STAGED).run(writer, again)
    assert asked(again) == [] and len(writer.requests) == 4


def test_a_conversation_is_a_record_per_turn_and_resumes_in_the_middle(tmp_path: Path) -> None:
    broken = tell_turns(broken_turn=1)
    Work(tmp_path, TURNS).run(broken, keep_the_gate())
    assert len(broken.requests) == 3 * 3 + 2
    healed, judge = tell_turns(), keep_the_gate()
    (result,) = Work(tmp_path, TURNS).run(healed, judge)
    assert [len(request.messages) for request in healed.requests] == [3, 5]
    assert asked(judge) == ["turn 0 of 1|turn 1 of 1|turn 2 of 1"]
    assert result.headline.n_scored == 4
    assert healed.requests[1].messages[-1] == Message("user", "End it.")


def test_a_sample_may_lower_the_suites_token_limit(tmp_path: Path) -> None:
    bounds = dict(zip((s.id for s in samples()), (4, None, 99, 9), strict=False))
    work = Work(
        tmp_path,
        samples=lambda: (replace(s, max_tokens=bounds[s.id]) for s in samples()),
        decoding=Decoding(max_tokens=9, temperature=0.5),
        concurrency=1,
    )
    writer = says("story")
    work.run(writer)
    sent = [request.decoding for request in writer.requests]
    assert [d.max_tokens for d in sent] == [min(9, n or 9) for n in bounds.values()]
    assert {d.temperature for d in sent} == {0.5}


def test_two_judges_are_asked_about_the_same_answers(tmp_path: Path) -> None:
    work = Work(tmp_path, STAGED)
    results = work.run(tell_turns(), keep_the_gate("a"), keep_the_gate("b"))
    assert [result.judge for result in results] == ["a", "b"]
    rows = work.rows("judgements")
    assert {row["judge"] for row in rows} == {"a", "b"} and len(rows) == 12


def test_a_judge_that_raises_ends_the_run_but_keeps_what_was_done(tmp_path: Path) -> None:
    def fail(request: ChatRequest, number: int) -> Reply:
        raise OSError(28, "No space left on device")

    work = Work(tmp_path, STAGED)
    with pytest.raises(OSError, match="No space"):
        work.run(tell_turns(), Chat(fail))
    assert work.rows("responses")
    (result,) = work.run(tell_turns(), keep_the_gate())
    assert result.headline.value == 8.0


def test_the_order_of_records_does_not_change_the_result(tmp_path: Path) -> None:
    work = Work(tmp_path, STAGED)
    (first,) = work.run(tell_turns(), keep_the_gate())
    for name in ("responses.jsonl", "judgements.jsonl"):
        lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
        (tmp_path / name).write_bytes(b"".join(reversed(lines)))
    (second,) = work.run(tell_turns(), keep_the_gate())
    assert first == second
    assert json.dumps(str(first)) == json.dumps(str(second))


def test_every_sample_and_repeat_has_its_own_seed_and_key(tmp_path: Path) -> None:
    work = Work(tmp_path, n_samples=3, n_repeats=2)
    writer, judge = says("story"), says("7")
    (result,) = work.run(writer, judge)
    assert len({request.decoding.seed for request in writer.requests}) == 4 * 3
    assert {request.index for request in judge.requests} == {0, 1}
    keys = [row["key"] for name in ("responses", "judgements") for row in work.rows(name)]
    assert len(keys) == len(set(keys)) == 4 * 3 + 4 * 3 * 2
    assert result.judging.n_valid == 24 and result.writer.n_expected == 12
    head = result.headline
    assert (head.n_scored, head.n_expected) == (4, 4), "three answers to a sample are one sample"
    again, asked = says("other"), says("1")
    assert work.run(again, asked) == [result] and not again.requests + asked.requests


def test_more_samples_or_repeats_add_to_what_is_there(tmp_path: Path) -> None:
    Work(tmp_path).run(says("story"), says("7"))
    writer, judge = says("story"), says("7")
    Work(tmp_path, n_samples=2, n_repeats=3).run(writer, judge)
    assert len(writer.requests) == 4 and len(judge.requests) == 4 * 2 * 3 - 4


def test_a_permanent_refusal_is_not_sent_again_by_a_later_run(tmp_path: Path) -> None:
    work = Work(tmp_path)
    for expected in (4, 0):
        writer = Chat(refuse(CallStatus.BAD_REQUEST))
        (result,) = work.run(writer, says("7"))
        assert len(writer.requests) == expected
        assert result.writer.statuses == {"error": 4} and result.headline.value is None
    writer = says("story")
    (result,) = Work(tmp_path, retry_failed=True).run(writer, says("7"))
    assert len(writer.requests) == 4 and result.headline.value == 7.0


@pytest.mark.parametrize(
    "status", [CallStatus.TRANSPORT, CallStatus.TIMEOUT, CallStatus.RATE_LIMITED]
)
def test_a_transient_failure_is_sent_again_by_a_later_run(
    tmp_path: Path, status: CallStatus
) -> None:
    work = Work(tmp_path)
    work.run(Chat(refuse(status)), says("7"))
    work.run(says("story"), Chat(refuse(status)))
    writer, judge = says("story"), says("7")
    (result,) = work.run(writer, judge)
    assert not writer.requests and len(judge.requests) == 4
    assert result.headline.value == 7.0 and result.judging.failures == {}


@pytest.mark.parametrize(
    ("judge", "status"),
    [
        (says("prose"), "parse_error"),
        (says("prose", "length"), "judge_truncated"),
        (says("7", "length"), "judge_truncated"),
        (Chat(refuse(CallStatus.BAD_REQUEST)), "bad_request"),
        (Chat(refuse(CallStatus.CONTEXT)), "judge_too_long"),
        (Chat(refuse(CallStatus.FILTERED)), "judge_filtered"),
        (Chat(lambda request, number: Reply("", "stop", refusal="no")), "judge_refused"),
    ],
)
def test_a_permanently_lost_verdict_is_kept_and_asked_again_only_on_demand(
    tmp_path: Path, judge: Chat, status: str
) -> None:
    work = Work(tmp_path)
    (result,) = work.run(says("story"), judge)
    assert result.judging.failures == {status: 4} and result.headline.value is None
    silent = says("7")
    assert work.run(says("x"), silent)[0].judging.failures == {status: 4} and not silent.requests
    # reading the stored texts again with the same parser changes nothing
    before = (tmp_path / "judgements.jsonl").read_bytes()
    (reparsed,) = Work(tmp_path, reparse=True).run(says("x"), silent)
    assert reparsed.judging.failures == {status: 4} and not silent.requests
    assert (tmp_path / "judgements.jsonl").read_bytes() == before
    (healed,) = Work(tmp_path, retry_failed=True).run(says("x"), silent)
    assert healed.headline.value == 7.0 and healed.judging.failures == {}


def test_a_verdict_lost_on_its_second_ask_stays_lost_when_reparsed(
    tmp_path: Path,
) -> None:
    def rule(request: ChatRequest, number: int) -> Reply:
        if request.ask:
            raise CallFailed(CallStatus.TRANSPORT, "lost")
        return Reply("prose", "stop")

    work = Work(tmp_path)
    work.run(says("story"), Chat(rule))
    (result,) = Work(tmp_path, reparse=True).run(says("story"), says("7"))
    assert result.judging.failures == {"transport": 4}
    assert work.run(says("story"), says("7"))[0].headline.value == 7.0


def test_reparsing_applies_a_better_or_a_worse_parser_to_stored_texts(tmp_path: Path) -> None:
    work = Work(tmp_path)
    assert work.run(says("story"), says("seven"))[0].headline.value is None

    def words(request: JudgeRequest, text: str) -> Score:
        return Score(7.0) if text == "seven" else parse(request, text)

    better = replace(PLAIN, parse_verdict={Mode.STRICT: words, Mode.PARITY: words})
    (result,) = Work(tmp_path, better, reparse=True).run(says("x"), says("x"))
    assert result.headline.value == 7.0 and result.judging.n_total == 4
    (result,) = Work(tmp_path, reparse=True).run(says("x"), says("x"))
    assert result.headline.value is None


UPSTREAM = replace(
    PLAIN,
    parity=ParityRules(
        read_answer=lambda raw: raw.replace("</think>", ""),
        ask_again=lambda texts: len(texts) < 4,
    ),
)


def test_parity_asks_again_by_the_suites_rule_and_strict_by_ours(tmp_path: Path) -> None:
    judge = says("prose")
    Work(tmp_path / "p", UPSTREAM, Mode.PARITY).run(says("story"), judge)
    assert len(judge.requests) == 4 * 4
    assert all(len(request.messages) == 1 for request in judge.requests)
    assert {request.ask for request in judge.requests} == {0, 1, 2, 3}
    judge = says("prose")
    Work(tmp_path / "s", UPSTREAM, Mode.STRICT).run(says("story"), judge)
    assert len(judge.requests) == 4 * 2
    assert sorted(len(request.messages) for request in judge.requests) == [1] * 4 + [3] * 4


def test_parity_judges_what_upstream_would_have_judged(tmp_path: Path) -> None:
    judge = says("7")
    (result,) = Work(tmp_path, UPSTREAM, Mode.PARITY).run(says("<think>plan"), judge)
    assert {request.messages[0].content for request in judge.requests} == {"<think>plan"}
    assert result.writer.statuses == {"unclosed_think": 4} and result.headline.value == 7.0
    judge = says("7")
    (result,) = Work(tmp_path / "s", UPSTREAM).run(says("<think>plan"), judge)
    assert not judge.requests and result.judging.failures == {"no_answer": 4}


def test_a_rewritten_answer_drops_the_verdicts_on_the_old_one(tmp_path: Path) -> None:
    Work(tmp_path, UPSTREAM, Mode.PARITY).run(says("<think>plan"), says("1"))
    retry = Work(tmp_path, UPSTREAM, Mode.PARITY, retry_failed=True)
    (result,) = retry.run(says("story"), says("9"))
    assert result.headline.value == 9.0 and result.judging.n_total == 4


def test_both_orders_of_a_question_are_two_verdicts(tmp_path: Path) -> None:
    both = replace(
        PLAIN,
        plan_judging=lambda job: [
            JudgeRequest("grade", (Message("user", order),), order=order) for order in ("ab", "ba")
        ],
        criteria=lambda sample: ["grade", "grade"],
    )
    judge = Chat(
        lambda request, _: Reply("4" if request.messages[0].content == "ab" else "6", "stop")
    )
    (result,) = Work(tmp_path, both).run(says("story"), judge)
    assert len(judge.requests) == 8 and result.judging.n_valid == result.judging.n_total == 8
    assert result.judging.histogram == {"4": 4, "6": 4}


def test_a_response_is_judged_while_others_are_written(tmp_path: Path) -> None:
    events: list[str] = []

    def write(request: ChatRequest, number: int) -> Reply:
        events.append(f"write {number}")
        return Reply("story", "stop")

    def grade(request: ChatRequest, number: int) -> Reply:
        events.append(f"judge {number}")
        return Reply("7", "stop")

    Work(tmp_path, concurrency=1).run(Chat(write), Chat(grade))
    assert events.index("judge 1") < events.index("write 3")


def plan_in_both_orders(job: JudgingJob) -> list[JudgeRequest]:
    """Four questions that begin with one of two long texts, planned in turn."""
    return [
        JudgeRequest("grade", (Message("user", f"{order} {job.answer.text} {name}"),), order=order)
        for name in ("plot", "style")
        for order in ("ab", "ba")
    ]


@pytest.mark.parametrize("latency_ms", [0, 20])
def test_questions_with_a_common_prefix_reach_the_server_together(
    tmp_path: Path, latency_ms: int
) -> None:
    suite = replace(
        PLAIN,
        plan_judging=plan_in_both_orders,
        criteria=lambda sample: ["grade"] * 4,
        parse_verdict={Mode.STRICT: lambda request, text: Score(5.0)},
    )
    with FakeServer(keep_log=True) as server:
        judge = HttpModel(
            Endpoint((server.base_url,), f"judge-{latency_ms}"),
            ClientSettings(max_connections=2, fixed_concurrency=True),
        )
        writer = Chat(lambda request, _: Reply(request.messages[0].content * 9, "stop"))
        Work(tmp_path, suite, n_repeats=2, concurrency=4).run(writer, judge)
        texts = [str(body["messages"][0]["content"]) for body in server.log]
    asked = [text for text in texts if text.startswith(("ab", "ba"))]
    beginnings = [text.rpartition(" ")[0] for text in asked]
    assert len(set(asked)) == 16 and len(set(beginnings)) == 8
    # two connections may swap neighbours, and nothing else
    for beginning in set(beginnings):
        places = [place for place, found in enumerate(beginnings) if found == beginning]
        assert places[-1] - places[0] <= len(places)


def test_a_dead_judge_ends_the_run_but_every_answer_is_kept(tmp_path: Path) -> None:
    def down(request: ChatRequest, number: int) -> Reply:
        raise EndpointDown("wrong key")

    work = Work(tmp_path)
    with pytest.raises(EndpointDown, match="wrong key"):
        work.run(says("story"), says("7"), Chat(down, "second"))
    written = len(work.rows("responses"))
    writer = says("story")
    work.run(writer, says("7"))
    assert written and len(writer.requests) == 4 - written


class Slow(Chat):
    """Takes its time to answer."""

    async def complete(self, request: ChatRequest) -> Reply:
        reply = await super().complete(request)
        await asyncio.sleep(0.05)
        return reply


def test_a_judge_that_ends_the_run_loses_no_verdict_of_another(tmp_path: Path) -> None:
    def down(request: ChatRequest, number: int) -> Reply:
        raise EndpointDown("wrong key")

    gate, work = keep_the_gate(), Work(tmp_path, STAGED)
    slow, refusing = Slow(gate.rule, "slow"), Chat(down, "refusing")
    with pytest.raises(EndpointDown, match="wrong key"):
        work.run(tell_turns(), slow, refusing)
    assert slow.requests and len(refusing.requests) <= work.concurrency
    work.run(tell_turns(), slow, keep_the_gate("refusing"))
    assert len(slow.requests) == 6, "four gates and two grades, each once"


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_thinking_opened_by_a_template_is_not_a_verdict_when_reparsed_either(
    tmp_path: Path, finish: str
) -> None:
    work = Work(tmp_path, judge_tags=ThinkTags(opened_by_template=True))
    (first,) = work.run(says("story"), says("7", finish))
    (again,) = replace(work, reparse=True).run(says("story"), says("7"))
    assert first.headline.value is None and again.headline.value is None
    assert again.judging.failures == first.judging.failures


def test_a_request_that_was_not_sent_leaves_no_record(tmp_path: Path) -> None:
    work = Work(tmp_path)
    (result,) = work.run(Chat(refuse(CallStatus.NOT_SENT)), says("7"))
    assert work.rows("responses") == [] and result.writer.statuses == {"not_sent": 4}
    (result,) = work.run(says("story"), Chat(refuse(CallStatus.NOT_SENT)))
    assert work.rows("judgements") == [] and result.judging.failures == {"not_sent": 4}


@pytest.mark.parametrize("text", ['{"score": 10}', "\ud800", "\u2028\n\x85", "\x00", "{0}" * 99])
def test_hostile_answers_reach_judge_and_disk_unchanged(tmp_path: Path, text: str) -> None:
    work, judge = Work(tmp_path), says("7")
    (result,) = work.run(says(f"a{text}z"), judge)
    assert {request.messages[0].content for request in judge.requests} == {f"a{text}z"}
    assert {row["raw"] for row in work.rows("responses")} == {f"a{text}z"}
    assert result.headline.value == 7.0


class Fate:
    """Draws the outcome of each call; after `until` calls everything succeeds."""

    def __init__(self, seed: int, until: int) -> None:
        self.draws = random.Random(seed)
        self.left = until

    def __call__(self, request: ChatRequest, number: int) -> Reply:
        self.left -= 1
        drawn = self.draws.random() if self.left > 0 else 1.0
        if drawn < 0.1:
            raise EndpointDown("stop")
        if drawn < 0.3:
            raise CallFailed(CallStatus.TRANSPORT, "lost")
        return Reply("7", "stop")


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_any_sequence_of_failures_ends_in_the_same_result(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        whole = Work(Path(name) / "whole", n_samples=2, n_repeats=2).run(says("7"), says("7"))
        work = Work(Path(name) / "broken", n_samples=2, n_repeats=2)
        for _ in range(100):
            with contextlib.suppress(EndpointDown):
                result = work.run(Chat(Fate(seed, 10)), Chat(Fate(seed + 1, 10)))
                if result[0].judging.failures == {}:
                    break
            seed += 2
        assert result == whole
        assert len({row["key"] for row in work.rows("judgements")}) == 16
