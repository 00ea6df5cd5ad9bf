"""The whole job: plan, generate and judge, aggregate, write every output. `evaluate` is what the
command line, the pipeline and a notebook call alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2w_eval.cache import ReplyCache
from r2w_eval.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.client import ClientSettings, Traffic
from r2w_eval.config import RunConfig, override_decoding
from r2w_eval.cost import Budget, Price, load_prices
from r2w_eval.data import SuiteData, data_roots
from r2w_eval.engine import Engine
from r2w_eval.errors import BudgetReached, CoverageTooLow, UsageError
from r2w_eval.groups import expand_groups
from r2w_eval.hashing import path_hash, to_plain
from r2w_eval.judge import Scorer, StoredJudge
from r2w_eval.manifest import (
    check_suites,
    choose_folder,
    claim_folder,
    make_manifest,
    plan_ensemble,
    read_ensemble,
)
from r2w_eval.models import (
    EMBEDDED,
    SMOKE_TEST_JUDGE,
    ModelOptions,
    ModelPool,
    OpenModel,
    is_smoke_test,
)
from r2w_eval.page_counts import add_page_counts, keep_page_counts
from r2w_eval.pages import identify_pages, open_pages
from r2w_eval.paths import CACHE_FILE, cache_path
from r2w_eval.plan import NO_JUDGE, Judging, Progress, TaskPlan, Writing
from r2w_eval.recorded import RecordedResponses, open_recorded
from r2w_eval.replay import open_records
from r2w_eval.selection import (
    Selection,
    check_complete,
    describe_left_out,
    describe_recorded,
    describe_strays,
)
from r2w_eval.stock_tasks import is_stock, load_stock
from r2w_eval.store import RunFolder, write_json
from r2w_eval.suites import SuiteInfo, load_info, load_suite
from r2w_eval.summary import RunFacts, TaskResult, summarise
from r2w_eval.thinking import ThinkTags
from r2w_eval.types import Mode, Sample

# The embedded model rambles to the end of its context; its answers are cut here unless told
# otherwise
EMBEDDED_MAX_TOKENS = 512

Watch = Callable[[Progress], Any]
Write = Callable[[RunFolder, Sequence[TaskPlan], Mapping[str, Any]], list[TaskResult]]


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


def plan_tasks(config: RunConfig) -> list[TaskPlan]:
    """Check everything that can be checked before any call: suites, data, prompts, settings."""
    roots = data_roots(config.data_dir)
    if not config.task_names:
        raise UsageError("--tasks is empty. Try: r2w-eval list")
    recorded = None
    if config.responses and (config.only_recorded or Path(config.responses).exists()):
        recorded = open_recorded(Path(config.responses), config.model, config.samples)
    names, left_out = expand_groups(config.task_names, config.inputs)
    plans = [plan_task(name, config, roots, recorded) for name in names]
    plans = [replace(plan, notes=(*plan.notes, *left_out)) for plan in plans]
    if recorded:
        # beyond any --limit: an answer that this run does not take may still belong to a sample
        every = (s for p in plans for s in p.suite.load_samples(p.info.data(roots, config.inputs)))
        strays = describe_strays(every, recorded)
        plans = [replace(plan, notes=(*plan.notes, *strays)) for plan in plans]
    for name in config.inputs.keys() - {own for plan in plans for own in plan.info.inputs}:
        raise UsageError(
            f"--{name}: none of the suites {', '.join(config.task_names)} takes one. "
            f"Try: r2w-eval list"
        )
    if config.pages and not any(plan.info.pages for plan in plans):
        raise UsageError(
            f"--pages: none of the suites {', '.join(config.task_names)} reads web pages. "
            f"Try: r2w-eval list"
        )
    if config.replay and config.pages and not config.pages.startswith("replay:"):
        raise UsageError(
            f"--pages {config.pages} with --replay, which asks nobody. Use --pages replay:DIR, or "
            f"leave --pages out: {config.replay}/pages is read"
        )
    return plans


def plan_task(
    name: str, config: RunConfig, roots: tuple[Path, ...], recorded: RecordedResponses | None = None
) -> TaskPlan:
    """One suite with its data found, checked and limited. Raises UnknownName, DataError."""
    if is_stock(name):
        info, suite = load_stock(name, config.include_path)
    else:
        info = load_info(name)
        suite = load_suite(info.folder)
    data = info.data(roots, config.inputs)
    suite = suite.bind(data)
    mode = Mode(config.mode)
    known = list(suite.parse_verdict)
    # tasks that no judge reads have no mode
    if known and mode not in known:
        raise UsageError(
            f"--mode {mode}: {name} has no such scoring, only {', '.join(known)}. "
            f"Try: --mode {known[0]}"
        )
    judge_decoding = override_decoding(
        info.judge_decoding, config.judge_kwargs, config.omit, "--judge-kwargs"
    )
    decoding = override_decoding(info.decoding, config.gen_kwargs, config.omit, "--gen-kwargs")
    if config.model == EMBEDDED and "max_tokens" not in config.gen_kwargs:
        cap = min(EMBEDDED_MAX_TOKENS, decoding.max_tokens or EMBEDDED_MAX_TOKENS)
        decoding = replace(decoding, max_tokens=cap)

    chosen = Selection(
        recorded if config.only_recorded else None, config.only_complete, config.limit
    )

    def samples() -> Iterable[Sample]:
        return chosen.take(suite.load_samples(data))

    check_complete(name, samples())
    notes = describe_left_out(suite.load_samples(data)) if config.only_complete else []
    missing = describe_recorded(samples(), recorded) if recorded else []
    return TaskPlan(
        info=replace(info, judge_decoding=judge_decoding),
        suite=suite,
        mode=mode,
        templates=suite.load_templates(data),
        samples=samples,
        decoding=decoding,
        inputs={
            **describe_inputs(info, data, is_given=bool(config.responses)),
            **identify_pages(info.name, info.pages, config.page_access, config.pages_allow),
        },
        notes=(*notes, *missing),
    )


def describe_inputs(info: SuiteInfo, data: SuiteData, *, is_given: bool) -> dict[str, str]:
    """Hashes of what the user supplied; and, where a suite takes a context, how reports arose.

    Reports brought along, written closed book or from a context never share a table.
    """
    found = {name: path_hash(path) for name, path in data.inputs.items() if path.exists()}
    if "context" in info.inputs and "context" not in found:
        found["reports"] = "given" if is_given else "closed book"
    return found


def check_repeats(config: RunConfig, plans: Sequence[TaskPlan]) -> None:
    """Repeats of a judge that does not sample are the same verdict again. Raises UsageError."""
    if config.repeats == 1:
        return
    greedy = [plan.info.name for plan in plans if not plan.info.judge_decoding.temperature]
    if greedy or config.score_mode == "expected" or SMOKE_TEST_JUDGE in config.judge:
        raise UsageError(
            f"--repeats {config.repeats}: the judge does not "
            f"sample{' in ' + ', '.join(greedy) if greedy else ''}, so every repeat would be the "
            f"same. Use --judge-kwargs temperature=1 and a judge that writes text, or --repeats 1"
        )


async def evaluate(config: RunConfig, watch: Watch | None = None) -> Outcome:
    """Run everything that is owed and write all outputs. Raises R2WError subclasses.

    `watch` gets the live counters once, at the start. On an interrupt or an error whatever was
    finished is on disk, the partial results are written, and the same call goes on from there.
    """
    plans = plan_tasks(config)
    check_repeats(config, plans)
    progress = Progress()
    if watch:
        watch(progress)
    started = asyncio.get_running_loop().time()
    budget = None if config.max_cost is None else Budget(config.max_cost)
    with open_cache(config) as cache:
        async with ModelPool(model_options(config, cache, budget)) as pool:
            writing = await open_writing(config, pool)
            asked = any(plan.info.asks_judges for plan in plans)
            named = config if asked else replace(config, judge=(NO_JUDGE,))
            judging, judges = await open_judging(named, pool)
            manifest = make_manifest(config, plans, writing, judges)
            folder = RunFolder(choose_folder(config, manifest))
            with folder.open_writers() as writers:
                manifest = claim_folder(folder, manifest)
                expect(progress, plans, writing, judging)
                try:
                    access = (config.page_access, config.pages_allow)
                    async with open_pages(*access, folder.path) as pages:
                        reading = replace(judging, pages=pages)
                        again = config.retry_failed
                        await Engine(folder, writers, writing, reading, progress, again).run(plans)
                finally:
                    writers.responses.sync()
                    writers.judgements.sync()
                    write_json(folder.path / "traffic.json", pool.traffic())
                    keep_page_counts(folder, progress.pages)
                    results = write_outputs(folder, plans, manifest)
            traffic = tuple(pool.traffic())
    wall_s = asyncio.get_running_loop().time() - started
    return Outcome(folder, results, manifest, progress, wall_s, budget, traffic)


def open_cache(config: RunConfig) -> AbstractContextManager[ReplyCache | None]:
    """The records of --replay, the reply cache, or nothing under --no-cache. Raises UsageError."""
    if config.replay:
        return open_records(config.replay)
    path = Path(config.cache_dir) / CACHE_FILE if config.cache_dir else cache_path()
    return ReplyCache(path) if config.cache else nullcontext(None)


def model_options(
    config: RunConfig, cache: ReplyCache | None, budget: Budget | None = None
) -> ModelOptions:
    """What the settings say about models. Raises UsageError."""
    client = ClientSettings(
        max_connections=config.max_connections,
        fixed_concurrency=config.fixed_concurrency,
        timeout_s=config.timeout,
    )
    return ModelOptions(
        config.backend,
        config.model_args,
        client,
        cache,
        load_prices(config.prices),
        budget,
        config.replay,
    )


def think_tags(config: RunConfig) -> ThinkTags:
    """How the writer marks its thinking. Raises UsageError."""
    open_tag, _, close_tag = config.think_tags.partition(",")
    if not open_tag or not close_tag:
        raise UsageError(
            f"--think-tags {config.think_tags!r}: expected OPEN,CLOSE: <think>,</think>"
        )
    return ThinkTags(open_tag, close_tag, config.think_opened)


async def open_writing(config: RunConfig, pool: ModelPool) -> Writing:
    """The writer: a model, or recorded answers. Raises UsageError when neither is named."""
    shared: dict[str, Any] = {
        "seed": None if "seed" in map(str.strip, config.omit.split(",")) else config.seed,
        "n_repeats": config.samples,
        "system_prompt": config.system_prompt,
        "tags": think_tags(config),
    }
    if config.responses:
        recorded = open_recorded(Path(config.responses), config.model, config.samples)
        return Writing(
            recorded.model,
            recorded.describe(),
            recorded.generate,
            config.max_connections,
            is_recorded=True,
            **shared,
        )
    if not config.model:
        raise UsageError("No --model. Try: r2w-eval --model smollm2 --tasks quickstart")
    opened = await pool.model(config.model, extra_body=config.extra_body)
    identity = {
        "model": opened.chat.id,
        "system_prompt": config.system_prompt,
        **opened.chat.describe(),
    }

    async def generate(sample: Sample, request: ChatRequest) -> Reply:
        return await opened.chat.complete(request)

    return Writing(opened.chat.id, identity, generate, opened.concurrency, **shared)


async def open_judging(
    config: RunConfig, pool: ModelPool
) -> tuple[Judging, dict[str, dict[str, Any]]]:
    """The judges, and what identifies each."""
    if config.judge == (NO_JUDGE,):
        return Judging((), 1), {NO_JUDGE: {}}
    scorers: list[Scorer] = []
    opened: list[OpenModel | None] = []
    for spec in config.judge:
        scorer, model = await pool.scorer(spec, config.score_mode)
        scorers.append(scorer)
        opened.append(model)
    if len({scorer.id for scorer in scorers}) < len(scorers):
        raise UsageError(f"--judge {', '.join(config.judge)}: the same judge twice. Name each once")
    concurrency = sum(model.concurrency if model else config.max_connections for model in opened)
    judging = Judging(scorers, concurrency, config.repeats)
    return judging, {scorer.id: scorer.describe() for scorer in scorers}


async def judge_again(
    folder: RunFolder, config: RunConfig, reparse: bool, write: Write | None = None
) -> Outcome:
    """Judge the answers of a finished run once more, generating nothing.

    `config` is the run's own with the new judges in place. Earlier judges stay in the folder and in
    the results, each under its own identity. With `reparse` every stored text is read again
    instead. `write` says what is written: `write_outputs` (the default) or `write_results`.
    """
    write = write or write_outputs
    manifest = folder.manifest()
    identity = manifest["identity"]
    plans = plan_tasks(config)
    check_suites(folder, manifest, plans)
    progress = Progress()
    started = asyncio.get_running_loop().time()
    with open_cache(config) as cache:
        async with ModelPool(model_options(config, cache)) as pool:
            if reparse:
                stored = [StoredJudge(name, facts) for name, facts in identity["judges"].items()]
                judging = Judging(stored, config.max_connections, identity["repeats"], reparse=True)
            else:
                judging, judges = await open_judging(config, pool)
                identity["judges"] = {**identity["judges"], **to_plain(judges)}
                if config.combine is not None:
                    names = tuple(identity["judges"])
                    spec = plan_ensemble(config, names, manifest["model"])
                    identity["ensemble"] = to_plain(spec)
                smoke = manifest["smoke_test_judge"] or any(map(is_smoke_test, config.judge))
                manifest["smoke_test_judge"] = smoke
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
            with folder.open_writers() as writers:
                write_json(folder.manifest_path, manifest)
                expect(progress, plans, writing, judging)
                try:
                    access = (config.page_access, config.pages_allow)
                    async with open_pages(*access, folder.path, offline=reparse) as pages:
                        reading = replace(judging, pages=pages)
                        await Engine(folder, writers, writing, reading, progress).run(plans)
                finally:
                    keep_page_counts(folder, progress.pages)
                    results = write(folder, plans, manifest)
    wall_s = asyncio.get_running_loop().time() - started
    return Outcome(folder, results, manifest, progress, wall_s)


async def _never_generate(sample: Sample, request: ChatRequest) -> Reply:
    raise CallFailed(CallStatus.NOT_SENT, "this command judges what is there and generates nothing")


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


def write_outputs(
    folder: RunFolder, plans: Sequence[TaskPlan], manifest: Mapping[str, Any]
) -> list[TaskResult]:
    """results.json, performance.json, lm-eval files and the page, from the two record files
    alone.
    """
    from r2w_eval.lmeval_io import write_lm_eval_files
    from r2w_eval.report import write_report

    results = write_results(folder, plans, manifest)
    write_lm_eval_files(folder, results, plans, manifest)
    write_report(folder, results, plans, manifest)
    return results


def write_results(
    folder: RunFolder, plans: Sequence[TaskPlan], manifest: Mapping[str, Any]
) -> list[TaskResult]:
    """results.json and performance.json alone, for who needs no page."""
    from r2w_eval.reflection_results import add_reflection

    identity = manifest["identity"]
    facts = RunFacts(
        writer_identity=identity["writer"],
        n_repeats=identity["samples"],
        judges=identity["judges"],
        n_judge_repeats=identity["repeats"],
        ensemble=read_ensemble(identity.get("ensemble")),
        prices=_stored_prices(manifest["config"].get("prices")),
    )
    results = add_page_counts(folder, summarise(folder, plans, facts))
    results = add_reflection(folder, results, plans)
    write_json(folder.results_path, [strip_performance(result) for result in results])
    write_json(folder.path / "performance.json", [result.performance for result in results])
    return results


def _stored_prices(path: str | None) -> Mapping[str, Price]:
    """Prices of the run's own file; one that has gone since leaves the costs unknown."""
    return load_prices(path) if path and Path(path).is_file() else {}


