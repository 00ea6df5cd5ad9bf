"""The history of the models of a training pipeline: base, SFT, RL, and their training steps.

Read from the pipeline's manifest (`pipeline.json`): the run in `stages/evaluate-X-…/run` is of the
model X, and the stages before X are its history. A submitted run leaves its pipeline and keeps its
own places in `lineage.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.store import write_json

MANIFEST = "pipeline.json"
LINEAGE = "lineage.json"
TRAINED = ("sft", "rl")
EVALUATED = "evaluate"
BASE = "base"


@dataclass(frozen=True, slots=True)
class Stop:
    """An evaluated model: its training steps since the base, and the folder of its run."""

    stage: str
    step: int
    run: Path


@dataclass(frozen=True, slots=True)
class Line:
    """The last evaluated model of a training and all before it, oldest first."""

    recipe: str
    final: str
    stops: tuple[Stop, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an evaluated run in one line."""

    recipe: str
    final: str
    stage: str
    step: int


def places_of(run: Path) -> list[Place]:
    """A run's places, from its pipeline or its own file; a base model belongs to many lines."""
    manifest = manifest_of(run)
    if manifest is None:
        return _read_places(run / LINEAGE)
    return [
        Place(line.recipe, line.final, stop.stage, stop.step)
        for line in read_lines(manifest)
        for stop in line.stops
        if stop.run == run.resolve()
    ]


def _read_places(path: Path) -> list[Place]:
    """Empty if the file is missing or malformed; it is not signed."""
    try:
        return [
            Place(str(one["recipe"]), str(one["final"]), str(one["stage"]), int(one["step"]))
            for one in json.loads(path.read_bytes())
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        return []


def keep_places(run: Path, target: Path) -> None:
    """Write a run's places, if any, into its copy."""
    if places := places_of(run):
        write_json(target / LINEAGE, places)


def manifest_of(run: Path) -> Path | None:
    """The manifest of the pipeline that a run folder belongs to, if any."""
    place = next((p for p in run.resolve().parents if p.name == "stages"), None)
    path = place.parent / MANIFEST if place else None
    return path if path is not None and path.is_file() else None


def read_lines(manifest: Path) -> list[Line]:
    """A line per model that no other was trained from; none if the file is not a manifest."""
    try:
        content = json.loads(manifest.read_bytes())
        nodes = {str(node["name"]): node for node in content["nodes"]}
        return list(_lines(str(content["recipe"]), nodes, manifest.parent.resolve()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def runs_of(manifest: Path) -> list[Path]:
    """The folders of all evaluated runs, each once, in the order of the manifest's lines."""
    stops = (stop for line in read_lines(manifest) for stop in line.stops)
    return list(dict.fromkeys(stop.run for stop in stops))


def _lines(recipe: str, nodes: Mapping[str, Any], root: Path) -> Iterable[Line]:
    lines: dict[str, Line] = {}
    evaluated = [n for n in nodes.values() if n["kind"] == EVALUATED and n["record"] is not None]
    runs = {(n["inputs"] or [BASE])[0]: (root / n["folder"] / "run").resolve() for n in evaluated}
    parents = {name: _parent(node, nodes) for name, node in nodes.items()}
    trained = [name for name, node in nodes.items() if node["kind"] in TRAINED]
    for final in trained:
        if final in (parents[name] for name in trained):
            continue
        stops, step = [], 0
        for name in _history(final, parents):
            step += _steps(nodes.get(name))
            # a manifest from elsewhere must not publish other runs of this machine
            if name in runs and runs[name].is_relative_to(root):
                stops.append(Stop(name, step, runs[name]))
        if stops:
            # models that are not evaluated yet share the line of their last evaluated ancestor
            lines[stops[-1].stage] = Line(recipe, stops[-1].stage, tuple(stops))
    return lines.values()


def _parent(node: Mapping[str, Any], nodes: Mapping[str, Any]) -> str | None:
    """The training stage whose model a stage continues from."""
    return next((name for name in node["inputs"] if nodes[name]["kind"] in TRAINED), None)


def _history(final: str, parents: Mapping[str, str | None]) -> Sequence[str]:
    chain: list[str] = []
    name: str | None = final
    while name is not None and name not in chain:
        chain.append(name)
        name = parents[name]
    return [BASE, *reversed(chain)]


def _steps(node: Mapping[str, Any] | None) -> int:
    """Optimiser steps that a finished stage took; 0 for the base."""
    if node is None or node["record"] is None:
        return 0
    return int(node["record"]["facts"]["steps"])
