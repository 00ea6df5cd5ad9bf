"""Mean verdicts as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from r2w_eval.results.verdict_means import VerdictMean
from r2w_eval.terminal import escape, number, open_console, plain_table


def print_means(means: Sequence[VerdictMean]) -> None:
    """A table a suite, one row a group: mean, interval, queries, verdicts, and the lost ones by
    status.
    """
    console = open_console()
    # verdicts of another suite are on another scale
    for _, own in groupby(sorted(means, key=_task), key=_task):
        console.print(_table(list(own)))


def _task(mean: VerdictMean) -> str:
    return mean.group.get("task", "")


def _table(means: Sequence[VerdictMean]) -> Table:
    """What all groups share stands in the title."""
    values = {name: {mean.group[name] for mean in means} for name in means[0].group}
    shared = [name for name, own in values.items() if len(own) == 1]
    table = plain_table(", ".join(f"{name} {means[0].group[name]}" for name in shared))
    for name in values:
        if name not in shared:
            table.add_column(name, overflow="fold")
    for title in ("mean", "95 % interval", "queries", "verdicts"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("lost")
    for mean in means:
        group = (escape(value) for name, value in mean.group.items() if name not in shared)
        table.add_row(*group, *_cells(mean))
    return table


def _cells(mean: VerdictMean) -> tuple[str, ...]:
    metric = mean.metric
    value = number(metric.value, ".3f")
    known = metric.low is not None and metric.high is not None
    interval = f"{metric.low:.3f} to {metric.high:.3f}" if known else "–"
    lost = ", ".join(f"{escape(status)} {n:,}" for status, n in mean.failures.items())
    queries = f"{metric.n_scored:,}/{metric.n_expected:,}"
    return value, interval, queries, f"{mean.n_verdicts:,}", lost or "–"
