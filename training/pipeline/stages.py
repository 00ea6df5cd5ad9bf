"""The runner of each kind of stage, on top of the functions that the single commands call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.checks.report import REPORT, require_valid
from r2w_eval.reward_models.data.synthesis import FILE as REFLECTIONS
from r2w_eval.reward_models.data.synthesis import find_reflections
from r2w_eval.training.checkpoints.evaluated import headlines, measures_of
from r2w_eval.training.contamination import BenchmarkIndex, benchmark_texts
from r2w_eval.training.pipeline import commands
from r2w_eval.training.pipeline.grid import BASE, rl_arms, variants
from r2w_eval.training.pipeline.job import REWARD_NAME, Job, Made, Runner
from r2w_eval.training.pipeline.plan import Stage
from r2w_eval.training.pipeline.recipe import LOOP, Recipe
from r2w_eval.training.pipeline.records import finished
from r2w_eval.training.prompts import hold_apart, read_prompts
from r2w_eval.training.rl.controls import shuffle_scores
from r2w_eval.training.rl.effects import with_effects
from r2w_eval.training.rl.reference_file import match_references, read_reference_file
from r2w_eval.training.rl.rollouts import ROLLOUTS, write_rollouts
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.rl.signal import Group, read_arms, score_groups, tell_warnings
from r2w_eval.training.rl.train import last_step_file
from r2w_eval.training.synthesis.controls import without_reflections
from r2w_eval.training.synthesis.expert import planted_traces
from r2w_eval.training.trainer.faults import out_of_memory_named
from r2w_eval.training.trainer.sft import SFTSettings, is_usable, to_row
from r2w_eval.training.trainer.stage import (
    HISTORY,
    Trained,
    load_tokenizer,
    model_folder,
)

from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import content_hash
from r2w_eval.store import iter_jsonl, write_json, write_jsonl
from r2w_eval.trace.types import Form

PROMPTS_FILE, HELD_FILE = "prompts.jsonl", "held.jsonl"


def run_prompts(job: Job) -> Made:
    """Choose prompts, refuse those that occur in a benchmark, hold some out."""
    own, tasks = job.recipe.prompts, job.recipe.tasks
    chosen, notes = commands.choose_prompts(
        own.file, own.n, own.seed, job.recipe.data_dir, tasks, own.languages
    )
    kept, held = hold_apart(chosen, own.held)
    if file := job.recipe.rl.references:
        match_references(read_reference_file(Path(file)), kept)
    files = {job.folder / PROMPTS_FILE: kept, job.folder / HELD_FILE: held}
    for path, prompts in files.items():
        write_jsonl(path, prompts)
    return Made(tuple(files), {"n": len(kept), "n_held": len(held), "notes": notes})


def check_finished_prompts(recipe: Recipe, stages: Sequence[Stage], out: Path) -> None:
    """Raises UsageError if the references, which no key of the prompts tells, lack one of the
    prompts that were chosen before: said at the start, and not after fine-tuning.
    """
    stage = next(one for one in stages if one.kind == "prompts")
    if recipe.rl.references and finished(stage, out):
        stored = read_reference_file(Path(recipe.rl.references))
        match_references(stored, read_prompts(stage.folder(out) / PROMPTS_FILE))


def run_loop(job: Job) -> Made:
    """Make traces by the writer-judge loop."""
    prompts = read_prompts(job.input("prompts", PROMPTS_FILE))
    chosen, settings = job.recipe.traces, job.recipe.synth
    made = asyncio.run(commands.run_synthesis(chosen, prompts, settings, job.folder))
    # of all starts: a process that was killed has paid for its calls too
    costs = made.costs
    facts = {
        "n": made.census.n_kept,
        "census": made.census,
        "calls_sent": sum(costs.calls.values()),
        "calls_failed": made.tally.failed,
        "prompt_tokens": costs.prompt_tokens,
        "completion_tokens": costs.completion_tokens,
        "calls_without_usage": costs.n_without_usage,
    }
    files = (REFLECTIONS, "census.json")
    return Made((made.path, *(job.folder / name for name in files)), facts)


def run_expert(job: Job) -> Made:
    """Make traces of professional edits."""
    own = job.recipe.traces
    n = commands.write_expert_traces(own, job.folder, own.limit)
    return Made((job.folder / commands.TRACES,), {"n": n})


def run_planted(job: Job) -> Made:
    """Make traces of planted flaws."""
    own = job.recipe.traces
    traces = planted_traces(own.limit, languages=own.languages, form=Form(own.form))
    commands.write_traces(job.folder / commands.TRACES, traces)
    return Made((job.folder / commands.TRACES,), {"n": len(traces)})


def run_traces(job: Job) -> Made:
    """Join the traces of all sources, without those that overlap with a benchmark.

    Raises UsageError when none is left.
    """
    benchmark = benchmark_texts(job.recipe.data_dir, job.recipe.tasks)
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
    """Which of a trace's texts overlaps with a benchmark, and how; empty if none does."""
    for name in names:
        if hit := index.check(trace[name]):
            return f"{name}: {hit}"
    return ""


