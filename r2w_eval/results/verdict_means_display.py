"""Mean verdicts as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from r2w_eval.results.verdict_means import VerdictMean
from r2w_eval.terminal import escape, number, plain_table


def print_means(means: Sequence[VerdictMean]) -> None:
    """One row a group: mean, interval, queries, verdicts, and the lost ones by status."""
    table = plain_table()
    for name in means[0].group if means else ():
        table.add_column(name, overflow="fold")
    for title in ("mean", "95 % interval", "queries", "verdicts"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("lost")
    for mean in means:
        table.add_row(*(escape(value) for value in mean.group.values()), *_cells(mean))
    Console().print(table)


def _cells(mean: VerdictMean) -> tuple[str, ...]:
    metric = mean.metric
    value = number(metric.value, ".3f")
    known = metric.low is not None and metric.high is not None
    interval = f"{metric.low:.3f} to {metric.high:.3f}" if known else "–"
    lost = ", ".join(f"{escape(status)} {n:,}" for status, n in mean.failures.items())
    queries = f"{metric.n_scored:,} of {metric.n_expected:,}"
    return value, interval, queries, f"{mean.n_verdicts:,}", lost or "–"
