"""Scoring files: JSON lines in, JSON lines out, in input order, resumable after a kill.

Scores are appended as they come; a second run of the same command keeps those whose items and
scorer are unchanged and scores the rest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.items import Item, ItemScore, ItemStatus, failed, read_item
from r2w_eval.reward_models.scorer import ItemScorer, score_all

from r2w_eval.errors import UsageError
from r2w_eval.hashing import content_hash
from r2w_eval.store import JsonlWriter, iter_jsonl, write_json

MAX_LINE_BYTES = 50 << 20


def score_file(scorer: ItemScorer, source: str, target: str, batch: int) -> Counter[str]:
    """Score every line of `source` into `target`; returns how many had each status.

    Raises UsageError for a file that is not there or a target made by another scorer.
    """
    path, out = Path(source), Path(target)
    if not path.is_file():
        raise UsageError(
            f"--input {source!r}: no such file. Expected JSON lines such as "
            f'{{"id": "1", "prompt": "…", "draft": "…", "reflection": "…"}}'
        )
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"--output {target!r}: expected a file in a folder that exists")
    done = _take_over(scorer, path, out)
    counts = Counter(str(record["status"]) for record in islice(iter_jsonl(out), done))
    with path.open("rb") as file:
        items = (read_line(line, n) for n, line in enumerate(file, 1) if line.strip())
        writer = JsonlWriter(out)
        try:
            for score in score_all(scorer, islice(items, done, None), batch):
                writer.append(score.as_record())
                counts[str(score.status)] += 1
        finally:
            writer.close()
    return counts


def read_line(line: bytes, number: int) -> Item | ItemScore:
    """One line as an item; a line that is no JSON is a bad item with its number as id."""
    if len(line) > MAX_LINE_BYTES:
        return failed(str(number), ItemStatus.TOO_LONG, f"line {number} has {len(line)} bytes")
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        return failed(str(number), ItemStatus.BAD_ITEM, f"line {number} is not JSON: {error}")
    return read_item(record, number)


def _take_over(scorer: ItemScorer, path: Path, out: Path) -> int:
    """How many scores of an earlier, interrupted run stand; 0 where anything differs."""
    note = out.with_name(out.name + ".run.json")
    stat = path.stat()
    own = content_hash([scorer.id, dict(scorer.describe()), str(path.resolve()), stat.st_size,
                        stat.st_mtime_ns])  # fmt: skip
    known = json.loads(note.read_bytes()).get("run") if note.is_file() else None
    if known != own:
        out.unlink(missing_ok=True)
        write_json(note, {"run": own, "scorer": scorer.id})
    return sum(1 for _ in _whole_lines(out))


def _whole_lines(out: Path) -> Iterator[Any]:
    yield from iter_jsonl(out)
