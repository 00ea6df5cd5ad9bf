"""The records of a run folder without their texts: the last word on every answer and question.

What stays of a response or a judgement while a run is aggregated is small, so that 10^5 of them
fit in memory; a text is measured as it passes, where the suite measures texts.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from r2w_eval.records.plan import TaskPlan
from r2w_eval.records.rows import answer_to_judge
from r2w_eval.types import Judgement, Response

NO_PARTS: Mapping[str, Any] = MappingProxyType({})
REPEATED = ("task", "sample_id", "judge", "criterion", "order", "model_returned")
# (criterion, order, repeat)
Question = tuple[str, str, int]


@dataclass(slots=True)
class Written:
    """A response without its texts: what is left of it while the run is aggregated."""

    response: Response
    answer_chars: int
    thinking_chars: int | None
    measures: Mapping[str, Any]


def latest_responses(
    responses: Iterable[Response], plans: Sequence[TaskPlan]
) -> dict[str, dict[tuple[str, int], Written]]:
    """By task, then (sample, repeat): the last turn; a retried request replaces its failure.

    Texts are measured as they pass and not kept, but for those of conversations.
    """
    measured = {plan.info.name: plan for plan in plans if plan.suite.measure}
    written: dict[str, dict[tuple[str, int], Written]] = defaultdict(dict)
    talks: dict[tuple[str, tuple[str, int]], dict[int, Response]] = defaultdict(dict)
    for response in responses:
        place = (response.sample_id, response.repeat)
        before = written[response.task].get(place)
        plan = measured.get(response.task)
        if plan and plan.suite.next_turn:
            turns = talks[response.task, place]
            turns[response.turn] = max(response, turns.get(response.turn, response), key=_rank)
        if before is not None and _rank(before.response) > _rank(response):
            continue
        thinking = None if response.thinking is None else len(response.thinking)
        slim = replace(response, raw="", answer="", thinking=None)
        measures = _measure(plan, [response]) if plan else {}
        written[response.task][place] = Written(slim, len(response.answer), thinking, measures)
    for (task, place), turns in talks.items():
        in_order = [turns[turn] for turn in sorted(turns)]
        written[task][place].measures = _measure(measured[task], in_order)
    return written


def _rank(response: Response) -> tuple[int, bool, int]:
    """What stands for an answer: the last turn, there the try that did, or else the last one."""
    return response.turn, response.status.cause is None, response.attempt


def _measure(plan: TaskPlan, turns: Sequence[Response]) -> Mapping[str, Any]:
    """The suite's own measures of an answer that exists and is whole."""
    if plan.suite.measure is None or len(turns) < plan.suite.n_turns:
        return {}
    answer = answer_to_judge(plan, turns[-1], tuple(turn.answer for turn in turns))
    return {} if answer is None else plan.suite.measure(answer)


def latest_judgements(
    judgements: Iterable[Judgement],
) -> dict[tuple[str, str], dict[Question, Judgement]]:
    """By (response key, judge), then the question; texts of the judge are dropped.

    By the question and not by key: an answer that was made anew has new verdicts, and those on the
    old one must not count beside them.
    """
    found: dict[tuple[str, str], dict[Question, Judgement]] = defaultdict(dict)
    seen: dict[Any, Any] = {}
    for judgement in judgements:
        slim = _slim(judgement, seen)
        question = seen.setdefault(*[(slim.criterion, slim.order, slim.repeat)] * 2)
        found[slim.response_key, slim.judge][question] = slim
    return found


def _slim(judgement: Judgement, seen: dict[Any, Any]) -> Judgement:
    """The judgement without its key and texts, and with one copy of each value that repeats: 10^5
    fit in memory.
    """

    def one(value: Any) -> Any:
        return seen.setdefault(value, value)

    score = judgement.score
    numbers = {
        k: v for k, v in score.parts.items() if not isinstance(v, str) and k != "probabilities"
    }
    return replace(
        judgement,
        key="",
        score=replace(score, reason="", parts=numbers or NO_PARTS),
        asks=one(("",) * len(judgement.asks)),
        usage=one(judgement.usage),
        response_key=sys.intern(judgement.response_key),
        **{name: one(getattr(judgement, name)) for name in REPEATED},
    )
