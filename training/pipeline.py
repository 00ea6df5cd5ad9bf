"""`r2w-eval train pipeline`: all stages of a recipe in order, each in a process of its own.

A process a stage gives each its own peak of memory, frees what it held, and leaves the pipeline
alive to say what failed. A stage ends with its pipeline: it holds a pipe whose other end dies with
the parent. What is finished is not run again; what was killed goes on by its stage's own means.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.training.pipeline_plan import Stage, dependants
from r2w_eval.training.pipeline_records import Record, finished

from r2w_eval.errors import R2WError
from r2w_eval.manifest import diff_fields
from r2w_eval.store import write_json

MANIFEST, LOG = "pipeline.json", "log.txt"
LIFELINE = "R2W_PIPELINE_LIFELINE"
STATEMENT = (
    "Independent reconstruction after the abstract of arXiv 2604.03004. The authors published no "
    "code, prompts or data."
)
Show = Callable[[str], None]
Launch = Callable[[Stage], None]


class StageFailed(R2WError):
    """A stage ended without its record; the same command goes on from there."""

    def __init__(self, stage: str, reason: str, exit_code: int) -> None:
        super().__init__(f"{stage}: {reason}")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Pipeline:
    """A planned pipeline in its folder."""

    recipe: str
    stages: Sequence[Stage]
    out: Path

    def manifest(self) -> dict[str, Any]:
        """The lineage graph: every stage with its record where it is finished, and the rows."""
        nodes = [self._node(stage) for stage in self.stages]
        rows = [row for node in nodes for row in _rows_of(node)]
        return {
            "schema": 1,
            "statement": STATEMENT,
            "recipe": self.recipe,
            "nodes": nodes,
            "rows": rows,
            "edges": [
                *([other, stage.name] for stage in self.stages for other in stage.inputs),
                *([row["run"], row["name"]] for row in rows),
            ],
        }

    def _node(self, stage: Stage) -> dict[str, Any]:
        record = finished(stage, self.out)
        return {
            "name": stage.name,
            "kind": stage.kind,
            "hash": stage.key,
            "inputs": list(stage.inputs),
            "settings": stage.settings,
            "folder": str(stage.folder(self.out).relative_to(self.out)),
            "record": record,
        }

    def write_manifest(self) -> None:
        """pipeline.json, in one step."""
        write_json(self.out / MANIFEST, self.manifest())


def _rows_of(node: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Rows of the leaderboard, each with its signature and the evaluation that it came from."""
    record: Record | None = node["record"]
    if record is None or node["kind"] != "leaderboard":
        return ()
    return [{"name": f"row {row['model']}, {row['task']}", **row} for row in record.facts["rows"]]


def run_pipeline(
    pipeline: Pipeline, chosen: Sequence[Stage], launch: Launch, show: Show
) -> dict[str, Record]:
    """Run what of `chosen` is not finished, in order; all records. Raises StageFailed."""
    pipeline.out.mkdir(parents=True, exist_ok=True)
    for line in tell_changes(pipeline):
        show(line)
    records: dict[str, Record] = {}
    for number, stage in enumerate(chosen, 1):
        where = f"[{number}/{len(chosen)}] {stage.name}"
        done = finished(stage, pipeline.out)
        if done is not None:
            show(f"{where}: finished earlier ({done.seconds:.0f} s)")
        else:
            show(f"{where} …")
            done = _run(pipeline, stage, launch)
            show(f"{where}: {tell(done)}")
        records[stage.name] = done
    pipeline.write_manifest()
    return records


def _run(pipeline: Pipeline, stage: Stage, launch: Launch) -> Record:
    try:
        launch(stage)
    finally:
        pipeline.write_manifest()
    record = finished(stage, pipeline.out)
    if record is None:
        raise StageFailed(
            stage.name,
            f"no record of this work in {stage.folder(pipeline.out)}: did the recipe change "
            f"meanwhile? Run the same command again",
            1,
        )
    return record


