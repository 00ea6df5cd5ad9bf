"""Judges: re-asking, thinking judges, statuses, and expected scores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.judge.parsing import read_number_verdict
from r2w_eval.judge.scorers import ScoreItem, TextJudge, Verdict, expected_score
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, LabelProbabilities, Reply
from r2w_eval.types import Decoding, JudgeRequest, JudgeStatus, Message, Scale, Score, Usage

GOOD = '{"score": 7, "reason": "fine"}'
REQUEST = JudgeRequest("c", (Message("user", "Judge."),))


class Scripted:
    """A chat model that says what it is told to: for faults that no real server makes to order."""

    id = "scripted"

    def __init__(self, *replies: Reply | CallFailed) -> None:
        self.replies = list(replies)
        self.requests: list[ChatRequest] = []

    def describe(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None: ...

    async def complete(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, CallFailed):
            raise reply
        return reply


def parse(request: JudgeRequest, text: str) -> Score:
    return read_number_verdict(text, "score", 1, 10)


def judge(model: Scripted, **settings: Any) -> Verdict:
    item = ScoreItem(REQUEST, Decoding(), **{"parse": parse, **settings})
    return asyncio.run(TextJudge(model).score([item]))[0]


def text(content: str, finish: str = "stop") -> Reply:
    return Reply(content, finish)


def test_an_unreadable_reply_is_asked_again_once_with_the_problem_named() -> None:
    model = Scripted(text("seven"), text(GOOD))
    verdict = judge(model)
    assert verdict.score.value == 7 and verdict.asks == ("seven", GOOD)
    first, second = model.requests
    assert second.messages[:1] == first.messages and second.ask == 1
    assert second.messages[1] == Message("assistant", "seven")
    assert "no JSON object" in second.messages[2].content


def test_two_unreadable_replies_are_a_status_with_both_texts() -> None:
    verdict = judge(Scripted(text("seven"), text("eight")))
    assert verdict.score.value is None and verdict.score.status is JudgeStatus.PARSE_ERROR
    assert verdict.asks == ("seven", "eight")


def test_parity_repeats_the_same_question_by_the_suites_rule() -> None:
    model = Scripted(*[text("no")] * 4)
    judge(model, ask_again=lambda texts: len(texts) < 4)
    assert len(model.requests) == 4
    assert {request.messages for request in model.requests} == {REQUEST.messages}


def test_a_huge_reply_is_not_sent_back_whole() -> None:
    model = Scripted(text("x" * 2_000_000), text(GOOD))
    assert judge(model).score.value == 7
    assert len(model.requests[1].messages[1].content) == 2000


@pytest.mark.parametrize(
    ("reply", "quoted"),
    [
        (text(f"<think>{'hm ' * 1000}</think>\nseven"), "seven"),
        (text("<think>so", "length"), "(empty)"),
    ],
)
def test_a_judge_is_reminded_of_its_reply_and_not_of_its_thinking(
    reply: Reply, quoted: str
) -> None:
    model = Scripted(reply, text(GOOD))
    assert judge(model).score.value == 7
    assert model.requests[1].messages[1] == Message("assistant", quoted)


def test_a_thinking_judge_is_read_after_its_thinking() -> None:
    thought = '<think>perhaps {"score": 1}</think>' + GOOD
    assert judge(Scripted(text(thought))).score.value == 7


@pytest.mark.parametrize(
    ("replies", "status"),
    [
        ([text("<think>so", "length")] * 2, JudgeStatus.TRUNCATED),
        ([text('{"score": ', "length")] * 2, JudgeStatus.TRUNCATED),
        ([Reply("", "stop", refusal="no")], JudgeStatus.REFUSED),
        ([CallFailed(CallStatus.CONTEXT, "long")], JudgeStatus.TOO_LONG),
        ([CallFailed(CallStatus.TIMEOUT, "slow")], JudgeStatus.TIMEOUT),
        ([CallFailed(CallStatus.FILTERED, "no")], JudgeStatus.FILTERED),
    ],
)
def test_every_failure_has_its_status(
    replies: Sequence[Reply | CallFailed], status: JudgeStatus
) -> None:
    verdict = judge(Scripted(*replies))
    assert verdict.score.value is None and verdict.score.status is status


def test_a_score_cannot_contradict_its_status() -> None:
    with pytest.raises(ValueError, match="contradicts"):
        Score(None)
    with pytest.raises(ValueError, match="contradicts"):
        Score(0.0, JudgeStatus.PARSE_ERROR)


SCALE = Scale("", {str(k): float(k) for k in range(1, 11)})


def test_low_mass_is_a_status_unless_a_number_is_asked_for() -> None:
    read = LabelProbabilities({"3": 0.1, "4": 0.1})
    assert expected_score(read, SCALE).status is JudgeStatus.LOW_MASS
    assert expected_score(read, SCALE, 0.0).value == 3.5
    assert expected_score(LabelProbabilities({}), SCALE, 0.0).status is JudgeStatus.LOW_MASS


@given(st.dictionaries(st.sampled_from(sorted(SCALE.labels)), st.floats(1e-6, 1), min_size=1))
def test_an_expected_score_lies_between_its_labels(probabilities: dict[str, float]) -> None:
    value = expected_score(LabelProbabilities(probabilities), SCALE, 0.0).value
    labels = [SCALE.labels[label] for label in probabilities]
    assert value is not None and min(labels) - 1e-9 <= value <= max(labels) + 1e-9


@pytest.mark.parametrize("mass", [float("nan"), 0.0, -1.0])
def test_a_probability_mass_that_is_not_a_number_gives_no_value(mass: float) -> None:
    score = expected_score(LabelProbabilities({"3": mass}), SCALE, 0.0)
    assert score.value is None and score.status is JudgeStatus.LOW_MASS


def test_a_second_ask_that_fails_to_arrive_is_its_own_status() -> None:
    verdict = judge(Scripted(text("prose"), CallFailed(CallStatus.TRANSPORT, "lost")))
    assert verdict.score.status is JudgeStatus.TRANSPORT and verdict.asks == ("prose",)


def test_a_cut_reply_with_a_whole_verdict_counts() -> None:
    assert judge(Scripted(text(GOOD + " And furth", "length"))).score.value == 7


def test_a_cut_number_may_lack_digits_and_is_not_read() -> None:
    def last_digits(request: JudgeRequest, said: str) -> Score:
        digits = said.rpartition(": ")[2]
        return Score(float(digits)) if digits else Score(None, JudgeStatus.PARSE_ERROR, "none")

    cut = text("Tone: 12\nPace: 1", "length")
    verdict = judge(Scripted(cut, cut), parse=last_digits)
    assert verdict.score.status is JudgeStatus.TRUNCATED and len(verdict.asks) == 2
    # upstream's scripts do not look at how a reply ended
    assert judge(Scripted(cut), parse=last_digits, ask_again=lambda _: False).score.value == 1


def test_cut_material_for_later_questions_is_lost_as_far_as_upstream_is_not_concerned() -> None:
    cut = text(GOOD, "length")
    assert judge(Scripted(cut, text(GOOD)), is_material=True).asks == (GOOD, GOOD)
    lost = judge(Scripted(cut, cut), is_material=True).score
    assert (lost.status, lost.reason) == (JudgeStatus.TRUNCATED, "cut: the end is missing")
    assert judge(Scripted(cut), is_material=True, ask_again=lambda _: False).score.value == 7


def test_tokens_and_time_of_all_asks_are_added_up() -> None:
    replies = [Reply(t, "stop", usage=Usage(5, 2), latency_s=0.5) for t in ("no", GOOD)]
    verdict = judge(Scripted(*replies))
    assert verdict.usage == Usage(10, 4) and verdict.latency_s == 1.0


def test_the_reminder_does_not_evaluate_the_reply() -> None:
    model = Scripted(text("{problem} {0} %s"), text(GOOD))
    judge(model)
    assert model.requests[1].messages[1].content == "{problem} {0} %s"


def test_an_injected_verdict_in_a_server_side_thought_is_not_read() -> None:
    thought = Reply("I cannot say.", "stop", reasoning=GOOD)
    assert judge(Scripted(thought, thought)).score.status is JudgeStatus.PARSE_ERROR


def test_what_is_not_settled_keeps_its_last_reading() -> None:
    cut = text("<think>so", "length")
    verdict = judge(Scripted(cut), ask_again=lambda _: False, settle=lambda *_: None)
    assert verdict.score.status is JudgeStatus.TRUNCATED


def test_items_come_back_in_order_however_long_each_takes() -> None:
    class Slow(Scripted):
        async def complete(self, request: ChatRequest) -> Reply:
            number = int(request.messages[0].content)
            await asyncio.sleep((5 - number) / 200)
            return Reply(f'{{"score": {number}}}', "stop")

    items = [
        ScoreItem(JudgeRequest("c", (Message("user", str(n)),)), Decoding(), parse)
        for n in range(1, 6)
    ]
    verdicts = asyncio.run(TextJudge(Slow()).score(items))
    assert [v.score.value for v in verdicts] == [1, 2, 3, 4, 5]


def test_replies_that_stay_unreadable_are_settled_by_upstreams_rule() -> None:
    def settle(request: JudgeRequest, texts: Sequence[str]) -> Score:
        return Score(float(len(texts)))

    model = Scripted(text("no"), text("no"), text("no"))
    verdict = judge(model, ask_again=lambda texts: len(texts) < 3, settle=settle)
    assert verdict.score == Score(3.0)
    assert judge(Scripted(text(GOOD)), settle=settle).score.value == 7.0
