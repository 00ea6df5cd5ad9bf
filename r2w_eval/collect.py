"""The records of a run folder without their texts: the last word on every answer and question.

What stays of a response or a judgement while a run is aggregated is small, so that 10^5 of them
fit in memory; a text is measured as it passes, where the suite measures texts.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r2w_eval.plan import TaskPlan
from r2w_eval.records import answer_to_judge
from r2w_eval.types import Judgement, Response

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

    Texts are measured as they pass and not kept, but for the earlier turns of conversations.
    """
    measured = {plan.info.name: plan for plan in plans if plan.suite.measure}
    written: dict[str, dict[tuple[str, int], Written]] = defaultdict(dict)
    turns: dict[tuple[str, str, int], dict[int, str]] = defaultdict(dict)
    for response in responses:
        place = (response.sample_id, response.repeat)
        before = written[response.task].get(place)
        plan = measured.get(response.task)
        said = turns[response.task, *place] if plan and plan.suite.next_turn else {}
        said[response.turn] = response.answer
        if before is not None and before.response.turn > response.turn:
            continue
        thinking = None if response.thinking is None else len(response.thinking)
        slim = replace(response, raw="", answer="", thinking=None)
        measures = _measure(plan, response, tuple(said[turn] for turn in sorted(said)))
        written[response.task][place] = Written(slim, len(response.answer), thinking, measures)
    return written


def _measure(
    plan: TaskPlan | None, response: Response, turns: tuple[str, ...]
) -> Mapping[str, Any]:
    """The suite's own measures of an answer that exists."""
    if plan is None or plan.suite.measure is None:
        return {}
    answer = answer_to_judge(plan, response, turns)
    return {} if answer is None else plan.suite.measure(answer)


def latest_judgements(
    judgements: Iterable[Judgement],
) -> dict[tuple[str, str], dict[Question, Judgement]]:
    """By (response key, judge), then the question; texts of the judge are dropped.

    By the question and not by key: an answer that was made anew has new verdicts, and those on the
    old one must not count beside them.
    """
    found: dict[tuple[str, str], dict[Question, Judgement]] = defaultdict(dict)
    for judgement in judgements:
        slim = _slim(judgement)
        question = (slim.criterion, slim.order, slim.repeat)
        found[slim.response_key, slim.judge][question] = slim
    return found


def _slim(judgement: Judgement) -> Judgement:
    """The judgement without its texts, and with one copy of each repeated name: 10^5 fit in
    memory.
    """
    score = judgement.score
    numbers = {
        k: v for k, v in score.parts.items() if not isinstance(v, str) and k != "probabilities"
    }
    return replace(
        judgement,
        score=replace(score, reason="", parts=numbers),
        asks=("",) * len(judgement.asks),
        response_key=sys.intern(judgement.response_key),
        sample_id=sys.intern(judgement.sample_id),
        task=sys.intern(judgement.task),
        judge=sys.intern(judgement.judge),
        criterion=sys.intern(judgement.criterion),
    )