def tell(record: Record) -> str:
    """A finished stage in a line."""
    known = {name: record.facts[name] for name in ("n", "steps", "last") if name in record.facts}
    facts = ", ".join(f"{name} {value}" for name, value in known.items())
    gpu = f", GPU {record.peak_gpu_bytes / 1e9:.2f} GB" if record.peak_gpu_bytes else ""
    again = f", start {record.attempts}" if record.attempts > 1 else ""
    memory = f"peak {record.peak_bytes / 1e9:.2f} GB{gpu}"
    took = f"{record.seconds:.1f} s ({record.cpu_seconds:.1f} s CPU), {memory}{again}"
    return f"{took}; {facts}" if facts else took


def tell_changes(pipeline: Pipeline) -> list[str]:
    """What differs from the last time in this folder, and which stages run again for it."""
    path = pipeline.out / MANIFEST
    if not path.is_file():
        return []
    before = {node["name"]: node for node in json.loads(path.read_bytes())["nodes"]}
    lines, changed = [], set()
    for stage in pipeline.stages:
        old = before.get(stage.name)
        if old is None or old["settings"] == stage.settings:
            continue
        changed.add(stage.name)
        differing = "; ".join(diff_fields(old["settings"], stage.settings))
        lines.append(f"changed: {stage.name}: {differing}")
    after = [s.name for s in pipeline.stages if s.name in dependants(pipeline.stages, changed)]
    if after:
        lines.append(f"which changes what depends on it: {', '.join(after)}")
    return lines


@dataclass(frozen=True)
class Subprocesses:
    """Launches a stage as `r2w-eval train pipeline RECIPE --out OUT --only STAGE`."""

    recipe: str
    out: Path

    def command(self, stage: Stage) -> list[str]:
        """The words after `r2w-eval`."""
        own = ["train", "pipeline", self.recipe, "--out", str(self.out), "--only", stage.name]
        return own

    def __call__(self, stage: Stage) -> None:
        """Run it to its end; its output goes to the log of its folder. Raises StageFailed."""
        folder = stage.folder(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        environment = {**os.environ, LIFELINE: str(reading)}
        words = [sys.executable, "-m", "r2w_eval", *self.command(stage)]
        try:
            with (folder / LOG).open("ab") as log:
                child = subprocess.Popen(
                    words, stdout=log, stderr=log, env=environment, pass_fds=[reading]
                )
            os.close(reading)
            code = child.wait()
        except KeyboardInterrupt:
            child.wait()
            raise
        finally:
            os.close(writing)
        if code:
            raise StageFailed(
                stage.name,
                f"{_reason(folder / LOG, code)}\nAll it wrote: {folder / LOG}. The same command "
                f"goes on from there: r2w-eval {shlex.join(self.command(stage)[:-2])}",
                code if code > 0 else 1,
            )


def _reason(log: Path, code: int) -> str:
    """The message of a failed stage, or the end of its log."""
    if code < 0:
        return f"ended by signal {-code}. With signal 9 the machine was most often out of memory"
    text = log.read_text("utf-8", "replace")
    _, found, message = text.rpartition("\nr2w-eval: ")
    if text.startswith("r2w-eval: ") and not found:
        found, message = "r2w-eval: ", text.removeprefix("r2w-eval: ")
    return message.strip() if found else "\n".join(text.splitlines()[-8:])


def is_stage_process() -> bool:
    """Started by a pipeline, for one of its stages."""
    return LIFELINE in os.environ


def end_with_parent() -> None:
    """In a stage's process: end at once when the pipeline that started it is gone."""
    lifeline = int(os.environ.pop(LIFELINE))

    def wait() -> None:
        # nobody writes: this returns when the other end is closed
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def tell_total(records: Iterable[Record]) -> str:
    """All stages together, and the largest peak of memory."""
    found = list(records)
    seconds, computed = sum(r.seconds for r in found), sum(r.cpu_seconds for r in found)
    peak = max((r.peak_bytes for r in found), default=0)
    return f"{len(found)} stages: {seconds:.0f} s ({computed:.0f} s CPU), peak {peak / 1e9:.2f} GB"
