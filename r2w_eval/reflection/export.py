"""Analysed traces as files: summaries as JSON, one line per trace and per reflection, Parquet."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.records.parquet import named_schema, record_batch
from r2w_eval.reflection.analysis import Analysis
from r2w_eval.reflection.measures import ReflectionSummary
from r2w_eval.store import write_json, write_jsonl
from r2w_eval.trace.links import ReflectionLink

# Columns of reflections.parquet, the same for every run, and their Arrow types.
COLUMNS: Mapping[str, str] = {
    "task": "string", "id": "string", "prompt_id": "string", "index": "int32", "start": "int64",
    "end": "int64", "text": "string", "level": "string", "specificity": "float64",
    "similarity": "float64", "is_repeat": "bool", "is_praise": "bool", "is_useless": "bool",
    "n_targets": "int32", "n_misquoted": "int32", "n_edits": "int32", "uptake_inside": "float64",
    "uptake_elsewhere": "float64", "uptake_lift": "float64", "in_answer": "bool",
    "before": "float64", "after": "float64", "gain": "float64", "outcome": "string",
    "judge_status": "string",
}  # fmt: skip


def write_files(
    folder: Path,
    analyses: Mapping[str, Sequence[Analysis]],
    summaries: Mapping[str, ReflectionSummary],
) -> list[Path]:
    """reflection.json, traces.jsonl, reflections.jsonl and, with pyarrow, reflections.parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    traces = [trace_row(task, a) for task, own in analyses.items() for a in own]
    reflections = [
        reflection_row(task, a, link)
        for task, own in analyses.items()
        for a in own
        for link in a.links
    ]
    write_json(folder / "reflection.json", summaries)
    write_jsonl(folder / "traces.jsonl", traces)
    write_jsonl(folder / "reflections.jsonl", reflections)
    written = [folder / n for n in ("reflection.json", "traces.jsonl", "reflections.jsonl")]
    if importlib.util.find_spec("pyarrow"):
        written.append(folder / "reflections.parquet")
        _write_parquet(written[-1], reflections)
    return written


def trace_row(task: str, analysis: Analysis) -> dict[str, Any]:
    """One response: tokens, faults and where its segments lie; texts stay in the source."""
    trace = analysis.trace
    return {
        "task": task,
        "id": analysis.source.id,
        "prompt_id": analysis.source.cluster,
        "form": str(trace.form) if trace else None,
        "thinking_tokens": analysis.thinking_tokens,
        "answer_tokens": analysis.answer_tokens,
        "token_source": str(analysis.token_source),
        "score": analysis.source.score,
        "faults": [str(fault) for fault in analysis.faults],
        "n_reflections": len(analysis.links),
        "segments": [
            {
                "kind": str(segment.kind),
                "start": segment.span.start,
                "end": segment.span.end,
                "tokens": round(tokens, 1),
                "faults": [str(fault) for fault in segment.faults],
            }
            for segment, tokens in zip(
                trace.segments if trace else (), analysis.segment_tokens, strict=True
            )
        ],
    }


def reflection_row(task: str, analysis: Analysis, link: ReflectionLink) -> dict[str, Any]:
    """One reflection with its text and all its measures; None where there is no value."""
    effect = analysis.effects.get(link.step.index)
    span = link.step.reflection.span
    return {
        "task": task,
        "id": analysis.source.id,
        "prompt_id": analysis.source.cluster,
        "index": link.step.index,
        "start": span.start,
        "end": span.end,
        "text": link.text,
        "level": str(link.level) if link.level else None,
        "specificity": link.specificity,
        "similarity": link.similarity,
        "is_repeat": link.is_repeat,
        "is_praise": link.is_praise,
        "is_useless": link.is_useless,
        "n_targets": len(link.targets),
        "n_misquoted": link.n_misquoted,
        "n_edits": len(link.edits),
        "uptake_inside": link.uptake.inside,
        "uptake_elsewhere": link.uptake.elsewhere,
        "uptake_lift": link.uptake.lift,
        "in_answer": link.in_answer,
        "before": effect.before.value if effect else None,
        "after": effect.after.value if effect else None,
        "gain": effect.gain if effect else None,
        "outcome": str(effect.outcome) if effect else None,
        "judge_status": _judge_status(effect.before.status, effect.after.status)
        if effect
        else None,
    }


def _judge_status(*statuses: str) -> str:
    """The first status that is not ok."""
    return next((str(status) for status in statuses if status != "ok"), "ok")


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = named_schema("reflections/1", COLUMNS)
    pq.write_table(pa.Table.from_batches([record_batch(rows, schema)]), path, compression="zstd")
