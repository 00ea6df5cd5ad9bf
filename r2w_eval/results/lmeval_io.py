"""Writes a run in lm-eval's own layout: `results_*.json` and `samples_*.jsonl`.

Keys and hashes are those of lm-eval 0.4.13 (evaluation_tracker.py, result_schema.py); what it has
no place for stands under one key `r2w`. File names carry the run's creation time, so that
aggregating again replaces the same files; texts are streamed (specification: harness M5).
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.hashing import dump_line, text_hash, to_plain
from r2w_eval.paths import safe_name
from r2w_eval.records.plan import TaskPlan
from r2w_eval.results.counts import SampleRow
from r2w_eval.results.summary import TaskResult
from r2w_eval.store import RecordIndex, RunFolder, read_response, write_atomically
from r2w_eval.types import Metric, Response, Sample

Z_95 = 1.959964


def write_lm_eval_files(
    folder: RunFolder,
    results: Sequence[TaskResult],
    plans: Sequence[TaskPlan],
    manifest: Mapping[str, Any],
) -> None:
    """Both kinds of file, under `lm_eval/<model>/`; the table shows the first judge's results."""
    by_task: dict[str, list[TaskResult]] = {plan.info.name: [] for plan in plans}
    for result in results:
        by_task[result.task].append(result)
    judged = [plan for plan in plans if by_task[plan.info.name]]
    target = folder.path / "lm_eval" / safe_name(manifest["model"])
    target.mkdir(parents=True, exist_ok=True)
    stamp = file_stamp(manifest["created"])
    index = RecordIndex(folder.responses_path)
    hashes: dict[str, str] = {}
    for plan in judged:
        name = plan.info.name
        rows = iter_samples(index, plan, by_task[name][0].samples)
        hashes[name] = _write_samples(target / f"samples_{name}_{stamp}.jsonl", rows)
    content = build_results(by_task, judged, manifest, hashes)
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(target / f"results_{stamp}.json", text.encode())


def make_document(sample: Sample) -> dict[str, str]:
    """What lm-eval knows and logs of a sample; its `doc_hash` is taken over exactly this."""
    return {
        "suite": sample.task,
        "id": sample.id,
        "prompt": sample.messages[-1].content,
        "language": sample.language,
    }


def measure_answer(n_chars: int) -> dict[str, float]:
    """Measures of an answer that need no judge, from its length.

    >>> measure_answer(len("Once."))
    {'empty_share': 0.0, 'answer_chars': 5.0}
    """
    return {"empty_share": float(not n_chars), "answer_chars": float(n_chars)}


def file_stamp(created: str) -> str:
    """A time as lm-eval writes it in file names.

    >>> file_stamp("2026-01-02T03:04:05+00:00")
    '2026-01-02T03-04-05'
    """
    moment = datetime.datetime.fromisoformat(created)
    return moment.replace(tzinfo=None).isoformat().replace(":", "-")


def _write_samples(path: Path, rows: Iterator[dict[str, Any]]) -> str:
    """One line at a time, then put in place in one step; returns lm-eval's hash of the task."""
    hashes: list[str] = []

    def lines() -> Iterator[bytes]:
        for row in rows:
            hashes.append(row["doc_hash"] + row["prompt_hash"] + row["target_hash"])
            yield dump_line(row)

    write_atomically(path, lines())
    return text_hash("".join(hashes))


def build_results(
    by_task: Mapping[str, Sequence[TaskResult]],
    plans: Sequence[TaskPlan],
    manifest: Mapping[str, Any],
    task_hashes: Mapping[str, str],
) -> dict[str, Any]:
    """The content of results_*.json, readable by `lm_eval.utils.make_table`."""
    first = {plan.info.name: by_task[plan.info.name][0] for plan in plans}
    return {
        "results": {name: metric_row(result) for name, result in first.items()},
        "group_subtasks": {name: [] for name in first},
        "configs": {plan.info.name: task_config(plan) for plan in plans},
        "versions": {plan.info.name: plan.info.version for plan in plans},
        "n-shot": dict.fromkeys(first, 0),
        "higher_is_better": {
            name: {"score": True, "empty_share": False, "answer_chars": True} for name in first
        },
        "n-samples": {
            plan.info.name: {
                "original": plan.info.n_samples,
                "effective": len(_answered(first[plan.info.name])),
            }
            for plan in plans
        },
        **describe_model(manifest),
        "task_hashes": dict(task_hashes),
        "r2w": {
            "smoke_test_judge": manifest["smoke_test_judge"],
            "judges": {name: [describe_judge(r) for r in by_task[name]] for name in first},
            "reflection": {
                name: to_plain(result.reflection)
                for name, result in first.items()
                if result.reflection
            },
        },
    }


