"""The `reflection` block of a run's results: measures of the thinking, where there is any."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from r2w_eval.records.plan import TaskPlan
from r2w_eval.reflection.analysis import Analysis, analyse, without_texts
from r2w_eval.reflection.measures import ReflectionSummary, summarise_reflection
from r2w_eval.reflection.sources import from_response
from r2w_eval.results.summary import TaskResult
from r2w_eval.store import RunFolder


def add_reflection(
    folder: RunFolder, results: Sequence[TaskResult], plans: Sequence[TaskPlan]
) -> list[TaskResult]:
    """The results with their task's reflection summary; unchanged for tasks without thinking.

    The measures that need no judge of drafts: the same for every judge of the answers.
    """
    found = summarise_run(folder, plans)
    return [replace(result, reflection=found.get(result.task)) for result in results]


@dataclass(frozen=True, slots=True)
class _Newest:
    """Which response of the file stands for a turn of an answer, without its texts."""

    number: int
    thinks: bool


def summarise_run(folder: RunFolder, plans: Sequence[TaskPlan]) -> dict[str, ReflectionSummary]:
    """By task: the measures of the newest response of every sample, repeat and turn.

    The file is read twice, so that texts are held one at a time, and never where nobody thinks.
    """
    newest: dict[str, dict[tuple[str, int, int], _Newest]] = defaultdict(dict)
    for number, response in enumerate(folder.responses()):
        place = (response.sample_id, response.repeat, response.turn)
        newest[response.task][place] = _Newest(number, bool(response.thinking))
    thinking = {
        plan.info.name: plan
        for plan in plans
        if any(one.thinks for one in newest[plan.info.name].values())
    }
    numbers = {one.number for name in thinking for one in newest[name].values()}
    found = dict(_analyses(folder, thinking, numbers)) if numbers else {}
    return {
        name: summarise_reflection(
            [found[one.number] for one in newest[name].values() if one.number in found]
        )
        for name in thinking
    }


def _analyses(
    folder: RunFolder, plans: Mapping[str, TaskPlan], numbers: Set[int]
) -> Iterator[tuple[int, Analysis]]:
    prompts = {
        (name, sample.id): sample.messages[-1].content
        for name, plan in plans.items()
        for sample in plan.samples()
    }
    for number, response in enumerate(folder.responses()):
        prompt = prompts.get((response.task, response.sample_id))
        if number in numbers and prompt is not None and (response.answer or response.thinking):
            yield number, without_texts(analyse(from_response(response, prompt)))
