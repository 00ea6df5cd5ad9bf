"""Tasks of lm-eval as suites: `--tasks lm_eval:NAME`, scored by the task's own metrics, no judge.

Prompts (few-shot examples included), filters and metrics are lm-eval's; generation, thinking,
resuming, intervals and paired tests are ours. MATH500 and AIME25 of the paper's Table 1 run this
way, among others, and with `--include-path DIR` the user's own tasks (specification: harness M4,
r2write section 8). Only tasks that generate texts and average their metrics over documents.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.hashing import content_hash, text_hash
from r2w_eval.suites.suite import Suite, SuiteInfo
from r2w_eval.terminal import warn
from r2w_eval.types import Answer, Cause, Decoding, Estimate, ItemVerdicts, Message, Sample

PREFIX = "lm_eval:"
# What lm-eval generates at most where a task does not say
MAX_NEW_TOKENS = 256


def is_stock(name: str) -> bool:
    """The name is that of a task of lm-eval."""
    return name.startswith(PREFIX)


@cache
def load_stock(name: str, include_path: str | None) -> tuple[SuiteInfo, Suite]:
    """The task as a suite. Raises UsageError, UnknownName."""
    task, folder = _open_task(name.removeprefix(PREFIX), include_path)
    averaged = _averaged_metrics(name, task)
    task.build_all_requests()
    instances = {str(instance.doc_id): instance for instance in task.instances}
    samples = [
        Sample(name, key, (Message("user", str(instance.args[0])),))
        for key, instance in instances.items()
    ]
    info = SuiteInfo(
        name=name,
        folder=folder,
        version=f"{task.VERSION}-{_identity(task, samples)}",
        title=f"lm-eval task {task.config.task}",
        measures="",
        source=str(task.config.dataset_path or folder),
        licence="see the task",
        languages=(),
        n_samples=len(samples),
        judge_calls_per_sample=0.0,
        published_judge="none: the task's own metrics",
        score_range=(0.0, 1.0),
        decoding=_read_generation(name, task.config.generation_kwargs or {}),
        judge_decoding=Decoding(),
        data_folder="",
        files={},
    )

    broken: set[str] = set()

    def score(sample_id: str, text: str) -> Mapping[str, Any]:
        """No value where the task's own program breaks: the answers are paid for."""
        try:
            return dict(_score(task, instances[sample_id], text, averaged))
        except Exception as error:  # noqa: BLE001 - somebody's program
            if not broken:
                told = f"{type(error).__name__}: {error}"[:300]
                warn(f"{name}: its own program breaks on sample {sample_id}, {told}: no value")
            broken.add(sample_id)
            return {}

    def measure(answer: Answer) -> Mapping[str, Any]:
        return score(answer.sample_id, answer.text)

    def lost(item: ItemVerdicts) -> Mapping[str, Any]:
        """A model that gave no answer has given an empty one, as in lm-eval; others are no item."""
        return score(item.sample_id, "") if item.status.cause is Cause.MODEL else {}

    return info, Suite(
        load_samples=lambda data: samples,
        load_templates=lambda data: {},
        criteria=lambda sample: (),
        plan_judging=lambda job: (),
        parse_verdict={},
        aggregate=lambda items, mode: aggregate(items, lost),
        measure=measure,
    )


def _open_task(name: str, include_path: str | None) -> tuple[Any, Path]:
    """lm-eval's task object and the folder of its file; the 14,000 built-in names are read only
    when no folder is given or the folder does not hold the name.
    """
    try:
        from lm_eval import tasks
    except ImportError as error:
        raise UsageError(f"{PREFIX}{name} needs lm-eval: pip install 'r2w-eval[hf]'") from error
    if include_path is not None and not Path(include_path).is_dir():
        raise UsageError(f"--include-path {include_path!r}: no such folder. Name one of task YAMLs")
    own = tasks.TaskManager(include_path=include_path, include_defaults=False)
    if include_path is not None and name in own.all_subtasks:
        manager, folder = own, Path(include_path)
    else:
        manager, folder = tasks.TaskManager(), Path(str(tasks.__file__)).parent
    if name not in manager.all_subtasks:
        known = [*own.all_subtasks, *manager.all_subtasks]
        raise UnknownName("--tasks", name, "lm-eval task", known, "lm_eval ls tasks")
    try:
        found = manager.load([name])["tasks"][name]
    except Exception as error:
        # a task file is somebody's program: whatever it raises, its data could not be loaded
        raise UsageError(
            f"{PREFIX}{name}: lm-eval cannot load the task ({type(error).__name__}: {error}). "
            f"Try: lm_eval validate --tasks {name}"
        ) from error
    return found, folder


