"""Writes a run in lm-eval's own layout: `results_*.json` and `samples_*.jsonl`.

Keys are those of lm-eval 0.4.13 (evaluation_tracker.py, result_schema.py); what it has no place for
stands under one key `r2w`. File names carry the run's creation time, so that aggregating again
replaces the same files (specification: harness M5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r2w_eval.hashing import dump_line, text_hash, to_plain
from r2w_eval.paths import safe_name
from r2w_eval.plan import TaskPlan
from r2w_eval.store import RunFolder, write_atomically
from r2w_eval.summary import TaskResult
from r2w_eval.types import Metric, Response


def write_lm_eval_files(
    folder: RunFolder,
    results: Sequence[TaskResult],
    plans: Sequence[TaskPlan],
    manifest: Mapping[str, Any],
) -> None:
    """Both kinds of file, under `lm_eval/<model>/`; with several judges the first one's results."""
    first = {result.task: result for result in reversed(results)}
    target = folder.path / "lm_eval" / safe_name(manifest["model"])
    target.mkdir(parents=True, exist_ok=True)
    stamp = manifest["created"].replace(":", "-")
    content = json.dumps(build_results(first, plans, manifest), indent=2) + "\n"
    write_atomically(target / f"results_{stamp}.json", content.encode())
    for plan in plans:
        lines = iter_samples(folder, plan, first[plan.info.name])
        write_atomically(target / f"samples_{plan.info.name}_{stamp}.jsonl", b"".join(lines))


def build_results(
    results: Mapping[str, TaskResult], plans: Sequence[TaskPlan], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of results_*.json, readable by `lm_eval.utils.make_table`."""
    names = [plan.info.name for plan in plans]
    return {
        "results": {name: metric_row(name, results[name]) for name in names},
        "group_subtasks": {name: [] for name in names},
        "configs": {plan.info.name: task_config(plan) for plan in plans},
        "versions": {plan.info.name: plan.info.version for plan in plans},
        "n-shot": dict.fromkeys(names, 0),
        "higher_is_better": {name: {"score": True} for name in names},
        "n-samples": {
            name: {"original": len(results[name].samples), "effective": len(results[name].samples)}
            for name in names
        },
        "config": {
            "model": manifest["identity"]["writer"].get("backend", "http"),
            "model_args": {"pretrained": manifest["model"]},
            "limit": manifest["config"]["limit"],
            "random_seed": manifest["identity"]["seed"],
        },
        "git_hash": None,
        "date": manifest["created"],
        "task_hashes": {name: results[name].score_key for name in names},
        "model_source": manifest["identity"]["writer"].get("backend", "http"),
        "model_name": manifest["model"],
        "model_name_sanitized": safe_name(manifest["model"]),
        "chat_template_sha": manifest["identity"]["writer"].get("chat_template"),
        "r2w": {
            "smoke_test_judge": manifest["smoke_test_judge"],
            "score_keys": {name: results[name].score_key for name in names},
            "identities": {name: to_plain(results[name].identity) for name in names},
        },
    }


def metric_row(name: str, result: TaskResult) -> dict[str, Any]:
    """`metric,filter` keys; the standard error is a quarter of the 95 % interval's width, about."""
    row: dict[str, Any] = {"alias": name}
    for metric in result.metrics:
        key = "score" if metric.is_headline else metric.name
        row[f"{key},none"] = metric.value
        row[f"{key}_stderr,none"] = standard_error(metric)
    return row


def standard_error(metric: Metric) -> float | str:
    """From the interval, as lm-eval prints it; "N/A" without one."""
    if metric.low is None or metric.high is None:
        return "N/A"
    return (metric.high - metric.low) / (2 * 1.959964)


def task_config(plan: TaskPlan) -> dict[str, Any]:
    """What lm-eval would show of the YAML."""
    sent = plan.decoding.sent()
    generation = {"max_gen_toks" if k == "max_tokens" else k: v for k, v in sent.items()}
    return {
        "task": plan.info.name,
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "generation_kwargs": {"until": [], **generation},
        "metadata": {"version": plan.info.version},
    }


def iter_samples(folder: RunFolder, plan: TaskPlan, result: TaskResult) -> Iterator[bytes]:
    """One line per answer, in the order of the suite; texts are streamed from the run folder."""
    places = {row.response_key: row for row in result.samples if row.response_key}
    prompts = {
        sample.id: (number, sample.messages[-1].content)
        for number, sample in enumerate(plan.samples())
    }
    for response in folder.responses():
        row = places.get(response.key)
        if row is not None:
            doc_id, prompt = prompts[response.sample_id]
            yield dump_line(sample_row(response, doc_id, prompt, row.value))


def sample_row(response: Response, doc_id: int, prompt: str, value: float | None) -> dict[str, Any]:
    """One record of samples_*.jsonl; `score` is the mean verdict, null when there is none."""
    return {
        "doc_id": doc_id,
        "doc": {"id": response.sample_id, "prompt": prompt},
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {}}},
        "resps": [[response.raw]],
        "filtered_resps": [response.answer],
        "filter": "none",
        "metrics": ["score"],
        "score": value,
        "doc_hash": text_hash(response.sample_id),
        "prompt_hash": text_hash(prompt),
        "target_hash": text_hash(""),
        "r2w": {"status": str(response.status), "repeat": response.repeat},
    }
