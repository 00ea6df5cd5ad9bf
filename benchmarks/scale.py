"""How export, aggregation and bootstrap grow, from 10^2 to 10^7 verdicts.

`python benchmarks/scale.py [--sizes 100 1000 …]`: verdicts of one judge on five criteria over up to
`--queries` queries, each with a text of 300 characters. One process exports them to a Parquet
dataset, another computes the mean of each criterion and of all, with intervals (10,000 draws). The
same figures are computed from the verdicts in memory and must be equal to 1e-12. Writes
results/scale.json; exponents are slopes of log CPU seconds over log n, of all sizes and of the
three largest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import Finished, wait_for

from r2w_eval.estimates import pooled
from r2w_eval.records.parquet import ParquetFolder
from r2w_eval.results.verdict_means import verdict_means
from r2w_eval.stats import measure
from r2w_eval.store import write_json
from r2w_eval.types import Judgement, Metric, Score

RESULTS = Path(__file__).parent / "results" / "scale.json"
CRITERIA = ("voice", "plot", "style", "detail", "fit")
QUERIES = 1000
BOOTSTRAP_DRAWS = 1000


def verdicts(n: int, queries: int) -> Iterator[Judgement]:
    """`n` verdicts on a scale of 1 to 10, the same ones at every call."""
    draw = random.Random(0)
    for number in range(n):
        answer, place = divmod(number, len(CRITERIA))
        repeat, query = divmod(answer, queries)
        score = Score(float(draw.randint(1, 10)))
        names = (f"answer-{answer}", "quickstart", f"query-{query}", "judge", CRITERIA[place])
        text = f'{{"score": {score.value:g}, "reason": "{draw.random()} {"it keeps on. " * 21}"}}'
        yield Judgement(f"verdict-{number}", *names, score, (text,), sample_repeat=repeat)


def export_once(folder: str, n: int, queries: int) -> None:
    """Export verdicts and print the time; run by the exporting process."""
    before = time.process_time()
    ParquetFolder(folder).export_judgements("bench", verdicts(n, queries))
    print(json.dumps({"cpu_s": time.process_time() - before}))


def aggregate_once(folder: str) -> None:
    """Aggregate a dataset and print time and figures; run by the aggregating process."""
    started = time.monotonic()
    dataset = ParquetFolder(folder)
    rows = [*verdict_means(dataset), *verdict_means(dataset, ["criterion"])]
    found = {row.group.get("criterion", "all"): row.metric for row in rows}
    bounds = {name: [m.value, m.low, m.high] for name, m in found.items()}
    print(json.dumps({"wall_s": time.monotonic() - started, "bounds": bounds}))


def aggregate_in_memory(n: int, queries: int) -> dict[str, list[float | None]]:
    """The same figures from objects."""
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for j in verdicts(n, queries):
        if j.score.value is not None:
            groups["all"][j.sample_id].append(j.score.value)
            groups[j.criterion][j.sample_id].append(j.score.value)
    metrics = {name: measure(pooled(name, own.items(), len(own))) for name, own in groups.items()}
    return {name: _bounds(metric) for name, metric in metrics.items()}


def _bounds(metric: Metric) -> list[float | None]:
    return [metric.value, metric.low, metric.high]


def measure_size(n: int, queries: int) -> dict[str, Any]:
    """One row of the results."""
    with tempfile.TemporaryDirectory() as folder:
        told, export = _in_process("--export", folder, str(n), str(queries))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
        found, end = _in_process("--aggregate", folder)
    expected = aggregate_in_memory(n, queries)
    assert found["bounds"].keys() == expected.keys()
    for name, own in expected.items():
        assert all(map(_agree, found["bounds"][name], own)), (name, found["bounds"][name], own)
    return {
        "verdicts": n,
        "queries": min(queries, -(-n // len(CRITERIA))),
        "export_cpu_s": round(told["cpu_s"], 3),
        "export_peak_mb": round(export.peak_mb, 1),
        "parquet_mb": round(size / 1e6, 2),
        "aggregate_wall_s": round(found["wall_s"], 3),
        "aggregate_cpu_s": round(end.cpu_s, 3),
        "peak_rss_mb": round(end.peak_mb, 1),
        "equal_in_memory": True,
    }


def _in_process(*argv: str) -> tuple[dict[str, Any], Finished]:
    """The output of this script for these arguments, and the resource use of its process."""
    process = subprocess.Popen([sys.executable, __file__, *argv], stdout=subprocess.PIPE)
    end = wait_for(process)
    assert process.stdout is not None
    assert end.exit_code == 0, f"{argv} ended with {end.exit_code}"
    return json.loads(process.stdout.read()), end


def _agree(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=1e-12))


def bootstrap_s() -> float:
    """Shortest of seven times: 1,000 resamples over 1,000 queries with 5 verdicts each."""
    draw = random.Random(0)
    values = {f"q{n}": [float(draw.randint(1, 10)) for _ in CRITERIA] for n in range(QUERIES)}
    estimate = pooled("mean", values.items(), QUERIES)
    times = []
    for _ in range(7):
        started = time.monotonic()
        measure(estimate, draws=BOOTSTRAP_DRAWS)
        times.append(time.monotonic() - started)
    return min(times)


def exponent(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """Slope of log seconds over log n; of fewer than three sizes there is none."""
    if len(rows) < 3:
        return None
    x, y = (np.log([row[key] for row in rows]) for key in ("verdicts", name))
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = [10**k for k in range(2, 8)]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--export", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--aggregate", metavar="FOLDER", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.export:
        folder, n, queries = flags.export
        return export_once(folder, int(n), int(queries))
    if flags.aggregate:
        return aggregate_once(flags.aggregate)
    rows = []
    for n in flags.sizes:
        rows.append(measure_size(n, flags.queries))
        print(json.dumps(rows[-1]), flush=True)
    timed = ("export_cpu_s", "aggregate_cpu_s")
    found = {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "bootstrap_s": round(bootstrap_s(), 4),
        "exponents": {name: exponent(rows, name) for name in timed},
        "exponents_of_last_three": {name: exponent(rows[-3:], name) for name in timed},
        "sizes": rows,
    }
    print(json.dumps({k: v for k, v in found.items() if k != "sizes"}))
    write_json(flags.out, found)


if __name__ == "__main__":
    main()
