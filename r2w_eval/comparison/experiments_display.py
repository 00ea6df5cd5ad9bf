"""Tables, JSON and the plot of the experiments on thinking."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from r2w_eval.comparison.experiments import ArmResult, OnOff
from r2w_eval.plots import ACCENT, INK, new_figure, plain_label, render_svg
from r2w_eval.reflection.display import interval, number
from r2w_eval.store import write_atomically, write_json
from r2w_eval.terminal import escape, open_console, plain_table

# of the plot's lines: as many pairs as it takes
MARKS, LINES = "os^d", ("-", "--", ":", "-.")


def print_on_off(rows: Sequence[OnOff], folder: Path) -> None:
    """One row per task and judge; two judges are asked for, one is said to be one."""
    console = open_console()
    table = plain_table("Thinking on against off")
    table.add_column("suite\njudge", overflow="fold")
    for name in ("on", "off", "difference", "change %", "n", "tokens\non / off"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        d = row.difference
        left_out = d.n_only_first + d.n_only_second
        bounds = "no interval" if d.low is None else f"{number(d.low)} to {number(d.high)}"
        table.add_row(
            escape(f"{row.task}\n{row.judge}"),
            number(row.on.score.value),
            number(row.off.score.value),
            f"{number(d.difference)}\n{bounds}\np {number(d.p_value)}",
            f"{number(row.relative.value)}\n{interval(row.relative)}",
            f"{d.n_common}" + (f"\nleft out {left_out}" if left_out else ""),
            f"{number(row.on.thinking.value)} /\n{number(row.off.thinking.value)}",
        )
    console.print(table)
    for row in rows:
        told = tokens_per_point_told(row)
        console.print(f"{row.task}, {row.judge}: tokens per point {told}", markup=False)
    if len({row.judge for row in rows}) < 2:
        console.print("One judge. A second --judge shows whether the difference is the judge's.")
    path = folder / "thinking.json"
    write_json(path, rows)
    console.print(f"Wrote {path}", markup=False, soft_wrap=True)


def tokens_per_point_told(row: OnOff) -> str:
    """The number, or why there is none."""
    if row.tokens_per_point is not None:
        return number(row.tokens_per_point)
    low, high = row.difference.low, row.difference.high
    if low is None or high is None:
        return "undefined: the difference has no interval (all prompts differ alike, or too few)"
    why = "the interval of the difference holds 0" if low <= 0 <= high else "tokens are unknown"
    return f"undefined: {why}"


def print_budget(results: Sequence[ArmResult], folder: Path) -> None:
    """Score against thinking tokens: table, JSON and one plot a task and judge."""
    console = open_console()
    table = plain_table("Score by thinking budget")
    for name in ("suite\njudge", "arm"):
        table.add_column(name, overflow="fold")
    for name in ("thinking tokens", "score", "scored"):
        table.add_column(name, justify="right", no_wrap=True)
    ordered = sorted(results, key=lambda r: (r.task, r.judge, r.thinking.value or 0.0))
    for result in ordered:
        table.add_row(
            escape(f"{result.task}\n{result.judge}"),
            escape(result.arm),
            f"{number(result.thinking.value)}\n{interval(result.thinking)}",
            f"{number(result.score.value)}\n{interval(result.score)}",
            f"{result.score.n_scored}/{result.score.n_expected}",
        )
    console.print(table)
    write_json(folder / "budget.json", ordered)
    path = folder / "budget.svg"
    write_atomically(path, budget_svg(ordered).encode())
    console.print(f"Wrote {folder / 'budget.json'}, {path}", markup=False, soft_wrap=True)


def budget_svg(results: Sequence[ArmResult]) -> str:
    """One line per task and judge, with both intervals as bars; stands alone as a file."""
    title = "Score against thinking tokens"
    figure, axes = new_figure(5.6, 3.2)
    lines: dict[str, list[ArmResult]] = defaultdict(list)
    for result in results:
        if result.score.value is not None and result.thinking.value is not None:
            lines[plain_label(f"{result.task}, {result.judge}")].append(result)
    styles = itertools.cycle(mark + line for line, mark in itertools.product(LINES, MARKS))
    for style, (label, own) in zip(styles, lines.items(), strict=False):
        xs = [r.thinking.value or 0.0 for r in own]
        ys = [r.score.value or 0.0 for r in own]
        axes.plot(xs, ys, style, color=ACCENT, markersize=5, linewidth=1, label=label)
        for r, x, y in zip(own, xs, ys, strict=True):
            if r.score.low is not None and r.score.high is not None:
                axes.plot([x, x], [r.score.low, r.score.high], color=ACCENT, linewidth=1)
            name, offset = plain_label(r.arm), (4, 4)
            axes.annotate(name, (x, y), offset, textcoords="offset points", fontsize=7, color=INK)
    axes.set_title(title)
    axes.set_xlabel("thinking tokens")
    axes.set_ylabel("score")
    if lines:
        axes.legend(fontsize=7, frameon=False, labelcolor=INK)
    style = "<style>svg{color:#222;--accent:#33658a;background:#fff}</style>"
    svg = render_svg(figure, axes, title)
    return svg.replace(">", f">{style}", 1)
