"""Rebuilds the joined file of reference titles from the 100 files that upstream publishes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from r2w_eval.data import DataFile, SuiteData, read_jsonl

CONNECTIONS = 8


def join_titles(data: SuiteData, file: DataFile) -> bytes:
    """One line per reference: survey, key and title, ordered by survey."""
    ids = sorted(record["arxiv_id"] for record in read_jsonl(data.path("ReportBench_v1.1.jsonl")))

    def read(arxiv_id: str) -> bytes:
        lines = data.read_upstream(file, f"ReportBench_v1.1_GT/{arxiv_id}.jsonl").split(b"\n")
        return b"".join(make_line(arxiv_id, line) for line in lines if line.strip())

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return b"".join(pool.map(read, ids))


def make_line(arxiv_id: str, line: bytes) -> bytes:
    """The part of an upstream line that the scorer needs."""
    record = json.loads(line)
    kept = {"arxiv_id": arxiv_id, "bib_id": record.get("bib_id"), "title": record.get("title")}
    return f"{json.dumps(kept, ensure_ascii=False)}\n".encode()
