"""What `r2w-eval judge-check` prints: the verdict, the figures it rests on, where the card lies."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from r2w_eval.config import RunConfig
from r2w_eval.judge_check.card import EvaluatorCard
from r2w_eval.judge_check.check import CheckOutcome, load_labels
from r2w_eval.judge_check.markdown import SIGNALS, with_interval
from r2w_eval.judge_check.plan import CheckOptions, plan_questions
from r2w_eval.terminal import escape, interval, number, open_console, plain_table


def print_plan(config: RunConfig, options: CheckOptions) -> None:
    """Questions by set and kind, for one chat judge; asks nobody."""
    table = plain_table("Dry run: questions to each judge (nothing was sent)")
    table.add_column("set")
    for name in ("requests", "texts and nulls", "pair verdicts", "sum"):
        table.add_column(name, justify="right")
    for one in load_labels(config, options):
        questions = list(plan_questions(one, options, config.repeats, with_pairs=True))
        n_pairs = sum(bool(question.request.order) for question in questions)
        counts = (len(one.items), len(questions) - n_pairs, n_pairs, len(questions))
        table.add_row(one.spec.name, *(f"{count:,}" for count in counts))
    open_console().print(table)


def print_check(outcome: CheckOutcome) -> None:
    """All cards in short."""
    console = open_console()
    for card in outcome.cards:
        print_card(console, card)
    done = outcome.progress
    from_cache = done.judgements_done - done.sent - done.reused
    console.print(
        f"{done.sent:,} requests sent, {from_cache:,} verdicts from the reply cache, "
        f"{done.reused:,} from the folder"
    )
    for path in outcome.files:
        console.print(f"Card: {escape(str(path))}", soft_wrap=True)


def print_card(console: Console, card: EvaluatorCard) -> None:
    """Signal, verdict, flags, and the two tables that matter most."""
    console.print(f"[bold]{escape(card.judge)}[/bold]: {SIGNALS[card.signal]}")
    if card.is_smoke_test:
        console.print("[yellow]Smoke-test judge:[/yellow] the embedded model cannot judge writing.")
    for sentence in card.verdict:
        console.print(f"  {escape(sentence)}")
    for flag in card.flags:
        console.print(f"  [yellow]flag:[/yellow] {escape(flag)}")
    console.print(_agreement_table(card))
    console.print(_null_table(card))


def _agreement_table(card: EvaluatorCard) -> Table:
    table = plain_table("Pair accuracy against people, beside the best trivial rule")
    table.add_column("set", overflow="fold")
    for name in ("judge", "95 % interval", "n", "best rule", "difference"):
        table.add_column(name, justify="right")
    for figures in card.sets:
        accuracy, rule = figures.accuracy, figures.best_rule
        table.add_row(
            figures.name,
            number(accuracy.value),
            interval(accuracy.low, accuracy.high),
            f"{accuracy.n_scored}/{accuracy.n_expected}",
            f"{rule.name} {number(rule.value)}",
            with_interval(figures.lift),
        )
    return table


def _null_table(card: EvaluatorCard) -> Table:
    table = plain_table("Null answers: each must score below the real ones")
    table.add_column("null answer", overflow="fold")
    for name in ("mean", "real", "real minus null", "n", "below?"):
        table.add_column(name, justify="right")
    for null in card.nulls:
        table.add_row(
            null.name.replace("_", " "),
            number(null.mean),
            number(null.real_mean),
            with_interval(null.gap),
            f"{null.gap.n_scored}/{null.gap.n_expected}",
            "yes" if null.survives else "[yellow]not shown[/yellow]",
        )
    return table
