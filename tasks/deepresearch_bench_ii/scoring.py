"""Shares of satisfied rubrics by dimension and in all (aggregate_scores.py), over tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from r2w_eval.estimates import as_headline, group_means, mean_of, pooled
from r2w_eval.types import Estimate, ItemVerdicts, Mode, Score

DIMENSIONS = ("info_recall", "analysis", "presentation")
BATCH_SIZE = 50
# per dimension and rubric: (satisfied, supported by a blocked source alone); None: not counted
Marks = Mapping[str, Sequence[tuple[float, float] | None]]


@dataclass(frozen=True, slots=True)
class Record:
    """All rubric verdicts of one judging of one report, by dimension."""

    item: ItemVerdicts
    marks: Marks


def shares(marks: Marks) -> dict[str, float | None]:
    """Shares of satisfied rubrics by dimension and in total, and of blocked ones in total.

    None where no rubric counts.

    >>> shares({"analysis": [(1.0, 0.0), (0.0, 0.0), (0.0, 1.0), None]})["total"]
    0.3333333333333333
    """
    counted = {name: [mark for mark in own if mark is not None] for name, own in marks.items()}
    everything = [mark for own in counted.values() for mark in own]
    return {
        **{name: _mean([first for first, _ in own]) for name, own in counted.items()},
        "total": _mean([first for first, _ in everything]),
        "blocked_rate": _mean([second for _, second in everything]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def batch_names(n_rubrics: int) -> list[str]:
    """`batch:1`, … for all rubrics of a task, 50 at a time."""
    return [f"batch:{n}" for n in range(1, -(-n_rubrics // BATCH_SIZE) + 1)]


def superseded(rubrics: Sequence[str]) -> list[int]:
    """Indices of rubrics whose text occurs again later: upstream keys results by text.

    >>> superseded(["a", "b", "a"])
    [0]
    """
    return [place for place, text in enumerate(rubrics) if text in rubrics[place + 1 :]]


def read_records(item: ItemVerdicts, mode: Mode) -> list[Record]:
    """One record per judging whose batches all have a verdict; a lost batch discards the task."""
    batches = [item.scores.get(name, ()) for name in batch_names(sum(item.meta["sizes"]))]
    judgings = zip(*batches, strict=False)
    return [
        Record(item, _by_dimension(item, scores, mode))
        for scores in judgings
        if all(score.value is not None for score in scores)
    ]


def _by_dimension(item: ItemVerdicts, scores: Sequence[Score], mode: Mode) -> Marks:
    sizes: Sequence[int] = item.meta["sizes"]
    left, marks = sum(sizes), list[tuple[float, float] | None]()
    for score in scores:
        # a bare share (the floor, a user's own scorer) counts for each rubric of the batch
        shares = [score.value] * min(BATCH_SIZE, left - len(marks))
        parts = {"satisfied": shares, "blocked": [0.0] * len(shares), **score.parts}
        pairs = zip(parts["satisfied"], parts["blocked"], strict=True)
        marks += [None if one is None or two is None else (one, two) for one, two in pairs]
    if mode is Mode.PARITY:
        marks = [None if n in item.meta["superseded"] else own for n, own in enumerate(marks)]
    found, start = {}, 0
    for name, size in zip(DIMENSIONS, sizes, strict=True):
        found[name] = marks[start : start + size]
        start += size
    return found


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Records of one task averaged, then tasks; `total:rubric_micro` pools all rubrics."""
    records = [record for item in items for record in read_records(item, mode)]
    found = [(record, shares(record.marks)) for record in records]
    n_tasks = len({item.sample_id for item in items})
    total = mean_of("total", _task_means(found, "total"), n_tasks)
    items_found = _item_means(found)
    return [
        as_headline(total),
        *(mean_of(name, _task_means(found, name), n_tasks) for name in DIMENSIONS),
        mean_of("blocked_rate", _task_means(found, "blocked_rate"), n_tasks),
        pooled("total:rubric_micro", _pool(records), n_tasks, note="all rubrics in one pot"),
        *group_means("language", lambda item: item.language, items, items_found),
        *group_means("theme", lambda item: str(item.meta["theme"]), items, items_found),
        *_refused_upstream(items),
    ]


Found = Sequence[tuple[Record, Mapping[str, float | None]]]


def _task_means(found: Found, name: str) -> list[tuple[str, float]]:
    own: dict[str, list[float]] = defaultdict(list)
    for record, values in found:
        if (value := values[name]) is not None:
            own[record.item.sample_id].append(value)
    return [(task, sum(values) / len(values)) for task, values in own.items()]


def _item_means(found: Found) -> list[tuple[ItemVerdicts, float]]:
    return [(record.item, value) for record, own in found if (value := own["total"]) is not None]


def _pool(records: Iterable[Record]) -> list[tuple[str, list[float]]]:
    return [
        (
            record.item.sample_id,
            [mark[0] for own in record.marks.values() for mark in own if mark is not None],
        )
        for record in records
    ]


def _refused_upstream(items: Sequence[ItemVerdicts]) -> Iterable[Estimate]:
    """How often upstream's own parser would have refused a batch that was read here."""
    pairs = [
        (item.sample_id, 1.0 - float(score.parts["upstream_reads"]))
        for item in items
        for scores in item.scores.values()
        for score in scores
        if "upstream_reads" in score.parts
    ]
    if pairs:
        note = "share of batches read as plain JSON that upstream asks for again"
        n_items = len({item_id for item_id, _ in pairs})
        yield replace(mean_of("parser:json_first", pairs, n_items, note=note), bounded=False)
