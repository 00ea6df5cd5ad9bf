"""What a run prints at its end, on standard output. Text of models is always escaped."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from rich.table import Table

from r2w_eval.models.endpoint import Traffic
from r2w_eval.records.plan import Progress
from r2w_eval.results.counts import JudgeSummary
from r2w_eval.results.coverage import Scored
from r2w_eval.results.ensembles import EnsembleSummary
from r2w_eval.results.summary import TaskResult
from r2w_eval.run.job import Outcome
from r2w_eval.stats.noise import Prices, advise
from r2w_eval.terminal import count, escape, interval, number, open_console, plain_table
from r2w_eval.types import JudgeStatus, Metric, WriterStatus

MAX_GROUP_ROWS = 12
MAX_REASON_CHARS = 300
# over fewer samples the slope's interval is many times the scale
MIN_SLOPE_SAMPLES = 10
# what an endpoint did to a request, not a model to its answer
_GAVE_WAY = frozenset(
    {
        WriterStatus.ERROR,
        WriterStatus.NOT_SENT,
        JudgeStatus.TRANSPORT,
        JudgeStatus.TIMEOUT,
        JudgeStatus.RATE_LIMITED,
        JudgeStatus.BAD_REQUEST,
    }
)


def print_outcome(outcome: Outcome) -> None:
    """The result tables, where the files lie, and what to do next."""
    console = open_console()
    for warning in collect_warnings(outcome.results):
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    if outcome.manifest["smoke_test_judge"]:
        console.print(
            "[bold yellow]Smoke-test judge:[/bold yellow] the embedded model cannot judge writing. "
            "These scores show that the pipeline works and nothing else."
        )
    console.print(result_table(outcome.results))
    for result in outcome.results:
        console.print(breakdown_table(result))
        console.print(escape(describe_counts(result)), highlight=False)
        if result.ensemble is not None:
            console.print(ensemble_table(result, outcome.results))
            console.print(escape(describe_agreement(result.ensemble)) + "\n", highlight=False)
    work, tries = describe_work(outcome.progress), describe_traffic(outcome.traffic)
    console.print(f"{work}, {outcome.wall_s:.1f} s{tries}")
    if told := first_failure(outcome):
        console.print(f"First loss: {escape(told)}", soft_wrap=True)
    console.print(f"Run folder: {escape(str(outcome.folder.path))}", soft_wrap=True)
    console.print(f"Open:       {escape(str(outcome.folder.report_path))}", soft_wrap=True)
    if any(result.writer.n_answered for result in outcome.results):
        console.print(
            f"Next:       r2w-eval judge {escape(shlex.quote(str(outcome.folder.path)))} --judge "
            f"http://HOST:PORT/v1#NAME",
            soft_wrap=True,
        )


def collect_warnings(results: Iterable[TaskResult]) -> list[str]:
    """Each warning once, with the suites that it is about unless it is about all of the run."""
    told: dict[str, dict[str, None]] = {}
    suites = {result.task for result in results}
    for result in results:
        for warning in result.warnings:
            told.setdefault(warning.text, {})[result.task] = None
    return sorted(
        text if len(own) == len(suites) else f"{', '.join(own)}: {text}"
        for text, own in told.items()
    )


def first_failure(outcome: Outcome) -> str | None:
    """Where an endpoint first gave way, and what it said; None where none did.

    Records are read only if the results count such a loss.
    """
    if not any(_GAVE_WAY & {*r.writer.statuses, *r.judging.failures} for r in outcome.results):
        return None
    lost = chain(
        ((r.sample_id, r.status, r.reason) for r in outcome.folder.responses()),
        ((j.sample_id, j.score.status, j.score.reason) for j in outcome.folder.judgements()),
    )
    return next(
        (f"{item}: {why or status}"[:MAX_REASON_CHARS] for item, status, why in lost
         if status in _GAVE_WAY),
        None,
    )  # fmt: skip


def describe_work(progress: Progress) -> str:
    """Where the replies came from.

    >>> describe_work(Progress(sent=1, cached=1200))
    '1 request sent, 1,200 replies from the cache, 0 records reused'
    """
    cached = f"{count(progress.cached, 'reply', 'replies')} from the cache, " * bool(
        progress.cached
    )
    return (
        f"{count(progress.sent, 'request')} sent, {cached}{count(progress.reused, 'record')} reused"
    )


def describe_traffic(traffic: Sequence[Traffic]) -> str:
    """Repeated tries by class and cuts of the limit, where there were any."""
    retries: Counter[str] = Counter()
    for endpoint in traffic:
        retries.update(endpoint.retries)
    cuts = sum(endpoint.limit_cuts for endpoint in traffic)
    told = ", ".join(f"{name} {count}" for name, count in sorted(retries.items()))
    return (f"; tried again: {told}" if told else "") + (f"; limit cut {cuts} x" if cuts else "")


def result_table(results: Sequence[TaskResult]) -> Table:
    """One row per task and judge: narrow enough for 80 columns."""
    table = plain_table("Scores")
    table.add_column("suite", overflow="fold")
    table.add_column("judge", overflow="fold")
    for name in ("score", "95 % interval", "scored", "floor"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        head = result.headline
        floor = next(m for m in result.metrics if m.name == f"{head.name}:floor")
        table.add_row(
            f"{result.task} {result.version} {result.mode}",
            escape(result.judge),
            number(head.value),
            format_interval(head),
            _mark_partial(result.scored),
            number(floor.value),
        )
    return table


def _mark_partial(scored: Scored) -> str:
    counts = f"{scored.n_scored}/{scored.n_expected}"
    return f"[yellow]part: {counts}[/yellow]" if scored.is_partial else counts


def breakdown_table(result: TaskResult) -> Table:
    """The metrics of one task; groups with many members are left to the report."""
    table = plain_table(f"{result.task}, judge {result.judge}")
    table.add_column("metric", overflow="fold")
    for name in ("value", "95 % interval", "scored"):
        table.add_column(name, justify="right", no_wrap=True)
    sizes = Counter(group_of(metric) for metric in result.metrics)
    for metric in result.metrics:
        if sizes[group_of(metric)] > MAX_GROUP_ROWS:
            continue
        table.add_row(
            escape(metric.name),
            number(metric.value),
            format_interval(metric),
            f"{metric.n_scored}/{metric.n_expected}",
        )
    return table


def describe_counts(result: TaskResult) -> str:
    """Losses, pages, lengths, tokens and the score key, a line each."""
    writer, judging = result.writer, result.judging
    pages = f"pages: {result.pages}\n" if result.pages else ""
    thinking = f", thinking {writer.mean_thinking_chars:,.0f}" if writer.mean_thinking_chars else ""
    return (
        f"{describe_noise(result)}lost: {format_losses(result)}\n"
        f"{pages}{describe_leanings(judging)}"
        f"mean characters: answer {writer.mean_answer_chars or 0:,.0f}{thinking}\n"
        f"tokens in/out: writer {_tokens(writer.prompt_tokens, writer.completion_tokens)}, "
        f"judge {_tokens(judging.prompt_tokens, judging.completion_tokens)}\n"
        f"score key {result.score_key}: compare only with scores of the same key\n"
    )


def _tokens(prompt: int, completion: int) -> str:
    """What was reported: a file of answers, or a scorer that is no model, tells none."""
    return f"{prompt:,}/{completion:,}" if prompt or completion else "not told"


def is_shown(slope: Metric) -> bool:
    """Whether its interval lies on one side of 0; the report has every slope.

    >>> is_shown(Metric("length_slope", -12.1, -69.8, 30.8, 24, 24))
    False
    """
    return slope.low is not None and slope.high is not None and slope.low * slope.high > 0


def describe_leanings(judging: JudgeSummary) -> str:
    """Associations of the verdicts with length and with the order in which texts were shown."""
    lines = []
    slope = judging.length_slope
    if slope is not None and slope.n_scored >= MIN_SLOPE_SAMPLES and is_shown(slope):
        lines.append(
            f"per doubling of length: {slope.value:+.2f} points ({slope.low:+.2f} to "
            f"{slope.high:+.2f}, n {slope.n_scored})\n"
        )
    if (apart := judging.disagreement) is not None and apart.n_order_pairs:
        lines.append(
            f"winner changed with the order: {apart.n_order_flips} of {apart.n_order_pairs}\n"
        )
    return "".join(lines)


def ensemble_table(result: TaskResult, results: Sequence[TaskResult]) -> Table:
    """Each judge alone, and the combination without it."""
    ensemble = result.ensemble
    assert ensemble is not None, "only results of ensembles have this table"
    alone = {other.judge: other for other in results if other.task == result.task}
    without = {left.judge: left.headline for left in ensemble.left_out}
    table = plain_table(f"{result.task}, combined by {ensemble.combine}")
    table.add_column("judge", overflow="fold")
    for name in ("alone", "95 % interval", "usable", "without it"):
        table.add_column(name, justify="right", no_wrap=True)
    for judge in ensemble.judges:
        own, left = alone[judge], without.get(judge)
        table.add_row(
            escape(judge) + (" (own family)" if judge in ensemble.own_family else ""),
            number(own.headline.value),
            format_interval(own.headline),
            f"{own.judging.n_valid}/{own.judging.n_total}",
            "–" if left is None else f"{number(left.value)} ({format_interval(left)})",
        )
    return table


def describe_agreement(ensemble: EnsembleSummary) -> str:
    """Krippendorff's alpha, rank correlations, leniency and disagreement."""
    alpha = ensemble.alpha
    lines = [
        f"Krippendorff's alpha {_three(alpha.value)} ({_three(alpha.low)} to {_three(alpha.high)}, "
        f"{alpha.n_units} verdicts)"
    ]
    lines += [
        f"Spearman {pair.first} and {pair.second}: {_three(pair.spearman.value)} "
        f"({_three(pair.spearman.low)} to {_three(pair.spearman.high)}, n {pair.spearman.n})"
        for pair in ensemble.pairs
    ]
    if (split := ensemble.split) is not None:
        lines.append(
            f"variance: items {_three(split.var_item)}, judges {_three(split.var_judge)}, item x "
            f"judge {_three(split.var_item_judge)}, repeats {_three(split.var_repeat)}"
        )
    if ensemble.excluded:
        lines.append(f"left out as the writer's own family: {', '.join(ensemble.excluded)}")
    return "\n".join(lines)


