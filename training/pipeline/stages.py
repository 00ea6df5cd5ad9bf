"""What each kind of stage does: the same functions that the single commands call.

A stage gets its inputs from the folders of the stages before it, works in its own folder, and ends
with its record. Everything heavy is imported where it is needed.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.checks.report import REPORT, require_valid
from r2w_eval.reward_models.data.synthesis import FILE as REFLECTIONS
from r2w_eval.reward_models.data.synthesis import find_reflections
from r2w_eval.training.checkpoints.evaluated import headlines, measures_of
from r2w_eval.training.contamination import BenchmarkIndex, benchmark_texts
from r2w_eval.training.pipeline import commands
from r2w_eval.training.pipeline.plan import BASE, Stage
from r2w_eval.training.pipeline.recipe import LOOP, Recipe
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
from r2w_eval.training.prompts import hold_apart, read_prompts
from r2w_eval.training.rl.effects import EffectSettings, with_effects
from r2w_eval.training.rl.references import match_references, read_reference_file
from r2w_eval.training.rl.rollouts import ROLLOUTS, write_rollouts
from r2w_eval.training.rl.signal import read_arms, score_groups
from r2w_eval.training.synthesis.expert import planted_traces
from r2w_eval.training.trainer.faults import out_of_memory_named
from r2w_eval.training.trainer.stage import EMBEDDED, HISTORY, Trained, model_folder

from r2w_eval.errors import UsageError
from r2w_eval.hashing import content_hash, to_plain
from r2w_eval.store import iter_jsonl, write_json, write_jsonl
from r2w_eval.trace.types import Form

PROMPTS_FILE, HELD_FILE = "prompts.jsonl", "held.jsonl"
REWARD_NAME = "r2w-reward"


@dataclass(frozen=True)
class Made:
    """What a stage leaves: files and folders by their paths, and what is worth telling."""

    outputs: tuple[Path, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A stage in its pipeline."""

    recipe: Recipe
    stages: Mapping[str, Stage]
    stage: Stage
    out: Path

    @property
    def folder(self) -> Path:
        """Where this stage works."""
        return self.stage.folder(self.out)

    def input(self, name: str, file: str) -> Path:
        """A file that an earlier stage made. Raises UsageError when that has not run."""
        earlier = self.stages[name]
        if finished(earlier, self.out) is None:
            raise UsageError(
                f"{self.stage.name} needs {name}, which is not finished. Try the same command "
                f"with --only {name}, or without --only"
            )
        return earlier.folder(self.out) / file

    def model(self, name: str) -> str:
        """The model that an earlier stage trained."""
        return str(self.input(name, "model").resolve())

    def scorer(self, reward: str, spec: str) -> str:
        """The scorer of a setting: `r2w-reward` is the one of the recipe's `rm` section."""
        if self.recipe.rm.source != "trained" or spec != REWARD_NAME:
            return spec
        return str(self.input(reward, "weights").resolve())

    def effect(self, reward: str, settings: EffectSettings) -> EffectSettings:
        """The settings of the axis effect, with the scorer that they mean in this recipe."""
        return replace(settings, scorer=self.scorer(reward, settings.scorer))

    def report(self, reward: str) -> str:
        """The validity report that the reward stage made of the process scorer, if it did."""
        path = self.input(reward, REPORT)
        return str(path.resolve()) if path.is_file() else ""


Runner = Callable[[Job], Made]


def run_stage(job: Job, runners: Mapping[str, Runner], command: str) -> Record:
    """Run a stage to its end and write its record; a finished one is left as it is.

    Raises R2WError subclasses.
    """
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


def run_prompts(job: Job) -> Made:
    """Choose prompts and compare them with every benchmark and with what will be evaluated."""
    own, tasks = job.recipe.prompts, job.recipe.tasks
    chosen, notes = commands.choose_prompts(
        own.file, own.n, own.seed, own.data_dir, tasks, own.languages
    )
    kept, held = hold_apart(chosen, own.held)
    if file := job.recipe.rl.references:
        match_references(read_reference_file(Path(file)), kept)
    files = {job.folder / PROMPTS_FILE: kept, job.folder / HELD_FILE: held}
    for path, prompts in files.items():
        write_jsonl(path, prompts)
    return Made(tuple(files), {"n": len(kept), "n_held": len(held), "notes": notes})


def run_loop(job: Job) -> Made:
    """The writer-judge loop; every finished call is kept."""
    prompts = read_prompts(job.input("prompts", PROMPTS_FILE))
    chosen, settings = job.recipe.traces, job.recipe.synth
    made = asyncio.run(commands.run_synthesis(chosen, prompts, settings, job.folder))
    tally = made.tally
    facts = {
        "n": made.census.n_kept,
        "census": made.census,
        "calls_sent": sum(tally.sent.values()),
        "calls_reused": tally.reused,
        "calls_failed": tally.failed,
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
    }
    files = (REFLECTIONS, "census.json")
    return Made((made.path, *(job.folder / name for name in files)), facts)


