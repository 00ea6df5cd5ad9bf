"""Collects rows from run folders and row files, each with the location of its raw files.

A source that gives no row (no results, a half-written file, nothing scored) is left out with the
reason and does not stop the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.leaderboards.lineage import MANIFEST, runs_of
from r2w_eval.leaderboards.rows import (
    Evidence,
    ItemColumns,
    Losses,
    Row,
    Tokens,
    load_shared,
    make_columns,
    read_row,
    sign,
)

from r2w_eval.comparison.scores import read_estimate
from r2w_eval.errors import R2WError, UsageError
from r2w_eval.hashing import file_hash
from r2w_eval.results.notices import Notice
from r2w_eval.store import RunFolder
from r2w_eval.types import Cause, JudgeStatus, Metric, WriterStatus

RAW_FILES = ("run.json", "responses.jsonl", "judgements.jsonl")
ROWS, RUNS = "rows", "runs"
NULL_PREFIX = "null/"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row and the run folders behind it (several if runs are pooled)."""

    row: Row
    runs: tuple[RunFolder, ...] = ()
    has_raw: bool = False
    """Whether the raw files were present when the pages were made."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A source that gave no row, and the reason."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Collection:
    """All rows, in a fixed order, and what was left out."""

    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]


def collect(sources: Sequence[str]) -> Collection:
    """Rows of run folders, row files and folders of them. Raises UsageError when there is none."""
    entries: dict[str, Entry] = {}
    left_out: list[LeftOut] = []
    problems: list[str] = []
    for source in sources:
        try:
            for entry in _read_source(Path(source)):
                entries.setdefault(entry.row.signature, entry)
        except R2WError as error:
            problems.append(str(error))
            # the site must not show paths of this machine
            left_out.append(LeftOut(Path(source).name, str(error).replace(source, "RUN")))
    if not entries:
        raise UsageError(
            f"no row in {len(sources)} source(s). {'; '.join(problems) or 'None was named'}. "
            f"Try: r2w-eval leaderboard RUN RUN --out site"
        )
    ordered = sorted(entries.values(), key=lambda e: (e.row.task, e.row.model, e.row.signature))
    return Collection(tuple(ordered), tuple(left_out))


def _read_source(path: Path) -> Iterable[Entry]:
    if (path / "run.json").is_file():
        return [enter(row, path) for row in rows_of_run(path)]
    if (path / MANIFEST).is_file():
        return _read_pipeline(path)
    if path.is_file():
        return [_read_row_file(path)]
    rows = path / ROWS if (path / ROWS).is_dir() else path
    if files := sorted(rows.glob("*.json")):
        return [_read_row_file(file) for file in files]
    raise UsageError(
        f"{str(path)!r}: neither a run folder (run.json), a pipeline ({MANIFEST}), a row file "
        f"(*.json) nor a folder of row files or with {ROWS}/"
    )


def _read_pipeline(path: Path) -> list[Entry]:
    """The rows of all evaluated models of a pipeline. Raises UsageError if there are none."""
    runs = [run for run in runs_of(path / MANIFEST) if (run / "run.json").is_file()]
    if not runs:
        raise UsageError(
            f"{str(path)!r}: {MANIFEST} names no evaluated model whose run is there. Try: "
            f"r2w-eval train pipeline RECIPE --out {path}"
        )
    return [enter(row, run) for run in runs for row in rows_of_run(run)]


def _read_row_file(path: Path) -> Entry:
    """A row, with its run folder if that holds the files that were signed.

    The folder's path is not signed: an untrusted row could point at any run on this machine and
    get its texts published.
    """
    entry = enter_file(path)
    is_own = all(hash_raw_files(run.path) == entry.row.evidence.files for run in entry.runs)
    return entry if is_own else Entry(entry.row)


def enter_file(path: Path) -> Entry:
    """The row of a file with the run folder it points to. Raises RowInvalid."""
    row = read_row(path)
    return enter(row, path.parent / row.evidence.folder if row.evidence.folder else None)


def enter(row: Row, run: Path | None) -> Entry:
    """A row with its run folder, if that holds the raw files."""
    if run is None or not all((run / name).is_file() for name in RAW_FILES):
        return Entry(row)
    return Entry(row, (RunFolder(run),), has_raw=True)


def rows_of_run(path: Path) -> list[Row]:
    """One signed row per task and judge of a run. Raises UsageError, DataError."""
    folder = RunFolder.existing(str(path))
    if not folder.results_path.is_file():
        raise UsageError(
            f"{str(path)!r}: no results.json, so the run is not finished. Run the same command "
            f"again, or: r2w-eval judge {path} --reparse"
        )
    try:
        manifest = folder.manifest()
        results = load_shared(folder.results_path.read_bytes())
        return [row_of_result(folder, manifest, result) for result in results]
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise UsageError(
            f"{folder.results_path}: not results of this version ({type(error).__name__}: "
            f"{error}). Try: r2w-eval judge {path} --reparse"
        ) from error


def row_of_result(folder: RunFolder, manifest: Mapping[str, Any], result: Mapping[str, Any]) -> Row:
    """The signed row of one entry of results.json."""
    identity, writer = manifest["identity"], result["writer"]
    metrics = tuple(Metric(**metric) for metric in result["metrics"])
    task = identity["tasks"].get(result["task"], {})
    return sign(
        Row(
            model=manifest["model"],
            system=describe_system(manifest, result["task"]),
            is_null=manifest["model"].startswith(NULL_PREFIX),
            task=result["task"],
            version=result["version"],
            mode=result["mode"],
            judge=result["judge"],
            score_key=result["score_key"],
            identity=result["identity"],
            headline=next(metric for metric in metrics if metric.is_headline),
            metrics=tuple(metric for metric in metrics if not metric.is_headline),
            estimate=read_estimate(result["estimate"]),
            items=_item_columns(result["samples"]),
            losses=count_losses(writer["statuses"], result["judging"]["failures"]),
            tokens=Tokens(*(writer[f"{name}_tokens"] for name in Tokens.__slots__)),
            judging=result["judging"],
            noise=result.get("noise"),
            reflection=result.get("reflection"),
            is_smoke_test=bool(manifest["smoke_test_judge"]),
            changed_settings=tuple(task.get("differs", ())),
            warnings=tuple(Notice(**notice) for notice in result["warnings"]),
            models_returned=tuple(writer["models_returned"]),
            created=manifest["created"],
            software=manifest["r2w_eval"],
            seed=identity["seed"],
            evidence=Evidence(hash_raw_files(folder.path)),
        )
    )


def describe_system(manifest: Mapping[str, Any], task: str) -> dict[str, Any]:
    """What identifies a writer: backend, system prompt and sampling."""
    identity = manifest["identity"]
    decoding = identity["tasks"].get(task, {}).get("decoding", {})
    own = dict(identity["writer"])
    # recorded answers differ between runs as sampled ones do; the evidence hashes tell them apart
    for name in ("model", "responses_sha256"):
        own.pop(name, None)
    return {
        **own,
        "sampling": manifest["config"].get("gen_kwargs", ""),
        "decoding": decoding if own.get("backend") != "recorded" else {},
        "answers_per_item": identity["samples"],
    }


def hash_raw_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the raw files that exist."""
    return {name: file_hash(folder / name) for name in RAW_FILES if (folder / name).is_file()}


def _item_columns(samples: Sequence[Mapping[str, Any]]) -> ItemColumns:
    names = {"ids": "sample_id", "repeats": "repeat", "values": "value", "statuses": "status"}
    names |= {n: n for n in ("answer_chars", "thinking_chars")} | {"response_keys": "response_key"}
    return make_columns({own: [s[name] for s in samples] for own, name in names.items()})


def count_losses(statuses: Mapping[str, int], failures: Mapping[str, int]) -> Losses:
    """Lost answers and verdicts by cause; a verdict that lacks its answer is not counted again.

    >>> count_losses({"ok": 9, "empty": 1}, {"parse_error": 2, "no_answer": 5}).judge
    {'parse_error': 2}
    """
    causes: dict[Cause, Counter[str]] = {cause: Counter() for cause in Cause}
    for name, count in statuses.items():
        if (cause := WriterStatus(name).cause) is not None:
            causes[cause][name] += count
    for name, count in failures.items():
        if (cause := JudgeStatus(name).cause) is not None:
            causes[cause][name] += count
    return Losses(*(dict(sorted(causes[cause].items())) for cause in Cause))
