"""Mean verdicts of any number of runs, computed in Arrow: no record becomes a Python object.

Arrow sums the verdicts by group and query while it reads Parquet. Python sees one number a query,
and computes value and interval as for every other table (`stats.measure`). The figure is the plain
mean of the verdicts, replies of a suite's stages excluded. A suite's own headline, which may weight
them differently, is in results.json.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.records.parquet import ParquetFolder
from r2w_eval.stats.inference import measure
from r2w_eval.types import Estimate, JudgeStatus, Metric, Stratum

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

GROUPS = ("run", "task", "judge", "criterion", "order", "repeat", "model_returned")
DEFAULT_GROUPS = ("run", "task", "judge")
# who is asked about whose answers
_ASKED = ("run", "task", "judge")
_SUMS: Sequence[tuple[Any, ...]] = (
    ("value", "hash_sum", None, "total"),
    ("value", "hash_count", None, "n"),
    ([], "hash_count_all", None, "n_rows"),
)
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VerdictMean:
    """One group: its mean with interval over queries (n in `metric`), and what became of it.

    Expected in `metric` are also the queries of which a judge has no verdict at all, since the
    answer or a stage was lost; lost replies of stages stand among `failures`.
    """

    group: Mapping[str, str]
    metric: Metric
    n_verdicts: int
    failures: Mapping[str, int]


def verdict_means(
    dataset: ParquetFolder, by: Sequence[str] = DEFAULT_GROUPS, draws: int = 10_000
) -> list[VerdictMean]:
    """Mean verdict of each group, sorted by group. Raises UnknownName, DataError, UsageError."""
    for name in by:
        if name not in GROUPS:
            raise UnknownName("--by", name, "column", GROUPS, "r2w-eval aggregate --help")
    keys = [*by, *_ASKED, "sample_id", "status", "is_verdict"]
    rows = _grouped(dataset.judgements(), keys, _SUMS).to_pylist()
    tasks = sorted({row["task"] for row in rows})
    if "task" not in by and len(tasks) > 1:
        raise UsageError(
            f"--by {','.join(by)}: the dataset holds several suites ({', '.join(tasks)}), and "
            f"verdicts on different scales have no mean. Try: --by {','.join(['task', *by])}"
        )
    answers = _grouped(dataset.responses(), ["run", "task", "sample_id"]).to_pylist()
    unjudged = _unjudged(rows, answers)
    return [
        _mean(dict(zip(by, map(_shown, group), strict=True)), own, unjudged, draws)
        for group, own in sorted(_by_group(rows, by).items(), key=lambda pair: repr(pair[0]))
        # a stage has replies and no mean
        if "criterion" not in by or any(row["is_verdict"] for row in own)
    ]


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _grouped(dataset: ds.Dataset, keys: Sequence[str], sums: Sequence[Any] = ()) -> pa.Table:
    """One row for each combination of `keys`, with the `sums` over its records."""
    import pyarrow.acero as acero
    import pyarrow.dataset as ds

    keys = list(dict.fromkeys(keys))
    summed = [name for name, *_ in sums if name]
    columns = {name: ds.field(name) for name in (*keys, *summed)}
    scan = acero.ScanNodeOptions(dataset, columns=columns)
    steps = [
        acero.Declaration("scan", scan),
        acero.Declaration("project", acero.ProjectNodeOptions(list(columns.values()), [*columns])),
        acero.Declaration("aggregate", acero.AggregateNodeOptions(list(sums), keys=keys)),
    ]
    return acero.Declaration.from_sequence(steps).to_table(use_threads=True)


def _unjudged(rows: Sequence[Row], answers: Sequence[Row]) -> Mapping[tuple[str, ...], Set[str]]:
    """By run, suite and judge: the queries with an answer of the run, lost or not, and without a
    verdict of that judge.
    """
    judged: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    written: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in rows:
        own = judged[_asked(row)]
        if row["is_verdict"]:
            own.add(_query(row))
    for row in answers:
        written[row["run"], row["task"]].add(_query(row))
    return {asked: written[asked[:2]] - own for asked, own in judged.items()}


def _asked(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in _ASKED)


def _query(row: Row) -> str:
    """A query belongs to a suite: those of two suites are never one cluster."""
    return f"{row['task']}\0{row['sample_id']}"


def _by_group(rows: Sequence[Row], by: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    found: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in by)].append(row)
    return found


def _mean(
    group: Mapping[str, str],
    rows: Sequence[Row],
    unjudged: Mapping[tuple[str, ...], Set[str]],
    draws: int,
) -> VerdictMean:
    """From one row for each query and status; only usable verdicts have a total."""
    queries: dict[str, tuple[float, float]] = {}
    failures: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: [*_asked(row), _query(row), row["status"]]):
        total, n = queries.get(_query(row), (0.0, 0.0))
        if row["is_verdict"]:
            total, n = total + (row["total"] or 0.0), n + row["n"]
        queries[_query(row)] = total, n
        if row["status"] != str(JudgeStatus.OK):
            failures[row["status"]] += row["n_rows"]
    totals, counts = zip(*queries.values(), strict=True)
    expected = set(queries).union(*(unjudged[asked] for asked in set(map(_asked, rows))))
    estimate = Estimate("mean verdict", (Stratum(tuple(queries), totals, counts),), len(expected))
    n_verdicts = sum(row["n_rows"] for row in rows if row["is_verdict"])
    return VerdictMean(group, measure(estimate, draws), n_verdicts, dict(sorted(failures.items())))