def _three(value: float | None) -> str:
    return number(value, ".3f")


def describe_noise(result: TaskResult) -> str:
    """The judge's own noise, and what to buy next; empty without samples or repeats (E4)."""
    if result.noise is None:
        return ""
    prices, unit = work_prices(result)
    best = advise(result.noise, prices)
    share = result.noise.judge_noise_share
    own = "" if share is None else f"judge noise: {share:.0%} of the squared standard error; "
    return (
        f"{own}per {unit}, more {best.best} would narrow the interval most (on the same items: "
        f"more {best.best_on_same_items})\n"
    )


def work_prices(result: TaskResult) -> tuple[Prices, str]:
    """Cost of one more answer and of one more round of verdicts on it, in tokens where known."""
    writer, judging = result.writer, result.judging
    n_answers = max(1, writer.n_answered)
    written = (writer.prompt_tokens + writer.completion_tokens) / n_answers
    rounds = n_answers * int(result.identity["judge_repeats"])
    judged = (judging.prompt_tokens + judging.completion_tokens) / rounds
    if written and judged:
        return Prices(sample=written, repeat=judged), "token"
    return Prices(), "call"


def group_of(metric: Metric) -> str:
    """The part before `/`: metrics that break one figure down stand together."""
    return metric.name.partition("/")[0]


def format_interval(metric: Metric) -> str:
    """Both bounds, or a dash."""
    return interval(metric.low, metric.high)


def format_losses(result: TaskResult) -> str:
    """Writer and judge losses by status; answers that were cut and judged all the same apart."""
    statuses = result.writer.statuses
    losses: Mapping[str, int] = {
        **{k: v for k, v in statuses.items() if WriterStatus(k).cause is not None},
        **result.judging.failures,
    }
    lost = ", ".join(f"{name} {count}" for name, count in losses.items()) or "none"
    cut = statuses.get(WriterStatus.TRUNCATED, 0)
    return lost + (f"; judged as they were cut: {cut}" if cut else "")