def run_expert(job: Job) -> Made:
    """Traces of professional edits."""
    own = job.recipe.traces
    n = commands.write_expert_traces(own, job.folder, own.limit)
    return Made((job.folder / commands.TRACES,), {"n": n})


def run_planted(job: Job) -> Made:
    """Traces of planted flaws."""
    own = job.recipe.traces
    traces = planted_traces(own.limit, languages=own.languages, form=Form(own.form))
    commands.write_traces(job.folder / commands.TRACES, traces)
    return Made((job.folder / commands.TRACES,), {"n": len(traces)})


def run_traces(job: Job) -> Made:
    """All sources together, without what a benchmark holds. Raises UsageError when none is left."""
    benchmark = benchmark_texts(job.recipe.prompts.data_dir, job.recipe.tasks)
    index = BenchmarkIndex(benchmark.texts)
    files = [job.input(name, commands.TRACES) for name in job.stage.inputs]
    traces = [trace for file in files for trace in iter_jsonl(file)]
    refused = {trace["id"]: hit for trace in traces if (hit := find_overlap(index, trace))}
    kept = [trace for trace in traces if trace["id"] not in refused]
    if not kept:
        raise UsageError(
            f"no traces to train on: {len(traces)} made, {len(refused)} of them refused. Name "
            f"another of loop, expert, planted in traces.sources, or a stronger writer and judge"
        )
    commands.write_traces(job.folder / commands.TRACES, kept)
    facts = {
        "n": len(kept),
        "refused": {name: str(hit) for name, hit in sorted(refused.items())},
        "not_compared_with": benchmark.unchecked,
    }
    return Made((job.folder / commands.TRACES,), facts)


def find_overlap(
    index: BenchmarkIndex,
    trace: Mapping[str, Any],
    names: Sequence[str] = ("prompt", "thinking", "answer"),
) -> str:
    """Why a trace is not to be trained on: its prompt, its thinking or its answer; or nothing."""
    for name in names:
        if hit := index.check(trace[name]):
            return f"{name}: {hit}"
    return ""


def run_sft(job: Job) -> Made:
    """Fine-tune the base on all traces."""
    settings = job.recipe.sft_of(int(job.stage.settings["settings"]["seed"]))
    traces = job.input("traces", commands.TRACES)
    trained = commands.run_sft(settings, traces, job.folder)
    return _trained(job, trained)


def run_reward(job: Job) -> Made:
    """The shipped reward model checked to load, or one trained on the labelled sets; and the tests
    that the process scorer must have passed before a policy is trained on it.
    """
    from r2w_eval.reward_models.scorer import open_scorer

    own, rl = job.recipe.rm, job.recipe.rl
    name = REWARD_NAME
    made: list[Path] = []
    if own.source == "trained":
        from r2w_eval.reward_models import commands as reward_commands

        steps = own_steps(job)
        choice = reward_commands.DataChoice(own.reward_data, own.without, synth=steps)
        reward_commands.train(choice, str(job.folder), data_only=False, transformer=None)
        made.append(job.folder / "weights")
        name = str(made[0])
    if any(job.recipe.grid.lambdas):
        process = open_scorer(name if rl.process == REWARD_NAME else rl.process, rl.patience_s)
        require_valid(process, rl.validity, job.folder)
        made += [path for path in (job.folder / REPORT,) if path.is_file()]
    return Made(tuple(made), {"scorer": open_scorer(name).id})


def own_steps(job: Job) -> tuple[str, ...]:
    """A folder with the reflections of `rm.synth` without those that a benchmark holds; none where
    the recipe names none. Raises DataError.
    """
    synth = job.recipe.rm.synth
    if synth is None:
        return ()
    file = job.input("traces-loop", REFLECTIONS) if synth == LOOP else Path(synth) / REFLECTIONS
    index = BenchmarkIndex(benchmark_texts(job.recipe.prompts.data_dir, job.recipe.tasks).texts)
    steps = iter_jsonl(find_reflections(file.parent))
    folder = job.folder / "synth"
    folder.mkdir(parents=True, exist_ok=True)
    names = ("prompt", "draft", "revision")
    write_jsonl(
        folder / REFLECTIONS, [step for step in steps if not find_overlap(index, step, names)]
    )
    return (str(folder),)


