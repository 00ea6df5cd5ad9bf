"""`--dry-run`: what a run would send, before anything is sent. Token counts are estimates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from r2w_eval.config import RunConfig
from r2w_eval.fakeserver.verdicts import write_verdict
from r2w_eval.models.cost import (
    FIRST_GUESS_TOKENS,
    LATIN_CHARS_PER_TOKEN,
    Price,
    estimate_prompt,
    estimate_tokens,
    load_prices,
)
from r2w_eval.records.plan import NO_JUDGE, TaskPlan
from r2w_eval.records.rows import settled_judgement, settled_response, verdict_name
from r2w_eval.run.opening import is_hub_id, require_known
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import RunFolder, iter_jsonl
from r2w_eval.suites.suite import JudgingJob, Suite
from r2w_eval.terminal import escape, open_console, plain_table
from r2w_eval.types import Answer, JudgeRequest, Sample, Score, WriterStatus

WRITE, JUDGE = "write", "judge"
# Under this seed the fake judge lets everything through, so that the forecast is of a whole chain
NO_GATE = "0" * 64

# At least: a judge's verdict with a reason of two or three sentences
VERDICT_TOKENS = 150


@dataclass(frozen=True, slots=True)
class Forecast:
    """Calls that one stage of a task still has to make, with their estimated tokens; `done` is the
    number of those that were made before.
    """

    task: str
    stage: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    done: int = 0

    def cost(self, prices: Mapping[str, Price], models: Sequence[str]) -> str:
        """Dollars when every model of the stage has a price, else "n/a"."""
        if not models or any(model not in prices for model in models):
            return "n/a"
        shares = [
            prices[model].cost_usd(self.prompt_tokens, self.completion_tokens) for model in models
        ]
        return f"${sum(shares) / len(shares):,.2f}"


@dataclass(frozen=True, slots=True)
class Done:
    """Records of a run folder that a run will not ask for again."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By task and sample."""
    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By task, sample and `verdict_name`."""


def find_done(config: RunConfig) -> Done:
    """What the folder of `--out` holds of a command; nothing without one."""
    if config.out is None:
        return Done()
    folder, again = RunFolder(Path(config.out)), config.retry_failed
    judges = {spec.partition("#")[2] for spec in config.judge if "#" in spec}
    answers: dict[str, tuple[str, str] | None] = {}
    for record in iter_jsonl(folder.responses_path):
        answer = settled_response(record, again)
        answers[record["key"]] = (answer.task, answer.sample_id) if answer else None
    verdicts: dict[str, tuple[str, str, str] | None] = {}
    for record in iter_jsonl(folder.judgements_path):
        verdict = settled_judgement(record, again)
        if not judges or record["judge"] in judges:
            verdicts[record["key"]] = (
                (verdict.task, verdict.sample_id, verdict_name(verdict)) if verdict else None
            )
    return Done(Counter(filter(None, answers.values())), Counter(filter(None, verdicts.values())))


@dataclass
class _Tally:
    """Running totals of one stage: its calls, how many of them are answered already, and the
    tokens of their prompts and replies.
    """

    calls: int = 0
    done: int = 0
    shown: float = 0.0
    replied: float = 0.0

    def add(self, n: int, done: int, shown: float, replied: float) -> None:
        self.calls += n
        self.done += min(n, done)
        self.shown += n * shown
        self.replied += n * replied

    def as_forecast(self, task: str, stage: str) -> Forecast:
        """Tokens are those of the calls still to be made, at the mean of all."""
        left = self.calls - self.done
        share = left / max(1, self.calls)
        tokens = round(self.shown * share), round(self.replied * share)
        return Forecast(task, stage, left, *tokens, self.done)


def forecast(plan: TaskPlan, config: RunConfig, done: Done = Done()) -> list[Forecast]:
    """All stages of one task; every judge prompt is really rendered, with an answer of typical
    length, and later questions follow from invented verdicts.
    """
    name, n = plan.info.name, config.samples
    answer_tokens = min(plan.decoding.max_tokens or FIRST_GUESS_TOKENS, FIRST_GUESS_TOKENS)
    n_turns = plan.suite.n_turns
    turn = "x" * round(answer_tokens * LATIN_CHARS_PER_TOKEN)
    placeholder = Answer(turn, turn, WriterStatus.OK, (turn,) * n_turns)
    n_judges = 0 if config.judge == (NO_JUDGE,) else len(config.judge)
    writing, judging = _Tally(), defaultdict[str, _Tally](_Tally)
    for sample in plan.samples():
        prompt = _conversation_tokens(plan.suite, sample, turn) / n_turns
        writing.add(n * n_turns, done.answers[name, sample.id], prompt, answer_tokens)
        for stage, request, reply in plan_stages(plan, sample, placeholder) if n_judges else ():
            judging[stage].add(
                n_judges * config.repeats * n,
                done.verdicts[name, sample.id, verdict_name(request)],
                estimate_prompt(request.messages),
                max(VERDICT_TOKENS, estimate_tokens(reply)),
            )
    stages = [
        tally.as_forecast(name, f"{JUDGE}: {stage}" if len(judging) > 1 else JUDGE)
        for stage, tally in judging.items()
    ]
    # recorded answers are read, not asked for
    return stages if config.responses else [writing.as_forecast(name, WRITE), *stages]


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
    total = context = estimate_prompt(sample.messages)
    for said in range(1, suite.n_turns):
        following = suite.next_turn(sample, [turn] * said) if suite.next_turn else None
        context += estimate_tokens(turn) + estimate_tokens(following or "")
        total += context
    return total


def print_forecast(config: RunConfig) -> None:
    """A table of calls and tokens; sends nothing. Raises UsageError for an unknown model."""
    table = plain_table("Dry run (tokens are estimates; nothing was sent)")
    for column in ("task", "stage"):
        table.add_column(column)
    prices = load_prices(config.prices)
    models = {
        WRITE: [config.model.partition("#")[2] or config.model],
        JUDGE: [spec.partition("#")[2] or spec for spec in config.judge],
    }
    for column in ("calls", "done", "tokens in", "tokens out", "cost"):
        table.add_column(column, justify="right")
    notes = ["Replies that the cache holds are among the calls, and cost nothing."] * config.cache
    plans, done = plan_tasks(config), find_done(config)
    judges = [judge for judge in config.judge if judge != NO_JUDGE]
    writer = None if config.responses else config.model or None
    require_known(judges, writer)
    notes += [
        f"{model}: no such folder here; the run will look for it on the hub"
        for model in filter(is_hub_id, dict.fromkeys([writer or "", *judges]))
    ]
    for plan in plans:
        for row in forecast(plan, config, done):
            table.add_row(
                row.task,
                row.stage,
                f"{row.calls:,}",
                f"{row.done:,}",
                f"{row.prompt_tokens:,}",
                f"{row.completion_tokens:,}",
                row.cost(prices, models[row.stage.partition(":")[0]]),
            )
        if plan.info.pages and config.pages:
            notes.append(
                f"{plan.info.name}: questions about cited pages depend on the reports and are not "
                f"counted; the suite's README says how many to expect"
            )
    console = open_console()
    console.print(table)
    for note in dict.fromkeys([*notes, *(note for plan in plans for note in plan.notes)]):
        console.print(escape(note), soft_wrap=True)