def describe_model(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Who wrote, with what settings and when, under lm-eval's keys."""
    writer, config = manifest["identity"]["writer"], manifest["config"]
    source, system = writer.get("backend", "http"), config["system_prompt"]
    return {
        "config": {
            "model": source,
            "model_args": {"pretrained": manifest["model"]},
            "limit": config["limit"],
            "gen_kwargs": config["gen_kwargs"] or None,
            "random_seed": manifest["identity"]["seed"],
        },
        "git_hash": None,
        "date": datetime.datetime.fromisoformat(manifest["created"]).timestamp(),
        "model_source": source,
        "model_name": manifest["model"],
        "model_name_sanitized": safe_name(manifest["model"]),
        "system_instruction": system,
        "system_instruction_sha": text_hash(system) if system else None,
        "chat_template_sha": writer.get("chat_template"),
    }


def describe_judge(result: TaskResult) -> dict[str, Any]:
    """One judge's headline, with what it may be compared with."""
    return {
        "judge": result.judge,
        "headline": to_plain(result.headline),
        "score_key": result.score_key,
        "identity": to_plain(result.identity),
    }


def metric_columns(metrics: Iterable[Metric]) -> dict[str, float | str | None]:
    """Value and standard error of each metric under lm-eval's `metric,filter` keys.

    The headline is called score, as in the task's YAML.
    """
    columns: dict[str, float | str | None] = {}
    for metric in metrics:
        # a comma would end the metric's name
        key = "score" if metric.is_headline else metric.name.replace(",", ";")
        columns[f"{key},none"] = metric.value
        columns[f"{key}_stderr,none"] = standard_error(metric)
    return columns


def metric_row(result: TaskResult) -> dict[str, Any]:
    """One task's entry under `results`, with what needs no judge."""
    rows = _answered(result)
    row = {
        "name": result.task,
        "alias": result.task,
        "sample_len": len(rows),
        **metric_columns(result.metrics),
    }
    for key in ("empty_share", "answer_chars"):
        values = [measure_answer(sample.answer_chars)[key] for sample in rows]
        row[f"{key},none"] = sum(values) / len(values) if values else None
        row[f"{key}_stderr,none"] = (
            statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else "N/A"
        )
    return row


def _answered(result: TaskResult) -> list[SampleRow]:
    return [row for row in result.samples if row.response_key]


def standard_error(metric: Metric) -> float | str:
    """Half the 95 % interval over its normal quantile; "N/A" without an interval."""
    if metric.low is None or metric.high is None:
        return "N/A"
    return (metric.high - metric.low) / (2 * Z_95)


def task_config(plan: TaskPlan) -> dict[str, Any]:
    """What lm-eval would show of the YAML."""
    return {
        "task": plan.info.name,
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "generation_kwargs": generation_kwargs(plan),
        "metadata": {"version": plan.info.version},
    }


def generation_kwargs(plan: TaskPlan) -> dict[str, Any]:
    """The writer's decoding in lm-eval's names."""
    sent = plan.decoding.sent()
    renamed = {"max_gen_toks" if k == "max_tokens" else k: v for k, v in sent.items()}
    return {"until": list(plan.decoding.stop), **{k: renamed[k] for k in renamed if k != "stop"}}


def iter_samples(
    index: RecordIndex, plan: TaskPlan, rows: Sequence[SampleRow]
) -> Iterator[dict[str, Any]]:
    """One record per answer, in the order of the suite; `rows` stand in that order already."""
    arguments = generation_kwargs(plan)
    by_sample = itertools.groupby(rows, key=lambda row: row.sample_id)
    for doc_id, (sample, (_, own)) in enumerate(zip(plan.samples(), by_sample, strict=True)):
        for row in own:
            record = index.read(row.response_key)
            if record is not None:
                response = read_response(record)
                yield sample_row(response, sample, doc_id, arguments, row.value)


def sample_row(
    response: Response,
    sample: Sample,
    doc_id: int,
    arguments: Mapping[str, Any],
    value: float | None,
) -> dict[str, Any]:
    """One record of samples_*.jsonl; `score` is the mean verdict, null when there is none."""
    document = make_document(sample)
    measured = measure_answer(len(response.answer))
    return {
        "doc_id": doc_id,
        "doc": document,
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": document["prompt"], "arg_1": arguments}},
        "resps": [[response.raw]],
        "filtered_resps": [response.answer],
        "filter": "none",
        "metrics": ["score", *measured],
        "doc_hash": text_hash(json.dumps(document, indent=2, ensure_ascii=False)),
        "prompt_hash": text_hash(document["prompt"]),
        "target_hash": text_hash(""),
        "score": value,
        **measured,
        "r2w": {
            "status": str(response.status),
            "reason": response.reason,
            "repeat": response.repeat,
            "finish_reason": response.finish_reason,
            "thinking": response.thinking,
        },
    }