def run_rl(job: Job) -> Made:
    """Reinforcement learning from the SFT model, with the reward model of the recipe."""
    sft, prompts_stage, reward = job.stage.inputs
    own = job.stage.settings["settings"]
    settings = job.recipe.rl_of(own["seed"], own["process_mapping"]["weight"])
    settings = replace(
        settings,
        model=job.model(sft),
        outcome=job.scorer(reward, settings.outcome),
        process=job.scorer(reward, settings.process),
        effect=job.effect(reward, settings.effect),
        validity=settings.validity or job.report(reward),
    )
    prompts = read_prompts(job.input(prompts_stage, PROMPTS_FILE))
    return _trained(job, commands.run_rl(settings, prompts, job.folder, arms_folder(job)))


def arms_folder(job: Job) -> Path:
    """Where the RL trainings of this grid agree on their last step: those that begin from the same
    traces, prompts, base and reward. Seeds differ among them; another SFT is another grid.
    """
    keys = [job.stages[name].key for name in ("traces", "prompts", "reward")]
    base = next(stage for stage in job.stages.values() if stage.kind == "sft")
    common = [*keys, base.settings["weights"], job.recipe.sft_of(0)]
    return job.out / f"arms-{content_hash(common, 8)}"


def run_signal(job: Job) -> Made:
    """What the rewards would say of the SFT models' texts, for each lambda of the grid."""
    from r2w_eval.reward_models.scorer import open_scorer

    *texts, reward = job.stage.inputs
    rows = [
        {**row, "policy": name} for name in texts for row in iter_jsonl(job.input(name, ROLLOUTS))
    ]
    own = job.recipe.rl
    names = (own.outcome, own.process)
    outcome, judged = (open_scorer(job.scorer(reward, one), own.patience_s) for one in names)
    process = with_effects(judged, job.effect(reward, own.effect), own.patience_s)
    groups = score_groups(rows, outcome, process, own.unanswered)
    arms = read_arms(groups, own.process_mapping, job.recipe.grid.lambdas)
    path = job.folder / "signal.json"
    write_json(path, arms)
    told = dict.fromkeys(warning for arm in arms for warning in arm["warnings"])
    return Made((path,), {"n": len(rows), "arms": arms, "warnings": [*told]})


def _trained(job: Job, trained: Trained) -> Made:
    facts = {
        "n": trained.n_rows,
        "n_too_long": trained.n_too_long,
        "steps": trained.steps,
        "last": trained.loss,
        "notes": trained.notes,
    }
    return Made((trained.model, job.folder / "trained.json", job.folder / HISTORY), facts)


def run_rollouts(job: Job) -> Made:
    """Texts of a model on the prompts held apart."""
    *trained, prompts_stage = job.stage.inputs
    model = job.model(trained[0]) if trained else job.recipe.sft.model
    prompts = read_prompts(job.input(prompts_stage, HELD_FILE))
    path = job.folder / ROLLOUTS
    with out_of_memory_named("rollouts.batch_size"):
        facts = write_rollouts(model, prompts, job.recipe.rollouts, path)
    return Made((path,), facts)


def run_evaluation(job: Job) -> Made:
    """The evaluation that `r2w-eval run` would make of this model."""
    from r2w_eval.run import evaluate

    name = job.stage.name.removeprefix("evaluate-")
    run = job.folder / "run"
    config = replace(job.recipe.evaluate, model=show_model(job, name), out=str(run))
    with out_of_memory_named("batch_size in evaluate.model_args"):
        asyncio.run(evaluate(config))
    rows = [{**row, "reflection": measures_of(row["reflection"])} for row in headlines(run)]
    return Made((run / "run.json", run / "results.json"), {"model": name, "rows": rows})


def show_model(job: Job, name: str) -> str:
    """The model under a name that a board can show: `OUT/models/NAME`, a link to its folder."""
    base = job.recipe.sft.model
    if name == BASE and base != EMBEDDED and not Path(base).is_dir():
        return base
    target = model_folder(base) if name == BASE else job.model(name)
    link = job.out / "models" / name
    link.parent.mkdir(exist_ok=True)
    aside = link.with_name(f".{name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    aside.symlink_to(Path(target).resolve())
    os.replace(aside, link)
    return str(link)


RUNNERS: Mapping[str, Runner] = {
    "prompts": run_prompts,
    "traces-loop": run_loop,
    "traces-expert": run_expert,
    "traces-planted": run_planted,
    "traces": run_traces,
    "sft": run_sft,
    "reward": run_reward,
    "rl": run_rl,
    "rollouts": run_rollouts,
    "signal": run_signal,
    "evaluate": run_evaluation,
}


def job_of(recipe: Recipe, stages: Sequence[Stage], stage: Stage, out: Path) -> Job:
    """A stage with the plan that it belongs to."""
    return Job(recipe, {one.name: one for one in stages}, stage, out)
