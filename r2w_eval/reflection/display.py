"""Terminal tables of `r2w-eval reflect`: narrow enough for 80 columns, nothing unescaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from r2w_eval.reflection.measures import ReflectionSummary, is_estimated
from r2w_eval.terminal import open_console, plain_table
from r2w_eval.types import Metric

_SHARES = ("tokens/", "level/", "steps/")


def print_summaries(summaries: Mapping[str, ReflectionSummary], files: list[Path]) -> None:
    """One table of measures per task, then what lies where."""
    console = open_console()
    for task, summary in summaries.items():
        console.print(measures_table(task, summary))
        console.print(describe(summary), soft_wrap=True, markup=False)
    for path in files:
        console.print(f"Wrote {path}", soft_wrap=True, markup=False, highlight=False)


def measures_table(task: str, summary: ReflectionSummary) -> Table:
    """Every measure that any prompt can have, with value, interval and the prompts it rests on."""
    table = plain_table(f"Reflection: {task}")
    table.add_column("measure", overflow="fold")
    for name in ("value", "95 % interval", "prompts"):
        table.add_column(name, justify="right", no_wrap=True)
    previous = ""
    for metric in summary.metrics:
        group = metric.name.partition("/")[0] if metric.name.startswith(_SHARES) else ""
        if not metric.n_expected:
            continue
        if group and metric.value in (None, 0.0) and not metric.name.startswith("steps/"):
            continue
        if group != previous:
            table.add_section()
        previous = group
        table.add_row(
            metric.name,
            number(metric.value),
            interval(metric),
            f"{metric.n_scored}/{metric.n_expected}",
        )
    return table


def number(value: float | None) -> str:
    """A measure for people; "n/a" where there is none.

    >>> number(None), number(0.25), number(1234.5)
    ('n/a', '0.250', '1,234.5')
    """
    if value is None:
        return "n/a"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"


def interval(metric: Metric) -> str:
    """The bounds, or a dash."""
    if metric.low is None or metric.high is None:
        return "–"
    return f"{number(metric.low)} to {number(metric.high)}"


def describe(summary: ReflectionSummary) -> str:
    """Counts, faults and where the token counts come from."""
    faults = ", ".join(f"{name} {n}" for name, n in summary.faults.items()) or "none"
    forms = ", ".join(f"{name} {n}" for name, n in summary.forms.items()) or "none"
    lines = [
        f"{summary.n_traces} of {summary.n_responses} responses think; "
        f"{summary.n_reflections} reflections, {summary.n_steps} steps; forms: {forms}",
        f"faults (traces): {faults}",
    ]
    if is_estimated(summary):
        sources = ", ".join(f"{name} {n}" for name, n in summary.token_sources.items())
        lines.append(f"token counts: {sources} (estimated from lengths where not reported)")
    if summary.judge is None:
        lines.append("no judge: effects not measured. Add --judge http://HOST:PORT/v1#NAME")
    return "\n".join(lines)
