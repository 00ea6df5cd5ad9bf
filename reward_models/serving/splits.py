"""The input of a job cut into splits: files of items, anywhere that fsspec reaches.

A split is a range of bytes (JSON lines) or a row group (Parquet), so that it holds the same items
whoever reads it and whenever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from r2w_eval.reward_models.items import Item, ItemScore, read_item
from r2w_eval.reward_models.serving.files import read_line

from r2w_eval.errors import DataError, UsageError
from r2w_eval.records.places import open_place
from r2w_eval.terminal import warn

ITEM_FILES, ENDINGS = (".jsonl", ".ndjson", ".parquet"), "*.jsonl, *.ndjson or *.parquet"
ROWS_AT_A_TIME = 64


@dataclass(frozen=True, slots=True)
class Split:
    """A part of one input file: bytes from `start` to `end`, or a row group and its first row.

    `prefix` tells items without an id from those of the folder's other files.
    """

    number: int
    path: str
    start: int
    end: int
    prefix: str = ""


def plan_splits(source: str, split_bytes: int) -> list[Split]:
    """Cut the input. An item belongs to the split where its line begins. Raises UsageError,
    DataError.
    """
    fs, path = open_place(source)
    if not fs.exists(path):
        raise UsageError(
            f"--input {source!r}: nothing there. Expected JSON lines, a Parquet file or a "
            f"folder of such files"
        )
    splits: list[Split] = []
    files, left_out = find_inputs(fs, path)
    if left_out:
        warn(f"--input {source}: no items are read from {_some(left_out)}; expected {ENDINGS}")
    for file, name in files.items():
        own = _row_groups(fs, file) if file.endswith(".parquet") else _ranges(fs, file, split_bytes)
        full, prefix = fs.unstrip_protocol(file), f"{name}:" if len(files) > 1 else ""
        splits += [Split(len(splits) + n, full, *bounds, prefix) for n, bounds in enumerate(own)]
    return splits


def find_inputs(fs: Any, path: str) -> tuple[dict[str, str], list[str]]:
    """The file, or those of a folder that hold items, with their names there; and names of others,
    without what programs leave beside them (`.hidden`, `_temporary/`).

    Raises UsageError for a folder without any.
    """
    if not fs.isdir(path):
        return {path: path.rpartition("/")[2]}, []
    root = path.rstrip("/")
    names = {file: file.removeprefix(f"{root}/") for file in sorted(fs.find(path))}
    shown = {
        file: name
        for file, name in names.items()
        if not any(part.startswith((".", "_")) for part in name.split("/"))
    }
    found = {file: name for file, name in shown.items() if name.endswith(ITEM_FILES)}
    if not found:
        raise UsageError(
            f"--input {path!r}: no items there. Expected {ENDINGS}; it holds "
            f"{_some(list(names.values())) or 'nothing'}"
        )
    return found, [name for file, name in shown.items() if file not in found]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _ranges(fs: Any, path: str, split_bytes: int) -> list[tuple[int, int]]:
    size = int(fs.size(path))
    return [(at, min(size, at + split_bytes)) for at in range(0, size, split_bytes)]


def _row_groups(fs: Any, path: str) -> list[tuple[int, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with fs.open(path, "rb") as file:
            metadata = pq.ParquetFile(file).metadata
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: {error}. Expected a Parquet file of items") from error
    names = set(metadata.schema.to_arrow_schema().names)
    if not names & {"response", "reflection"}:
        raise DataError(
            f"{path}: columns {', '.join(sorted(names)[:20])}. Expected prompt and response, or "
            f"prompt, draft and reflection"
        )
    first, groups = 0, []
    for number in range(metadata.num_row_groups):
        groups.append((number, first))
        first += metadata.row_group(number).num_rows
    return groups


def read_split(split: Split) -> Iterator[Item | ItemScore]:
    """The items of one split; without an id they are named by byte, or by row of their file, and by
    the file where there are several.
    """
    fs, path = open_place(split.path)
    if path.endswith(".parquet"):
        import pyarrow.parquet as pq

        with fs.open(path, "rb") as file:
            # a few rows at a time: a dictionary of one long text repeats it in every row
            batches = pq.ParquetFile(file).iter_batches(ROWS_AT_A_TIME, [split.start])
            rows = chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, row in enumerate(rows, split.end + 1):
                yield read_item(
                    {k: v for k, v in row.items() if v is not None}, f"{split.prefix}{number}"
                )
        return
    with fs.open(path, "rb") as file:
        at = split.start
        if at:
            # the line that runs across the border belongs to the split before
            file.seek(at - 1)
            at += len(file.readline()) - 1
        while at < split.end and (line := file.readline()):
            if line.strip():
                yield read_line(line, f"{split.prefix}{at}")
            at += len(line)