def run_sft(job: Job) -> Made:
    """Fine-tune the base on the traces, or for the control on traces without reflections."""
    settings = job.recipe.sft_of(int(job.stage.settings["settings"]["seed"]))
    traces = job.input("traces", commands.TRACES)
    if job.stage.settings.get("without_reflections"):
        traces = _control_traces(settings, traces, job.folder / commands.TRACES)
    trained = commands.run_sft(settings, traces, job.folder)
    return _trained(job, trained)


def _control_traces(settings: SFTSettings, traces: Path, path: Path) -> Path:
    """The file of traces without reflections, made of those traces that are trained on with their
    reflections, so that both models learn from the same prompts.
    """
    tokenizer = load_tokenizer(settings.model)
    whole = [
        trace
        for trace in iter_jsonl(traces)
        if is_usable(to_row(trace), tokenizer, settings.max_tokens)
    ]
    if not whole:
        # fine-tuning refuses these with a message
        return traces
    commands.write_traces(path, [without_reflections(trace) for trace in whole])
    return path


def run_reward(job: Job) -> Made:
    """Train a reward model, or check that the shipped one loads; then require the process scorer to
    be valid if the grid rewards reflections.
    """
    from r2w_eval.reward_models.scorer import open_scorer

    own, rl = job.recipe.rm, job.recipe.rl
    name = REWARD_NAME
    made: tuple[Path, ...] = ()
    if own.source == "trained":
        from r2w_eval.reward_models import commands as reward_commands

        steps = own_steps(job)
        choice = reward_commands.DataChoice(own.reward_data, own.without, synth=steps)
        reward_commands.train(choice, str(job.folder), data_only=False, transformer=None)
        made = (job.folder / "weights",)
        name = str(made[0])
    if any(job.recipe.grid.lambdas):
        process = open_scorer(name if rl.process == REWARD_NAME else rl.process, rl.patience_s)
        require_valid(process, rl.validity, job.folder)
    return Made((*made, *_report(job)), {"scorer": open_scorer(name).id})


def _report(job: Job) -> tuple[Path, ...]:
    """The validity report, if the stage made one."""
    path = job.folder / REPORT
    return (path,) if path.is_file() else ()


def own_steps(job: Job) -> tuple[str, ...]:
    """A folder with the reflections of `rm.synth`, without those that overlap with a benchmark;
    empty if the recipe names none. Raises DataError, also if no reflection is left.
    """
    synth = job.recipe.rm.synth
    if synth is None:
        return ()
    file = job.input("traces-loop", REFLECTIONS) if synth == LOOP else Path(synth) / REFLECTIONS
    index = BenchmarkIndex(benchmark_texts(job.recipe.data_dir, job.recipe.tasks).texts)
    steps = list(iter_jsonl(find_reflections(file.parent)))
    names = ("prompt", "draft", "revision")
    kept = [step for step in steps if not find_overlap(index, step, names)]
    if not kept:
        raise DataError(
            f"rm.synth {synth!r}: no steps to train on: {len(steps)} in {file}, "
            f"{len(steps) - len(kept)} of them in a benchmark. Take rm.synth out of the recipe, or "
            f"make more of other prompts"
        )
    folder = job.folder / "synth"
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / REFLECTIONS, kept)
    return (str(folder),)


def run_validity(job: Job) -> Made:
    """Require one of the grid's other process scorers to be valid."""
    from r2w_eval.reward_models.scorer import open_scorer

    (reward,) = job.stage.inputs
    own = job.stage.settings
    scorer = open_scorer(job.scorer(reward, own["process"]), job.recipe.rl.patience_s)
    require_valid(scorer, own["validity"], job.folder)
    return Made(_report(job), {"scorer": scorer.id})


