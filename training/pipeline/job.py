"""Runs one stage: finds its inputs in the folders of earlier stages, writes its record."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.checks.report import REPORT
from r2w_eval.training.pipeline.plan import Stage
from r2w_eval.training.pipeline.recipe import Recipe
from r2w_eval.training.pipeline.records import (
    Record,
    cpu_seconds,
    describe_outputs,
    finished,
    locked,
    note_attempt,
    peak_memory,
    versions,
    write_record,
)
from r2w_eval.training.rl.effects import EffectSettings

from r2w_eval.errors import UsageError
from r2w_eval.hashing import to_plain

REWARD_NAME = "r2w-reward"


@dataclass(frozen=True)
class Made:
    """What a stage made: paths of files and folders, and facts for its record."""

    outputs: tuple[Path, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A stage with its recipe, the pipeline's other stages and the output folder."""

    recipe: Recipe
    stages: Mapping[str, Stage]
    stage: Stage
    out: Path

    @property
    def folder(self) -> Path:
        """The folder of this stage."""
        return self.stage.folder(self.out)

    def input(self, name: str, file: str) -> Path:
        """The path of an earlier stage's file. Raises UsageError if that stage is not finished."""
        earlier = self.stages[name]
        if finished(earlier, self.out) is None:
            raise UsageError(
                f"{self.stage.name} needs {name}, which is not finished. Try the same command "
                f"with --only {name}, or without --only"
            )
        return earlier.folder(self.out) / file

    def model(self, name: str) -> str:
        """The folder of the model that an earlier stage trained."""
        return str(self.input(name, "model").resolve())

    def scorer(self, reward: str, spec: str) -> str:
        """The scorer that a setting means: `r2w-reward` is the reward model of section `rm`."""
        if self.recipe.rm.source != "trained" or spec != REWARD_NAME:
            return spec
        return str(self.input(reward, "weights").resolve())

    def effect(self, reward: str, settings: EffectSettings) -> EffectSettings:
        """The effect settings with their scorer resolved as by `scorer`."""
        return replace(settings, scorer=self.scorer(reward, settings.scorer))

    def report(self, reward: str) -> str:
        """The path of the validity report that a stage made; empty if it made none."""
        path = self.input(reward, REPORT)
        return str(path.resolve()) if path.is_file() else ""


Runner = Callable[[Job], Made]


def run_stage(job: Job, runners: Mapping[str, Runner], command: str) -> Record:
    """Run a stage and write its record, unless it is finished already. Raises R2WError."""
    with locked(job.folder):
        if done := finished(job.stage, job.out):
            return done
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        attempts = note_attempt(job.folder, now)
        started = time.monotonic()
        made = runners[job.stage.kind](job)
        resident, on_gpu = peak_memory()
        record = Record(
            stage=job.stage.name,
            kind=job.stage.kind,
            key=job.stage.key,
            inputs={name: job.stages[name].key for name in job.stage.inputs},
            settings=job.stage.settings,
            outputs=describe_outputs(job.folder, made.outputs),
            command=command,
            versions=versions(),
            started=now,
            seconds=round(time.monotonic() - started, 2),
            cpu_seconds=cpu_seconds(),
            peak_bytes=resident,
            peak_gpu_bytes=on_gpu,
            attempts=attempts,
            facts=to_plain(made.facts),
        )
        write_record(job.folder, record)
    return record


def job_of(recipe: Recipe, stages: Sequence[Stage], stage: Stage, out: Path) -> Job:
    """The job of a stage among all `stages` of a plan."""
    return Job(recipe, {one.name: one for one in stages}, stage, out)
