"""The `reflection` block of a run's results: measures of the thinking, where there is any."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from r2w_eval.records.plan import TaskPlan
from r2w_eval.reflection.analysis import Analysis, analyse
from r2w_eval.reflection.measures import ReflectionSummary, summarise_reflection
from r2w_eval.reflection.sources import from_response
from r2w_eval.results.summary import TaskResult
from r2w_eval.store import RunFolder
from r2w_eval.types import Response


def add_reflection(
    folder: RunFolder, results: Sequence[TaskResult], plans: Sequence[TaskPlan]
) -> list[TaskResult]:
    """The results with their task's reflection summary; unchanged for tasks without thinking.

    The measures that need no judge of drafts: the same for every judge of the answers.
    """
    found = summarise_run(folder, plans)
    return [replace(result, reflection=found.get(result.task)) for result in results]


def summarise_run(folder: RunFolder, plans: Sequence[TaskPlan]) -> dict[str, ReflectionSummary]:
    """By task: the measures of the newest response of every sample and repeat."""
    newest: dict[str, dict[tuple[str, int], Response]] = defaultdict(dict)
    for response in folder.responses():
        own, place = newest[response.task], (response.sample_id, response.repeat)
        if place not in own or own[place].turn <= response.turn:
            own[place] = replace(response, raw="")
    summaries = {}
    for plan in plans:
        responses = newest[plan.info.name]
        if any(response.thinking for response in responses.values()):
            summaries[plan.info.name] = summarise_reflection(_analyses(plan, responses))
    return summaries


def _analyses(plan: TaskPlan, responses: dict[tuple[str, int], Response]) -> list[Analysis]:
    prompts = {sample.id: sample.messages[-1].content for sample in plan.samples()}
    return [
        analyse(from_response(response, prompts[sample_id]))
        for (sample_id, _), response in responses.items()
        if sample_id in prompts and (response.answer or response.thinking)
    ]
