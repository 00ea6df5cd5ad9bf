"""Plots of small_results.py: arms over training, and groups side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CURVES = {
    "reward": "reward (quality head)",
    "process/score": "process score of a reflection",
    "completions/mean_length": "tokens a completion",
    "process/reflections": "reflections a completion",
    "outcome/invalid": "completions without an answer",
    "entropy": "entropy (nats a token)",
}
# by rising lambda
COLOURS = ("#666666", "#b5482a", "#7a5195")
OTHER = "#2f6690"
# measures of the second plot that need no scorer, before those of scorers
SHOWN = ("thinking_tokens", "reflections_per_trace", "redundancy", "answered")


def plot_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """One panel per measure: each plain lambda arm thin, their mean thick."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    plain = {arm.split("-")[1] for arm in histories if arm.startswith("rl-lambda")}
    groups = sorted(plain, key=_weight)
    for place, (name, label) in enumerate(CURVES.items(), 1):
        axes = figure.add_subplot(2, 3, place)
        for group, colour in zip(groups, COLOURS, strict=False):
            arms = [h for arm, h in histories.items() if arm.startswith(f"rl-{group}-")]
            _draw(axes, [[entry.get(name) for entry in arm] for arm in arms], group, colour)
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def _weight(group: str) -> float:
    return float(group.removeprefix("lambda"))


def _draw(axes: Any, arms: Sequence[Sequence[float | None]], group: str, colour: str) -> None:
    """Draw arms and their mean; steps without a value are left out of both."""
    for values in arms:
        known = [(step, v) for step, v in enumerate(values, 1) if v is not None]
        if known:
            axes.plot(*zip(*known, strict=True), color=colour, alpha=0.3, linewidth=0.9)
    columns = [[v for v in column if v is not None] for column in zip(*arms, strict=False)]
    mean = [(s, sum(c) / len(c)) for s, c in enumerate(columns, 1) if c]
    if mean:
        label = group.replace("lambda", "λ = ")
        axes.plot(*zip(*mean, strict=True), color=colour, linewidth=2, label=label)


def plot_groups(table: Mapping[str, Any], groups: Sequence[str], path: Path) -> None:
    """One panel per measure: each group's value with its interval over prompts, seeds as dots."""
    from matplotlib.figure import Figure

    names = [*SHOWN, *(name for name in table if " by " in name)]
    rows = -(-len(names) // 4)
    trained = [group for group in groups if group.startswith("lambda")]
    colours = dict(zip(trained, COLOURS, strict=False))
    figure = Figure(figsize=(11, 2.4 * rows), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, 4, place)
        for x, group in enumerate(groups):
            colour = colours.get(group, OTHER)
            _dots(axes, x, table[name]["groups"].get(group), table[name]["seeds"][group], colour)
        axes.set_title(name.replace("_", " "), fontsize=8)
        axes.set_xticks(range(len(groups)), [g.replace("lambda", "λ ") for g in groups], fontsize=8)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _dots(axes: Any, x: int, row: Any, seeds: Sequence[Any], colour: str) -> None:
    if row is None or row["value"] is None:
        return
    values = [seed["value"] for seed in seeds if seed["value"] is not None]
    axes.plot([x + 0.18] * len(values), values, "o", color=colour, markersize=3, alpha=0.6)
    axes.plot([x], [row["value"]], "s", color=colour, markersize=5)
    if row["low"] is not None:
        axes.plot([x, x], [row["low"], row["high"]], color=colour, linewidth=1.6)
