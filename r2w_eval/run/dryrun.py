"""`--dry-run`: what a run would send, before anything is sent. Token counts are estimates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from r2w_eval.config import RunConfig
from r2w_eval.fakeserver.verdicts import write_verdict
from r2w_eval.models.cost import (
    FIRST_GUESS_TOKENS,
    LATIN_CHARS_PER_TOKEN,
    Price,
    estimate_tokens,
    load_prices,
)
from r2w_eval.records.plan import TaskPlan
from r2w_eval.records.rows import verdict_name
from r2w_eval.run.planning import plan_tasks
from r2w_eval.suites.suite import JudgingJob, Suite
from r2w_eval.types import Answer, JudgeRequest, Message, Sample, Score, WriterStatus

WRITE, JUDGE = "write", "judge"
# Under this seed the fake judge lets everything through, so that the forecast is of a whole chain
NO_GATE = "0" * 64

# At least: a judge's verdict with a reason of two or three sentences
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
    """All stages of one task; every judge prompt is really rendered, with an answer of typical
    length, and later questions follow from invented verdicts.
    """
    answer_tokens = min(plan.decoding.max_tokens or FIRST_GUESS_TOKENS, FIRST_GUESS_TOKENS)
    n_turns = plan.suite.n_turns
    turn = "x" * round(answer_tokens * LATIN_CHARS_PER_TOKEN)
    placeholder = Answer(turn, turn, WriterStatus.OK, (turn,) * n_turns)
    writing = prompt = 0
    asked: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    replied: Counter[str] = Counter()
    for sample in plan.samples():
        writing += n_turns
        prompt += _conversation_tokens(plan.suite, sample, turn)
        for stage, request, reply in plan_stages(plan, sample, placeholder):
            asked[stage] += 1
            shown[stage] += _message_tokens(request.messages)
            replied[stage] += max(VERDICT_TOKENS, estimate_tokens(reply))
    n, per_answer = config.samples, len(config.judge) * config.repeats * config.samples
    name = plan.info.name
    stages = [
        Forecast(
            name,
            f"{JUDGE}: {stage}" if len(asked) > 1 else JUDGE,
            asked[stage] * per_answer,
            shown[stage] * per_answer,
            replied[stage] * per_answer,
        )
        for stage in asked
    ]
    return [Forecast(name, WRITE, writing * n, prompt * n, writing * n * answer_tokens), *stages]


def plan_stages(
    plan: TaskPlan, sample: Sample, answer: Answer
) -> Iterator[tuple[str, JudgeRequest, str]]:
    """The questions about an answer, each with its stage and an invented reply; later ones follow
    from the replies to earlier ones.

    A suite that asks everything at once has one stage, "". Pages are not read, so that questions
    about them are not among these.
    """
    done: dict[str, tuple[Score, str]] = {}
    rounds = []
    while True:
        job = JudgingJob(sample, answer, plan.templates, plan.mode, done)
        requests = [r for r in plan.suite.plan_judging(job) if verdict_name(r) not in done]
        if not requests:
            break
        rounds.append(requests)
        for request in requests:
            done[verdict_name(request)] = invent_verdict(plan, request)
    for number, requests in enumerate(rounds, 1):
        for request in requests:
            stage = str(number) if len(rounds) > 1 else ""
            yield stage, request, done[verdict_name(request)][1]


def invent_verdict(plan: TaskPlan, request: JudgeRequest) -> tuple[Score, str]:
    """The fake judge's reply in the form of the question, and how the suite reads it."""
    text = "\n\n".join(message.content for message in request.messages)
    reply = write_verdict(text, NO_GATE, None, unit=False)
    return plan.suite.parse_verdict[plan.mode](request, reply), reply


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
        WRITE: [config.model.partition("#")[2] or config.model],
        JUDGE: [spec.partition("#")[2] or spec for spec in config.judge],
    }
    for column in ("calls", "tokens in", "tokens out", "cost"):
        table.add_column(column, justify="right")
    notes: list[str] = []
    for plan in plan_tasks(config):
        for row in forecast(plan, config):
            table.add_row(
                row.task,
                row.stage,
                f"{row.calls:,}",
                f"{row.prompt_tokens:,}",
                f"{row.completion_tokens:,}",
                row.cost(prices, models[row.stage.partition(":")[0]]),
            )
        if plan.info.pages and config.pages:
            notes.append(
                f"{plan.info.name}: questions about cited pages depend on the reports and are not "
                f"counted; the suite's README says how many to expect"
            )
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note)
