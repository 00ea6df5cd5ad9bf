"""`r2w-eval train pipeline`: all stages of a recipe, each in a process of its own.

Separate processes give each stage a memory peak of its own, free its memory at the end, and leave
the pipeline alive to report failures. Independent stages run side by side, `jobs` at a time. A
stage dies with its pipeline: it holds a pipe that is closed when the parent ends. Finished stages
are not run again; killed ones resume by their own means.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from r2w_eval.training.pipeline.plan import Stage, dependants
from r2w_eval.training.pipeline.records import Record, finished

from r2w_eval.doctor import list_gpus
from r2w_eval.errors import R2WError
from r2w_eval.run.manifest import diff_fields
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
    """A stage ended without its record; the same command resumes it."""

    def __init__(self, stage: str, reason: str, exit_code: int) -> None:
        super().__init__(f"{stage}: {reason}")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Pipeline:
    """A planned pipeline and its folder; `recipe` is the recipe's name."""

    recipe: str
    stages: Sequence[Stage]
    out: Path

    def manifest(self) -> dict[str, Any]:
        """The lineage graph as JSON: every stage, with its record if finished, and board rows."""
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
        """Write pipeline.json atomically."""
        write_json(self.out / MANIFEST, self.manifest())


def _rows_of(node: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The rows of the leaderboard, each with its signature and the evaluation it came from."""
    record: Record | None = node["record"]
    if record is None or node["kind"] != "leaderboard":
        return ()
    return [{"name": f"row {row['model']}, {row['task']}", **row} for row in record.facts["rows"]]


def run_pipeline(
    pipeline: Pipeline, chosen: Sequence[Stage], launch: Launch, show: Show, jobs: int = 1
) -> dict[str, Record]:
    """Run the unfinished stages of `chosen`, `jobs` at a time; the records of all of them.

    When a stage fails, its dependants are skipped and all others are still run; then the first
    failure, an R2WError, is raised.
    """
    pipeline.out.mkdir(parents=True, exist_ok=True)
    for line in tell_changes(pipeline):
        show(line)
    work = _Work(pipeline, launch, show, {stage.name: stage for stage in chosen})
    with ThreadPoolExecutor(jobs) as pool:
        while work.waiting or work.running:
            work.start(pool, jobs)
            work.collect()
            pipeline.write_manifest()
    if work.failures:
        raise work.failures[0]
    return work.records


class _Work:
    """The state of a run: waiting and running stages, records of finished ones, failures."""

    def __init__(
        self, pipeline: Pipeline, launch: Launch, show: Show, chosen: dict[str, Stage]
    ) -> None:
        self._pipeline = pipeline
        self._launch = launch
        self._show = show
        self._places = {name: f"[{n}/{len(chosen)}] {name}" for n, name in enumerate(chosen, 1)}
        self.waiting = chosen
        self.running: dict[Future[Record], Stage] = {}
        self.records: dict[str, Record] = {}
        self.failures: list[R2WError] = []

    def start(self, pool: ThreadPoolExecutor, jobs: int) -> None:
        """Start the stages that can run now; report those that were finished before."""
        while len(self.running) < jobs and (stage := self._next()):
            del self.waiting[stage.name]
            done = finished(stage, self._pipeline.out)
            if done is None:
                self._show(f"{self._places[stage.name]} …")
                future = pool.submit(_run, self._pipeline, stage, self._launch)
                self.running[future] = stage
            else:
                seconds = f"finished earlier ({done.seconds:.0f} s)"
                self._show(f"{self._places[stage.name]}: {seconds}")
                self.records[stage.name] = done

    def _next(self) -> Stage | None:
        """The first waiting stage whose inputs neither wait nor run."""
        missing = {*self.waiting, *(stage.name for stage in self.running.values())}
        ready = (stage for stage in self.waiting.values() if not missing & set(stage.inputs))
        return next(ready, None)

    def collect(self) -> None:
        """Wait until at least one stage has ended, and take its record or failure."""
        ended, _ = wait(self.running, return_when=FIRST_COMPLETED)
        for future in ended:
            stage = self.running.pop(future)
            try:
                record = self.records[stage.name] = future.result()
            except R2WError as error:
                self._lose(stage, error)
            else:
                self._show(f"{self._places[stage.name]}: {tell(record)}")

    def _lose(self, stage: Stage, error: R2WError) -> None:
        self.failures.append(error)
        needing = [n for n in dependants(self._pipeline.stages, {stage.name}) if n in self.waiting]
        for name in needing:
            del self.waiting[name]
        self._show(f"{self._places[stage.name]}: failed{_lost(needing)}")


def _lost(stages: Sequence[str]) -> str:
    return f"; not run for it: {', '.join(stages)}" if stages else ""


def _run(pipeline: Pipeline, stage: Stage, launch: Launch) -> Record:
    launch(stage)
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
    """A summary of a finished stage, and a line for each of its notes and warnings."""
    known = {name: record.facts[name] for name in ("n", "steps", "last") if name in record.facts}
    facts = ", ".join(f"{name} {value}" for name, value in known.items())
    gpu = f", GPU {record.peak_gpu_bytes / 1e9:.2f} GB" if record.peak_gpu_bytes else ""
    again = f", start {record.attempts}" if record.attempts > 1 else ""
    memory = f"peak {record.peak_bytes / 1e9:.2f} GB{gpu}"
    took = f"{record.seconds:.1f} s ({record.cpu_seconds:.1f} s CPU), {memory}{again}"
    said = [f"\n  - {text}" for text in record.facts.get("notes", ())]
    said += [f"\n  ! {text}" for text in record.facts.get("warnings", ())]
    return (f"{took}; {facts}" if facts else took) + "".join(said)


def tell_changes(pipeline: Pipeline) -> list[str]:
    """Settings that differ from the last run in this folder, and the stages that run again."""
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
    """Launches stages as `r2w-eval train pipeline RECIPE --out OUT --only STAGE`.

    Each of the `jobs` slots has a share of the cores and, if several GPUs are visible, one GPU.
    """

    recipe: str
    out: Path
    jobs: int = 1
    places: SimpleQueue[Mapping[str, str]] = field(default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        """Fill the queue of slots."""
        for variables in share_machine(self.jobs, visible_gpus()):
            self.places.put(variables)

    def command(self, stage: Stage) -> list[str]:
        """The arguments of `r2w-eval`."""
        return ["train", "pipeline", self.recipe, "--out", str(self.out), "--only", stage.name]

    def __call__(self, stage: Stage) -> None:
        """Run a stage to its end in the next free slot. Raises StageFailed."""
        variables = self.places.get()
        try:
            self._run(stage, variables)
        finally:
            self.places.put(variables)

    def _run(self, stage: Stage, variables: Mapping[str, str]) -> None:
        """Run a stage in a process whose output goes to the log in the stage's folder."""
        folder = stage.folder(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        environment = {**os.environ, **variables, LIFELINE: str(reading)}
        words = [sys.executable, "-m", "r2w_eval", *self.command(stage)]
        try:
            with (folder / LOG).open("ab") as log:
                begin = log.tell()
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
            reason = _reason(folder / LOG, begin, code)
            raise StageFailed(
                stage.name,
                f"{reason}\nAll it wrote: {folder / LOG}. The same command "
                f"goes on from there: r2w-eval {shlex.join(self.command(stage)[:-2])}",
                code if code > 0 else 1,
            )


def share_machine(jobs: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each slot: the whole machine for a single one, else a share of the cores.

    A user's OMP_NUM_THREADS is kept. Slots take the GPUs in turn.

    >>> [place["CUDA_VISIBLE_DEVICES"] for place in share_machine(3, ["0", "1"])]
    ['0', '1', '0']
    """
    if jobs == 1:
        # one process that sees several GPUs would train on all of them, each with a batch
        return [{"CUDA_VISIBLE_DEVICES": gpus[0]} if gpus else {}]
    cores = str(max(1, (os.cpu_count() or 1) // jobs))
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": cores}
    chosen = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(jobs)]
    return [{**threads, **gpu} for gpu in chosen]


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use; empty for a single one, where there is no choice."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        found = tuple(part.strip() for part in chosen.split(",") if part.strip())
    else:
        found = tuple(str(number) for number in range(len(list_gpus())))
    return found if len(found) > 1 else ()


def _reason(log: Path, begin: int, code: int) -> str:
    """Why a stage failed: its error message, or the end of its log. What stands before byte `begin`
    was written by earlier starts.
    """
    if code < 0:
        return f"ended by signal {-code}. With signal 9 the machine was most often out of memory"
    text = log.read_bytes()[begin:].decode("utf-8", "replace")
    _, found, message = text.rpartition("\nr2w-eval: ")
    if text.startswith("r2w-eval: ") and not found:
        found, message = "r2w-eval: ", text.removeprefix("r2w-eval: ")
    return message.strip() if found else "\n".join(text.splitlines()[-8:])


def is_stage_process() -> bool:
    """Whether this process was started by a pipeline for one of its stages."""
    return LIFELINE in os.environ


def end_with_parent() -> None:
    """In a stage's process: exit as soon as the pipeline that started it is gone."""
    lifeline = int(os.environ.pop(LIFELINE))

    def wait() -> None:
        # nobody writes: this returns when the other end is closed
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def tell_total(records: Iterable[Record]) -> str:
    """A summary of all stages: total times, and the largest peak of memory."""
    found = list(records)
    seconds, computed = sum(r.seconds for r in found), sum(r.cpu_seconds for r in found)
    peak = max((r.peak_bytes for r in found), default=0)
    return f"{len(found)} stages: {seconds:.0f} s ({computed:.0f} s CPU), peak {peak / 1e9:.2f} GB"
