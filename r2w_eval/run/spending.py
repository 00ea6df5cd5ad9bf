"""What a run folder has cost so far, and what it may cost."""

from __future__ import annotations

from dataclasses import replace

from r2w_eval.config import RunConfig
from r2w_eval.errors import BudgetReached
from r2w_eval.models.cost import Budget, estimate_tokens, load_prices
from r2w_eval.store import RunFolder
from r2w_eval.types import Usage


def open_budget(config: RunConfig) -> Budget | None:
    """The cap of `--max-cost`; None without one."""
    return None if config.max_cost is None else Budget(config.max_cost)


def add_spent(budget: Budget | None, folder: RunFolder, config: RunConfig) -> None:
    """Count what the records of the folder cost: the cap is one for all calls of a command.

    What came from the cache was free; tries that left no record are not among them. Where the
    endpoint counted no tokens, those of the stored texts are estimated: of an answer, and of a
    verdict with the answer that it is about, so that it is a lower bound.
    """
    if budget is None:
        return
    prices = load_prices(config.prices)
    seen, lengths = set(), dict[str, int]()
    for response in folder.responses():
        lengths[response.key] = tokens = estimate_tokens(response.raw)
        if response.model in prices and not response.cached:
            usage = counted(response.usage, 0, tokens)
            budget.settle(0.0, prices[response.model].cost_of(usage))
    for judgement in folder.judgements():
        # a verdict that was read again stands there twice and was paid once
        asked = (judgement.key, judgement.at)
        if judgement.judge in prices and not judgement.cached and asked not in seen:
            said = sum(map(estimate_tokens, judgement.asks))
            usage = counted(judgement.usage, lengths.get(judgement.response_key, 0), said)
            budget.settle(0.0, prices[judgement.judge].cost_of(usage))
        seen.add(asked)


def counted(usage: Usage, prompt: int, completion: int) -> Usage:
    """The usage with these estimates in place of what the endpoint did not count.

    >>> counted(Usage(prompt_tokens=7), 5, 3)
    Usage(prompt_tokens=7, completion_tokens=3, reasoning_tokens=None, cached_tokens=None)
    """
    told_prompt, told_completion = usage.prompt_tokens, usage.completion_tokens
    return replace(
        usage,
        prompt_tokens=prompt if told_prompt is None else told_prompt,
        completion_tokens=completion if told_completion is None else told_completion,
    )


def check_budget(budget: Budget | None) -> None:
    """Raises BudgetReached where a call was not sent for it."""
    if budget is not None and budget.is_reached:
        raise BudgetReached(
            f"Stopped at --max-cost {budget.cap_usd}: ${budget.spent_usd:.4f} spent, earlier calls "
            f"into the same folder included. The same command with a higher --max-cost goes on"
        )
