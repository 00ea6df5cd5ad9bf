"""Training curves: the rows of a training's models by step.

A pipeline's manifest, or the lineage file of a submitted run, says which model came from which and
after how many steps. Without either, rows whose model is a checkpoint folder (`checkpoint-120`,
`step_120`) form a curve per parent folder, suite and judge.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from r2w_eval.leaderboards.collect import Entry
from r2w_eval.leaderboards.lineage import places_of
from r2w_eval.leaderboards.plots import curve_plot

from r2w_eval.types import Metric

_STEP = re.compile(r"^(?P<parent>.*?)[/\\]?(?:checkpoint|step|ckpt)[-_](?P<step>\d{1,12})[/\\]?$")


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


Subject = tuple[str, str, str]
"""A training, a suite, a score key: the points of one curve."""


def training_curves(entries: Sequence[Entry]) -> list[Curve]:
    """Curves with at least two points: those of pipelines, then those of checkpoints."""
    return [*_curves(entries, _pipeline_points), *_curves(entries, _checkpoint_points)]


def _curves(
    entries: Sequence[Entry],
    points_of: Callable[[Sequence[Entry]], Iterable[tuple[str, Entry, Point]]],
) -> Iterator[Curve]:
    groups: dict[Subject, list[Point]] = defaultdict(list)
    about: dict[Subject, str] = {}
    for training, entry, point in points_of(entries):
        row = entry.row
        place = (training, row.task, row.score_key)
        groups[place].append(point)
        about[place] = f"{row.task} {row.version}, judged by {row.judge}; bars: 95 % intervals."
    for place in sorted(groups):
        points = tuple(sorted(groups[place], key=lambda p: (p.step, p.name)))
        if len({point.step for point in points}) > 1:
            name = f"{place[0]} on {place[1]}"
            svg = curve_plot([(point.step, point.metric) for point in points], name)
            yield Curve(name, about[place], points, svg)


def _checkpoint_points(entries: Sequence[Entry]) -> Iterator[tuple[str, Entry, Point]]:
    for entry in entries:
        found = split_checkpoint(entry.row.model)
        if found is not None and entry.row.headline.value is not None:
            yield found[0], entry, Point(entry.row.model, found[1], entry.row.headline)


def _pipeline_points(entries: Sequence[Entry]) -> Iterator[tuple[str, Entry, Point]]:
    """A model that several others were trained from is a point on each of their curves."""
    for entry in entries:
        if len(entry.runs) == 1 and entry.row.headline.value is not None:
            for place in places_of(entry.runs[0].path):
                point = Point(place.stage, place.step, entry.row.headline)
                yield f"{place.recipe}: {place.final}", entry, point


def split_checkpoint(model: str) -> tuple[str, int] | None:
    """Parent and step of a checkpoint's name; None for any other model.

    >>> split_checkpoint("runs/rl/checkpoint-40"), split_checkpoint("org/model")
    (('runs/rl', 40), None)
    """
    match = _STEP.match(model)
    return (match["parent"] or "training", int(match["step"])) if match else None