def _averaged_metrics(name: str, task: Any) -> frozenset[str]:
    """Metrics that lm-eval averages over documents. Raises UsageError when there is none."""
    from lm_eval.api.metrics import mean

    if task.OUTPUT_TYPE != "generate_until" or task.config.repeats != 1:
        raise UsageError(
            f"{name}: a task of kind {task.OUTPUT_TYPE} with {task.config.repeats} repeat(s). Only "
            f"tasks that generate one text a document run here. Try: lm_eval run --tasks "
            f"{task.config.task}"
        )
    found = frozenset(metric for metric, rule in task.aggregation().items() if rule is mean)
    if not found:
        raise UsageError(
            f"{name}: none of its metrics ({', '.join(task.aggregation())}) is a mean over "
            f"documents. Try: lm_eval run --tasks {task.config.task}"
        )
    return found


def _identity(task: Any, samples: Sequence[Sample]) -> str:
    """Prompts, targets, filters and metrics: what two scores of a task must share."""
    documents = [
        [sample.messages[0].content, text_hash(str(task.doc_to_target(instance.doc)))]
        for sample, instance in zip(samples, task.instances, strict=True)
    ]
    rules = [str(_told(task.config.filter_list)), str(_told(task.config.metric_list))]
    # lm-eval's own programs are those of its version
    reads = task.config.process_results
    own = [_told(reads)] if callable(reads) and not _is_of_lm_eval(reads) else []
    return content_hash([documents, rules, *own], 8)


def _told(rule: Any) -> Any:
    """A rule with the source of each function in place of it, whose address no two processes
    share.
    """
    if isinstance(rule, Mapping):
        return {name: _told(part) for name, part in rule.items()}
    if isinstance(rule, (list, tuple)):
        return [_told(part) for part in rule]
    if not callable(rule):
        return rule
    try:
        return text_hash(inspect.getsource(rule))
    except (OSError, TypeError):
        return str(getattr(rule, "__qualname__", type(rule).__qualname__))


def _is_of_lm_eval(function: Any) -> bool:
    import lm_eval

    place = Path(str(lm_eval.__file__)).parent
    try:
        return Path(str(inspect.getsourcefile(function))).is_relative_to(place)
    except TypeError:
        return False


def _read_generation(name: str, values: Mapping[str, Any]) -> Decoding:
    """lm-eval's names for sampling; without `do_sample` it decodes greedily. Raises UsageError."""
    read = {k: v for k, v in values.items() if k not in ("until", "do_sample", "max_gen_toks")}
    unknown = read.keys() - {field.name for field in fields(Decoding)}
    if unknown:
        raise UsageError(
            f"{name}: generation_kwargs {', '.join(sorted(unknown))} are not known here. Known: "
            f"{', '.join(field.name for field in fields(Decoding))}"
        )
    until = values.get("until") or ()
    decoding = Decoding(
        max_tokens=int(values.get("max_gen_toks", MAX_NEW_TOKENS)),
        stop=(until,) if isinstance(until, str) else tuple(until),
    )
    if not values.get("do_sample") and "temperature" not in read:
        read["temperature"] = 0.0
    return replace(decoding, **read)


def _score(
    task: Any, instance: Any, text: str, averaged: frozenset[str]
) -> Iterator[tuple[str, float]]:
    """Value by `metric,filter`, as lm-eval names them, of one text."""
    instance.resps = [text]
    # what task.apply_filters() does, for one document
    for ensemble in task._filters:
        ensemble.apply([instance])
    for name, filtered in instance.filtered_resps.items():
        for metric, value in task.process_results(instance.doc, [filtered]).items():
            if metric in averaged:
                yield f"{metric},{name}", float(value)


def aggregate(
    items: Sequence[ItemVerdicts], lost: Callable[[ItemVerdicts], Mapping[str, Any]]
) -> list[Estimate]:
    """The mean of every metric; the first is the headline."""
    scored = [(item.sample_id, item.measures or lost(item)) for item in items]
    names = dict.fromkeys(name for _, values in scored for name in values) or {"score": None}
    first, *others = (_mean(name, scored, len(items)) for name in names)
    return [as_headline(first), *others]


def _mean(name: str, scored: Iterable[tuple[str, Mapping[str, Any]]], n_expected: int) -> Estimate:
    values = [(item, float(own[name])) for item, own in scored if name in own]
    is_share = all(value in (0.0, 1.0) for _, value in values)
    return replace(mean_of(name, values, n_expected), bounded=False, is_share=is_share)
