"""What a run folder has cost so far, and what it may cost."""

from __future__ import annotations

from r2w_eval.config import RunConfig
from r2w_eval.errors import BudgetReached
from r2w_eval.models.cost import Budget, load_prices
from r2w_eval.store import RunFolder


def open_budget(config: RunConfig) -> Budget | None:
    """The cap of `--max-cost`; None without one."""
    return None if config.max_cost is None else Budget(config.max_cost)


def add_spent(budget: Budget | None, folder: RunFolder, config: RunConfig) -> None:
    """Count what the records of the folder cost: the cap is one for all calls of a command.

    What came from the cache was free; tries that left no record are not among them.
    """
    if budget is None:
        return
    prices = load_prices(config.prices)
    seen = set()
    for response in folder.responses():
        if response.model in prices and not response.cached:
            budget.settle(0.0, prices[response.model].cost_of(response.usage))
    for judgement in folder.judgements():
        # a verdict that was read again stands there twice and was paid once
        asked = (judgement.key, judgement.at)
        if judgement.judge in prices and not judgement.cached and asked not in seen:
            budget.settle(0.0, prices[judgement.judge].cost_of(judgement.usage))
        seen.add(asked)


def check_budget(budget: Budget | None) -> None:
    """Raises BudgetReached where a call was not sent for it."""
    if budget is not None and budget.is_reached:
        raise BudgetReached(
            f"Stopped at --max-cost {budget.cap_usd}: ${budget.spent_usd:.4f} spent, earlier calls "
            f"into the same folder included. The same command with a higher --max-cost goes on"
        )
