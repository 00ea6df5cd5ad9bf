"""The newest record of every answer and verdict in a run folder, without texts.

What is kept of a response or a judgement is small, so that 10^5 of them fit in memory. Suites that
measure texts (lengths, counts) do so while the texts are read.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from r2w_eval.models.thinking_tokens import count_tokens
from r2w_eval.records.plan import TaskPlan
from r2w_eval.records.rows import answer_to_judge
from r2w_eval.types import Judgement, Response

NO_PARTS: Mapping[str, Any] = MappingProxyType({})
REPEATED = ("task", "sample_id", "judge", "criterion", "order", "model_returned")
# (criterion, order, repeat)
QuestionKey = tuple[str, str, int]


@dataclass(slots=True)
class Written:
    """An answer without its texts: what is left of it while the run is aggregated.

    `response` is the last turn; characters are those of all turns, and tokens those of all turns
    and of every try at them.
    """

    response: Response
    answer_chars: int
    thinking_chars: int | None
    prompt_tokens: int
    completion_tokens: int
    thinking_tokens: int
    measures: Mapping[str, Any]


def latest_responses(
    responses: Iterable[Response], plans: Sequence[TaskPlan]
) -> dict[str, dict[tuple[str, int], Written]]:
    """By task, then (sample, repeat): the last turn; a retried request replaces its failure.

    Texts are measured as they pass and not kept, except where an answer takes several requests.
    """
    by_name = {plan.info.name: plan for plan in plans}
    written: dict[str, dict[tuple[str, int], Written]] = defaultdict(dict)
    several: dict[tuple[str, tuple[str, int]], dict[tuple[int, int], Response]] = defaultdict(dict)
    for response in responses:
        place = (response.sample_id, response.repeat)
        plan = by_name.get(response.task)
        if plan and plan.suite.asks_again:
            tries = several[response.task, place]
            key = response.turn, response.attempt
            tries[key] = max(response, tries.get(key, response), key=_rank)
            continue
        before = written[response.task].get(place)
        if before is None or _rank(before.response) <= _rank(response):
            written[response.task][place] = _slim_answer(plan, [response])
    for (task, place), tries in several.items():
        written[task][place] = _slim_answer(by_name[task], [*tries.values()])
    return written


def _slim_answer(plan: TaskPlan | None, tries: Sequence[Response]) -> Written:
    """One answer from all requests for it; of every turn the best try stands."""
    best = {response.turn: response for response in sorted(tries, key=_rank)}
    turns = [best[turn] for turn in sorted(best)]
    thinking = [len(turn.thinking) for turn in turns if turn.thinking is not None]
    return Written(
        response=replace(turns[-1], raw="", answer="", thinking=None),
        answer_chars=sum(len(turn.answer) for turn in turns),
        thinking_chars=sum(thinking) if thinking else None,
        prompt_tokens=sum(one.usage.prompt_tokens or 0 for one in tries),
        completion_tokens=sum(one.usage.completion_tokens or 0 for one in tries),
        thinking_tokens=sum(map(_thinking_tokens, tries)),
        measures=_measure(plan, turns) if plan else {},
    )


def _thinking_tokens(response: Response) -> int:
    """Thinking tokens as reported, else their share of the reported total; 0 without a total."""
    if response.usage.completion_tokens is None:
        return 0
    return count_tokens(response.thinking or "", response.answer, response.usage)[0]


def _rank(response: Response) -> tuple[int, bool, int]:
    """Order of precedence among the responses for one answer: later turns first, then tries that
    succeeded, then later tries.
    """
    return response.turn, response.status.cause is None, response.attempt


def _measure(plan: TaskPlan, turns: Sequence[Response]) -> Mapping[str, Any]:
    """The suite's own measures of an answer that exists and is whole."""
    if plan.suite.measure is None or len(turns) < plan.suite.n_turns:
        return {}
    answer = answer_to_judge(plan, turns[-1], tuple(turn.answer for turn in turns))
    return {} if answer is None else plan.suite.measure(answer)


def latest_judgements(
    judgements: Iterable[Judgement],
) -> dict[tuple[str, str], dict[QuestionKey, Judgement]]:
    """By (response key, judge), then the question; texts of the judge are dropped.

    By the question and not by key: an answer that was made anew has new verdicts, and those on the
    old one must not count beside them.
    """
    found: dict[tuple[str, str], dict[QuestionKey, Judgement]] = defaultdict(dict)
    seen: dict[Any, Any] = {}
    for judgement in judgements:
        slim = _slim(judgement, seen)
        question = (slim.criterion, slim.order, slim.repeat)
        found[slim.response_key, slim.judge][seen.setdefault(question, question)] = slim
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
