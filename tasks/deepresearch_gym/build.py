"""Rebuilds the joined key-point file from the 1,000 files that upstream publishes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from r2w_eval.data import DataFile, SuiteData, read_jsonl

CONNECTIONS = 8


def join_key_points(data: SuiteData, file: DataFile) -> bytes:
    """One line per query, led by its id, in numeric order of the ids."""
    ids = sorted(int(record["id"]) for record in read_jsonl(data.path("queries.jsonl")))

    def read(query_id: int) -> bytes:
        content = json.loads(data.read_upstream(file, f"key_point/{query_id}_aggregated.json"))
        line = json.dumps({"id": str(query_id), **content}, ensure_ascii=False)
        return f"{line}\n".encode()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return b"".join(pool.map(read, ids))