def run_rl(job: Job) -> Made:
    """Train one RL arm from its SFT model."""
    sft, prompts_stage, reward, *checks = job.stage.inputs
    arms = rl_arms(job.recipe.rl, job.recipe.grid)

    def settled(settings: RLSettings, checked: str) -> RLSettings:
        return replace(
            settings,
            model=job.model(sft),
            outcome=job.scorer(reward, settings.outcome),
            process=job.scorer(reward, settings.process),
            effect=job.effect(reward, settings.effect),
            validity=settings.validity or job.report(checked),
        )

    settings = settled(arms[job.stage.name], (reward, *checks)[-1])
    # all arms share the usual arm's file, so that they end at the same step
    agreed = last_step_file(settled(next(iter(arms.values())), reward), arms_folder(job))
    prompts = read_prompts(job.input(prompts_stage, PROMPTS_FILE))
    return _trained(job, commands.run_rl(settings, prompts, job.folder, agreed))


def arms_folder(job: Job) -> Path:
    """The folder in which the RL trainings of this grid agree on their last step. It is named after
    what they share: traces, prompts, reward, base and SFT settings, whatever the seed.
    """
    keys = [job.stages[name].key for name in ("traces", "prompts", "reward")]
    base = next(stage for stage in job.stages.values() if stage.kind == "sft")
    common = [*keys, base.settings["weights"], job.recipe.sft_of(0).work()]
    return job.out / f"arms-{content_hash(common, 8)}"


def run_signal(job: Job) -> Made:
    """Measure the training signal in the SFT models' rollouts, for each lambda of the grid."""
    from r2w_eval.reward_models.scorer import open_scorer

    *texts, reward = job.stage.inputs
    rows = [
        {**row, "policy": name} for name in texts for row in iter_jsonl(job.input(name, ROLLOUTS))
    ]
    own, grid = job.recipe.rl, job.recipe.grid
    outcome = open_scorer(job.scorer(reward, own.outcome), own.patience_s)
    effect = job.effect(reward, own.effect)
    ways = {"": own} | {name: one.settings for name, one in variants(own, grid).items()}
    scored: dict[str, Sequence[Group]] = {}
    for spec in dict.fromkeys(one.process for one in ways.values()):
        judged = open_scorer(job.scorer(reward, spec), own.patience_s)
        process = with_effects(judged, effect, own.patience_s)
        scored[spec] = score_groups(rows, outcome, process, own.unanswered)
    arms = []
    for name, one in ways.items():
        groups = _as_paid(scored[one.process], one)
        arms += read_arms(groups, one.process_mapping, grid.lambdas, name)
    path = job.folder / "signal.json"
    write_json(path, arms)
    return Made((path,), {"n": len(rows), "arms": arms, "warnings": tell_warnings(arms)})


def _as_paid(groups: Sequence[Group], settings: RLSettings) -> Sequence[Group]:
    """The groups as an arm is rewarded: for the control with its scores shuffled."""
    if not settings.shuffled:
        return groups
    return [
        replace(group, rollouts=tuple(shuffle_scores(group.rollouts, (settings.seed, 0, place))))
        for place, group in enumerate(groups)
    ]


def _trained(job: Job, trained: Trained) -> Made:
    facts = {
        "n": trained.n_rows,
        "n_too_long": trained.n_too_long,
        "steps": trained.steps,
        "last": trained.loss,
        "notes": trained.notes,
    }
    return Made((trained.model, job.folder / commands.TRAINED, job.folder / HISTORY), facts)


def run_rollouts(job: Job) -> Made:
    """Sample texts of a model on the held-out prompts."""
    *trained, prompts_stage = job.stage.inputs
    model = job.model(trained[0]) if trained else job.recipe.sft.model
    prompts = read_prompts(job.input(prompts_stage, HELD_FILE))
    path = job.folder / ROLLOUTS
    with out_of_memory_named("rollouts.batch_size"):
        facts = write_rollouts(model, prompts, job.recipe.rollouts, path)
    return Made((path,), facts)


def run_evaluation(job: Job) -> Made:
    """Evaluate a model as `r2w-eval run` would."""
    from r2w_eval.run import evaluate

    name = job.stage.name.removeprefix("evaluate-")
    run = job.folder / "run"
    config = replace(job.recipe.evaluate, model=show_model(job, name), out=str(run))
    with out_of_memory_named("batch_size in evaluate.model_args"):
        asyncio.run(evaluate(config))
    rows = [{**row, "reflection": measures_of(row["reflection"])} for row in headlines(run)]
    return Made((run / "run.json", run / "results.json"), {"model": name, "rows": rows})


def show_model(job: Job, name: str) -> str:
    """A path to the model whose name a leaderboard can show: the link `OUT/models/NAME`."""
    target = model_folder(job.recipe.sft.model) if name == BASE else job.model(name)
    if not Path(target).is_dir():
        # a hub id names itself
        return target
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
    "validity": run_validity,
    "rl": run_rl,
    "rollouts": run_rollouts,
    "signal": run_signal,
    "evaluate": run_evaluation,
}
