"""The whole job: plan, generate and judge, aggregate, write every output. `evaluate` is what the
command line, the pipeline and a notebook call alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r2w_eval.config import RunConfig
from r2w_eval.errors import CoverageTooLow
from r2w_eval.hashing import to_plain
from r2w_eval.judge.scorers import StoredJudge
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.models.cost import Budget
from r2w_eval.models.endpoint import Traffic
from r2w_eval.models.thinking import SplitText
from r2w_eval.records.plan import NO_JUDGE, Judging, Progress, TaskPlan, Writing
from r2w_eval.results.ensembles import EnsembleSpec
from r2w_eval.results.page_counts import keep_page_counts
from r2w_eval.results.summary import TaskResult
from r2w_eval.run.engine import Engine
from r2w_eval.run.manifest import (
    add_judges,
    check_suites,
    choose_folder,
    claim_folder,
    make_manifest,
    plan_ensemble,
)
from r2w_eval.run.opening import ModelPool, is_smoke_test, require_known
from r2w_eval.run.outputs import write_outputs
from r2w_eval.run.planning import check_repeats, plan_tasks
from r2w_eval.run.roles import model_options, open_cache, open_judging, open_writing
from r2w_eval.run.spending import add_spent, check_budget, open_budget
from r2w_eval.store import RunFolder, RunWriters, write_json
from r2w_eval.types import Cause, JudgeStatus, Sample, WriterStatus
from r2w_eval.web.pages import open_pages

Watch = Callable[[Progress], Any]
Write = Callable[[RunFolder, Sequence[TaskPlan], Mapping[str, Any]], list[TaskResult]]
RETRY = "Run the same command with --retry-failed"


@dataclass(frozen=True)
class Outcome:
    """A finished (or stopped) run."""

    folder: RunFolder
    results: list[TaskResult]
    manifest: dict[str, Any]
    progress: Progress
    wall_s: float
    budget: Budget | None = None
    traffic: tuple[Traffic, ...] = ()
    asked: frozenset[str] = frozenset()
    """Judges and combinations that this call named; others may have verdicts in the folder."""


async def evaluate(
    config: RunConfig, watch: Watch | None = None, budget: Budget | None = None
) -> Outcome:
    """Run everything that is owed and write all outputs. Raises R2WError subclasses.

    `watch` gets the live counters once, at the start; `budget` is one that several runs share. On
    an interrupt or an error whatever was finished is on disk, the partial results are written, and
    the same call goes on from there.
    """
    plans = plan_tasks(config)
    check_repeats(config, plans)
    progress = Progress()
    if watch:
        watch(progress)
    started = asyncio.get_running_loop().time()
    budget = budget or open_budget(config)
    progress.budget = budget
    with open_cache(config) as cache:
        async with ModelPool(model_options(config, cache, budget)) as pool:
            asked = any(plan.info.asks_judges for plan in plans)
            named = config if asked else replace(config, judge=(NO_JUDGE,))
            writer = None if config.responses else config.model or None
            require_known((judge for judge in named.judge if judge != NO_JUDGE), writer)
            writing = await open_writing(config, pool)
            judging, judges = await open_judging(named, pool)
            manifest = make_manifest(config, plans, writing, judges)
            folder = RunFolder(choose_folder(config, manifest))
            with folder.open_writers() as writers:
                manifest = claim_folder(folder, manifest)
                add_spent(budget, folder, config)
                try:
                    await _ask_all(writers, config, plans, writing, judging, progress)
                finally:
                    writers.responses.sync()
                    writers.judgements.sync()
                    write_json(folder.path / "traffic.json", pool.traffic())
                    keep_page_counts(folder, progress.pages)
                    results = write_outputs(folder, plans, manifest)
            traffic = tuple(pool.traffic())
    wall_s = asyncio.get_running_loop().time() - started
    own = named_results(judges, plan_ensemble(config, tuple(judges), writing.model))
    return Outcome(folder, results, manifest, progress, wall_s, budget, traffic, own)


async def judge_again(
    folder: RunFolder,
    config: RunConfig,
    reparse: bool,
    write: Write | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Judge the answers of a finished run once more, generating nothing.

    `config` is the run's own with the new judges in place. Earlier judges stay in the folder and in
    the results, each under its own identity. With `reparse` every stored text is read again
    instead. `write` says what is written: `write_outputs` (the default) or `write_results`; `watch`
    is as in `evaluate`.
    """
    # before the manifest is read: judges that another process adds meanwhile would be lost from it
    with folder.open_writers() as writers:
        return await _judge_locked(writers, config, reparse, write or write_outputs, watch)


async def _judge_locked(
    writers: RunWriters,
    config: RunConfig,
    reparse: bool,
    write: Write,
    watch: Watch | None,
) -> Outcome:
    folder, manifest = writers.folder, writers.folder.manifest()
    identity = manifest["identity"]
    plans = plan_tasks(config)
    check_suites(folder, manifest, plans)
    progress = Progress()
    if watch:
        watch(progress)
    asked: frozenset[str] = frozenset()
    started = asyncio.get_running_loop().time()
    budget = None if reparse else open_budget(config)
    add_spent(budget, folder, config)
    with open_cache(config) as cache:
        async with ModelPool(model_options(config, cache, budget)) as pool:
            if reparse:
                stored = [StoredJudge(name, facts) for name, facts in identity["judges"].items()]
                judging = Judging(stored, config.max_connections, identity["repeats"], reparse=True)
            else:
                judging, judges = await open_judging(config, pool)
                asked = _add_named(folder, config, manifest, judges)
            writing = Writing(
                manifest["model"],
                identity["writer"],
                _never_generate,
                config.max_connections,
                seed=identity["seed"],
                n_repeats=identity["samples"],
                system_prompt=config.system_prompt,
                is_recorded=True,
            )
            write_json(folder.manifest_path, manifest)
            try:
                await _ask_all(writers, config, plans, writing, judging, progress)
            finally:
                keep_page_counts(folder, progress.pages)
                results = write(folder, plans, manifest)
    wall_s = asyncio.get_running_loop().time() - started
    return Outcome(folder, results, manifest, progress, wall_s, budget, asked=asked)


