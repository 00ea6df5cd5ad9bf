"""What became of the web pages that each judging of a task asked for.

Kept in the run folder beside the records, so that results made again from the folder say it too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from r2w_eval.results.summary import TaskResult
from r2w_eval.store import RunFolder, write_json
from r2w_eval.web.pages import PageCounts, PageStatus

PageStatuses = Mapping[tuple[str, str], Mapping[str, PageStatus]]


def count_pages(statuses: Mapping[str, PageStatus]) -> PageCounts:
    """How many addresses were asked for, and how many gave no text, by status.

    >>> count_pages({"a": PageStatus.OK, "b": PageStatus.TIMEOUT}).failures
    {'timeout': 1}
    """
    lost = Counter(str(status) for status in statuses.values() if status is not PageStatus.OK)
    return PageCounts(len(statuses), dict(sorted(lost.items())))


def keep_page_counts(folder: RunFolder, statuses: PageStatuses) -> None:
    """Write the counts by task and judge; those of other judges stay."""
    if not statuses:
        return
    kept = _read(folder)
    for (task, judge), own in statuses.items():
        kept[task] = {**kept.get(task, {}), judge: count_pages(own)}
    write_json(folder.page_counts_path, kept)


def add_page_counts(folder: RunFolder, results: Sequence[TaskResult]) -> list[TaskResult]:
    """The results, each with the counts of its task and judge."""
    kept = _read(folder)
    return [replace(r, pages=kept.get(r.task, {}).get(r.judge)) for r in results]


def _read(folder: RunFolder) -> dict[str, dict[str, PageCounts]]:
    if not folder.page_counts_path.is_file():
        return {}
    stored = json.loads(folder.page_counts_path.read_bytes())
    return {
        task: {judge: PageCounts(**counts) for judge, counts in judges.items()}
        for task, judges in stored.items()
    }
