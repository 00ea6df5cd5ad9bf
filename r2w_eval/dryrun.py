"""`--dry-run`: what a run would send, before anything is sent. Token counts are estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from r2w_eval.config import RunConfig
from r2w_eval.cost import (
    FIRST_GUESS_TOKENS,
    LATIN_CHARS_PER_TOKEN,
    Price,
    estimate_tokens,
    load_prices,
)
from r2w_eval.plan import TaskPlan
from r2w_eval.run import plan_tasks
from r2w_eval.suites import JudgingJob, Suite
from r2w_eval.types import Answer, Message, Sample, WriterStatus

# A judge's verdict with a reason of two or three sentences
VERDICT_TOKENS = 150


@dataclass(frozen=True, slots=True)
class Forecast:
    """Calls and estimated tokens of one stage of one task."""

    task: str
    stage: str
    calls: int
    prompt_tokens: int
    completion_tokens: int

    def cost(self, prices: Mapping[str, Price], models: Sequence[str]) -> str:
        """Dollars when every model of the stage has a price, else "n/a"."""
        if not models or any(model not in prices for model in models):
            return "n/a"
        shares = [
            prices[model].cost_usd(self.prompt_tokens, self.completion_tokens) for model in models
        ]
        return f"${sum(shares) / len(shares):,.2f}"


def forecast(plan: TaskPlan, config: RunConfig) -> list[Forecast]:
    """Both stages of one task; every judge prompt is really rendered, with an answer of typical
    length.
    """
    answer_tokens = min(plan.decoding.max_tokens or FIRST_GUESS_TOKENS, FIRST_GUESS_TOKENS)
    n_turns = plan.suite.n_turns
    is_conversation = n_turns > 1
    turn = "x" * round(answer_tokens * LATIN_CHARS_PER_TOKEN) if is_conversation else ""
    placeholder = Answer(turn, turn, WriterStatus.OK, (turn,) * n_turns)
    not_rendered = 0 if is_conversation else answer_tokens
    writing = judging = prompt = judge_prompt = 0
    for sample in plan.samples():
        requests = plan.suite.plan_judging(
            JudgingJob(sample, placeholder, plan.templates, plan.mode)
        )
        writing += n_turns
        prompt += _conversation_tokens(plan.suite, sample, turn)
        judging += len(requests)
        judge_prompt += sum(_message_tokens(r.messages) + not_rendered for r in requests)
    n, per_answer = config.samples, len(config.judge) * config.repeats * config.samples
    name = plan.info.name
    return [
        Forecast(name, "write", writing * n, prompt * n, writing * n * answer_tokens),
        Forecast(
            name,
            "judge",
            judging * per_answer,
            judge_prompt * per_answer,
            judging * per_answer * VERDICT_TOKENS,
        ),
    ]


def _conversation_tokens(suite: Suite, sample: Sample, turn: str) -> int:
    """Prompt tokens of all turns: each sends everything said before."""
    total = context = _message_tokens(sample.messages)
    for said in range(1, suite.n_turns):
        following = suite.next_turn(sample, [turn] * said) if suite.next_turn else None
        context += estimate_tokens(turn) + estimate_tokens(following or "")
        total += context
    return total


def _message_tokens(messages: Sequence[Message]) -> int:
    return sum(estimate_tokens(message.content) for message in messages)


def print_forecast(config: RunConfig) -> None:
    """A table of calls and tokens; sends nothing."""
    table = Table(title="Dry run (tokens are estimates; nothing was sent)", title_justify="left")
    for column in ("task", "stage"):
        table.add_column(column)
    prices = load_prices(config.prices)
    models = {
        "write": [config.model.partition("#")[2] or config.model],
        "judge": [spec.partition("#")[2] or spec for spec in config.judge],
    }
    for column in ("calls", "tokens in", "tokens out", "cost"):
        table.add_column(column, justify="right")
    for plan in plan_tasks(config):
        for row in forecast(plan, config):
            table.add_row(
                row.task,
                row.stage,
                f"{row.calls:,}",
                f"{row.prompt_tokens:,}",
                f"{row.completion_tokens:,}",
                row.cost(prices, models[row.stage]),
            )
    Console().print(table)