async def _ask_all(
    writers: RunWriters,
    config: RunConfig,
    plans: Sequence[TaskPlan],
    writing: Writing,
    judging: Judging,
    progress: Progress,
) -> None:
    """Ask for all that the folder lacks, with the web pages that the settings let be read."""
    expect(progress, plans, writing, judging)
    place, access = writers.folder.path, (config.page_access, config.pages_allow)
    async with open_pages(*access, place, offline=judging.reparse) as pages:
        reading = replace(judging, pages=pages)
        await Engine(writers, writing, reading, progress, config.retry_failed).run(plans)


def _add_named(
    folder: RunFolder, config: RunConfig, manifest: dict[str, Any], judges: Mapping[str, Any]
) -> frozenset[str]:
    """Put the judges of a call, and their combination, into the manifest; returns their names."""
    identity, spec = manifest["identity"], None
    identity["judges"] = add_judges(folder, manifest, judges)
    if config.combine is not None:
        spec = plan_ensemble(config, tuple(identity["judges"]), manifest["model"])
        identity["ensemble"] = to_plain(spec)
    smoke = manifest["smoke_test_judge"] or any(map(is_smoke_test, config.judge))
    manifest["smoke_test_judge"] = smoke
    return named_results(judges, spec)


async def _never_generate(sample: Sample, request: ChatRequest) -> tuple[Reply, SplitText]:
    raise CallFailed(CallStatus.NOT_SENT, "this command judges what is there and generates nothing")


def named_results(judges: Iterable[str], ensemble: EnsembleSpec | None) -> frozenset[str]:
    """Names of the judges, and of their combination, whose results a command reports."""
    return frozenset([*judges, *([ensemble.id] if ensemble else [])])


def expect(
    progress: Progress, plans: Sequence[TaskPlan], writing: Writing, judging: Judging
) -> None:
    """Set the totals of the progress display."""
    per_answer = len(judging.scorers) * judging.n_repeats
    for plan in plans:
        for sample in plan.samples():
            progress.responses_expected += writing.n_repeats * plan.suite.n_turns
            n_verdicts = len(plan.suite.criteria(sample)) * per_answer
            progress.judgements_expected += n_verdicts * writing.n_repeats


def check_outcome(outcome: Outcome, minimum: float, max_unscored: float | None = None) -> None:
    """Raises BudgetReached, or CoverageTooLow when a task lost more than allowed: of its answers on
    their way, or of the verdicts on those that came.

    Where judges are combined, the combined verdicts count: members may fail within
    --min-valid-judges. What judges of another call lost was told then.
    """
    check_budget(outcome.budget)
    named = [r for r in outcome.results if not outcome.asked or r.judge in outcome.asked]
    combined = {result.task for result in named if result.ensemble is not None}
    is_recorded = "responses_sha256" in outcome.manifest["identity"]["writer"]
    for result in named:
        _check_answers(result, minimum, is_recorded)
        if result.ensemble is None and result.task in combined:
            continue
        judging = result.judging
        asked = judging.n_total - judging.failures.get(JudgeStatus.NO_ANSWER, 0)
        if judging.n_valid < minimum * asked:
            raise CoverageTooLow(
                f"{result.task}: {judging.n_valid} of {asked} verdicts are usable, under "
                f"--min-coverage {minimum}. {RETRY}, or lower --min-coverage"
            )
        expected = result.scored.n_expected
        lost = expected - result.scored.n_scored
        if max_unscored is not None and expected and lost / expected > max_unscored:
            raise CoverageTooLow(
                f"{result.task}: {lost} of {expected} answers have no score, over "
                f"--max-unscored {max_unscored}. {RETRY}, or raise --max-unscored"
            )


def _check_answers(result: TaskResult, minimum: float, is_recorded: bool) -> None:
    """Raises CoverageTooLow for answers that never came. Empty and cut answers are results of the
    writer and do not count as lost.
    """
    writer = result.writer
    lost = {
        status: count
        for status, count in writer.statuses.items()
        if WriterStatus(status).cause is Cause.INFRASTRUCTURE
    }
    if (count := sum(lost.values())) > (1 - minimum) * writer.n_expected:
        told = ", ".join(f"{status} {n}" for status, n in lost.items())
        whence, way = "never came from the writer", RETRY
        # a budget that ended has been told before
        if lost.keys() == {WriterStatus.NOT_SENT}:
            whence, way = (
                ("are not in --responses", "Leave them out with --only-recorded")
                if is_recorded
                else ("were not asked for", "Finish the run with the command that began it")
            )
        raise CoverageTooLow(
            f"{result.task}: {count} of {writer.n_expected} answers {whence} ({told}), more than "
            f"--min-coverage {minimum} allows. {way}, or lower --min-coverage"
        )
