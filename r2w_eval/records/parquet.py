"""Run folders as Parquet: one dataset of many runs, partitioned by suite and judge.

    DIR/judgements/task=…/judge=…/<run>-<state>-<n>.parquet
    DIR/responses/task=…/<run>-<state>-<n>.parquet
    DIR/runs/<run>.json

Only files that a `runs/*.json` names belong to the dataset. That note is written last, so that a
killed export leaves nothing visible, and the same export again replaces its own files alone. DIR
may be any place that fsspec reaches (`s3://bucket/path`). Memory follows the batch, not the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import content_hash, to_plain
from r2w_eval.paths import safe_name
from r2w_eval.records.places import list_files, open_place, publish
from r2w_eval.store import RunFolder
from r2w_eval.suites.suite import Suite, load_info, load_suite
from r2w_eval.types import Judgement, Response, Usage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

FORMAT = "r2w_eval"
BATCH_ROWS = 20_000
T = TypeVar("T", Judgement, Response)

_USAGE = {f"{name}_tokens": "int64" for name in ("prompt", "completion", "reasoning", "cached")}
# Columns and Arrow types; a change of either raises the version in the name.
JUDGEMENTS, RESPONSES = "judgements/2", "responses/1"
SCHEMAS: Mapping[str, Mapping[str, str]] = {
    JUDGEMENTS: {
        "run": "string", "key": "string", "response_key": "string", "task": "string",
        "judge": "string", "sample_id": "string", "sample_repeat": "int32", "criterion": "string",
        "order": "string", "repeat": "int32", "value": "float64", "status": "string",
        "reason": "string", "parts": "string", "asks": "list<string>", "model_returned": "string",
        **_USAGE, "latency_s": "float64", "cached": "bool", "at": "float64", "echoed": "bool",
        "is_verdict": "bool",
    },
    RESPONSES: {
        "run": "string", "key": "string", "task": "string", "sample_id": "string",
        "repeat": "int32", "turn": "int32", "attempt": "int32", "model": "string",
        "status": "string", "reason": "string", "raw": "string", "answer": "string",
        "thinking": "string", "finish_reason": "string", "model_returned": "string",
        "fingerprint": "string", **_USAGE, "latency_s": "float64", "seed": "int64",
        "prompt_hash": "string", "multi_block": "bool", "cached": "bool",
    },
}  # fmt: skip
PARTITIONS = {JUDGEMENTS: ("task", "judge"), RESPONSES: ("task",)}


@dataclass(frozen=True, slots=True)
class Exported:
    """One run in the dataset; `is_new` False where it stood there already, unchanged."""

    run: str
    n_responses: int
    n_judgements: int
    is_new: bool = True


class ParquetFolder:
    """A dataset of exported runs under a path or fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, self._root = open_place(url)

    def export(self, folder: RunFolder) -> Exported:
        """Put a run into the dataset, or replace it there.

        Raises DataError, OSError, UnknownName for a suite that is not installed.
        """
        run = run_name(folder)
        state = content_hash([sorted(SCHEMAS), folder.record_sizes()], 8)
        before = self._note(run)
        if before.get("state") == state and self._is_whole(before):
            return Exported(run, before["responses"], before["judgements"], is_new=False)
        prefix = f"{run}-{state}"
        responses = _latest(folder.responses, lambda r: r.key)
        judgements = _latest(folder.judgements, _question)
        files = {
            RESPONSES: self._write(RESPONSES, run, prefix, responses),
            JUDGEMENTS: self._write(JUDGEMENTS, run, prefix, judgements),
        }
        return self._commit(run, state, files, before)

    def export_judgements(self, run: str, judgements: Iterable[Judgement]) -> Exported:
        """As `export`, for verdicts that lie in no run folder and are each the last word."""
        before = self._note(run)
        state = content_hash(before, 8)
        files = {JUDGEMENTS: self._write(JUDGEMENTS, run, f"{run}-{state}", judgements)}
        return self._commit(run, state, files, before)

    def judgements(self) -> ds.Dataset:
        """All verdicts, lazily; columns by `SCHEMAS`. Raises DataError, UsageError."""
        return self._dataset(JUDGEMENTS)

    def responses(self) -> ds.Dataset:
        """All answers, lazily; columns by `SCHEMAS`. Raises DataError, UsageError."""
        return self._dataset(RESPONSES)

    def _write(
        self, schema: str, run: str, prefix: str, records: Iterable[Judgement] | Iterable[Response]
    ) -> dict[str, int]:
        """Rows of each file written, by its path under the root."""
        import pyarrow.dataset as ds

        written: dict[str, int] = {}
        kind = schema.partition("/")[0]
        base = f"{self._root}/{kind}"

        def note(file: Any) -> None:
            # the last one: the dataset's own path may hold such a folder, too
            written[file.path[file.path.rindex(f"/{kind}/") + 1 :]] = file.metadata.num_rows

        self._fs.makedirs(base, exist_ok=True)
        try:
            ds.write_dataset(
                _batches(schema, run, records),
                base,
                schema=_arrow_schema(schema),
                filesystem=self._fs,
                format="parquet",
                partitioning=_partitioning(schema),
                basename_template=f"{prefix}-{{i}}.parquet",
                existing_data_behavior="overwrite_or_ignore",
                file_visitor=note,
                file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
                max_rows_per_group=1 << 17,
                use_threads=False,
            )
        except OSError as error:
            # Arrow names no file
            raise OSError(error.errno, error.strerror or str(error), base) from error
        return written

    def _commit(
        self, run: str, state: str, files: Mapping[str, dict[str, int]], before: Mapping[str, Any]
    ) -> Exported:
        """Make the new files the run's own, then drop those that they replace."""
        n = {schema: sum(rows.values()) for schema, rows in files.items()}
        done = Exported(run, n.get(RESPONSES, 0), n[JUDGEMENTS])
        paths = {schema: sorted(rows) for schema, rows in files.items()}
        note = {
            "run": run,
            "state": state,
            "responses": done.n_responses,
            "judgements": done.n_judgements,
            "files": paths,
        }
        publish(self._fs, self._note_path(run), json.dumps(note, indent=1).encode())
        kept = {path for own in paths.values() for path in own}
        for path in {p for own in before.get("files", {}).values() for p in own} - kept:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._root}/{path}")
        return done

    def _note_path(self, run: str) -> str:
        return f"{self._root}/runs/{run}.json"

    def _note(self, run: str) -> dict[str, Any]:
        path = self._note_path(run)
        return _read_note(path, self._fs.cat_file(path)) if self._fs.exists(path) else {}

    def _is_whole(self, note: Mapping[str, Any]) -> bool:
        """Every file that a note names is there and can be read."""
        try:
            for schema in SCHEMAS:
                for path in note["files"].get(schema, ()):
                    self._check_schema(f"{self._root}/{path}", schema)
        except DataError:
            return False
        return True

    def _dataset(self, schema: str) -> ds.Dataset:
        import pyarrow.dataset as ds

        paths = [f"{self._root}/{path}" for path in self._files(schema)]
        for path in paths:
            self._check_schema(path, schema)
        return ds.dataset(
            paths,
            schema=_arrow_schema(schema),
            filesystem=self._fs,
            format="parquet",
            partitioning=_partitioning(schema),
            partition_base_dir=f"{self._root}/{schema.partition('/')[0]}",
        )

    def _files(self, schema: str) -> list[str]:
        notes = list_files(self._fs, f"{self._root}/runs", "*.json")
        if not notes:
            raise UsageError(
                f"{self.url!r}: no exported runs. Expected runs/*.json there. "
                f"Try: r2w-eval export RUN --parquet {self.url}"
            )
        found = [(path, _read_note(path, self._fs.cat_file(path))["files"]) for path in notes]
        for path, files in found:
            if JUDGEMENTS not in files:
                raise DataError(
                    f"{path}: a run exported by another version ({', '.join(files)}; expected "
                    f"{', '.join(SCHEMAS)}). Export it again: r2w-eval export RUN --parquet "
                    f"{self.url}"
                )
        return [path for _, files in found for path in files.get(schema, ())]

    def _check_schema(self, path: str, schema: str) -> None:
        """Raises DataError for a file that is missing, no Parquet, or has other columns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = _arrow_schema(schema, partitions=False)
        try:
            with self._fs.open(path, "rb") as file:
                found = pq.read_schema(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}: {error}. Export its run again") from error
        if found.equals(wanted) and (found.metadata or {}).get(FORMAT.encode()) == schema.encode():
            return
        own = (found.metadata or {}).get(FORMAT.encode(), b"none").decode("utf-8", "replace")
        odd = [f.name for f in found if f.name not in wanted.names or f != wanted.field(f.name)]
        lacks = [name for name in wanted.names if name not in found.names]
        raise DataError(
            f"{path}: schema {own!r}, expected {schema!r} "
            f"(unexpected columns: {', '.join(odd) or 'none'}; missing: "
            f"{', '.join(lacks) or 'none'}). Export its run again: "
            f"r2w-eval export RUN --parquet {self.url}"
        )


def _read_note(path: str, content: bytes) -> dict[str, Any]:
    try:
        note = json.loads(content)
        files = [str(p) for paths in note["files"].values() for p in paths]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the note of an exported run. Export the run again") from error
    if any(".." in file.split("/") for file in files):
        raise DataError(f"{path}: names files outside the dataset. Export the run again")
    found: dict[str, Any] = note
    return found


def run_name(folder: RunFolder) -> str:
    """A name of its own for every run that stays when a judge is added: runs of one sweep may have
    the same folder name and model, and begin in the same second.
    """
    manifest = folder.manifest()
    identity = manifest.get("identity", {})
    fixed = {name: v for name, v in identity.items() if name not in ("judges", "ensemble")}
    made = content_hash([manifest.get("created"), manifest.get("model"), fixed], 8)
    return f"{safe_name(folder.path.resolve().name)}-{made}"


def _question(judgement: Judgement) -> tuple[Hashable, ...]:
    """Identity of a question about an answer; of verdicts with the same one the last counts."""
    j = judgement
    return j.response_key, j.judge, j.criterion, j.order, j.repeat


def _latest(records: Callable[[], Iterator[T]], name: Callable[[T], Hashable]) -> Iterator[T]:
    """The last record of each name, in file order; 16 bytes a name are kept, and no text."""

    def digest(record: T) -> bytes:
        return blake2b(repr(name(record)).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    last = {digest(record): number for number, record in enumerate(records())}
    kept = set(last.values())
    del last
    return (record for number, record in enumerate(records()) if number in kept)


def _row(run: str, record: Judgement | Response) -> dict[str, Any]:
    """A record as the columns of its schema."""
    plain = {name: getattr(record, name) for name in record.__slots__}
    usage: Usage = plain.pop("usage")
    row = {**plain, "run": run, **{name: getattr(usage, name) for name in usage.__slots__}}
    if isinstance(record, Judgement):
        score = row.pop("score")
        row |= {"value": score.value, "status": str(score.status), "reason": score.reason}
        row["is_verdict"] = _suite(record.task).is_verdict(record.criterion)
        return {**row, "parts": json.dumps(to_plain(score.parts)), "asks": list(record.asks)}
    return {**row, "status": str(record.status)}


@cache
def _suite(task: str) -> Suite:
    return load_suite(load_info(task).folder)


def _batches(
    schema: str, run: str, records: Iterable[Judgement] | Iterable[Response]
) -> Iterator[pa.RecordBatch]:
    rows = (_row(run, record) for record in records)
    while part := list(islice(rows, BATCH_ROWS)):
        yield record_batch(part, _arrow_schema(schema))


def record_batch(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as columns of a schema; values that Parquet cannot hold are replaced (`make_column`)."""
    import pyarrow as pa

    columns = [make_column([row[field.name] for row in rows], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def make_column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array; Parquet holds no lone surrogates, which become U+FFFD there, and no number of
    more than 64 bits, which is unknown there.
    """
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except (UnicodeEncodeError, OverflowError):
        return pa.array([_valid(value) for value in values], kind)


def _valid(value: Any) -> Any:
    if isinstance(value, list):
        return [_valid(one) for one in value]
    if isinstance(value, int):
        return value if value.bit_length() < 64 else None
    if not isinstance(value, str):
        return value
    # "replace" would write a question mark
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _arrow_schema(schema: str, *, partitions: bool = True) -> pa.Schema:
    left_out = () if partitions else PARTITIONS[schema]
    columns = SCHEMAS[schema].items()
    return named_schema(schema, {n: kind for n, kind in columns if n not in left_out})


def named_schema(name: str, columns: Mapping[str, str]) -> pa.Schema:
    """Columns by their Arrow types, under a name that files keep."""
    import pyarrow as pa

    fields = [(column, _arrow_type(kind)) for column, kind in columns.items()]
    return pa.schema(fields, metadata={FORMAT: name})


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    return pa.list_(pa.string()) if kind == "list<string>" else pa.type_for_alias(kind)


def _partitioning(schema: str) -> Any:
    import pyarrow.dataset as ds

    names = PARTITIONS[schema]
    return ds.partitioning(_arrow_schema(schema).empty_table().select(names).schema, flavor="hive")
