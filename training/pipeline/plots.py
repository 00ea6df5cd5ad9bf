"""The drawings of the run report: the lineage graph, and curves over the training steps. SVG."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2w_eval.training.checkpoints.folders import find_checkpoints
from r2w_eval.training.trainer.stage import HISTORY

from r2w_eval.plots import ACCENT, INK, new_figure, plain_label, render_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# kinds of stages from left to right
COLUMNS = {
    "prompts": 0, "traces-loop": 1, "traces-expert": 1, "traces-planted": 1, "traces": 2,
    "sft": 3, "reward": 3, "rl": 4, "evaluate": 5, "row": 6,
}  # fmt: skip
WIDTH, HEIGHT = 0.86, 0.82
# what the trainers log, and what the axis says
MEASURES = {
    "sft": {"loss": "loss"},
    "rl": {
        "reward": "reward",
        "loss": "loss",
        "completions/mean_length": "tokens a completion",
        "process/score": "process score",
        "process/below_zero": "part of the process term below zero",
        "process/thinking_tokens": "thinking tokens a completion",
        "process/reflections": "reflections a completion",
        "process/without_reflection": "share without reflection",
    },
}
# drawn in this colour, then replaced by the colour of the page: boxes cover the arrows
PAPER = "#abcdef"
DASHES = ("-", "--", ":", "-.")
# after those of the page, to be seen on light and on dark paper
COLOURS = (
    "#c0562f", "#3a8f5c", "#a2498f", "#b08a1e", "#2d9aa0", "#c94f6d", "#7b6fd0", "#8a6d3b",
    "#7a7f87",
)  # fmt: skip
# entries of a legend that a plot has room for
MOST_INSIDE = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A node of the drawing with up to four lines of text; `is_done` draws a solid border."""

    name: str
    kind: str
    lines: tuple[str, ...]
    is_done: bool


def graph_svg(boxes: Sequence[Box], edges: Sequence[tuple[str, str]]) -> str:
    """Boxes in columns by kind, arrows from each to what was made of it."""
    columns: dict[int, list[Box]] = defaultdict(list)
    for box in boxes:
        columns[COLUMNS[box.kind]].append(box)
    tallest = max(map(len, columns.values()), default=1)
    places = {
        box.name: (float(column), tallest / 2 - (row + 0.5) * tallest / len(own))
        for column, own in columns.items()
        for row, box in enumerate(own)
    }
    figure, axes = new_figure(1.62 * len(COLUMNS) * 0.78, 0.66 * tallest + 0.2)
    for first, second in edges:
        if first in places and second in places:
            _arrow(axes, places[first], places[second])
    for box in boxes:
        _box(axes, places[box.name], box)
    axes.set_xlim(-0.5, max(columns, default=0) + 0.5)
    axes.set_ylim(-tallest / 2, tallest / 2)
    axes.set_axis_off()
    svg = render_svg(figure, axes, "Lineage from prompts to rows of the leaderboard")
    return svg.replace(PAPER, "var(--paper)")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "",
        (end[0] - WIDTH / 2, end[1]),
        (start[0] + WIDTH / 2, start[1]),
        arrowprops={
            "arrowstyle": "-|>",
            "color": INK,
            # what skips a column runs behind its boxes
            "alpha": 0.45 if end[0] - start[0] <= 1 else 0.2,
            "linewidth": 0.9,
            "shrinkA": 0,
            "shrinkB": 1,
            "connectionstyle": "arc3,rad=0",
        },
    )


def _box(axes: Axes, place: tuple[float, float], box: Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    axes.add_patch(
        FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2),
            WIDTH,
            HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=PAPER,
            edgecolor=ACCENT if box.is_done else INK,
            linewidth=1.3 if box.is_done else 0.9,
            linestyle="-" if box.is_done else "--",
        )
    )
    last = len(box.lines) - 1
    step = 0.24 if last < 3 else 0.17
    for line, text in enumerate(box.lines):
        size = 8.6 if line == 0 else 7.2 if line == last else 7.6
        axes.text(
            x, y + step * (last / 2 - line), plain_label(text), ha="center", va="center",
            fontsize=size, color=INK, weight="bold" if line == 0 else "normal",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Curve:
    """One measure of a stage over its training steps: (step, value) pairs."""

    stage: str
    points: tuple[tuple[float, float], ...]


def read_curves(stage: str, kind: str, folder: Path) -> dict[str, Curve]:
    """The curves of a stage by measure, from its history or its last complete checkpoint."""
    history = _history(folder)
    curves = {}
    for name in MEASURES.get(kind, ()):
        # the trainer logs what is no number as null
        points = tuple(
            (entry["step"], entry[name]) for entry in history if entry.get(name) is not None
        )
        if points:
            curves[name] = Curve(stage, points)
    return curves


def _history(folder: Path) -> list[dict[str, Any]]:
    """The trainer's log entries so far; empty before the first checkpoint."""
    if (folder / HISTORY).is_file():
        return list(json.loads((folder / HISTORY).read_bytes()))
    found = find_checkpoints(folder / "checkpoints")
    if not found:
        return []
    return list(json.loads((found[-1].path / "trainer_state.json").read_bytes())["log_history"])


def way_colours(stages: Iterable[str]) -> dict[str, str]:
    """A colour for each way of training (a stage's name without its seed), used in all plots."""
    ways = dict.fromkeys(_way(stage) for stage in stages)
    return dict(zip(ways, itertools.cycle((INK, ACCENT, *COLOURS)), strict=False))


def _way(stage: str) -> str:
    return stage.rpartition("-seed")[0] or stage


def curves_svg(curves: Sequence[Curve], label: str, colours: Mapping[str, str]) -> str:
    """A plot of one measure: a colour per way of training, a dash pattern per seed."""
    n_seeds = Counter(_way(curve.stage) for curve in curves)
    # below the axes, two in a row, where they would cover the curves
    n_rows = (len(n_seeds) + 1) // 2 if len(n_seeds) > MOST_INSIDE else 0
    figure, axes = new_figure(5.2, 2.6 + 0.15 * n_rows)
    drawn: Counter[str] = Counter()
    for curve in curves:
        way = _way(curve.stage)
        name = None if drawn[way] else plain_label(way if n_seeds[way] > 1 else curve.stage)
        axes.plot(
            *zip(*curve.points, strict=True), DASHES[drawn[way] % len(DASHES)], color=colours[way],
            marker="o", markersize=3, linewidth=1.4, label=name,
        )  # fmt: skip
        drawn[way] += 1
    axes.set_xlabel("step")
    axes.locator_params(axis="x", integer=True)
    axes.set_title(label)
    if len(curves) > 1:
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
        axes.legend(fontsize=7, frameon=False, labelcolor=INK, **(below if n_rows else {}))
    return render_svg(figure, axes, label)


def all_curves(stages: Sequence[tuple[str, str, Path]]) -> Mapping[str, list[Curve]]:
    """Curves by `kind: measure`, in the order of MEASURES; `stages` are (name, kind, folder)."""
    grouped: dict[str, list[Curve]] = defaultdict(list)
    read: list[tuple[str, dict[str, Any]]] = [
        (kind, read_curves(name, kind, folder)) for name, kind, folder in stages
    ]
    for kind, measures in MEASURES.items():
        for measure, label in measures.items():
            own = [found[measure] for of, found in read if of == kind and measure in found]
            if own:
                grouped[f"{kind.upper()}: {label}"] = own
    return grouped
