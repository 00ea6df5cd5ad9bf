"""Mean verdicts of any number of runs, straight from Parquet: no record becomes a Python object.

Arrow sums the verdicts of each group and query while it reads; what reaches Python is one number a
query, and from there value and interval are those of every other table (`stats.measure`). The
figure is the plain mean of the verdicts: a suite whose own headline weighs them otherwise has it in
results.json.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r2w_eval.errors import UnknownName
from r2w_eval.stats.inference import measure
from r2w_eval.types import Estimate, JudgeStatus, Metric, Stratum

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

GROUPS = ("run", "task", "judge", "criterion", "order", "repeat", "model_returned")
DEFAULT_GROUPS = ("run", "task", "judge")
# a query belongs to a suite: those of two suites are never one cluster
_CLUSTER = ("task", "sample_id")


@dataclass(frozen=True, slots=True)
class VerdictMean:
    """One group: its mean with interval over queries (n in `metric`), and what became of it."""

    group: Mapping[str, str]
    metric: Metric
    n_verdicts: int
    failures: Mapping[str, int]


def verdict_means(
    judgements: ds.Dataset, by: Sequence[str] = DEFAULT_GROUPS, draws: int = 10_000
) -> list[VerdictMean]:
    """Mean verdict of each group, sorted by group. Raises UnknownName."""
    for name in by:
        if name not in GROUPS:
            raise UnknownName("--by", name, "column", GROUPS, "r2w-eval aggregate --help")
    found = _by_group(_grouped(judgements, [*by, *_CLUSTER, "status"]), by)
    return [
        _mean(dict(zip(by, map(_shown, group), strict=True)), rows, draws)
        for group, rows in sorted(found.items(), key=lambda pair: repr(pair[0]))
    ]


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _grouped(judgements: ds.Dataset, keys: Sequence[str]) -> pa.Table:
    """Sum and number of the values, and number of the rows, for each combination of `keys`."""
    import pyarrow.acero as acero
    import pyarrow.dataset as ds

    keys = list(dict.fromkeys(keys))
    columns = {name: ds.field(name) for name in (*keys, "value")}
    sums = [
        ("value", "hash_sum", None, "total"),
        ("value", "hash_count", None, "n"),
        ([], "hash_count_all", None, "n_rows"),
    ]
    scan = acero.ScanNodeOptions(judgements, columns=columns)
    steps = [
        acero.Declaration("scan", scan),
        acero.Declaration("project", acero.ProjectNodeOptions(list(columns.values()), [*columns])),
        acero.Declaration("aggregate", acero.AggregateNodeOptions(sums, keys=keys)),
    ]
    return acero.Declaration.from_sequence(steps).to_table(use_threads=True)


def _by_group(table: pa.Table, by: Sequence[str]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_pylist():
        found[tuple(row[name] for name in by)].append(row)
    return found


def _mean(group: Mapping[str, str], rows: Sequence[Mapping[str, Any]], draws: int) -> VerdictMean:
    """From one row for each query and status; only usable verdicts have a total."""
    queries: dict[str, tuple[float, float]] = {}
    failures: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: [row[name] for name in (*_CLUSTER, "status")]):
        name = "\0".join(row[key] for key in _CLUSTER)
        total, n = queries.get(name, (0.0, 0.0))
        queries[name] = (total + (row["total"] or 0.0), n + row["n"])
        if row["status"] != str(JudgeStatus.OK):
            failures[row["status"]] += row["n_rows"]
    totals, counts = zip(*queries.values(), strict=True)
    estimate = Estimate("mean verdict", (Stratum(tuple(queries), totals, counts),), len(queries))
    n_verdicts = sum(row["n_rows"] for row in rows)
    return VerdictMean(group, measure(estimate, draws), n_verdicts, dict(sorted(failures.items())))
