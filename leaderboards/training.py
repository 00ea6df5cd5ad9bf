"""Curves of a training run: the rows of its checkpoints, in order of their steps.

A checkpoint is a row whose system names a checkpoint folder (`checkpoint-120`, `step_120`); rows
of one parent folder, suite and judge form a curve.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from r2w_eval.leaderboards.collect import Entry
from r2w_eval.leaderboards.plots import curve_plot

from r2w_eval.types import Metric

_STEP = re.compile(r"^(?P<parent>.*?)[/\\]?(?:checkpoint|step|ckpt)[-_](?P<step>\d+)[/\\]?$")


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint."""

    name: str
    step: int
    metric: Metric


@dataclass(frozen=True, slots=True)
class Curve:
    """One training run on one board."""

    name: str
    caption: str
    points: tuple[Point, ...]
    svg: str


def training_curves(entries: Sequence[Entry]) -> list[Curve]:
    """Curves with two checkpoints or more."""
    groups: dict[tuple[str, str, str], list[Point]] = defaultdict(list)
    about: dict[tuple[str, str, str], str] = {}
    for entry in entries:
        row = entry.row
        found = split_checkpoint(row.model)
        if found is None or row.headline.value is None:
            continue
        parent, step = found
        place = (parent, row.task, row.score_key)
        groups[place].append(Point(row.model, step, row.headline))
        about[place] = f"{row.task} {row.version}, judged by {row.judge}; bars: 95 % intervals."
    curves = []
    for place in sorted(groups):
        points = tuple(sorted(groups[place], key=lambda p: (p.step, p.name)))
        if len({point.step for point in points}) > 1:
            name = f"{place[0]} on {place[1]}"
            svg = curve_plot([(point.step, point.metric) for point in points], name)
            curves.append(Curve(name, about[place], points, svg))
    return curves


def split_checkpoint(model: str) -> tuple[str, int] | None:
    """Parent and step of a checkpoint's name; None for any other model.

    >>> split_checkpoint("runs/rl/checkpoint-40"), split_checkpoint("org/model")
    (('runs/rl', 40), None)
    """
    match = _STEP.match(model)
    return (match["parent"] or "training", int(match["step"])) if match else None
