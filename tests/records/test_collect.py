"""Measures of texts, runs without a judge, and files that the user supplies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from r2w_eval.config import RunConfig
from r2w_eval.data import SuiteData
from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import path_hash
from r2w_eval.records.collect import latest_responses
from r2w_eval.records.plan import TaskPlan
from r2w_eval.run.planning import plan_task, plan_tasks
from r2w_eval.types import Answer, Response, Usage, WriterStatus


def measured_plan(*, conversation: bool = False) -> TaskPlan:
    plan = plan_task("quickstart", RunConfig(), ())

    def measure(answer: Answer) -> dict[str, int]:
        return {"words": len(answer.text.split()), "turns": len(answer.turns)}

    next_turn = (lambda sample, answers: None) if conversation else None
    return replace(plan, suite=replace(plan.suite, measure=measure, next_turn=next_turn))


def response(answer: str, turn: int = 0, status: WriterStatus = WriterStatus.OK) -> Response:
    return Response(
        f"k{turn}", "quickstart", "s1", "m", answer, answer, thinking=None, status=status, turn=turn
    )


def test_answers_are_measured_and_their_texts_dropped() -> None:
    (written,) = latest_responses([response("one two")], [measured_plan()])["quickstart"].values()
    assert written.measures == {"words": 2, "turns": 1}
    assert written.response.answer == "" and written.answer_chars == 7


def test_a_retried_answer_is_measured_again() -> None:
    records = [response("one"), response("one two three")]
    (written,) = latest_responses(records, [measured_plan()])["quickstart"].values()
    assert written.measures["words"] == 3


def test_a_conversation_is_measured_with_all_its_turns() -> None:
    records = [response("a", 0), response("b c", 1), response("d", 2)]
    plans = [measured_plan(conversation=True)]
    (written,) = latest_responses(records, plans)["quickstart"].values()
    assert written.measures == {"words": 1, "turns": 3}


def test_tokens_are_those_of_all_turns_and_tries_and_characters_those_of_all_turns() -> None:
    def spent(answer: str, turn: int, attempt: int = 0, thinking: str | None = None) -> Response:
        status = WriterStatus.TOO_SHORT if answer == "short" else WriterStatus.OK
        made = replace(response(answer, turn, status), attempt=attempt, thinking=thinking)
        return replace(made, usage=Usage(100 * (turn + 1), 10, None))

    records = [
        spent("a plan", 0, thinking="why it is so"),
        spent("short", 1, attempt=0),
        spent("a chapter", 1, attempt=1, thinking="nine char"),
        replace(spent("a chapter", 1, attempt=1), status=WriterStatus.ERROR),
    ]
    plans = [measured_plan(conversation=True)]
    (written,) = latest_responses(records, plans)["quickstart"].values()
    assert (written.prompt_tokens, written.completion_tokens) == (500, 30)
    assert written.answer_chars == len("a plan") + len("a chapter")
    assert written.thinking_chars == len("why it is so") + len("nine char")
    assert 0 < written.thinking_tokens < 20 and written.measures["turns"] == 2


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (Usage(5, 1000, 700), 700),
        (Usage(5, 1000, 0), 900),
        (Usage(5, 1000, None), 900),
        (Usage(5, None, None), 0),
    ],
)
def test_thinking_that_an_engine_does_not_count_has_its_share(usage: Usage, tokens: int) -> None:
    made = replace(response("y" * 1000), thinking="x" * 9000, usage=usage)
    (written,) = latest_responses([made], [measured_plan()])["quickstart"].values()
    assert written.thinking_tokens == tokens


def test_no_answer_has_no_measures() -> None:
    records = [response("", status=WriterStatus.EMPTY)]
    (written,) = latest_responses(records, [measured_plan()])["quickstart"].values()
    assert written.measures == {}


def test_an_input_that_no_suite_takes_is_refused() -> None:
    with pytest.raises(UsageError, match="--baseline: none of the suites quickstart"):
        plan_tasks(RunConfig(tasks="quickstart", baseline="answers.jsonl"))


def test_a_missing_input_names_the_option_and_the_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs --baseline FILE.*See upstream"):
        SuiteData("s", {}, (tmp_path,)).input("baseline", "See upstream")
    data = SuiteData("s", {}, (tmp_path,), {"baseline": tmp_path / "none.jsonl"})
    with pytest.raises(DataError, match="no such file"):
        data.input("baseline", "See upstream")


def test_the_hash_of_a_folder_depends_on_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("a")
    before = path_hash(tmp_path)
    (tmp_path / "1.txt").rename(tmp_path / "2.txt")
    renamed = path_hash(tmp_path)
    (tmp_path / "2.txt").write_text("b")
    assert len({before, renamed, path_hash(tmp_path)}) == 3
