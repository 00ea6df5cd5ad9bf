"""From settings to task plans: everything that can be checked before any call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from r2w_eval.config import RunConfig, override_decoding
from r2w_eval.data import SuiteData, data_roots
from r2w_eval.errors import UsageError
from r2w_eval.hashing import path_hash
from r2w_eval.models.names import EMBEDDED, SMOKE_TEST_JUDGE
from r2w_eval.records.plan import TaskPlan
from r2w_eval.records.recorded import RecordedResponses, open_recorded
from r2w_eval.records.selection import (
    Selection,
    check_complete,
    check_ids,
    describe_left_out,
    describe_recorded,
    describe_strays,
)
from r2w_eval.run.opening import is_own_scorer
from r2w_eval.suites.groups import expand_groups
from r2w_eval.suites.stock_tasks import is_stock, load_stock
from r2w_eval.suites.suite import Suite, SuiteInfo, load_info, load_suite
from r2w_eval.types import Decoding, Mode, Sample
from r2w_eval.web.pages import identify_pages

# The embedded model rambles to the end of its context; its answers are cut here unless told
# otherwise
EMBEDDED_MAX_TOKENS = 512


def plan_tasks(config: RunConfig) -> list[TaskPlan]:
    """Check everything that can be checked before any call: suites, data, prompts, settings.

    Raises UsageError and its subclasses.
    """
    roots = data_roots(config.data_dir)
    if not config.task_names:
        raise UsageError("--tasks is empty. Try: r2w-eval list")
    recorded = None
    if config.responses and (config.only_recorded or Path(config.responses).exists()):
        recorded = open_recorded(Path(config.responses), config.model, config.samples)
    given = {*config.inputs, *(["pages"] if config.page_access else [])}
    names, left_out = expand_groups(config.task_names, given)
    plans = [plan_task(name, config, roots, recorded) for name in names]
    notes = list(left_out)

    def every(plan: TaskPlan) -> Iterable[Sample]:
        """All samples of a suite, beyond --ids and --limit."""
        return plan.suite.load_samples(plan.info.data(roots, config.inputs))

    if config.ids:
        check_ids(config.ids, {plan.info.name: {s.id for s in every(plan)} for plan in plans})
    if recorded:
        # an answer that this run does not take may still belong to a sample
        notes += describe_strays((s for plan in plans for s in every(plan)), recorded)
    check_settings(config, plans)
    return [replace(plan, notes=(*plan.notes, *notes)) for plan in plans]


def check_settings(config: RunConfig, plans: Sequence[TaskPlan]) -> None:
    """Raises UsageError for settings that no suite uses, or that contradict each other."""
    suites = ", ".join(config.task_names)
    for name in config.inputs.keys() - {own for plan in plans for own in plan.info.inputs}:
        raise UsageError(f"--{name}: none of the suites {suites} takes one. Try: r2w-eval list")
    if config.pages and not any(plan.info.pages for plan in plans):
        raise UsageError(
            f"--pages: none of the suites {suites} reads web pages. Try: r2w-eval list"
        )
    for plan in plans:
        if plan.info.asks_judges and not plan.asks_alike and any(map(is_own_scorer, config.judge)):
            own = ", ".join(filter(is_own_scorer, config.judge))
            raise UsageError(
                f"--judge {own} gives numbers, and the questions of {plan.info.name} follow from "
                f"a judge's own texts. Name a model there: --judge http://HOST:PORT/v1#NAME"
            )
    if config.replay and config.retry_failed:
        raise UsageError(
            f"--retry-failed with --replay, which asks nobody. Use --cache-dir {config.replay} "
            f"instead of --replay, or leave --retry-failed out"
        )
    if config.replay and config.pages and not config.pages.startswith("replay:"):
        raise UsageError(
            f"--pages {config.pages} with --replay, which asks nobody. Use --pages replay:DIR, or "
            f"leave --pages out: {config.replay}/pages is read"
        )


def plan_task(
    name: str, config: RunConfig, roots: tuple[Path, ...], recorded: RecordedResponses | None = None
) -> TaskPlan:
    """One suite with its data found, checked and limited. Raises UnknownName, DataError."""
    info, suite = load_task(name, config.include_path)
    data = info.data(roots, config.inputs)
    suite = suite.bind(data)
    mode = check_mode(info, suite, config.mode)
    chosen = rules = Selection(
        config.ids or None,
        recorded if config.only_recorded else None,
        config.only_complete,
        config.limit,
    )
    if config.shuffle and config.limit:
        chosen = rules.drawn(suite.load_samples(data), config.seed, info.category)

    def samples() -> Iterable[Sample]:
        return chosen.take(suite.load_samples(data))

    check_complete(name, samples())
    left_out = rules.named(suite.load_samples(data)) if config.only_complete else ()
    missing = describe_recorded(samples(), recorded) if recorded else []
    return TaskPlan(
        info=replace(
            info,
            judge_decoding=override_decoding(
                info.judge_decoding, config.judge_kwargs, config.omit, "--judge-kwargs"
            ),
        ),
        suite=suite,
        mode=mode,
        templates=suite.load_templates(data),
        samples=samples,
        decoding=plan_decoding(info, config),
        inputs={
            **describe_inputs(info, data, is_given=bool(config.responses)),
            **identify_pages(info.name, info.pages, config.page_access, config.pages_allow),
        },
        notes=(*describe_left_out(left_out), *missing),
    )


def load_task(name: str, include_path: str | None = None) -> tuple[SuiteInfo, Suite]:
    """A suite of ours, or a task of lm-eval. Raises UnknownName, UsageError."""
    if is_stock(name):
        return load_stock(name, include_path)
    info = load_info(name)
    return info, load_suite(info.folder)


def check_mode(info: SuiteInfo, suite: Suite, wanted: str) -> Mode:
    """The scoring rules of a run. Raises UsageError where the suite has no such rules."""
    mode, known = Mode(wanted), list(suite.parse_verdict)
    # tasks that no judge reads have no mode
    if known and mode not in known:
        raise UsageError(
            f"--mode {mode}: {info.name} has no such scoring, only {', '.join(known)}. "
            f"Try: --mode {known[0]}"
        )
    return mode


def plan_decoding(info: SuiteInfo, config: RunConfig) -> Decoding:
    """The writer's sampling: the suite's, with --gen-kwargs and --omit. Raises UsageError."""
    decoding = override_decoding(info.decoding, config.gen_kwargs, config.omit, "--gen-kwargs")
    own = override_decoding(Decoding(), config.gen_kwargs, "", "--gen-kwargs")
    if config.model == EMBEDDED and own.max_tokens is None:
        cap = min(EMBEDDED_MAX_TOKENS, decoding.max_tokens or EMBEDDED_MAX_TOKENS)
        decoding = replace(decoding, max_tokens=cap)
    return decoding


def describe_inputs(info: SuiteInfo, data: SuiteData, *, is_given: bool) -> dict[str, str]:
    """Hashes of the user's files, and for suites that take a context: where the reports came from.

    Reports from elsewhere (`given`), reports written without sources (`closed book`) and reports
    written from a context are different tasks, and their scores are never compared.
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
