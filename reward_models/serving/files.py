"""Scores JSON-lines files into JSON-lines files, in input order, resumably.

Scores are appended as they are made. Run again, the same command keeps those whose items and scorer
are unchanged and scores the rest.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.items import (
    TRANSIENT,
    Item,
    ItemScore,
    ItemStatus,
    failed,
    read_item,
    read_score,
)
from r2w_eval.reward_models.scorer import ItemScorer, score_all

from r2w_eval.errors import UsageError
from r2w_eval.hashing import content_hash
from r2w_eval.store import JsonlWriter, iter_jsonl, write_json

MAX_LINE_BYTES = 50 << 20


def score_file(scorer: ItemScorer, source: str, target: str, batch: int) -> Counter[str]:
    """Score every line of `source` into `target`; counts by status.

    Raises UsageError for a missing file or an unusable target. A target that another input or
    scorer made is written anew.
    """
    path, out = Path(source), Path(target)
    if not path.is_file():
        raise UsageError(
            f"--input {source!r}: no such file. Expected JSON lines such as "
            f'{{"id": "1", "prompt": "…", "draft": "…", "reflection": "…"}}'
        )
    if not out.parent.is_dir() or (out.exists() and not out.is_file()):
        raise UsageError(
            f"--output {target!r}: expected a file in a folder that exists; it grows line by line, "
            f"and the same command goes on with it"
        )
    check_lines(path)
    check_own(out)
    with closing(JsonlWriter(out)) as writer:
        done, later = _take_over(scorer, path, out)
        items = (later.get(place, item) for place, item in enumerate(_read_items(path)))
        counts = Counter(str(record["status"]) for record in iter_jsonl(out))
        for score in score_all(scorer, islice(items, done, None), batch):
            writer.append(score.as_record())
            counts[str(score.status)] += 1
    return counts


def check_lines(path: Path) -> None:
    """Raises UsageError for a file that is no text by its first bytes."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        raise UsageError(
            f"--input {str(path)!r}: is a Parquet file. Expected JSON lines; of Parquet, r2w-eval "
            f"score --on ray reads the same columns"
        )
    if start[:2] == b"\x1f\x8b":
        raise UsageError(
            f"--input {str(path)!r}: is compressed. Expected JSON lines; unpack it first: "
            f"gunzip --keep {path}"
        )


def note_of(out: Path) -> Path:
    """The note beside a file of scores that says what they are of."""
    return out.with_name(out.name + ".run.json")


def check_own(out: Path, *notes: Path) -> None:
    """Raises UsageError for a file that no earlier scoring wrote, as its note or one of `notes`
    would tell: the input itself, or another file that is somebody's own.
    """
    is_empty = not out.exists() or out.stat().st_size == 0
    if not is_empty and not any(note.exists() for note in (note_of(out), *notes)):
        raise UsageError(
            f"--output {str(out)!r}: holds what no r2w-eval score has written, and would be "
            f"replaced. Expected a new file, or one of this command's own. Name another --output, "
            f"or move that file away"
        )


def _read_items(path: Path) -> Iterator[Item | ItemScore]:
    with path.open("rb") as file:
        yield from (read_line(line, n) for n, line in enumerate(file, 1) if line.strip())


def read_line(line: bytes, number: int | str) -> Item | ItemScore:
    """The item in a line; for a line that is not JSON a failed score with its number as id."""
    if len(line) > MAX_LINE_BYTES:
        return failed(str(number), ItemStatus.TOO_LONG, f"line {number} has {len(line)} bytes")
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        return failed(str(number), ItemStatus.BAD_ITEM, f"line {number} is not JSON: {error}")
    return read_item(record, number)


def _take_over(scorer: ItemScorer, path: Path, out: Path) -> tuple[int, dict[int, ItemScore]]:
    """What can be kept of an interrupted run (`_keep_matching`); the file is truncated after it."""
    note = note_of(out)
    stat = path.stat()
    own = content_hash([scorer.id, dict(scorer.describe()), str(path.resolve()), stat.st_size,
                        stat.st_mtime_ns])  # fmt: skip
    if _noted_run(note) == own:
        return _keep_matching(path, out)
    os.truncate(out, 0)
    write_json(note, {"run": own, "scorer": scorer.id})
    return 0, {}


def _noted_run(note: Path) -> Any:
    try:
        content = json.loads(note.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return content.get("run") if isinstance(content, dict) else None


def _keep_matching(path: Path, out: Path) -> tuple[int, dict[int, ItemScore]]:
    """Keep the leading scores up to the first mismatch or transient failure, and how many; by
    place the good ones behind that failure, which are not to be paid for again.
    """
    done, end = 0, 0
    later: dict[int, ItemScore] = {}
    with out.open("rb") as file:
        for place, (line, item) in enumerate(zip(file, _read_items(path), strict=False)):
            score = _score_of(item, line)
            if score is None:
                break
            if str(score.status) in TRANSIENT:
                continue
            if place == done:
                done, end = done + 1, end + len(line)
            else:
                later[place] = score
    os.truncate(out, end)
    return done, later


def _score_of(item: Item | ItemScore, line: bytes) -> ItemScore | None:
    """The score in a line; None if it is not of this item."""
    try:
        record = json.loads(line)
        return read_score(record) if record["id"] == item.id else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
