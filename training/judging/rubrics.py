"""Rubrics for prompts that have none: proposed by the judge and kept in a journal."""

from __future__ import annotations

from collections.abc import Sequence

from r2w_eval.training.journal import Call, Journal, NoAnswer, Role, UnusableReply
from r2w_eval.training.judging.assess import Unreadable, read_rubric
from r2w_eval.training.prompts import Criterion, Prompt
from r2w_eval.training.wording import load_wording

from r2w_eval.errors import R2WError
from r2w_eval.waiting import gather

Rubric = tuple[Criterion, ...]


async def propose_rubric(
    journal: Journal, judge: Role, prompt: Prompt, text: str, tries: int
) -> Rubric:
    """The rubric that the judge proposes in reply to `text`.

    Raises Unreadable after `tries` replies that cannot be read or used, NoAnswer when there is no
    reply.
    """
    problem = "not asked"
    for attempt in range(tries):
        call = Call(prompt.id, 0, "rubric", text, attempt)
        try:
            return read_rubric(await journal.ask(judge.at(attempt), call))
        except (Unreadable, UnusableReply) as error:
            problem = str(error)
    raise Unreadable(problem)


async def complete_rubrics(
    prompts: Sequence[Prompt], journal: Journal, judge: Role, tries: int = 3
) -> dict[str, Rubric]:
    """The rubrics by prompt text, proposed by the judge where missing.

    Prompts for which none could be had are left out. Raises R2WError if that is all of them.
    """
    template = load_wording("rubric")

    async def one(prompt: Prompt) -> Rubric:
        if prompt.rubric:
            return prompt.rubric
        text = template.fill(prompt=prompt.prompt)
        try:
            return await propose_rubric(journal, judge, prompt, text, tries)
        except (Unreadable, NoAnswer):
            return ()

    distinct = {prompt.prompt: prompt for prompt in prompts}
    found = await gather([one(prompt) for prompt in distinct.values()])
    rubrics = {text: rubric for text, rubric in zip(distinct, found, strict=True) if rubric}
    if not rubrics:
        raise R2WError(
            f"the judge proposed no readable rubric for any of {len(distinct)} prompts. Give the "
            f"prompts a rubric each, or choose outcome_form: pairwise, which needs none"
        )
    return rubrics