def strip_performance(result: TaskResult) -> dict[str, Any]:
    """A result as JSON, without what differs between two runs of the same work."""
    plain: dict[str, Any] = to_plain(result)
    plain.pop("performance")
    return plain


def check_outcome(outcome: Outcome, minimum: float, max_unscored: float | None = None) -> None:
    """Raises BudgetReached, or CoverageTooLow when a task lost more than allowed.

    Where judges are combined, the combined verdicts count: members may fail within
    --min-valid-judges.
    """
    if outcome.budget is not None and outcome.budget.is_reached:
        raise BudgetReached(
            f"Stopped at --max-cost {outcome.budget.cap_usd}: ${outcome.budget.spent_usd:.4f} "
            f"spent. The same command with a higher --max-cost goes on"
        )
    combined = {result.task for result in outcome.results if result.ensemble is not None}
    for result in outcome.results:
        if result.ensemble is None and result.task in combined:
            continue
        if result.judging.coverage < minimum:
            raise CoverageTooLow(
                f"{result.task}: {result.judging.n_valid} of {result.judging.n_total} verdicts are "
                f"usable, under --min-coverage {minimum}. Run the same command with "
                f"--retry-failed, or "
                f"lower --min-coverage"
            )
        head = result.headline
        lost = head.n_expected - head.n_scored
        if max_unscored is not None and head.n_expected and lost / head.n_expected > max_unscored:
            raise CoverageTooLow(
                f"{result.task}: {lost} of {head.n_expected} answers have no score, over "
                f"--max-unscored {max_unscored}. Run the same command with --retry-failed, or "
                f"raise --max-unscored"
            )
