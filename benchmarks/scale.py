"""How export, aggregation and bootstrap grow, from 10^2 to 10^6 verdicts.

`python benchmarks/scale.py [--sizes 100 1000 …]`: verdicts of one judge on five criteria over up to
1,000 queries, each with a text of 300 characters, go into a Parquet dataset; a process of its own
then computes the mean of each criterion and of all, with intervals (10,000 draws). The same figures
are computed from the verdicts in memory and must be equal to 1e-12. Writes results/scale.json;
exponents are slopes of log CPU seconds over log n of the three largest sizes.
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
from measure import wait_for

from r2w_eval.estimates import pooled
from r2w_eval.records.parquet import ParquetFolder
from r2w_eval.results.verdict_means import verdict_means
from r2w_eval.stats import measure
from r2w_eval.types import Judgement, Metric, Score

RESULTS = Path(__file__).parent / "results" / "scale.json"
CRITERIA = ("voice", "plot", "style", "detail", "fit")
QUERIES = 1000
BOOTSTRAP_DRAWS = 1000


def verdicts(n: int) -> Iterator[Judgement]:
    """`n` verdicts on a scale of 1 to 10, the same ones at every call."""
    draw = random.Random(0)
    for number in range(n):
        answer, place = divmod(number, len(CRITERIA))
        repeat, query = divmod(answer, QUERIES)
        score = Score(float(draw.randint(1, 10)))
        names = (f"answer-{answer}", "suite", f"query-{query}", "judge", CRITERIA[place])
        text = f'{{"score": {score.value:g}, "reason": "{draw.random()} {"it keeps on. " * 21}"}}'
        yield Judgement(f"verdict-{number}", *names, score, (text,), sample_repeat=repeat)


def aggregate_once(folder: str) -> None:
    """What the measured process does."""
    started = time.monotonic()
    judgements = ParquetFolder(folder).judgements()
    rows = [*verdict_means(judgements), *verdict_means(judgements, ["criterion"])]
    found = {row.group.get("criterion", "all"): row.metric for row in rows}
    bounds = {name: [m.value, m.low, m.high] for name, m in found.items()}
    print(json.dumps({"wall_s": time.monotonic() - started, "bounds": bounds}))


def aggregate_in_memory(n: int) -> dict[str, list[float | None]]:
    """The same figures from objects."""
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for j in verdicts(n):
        if j.score.value is not None:
            groups["all"][j.sample_id].append(j.score.value)
            groups[j.criterion][j.sample_id].append(j.score.value)
    metrics = {name: measure(pooled(name, own.items(), len(own))) for name, own in groups.items()}
    return {name: _bounds(metric) for name, metric in metrics.items()}


def _bounds(metric: Metric) -> list[float | None]:
    return [metric.value, metric.low, metric.high]


def measure_size(n: int) -> dict[str, Any]:
    """One row of the results."""
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        ParquetFolder(folder).export_judgements("bench", verdicts(n))
        export_cpu_s = time.process_time() - before
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
        argv = [sys.executable, __file__, "--one", folder]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert process.stdout is not None
        end = wait_for(process)
        assert end.exit_code == 0, f"aggregation of {n} verdicts ended with {end.exit_code}"
        told = json.loads(process.stdout.read())
    expected = aggregate_in_memory(n)
    assert told["bounds"].keys() == expected.keys()
    for name, own in expected.items():
        assert all(map(_agree, told["bounds"][name], own)), (name, told["bounds"][name], own)
    return {
        "verdicts": n,
        "export_cpu_s": round(export_cpu_s, 3),
        "parquet_mb": round(size / 1e6, 2),
        "aggregate_wall_s": round(told["wall_s"], 3),
        "aggregate_cpu_s": round(end.cpu_s, 3),
        "peak_rss_mb": round(end.peak_mb, 1),
        "equal_in_memory": True,
    }


def _agree(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=1e-12))


def bootstrap_s(tries: int = 7) -> float:
    """Shortest of several times: 1,000 resamples over 1,000 queries with 5 verdicts each."""
    draw = random.Random(0)
    values = {f"q{n}": [float(draw.randint(1, 10)) for _ in CRITERIA] for n in range(QUERIES)}
    estimate = pooled("mean", values.items(), QUERIES)
    times = []
    for _ in range(tries):
        started = time.monotonic()
        measure(estimate, draws=BOOTSTRAP_DRAWS)
        times.append(time.monotonic() - started)
    return min(times)


def exponent(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """Slope of log seconds over log n of the three largest sizes."""
    last = rows[-3:]
    if len(last) < 3:
        return None
    x, y = (np.log([row[key] for row in last]) for key in ("verdicts", name))
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = [10**k for k in range(2, 7)]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", metavar="FOLDER", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        return aggregate_once(flags.one)
    rows = []
    for n in flags.sizes:
        rows.append(measure_size(n))
        print(json.dumps(rows[-1]), flush=True)
    found = {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "bootstrap_s": round(bootstrap_s(), 4),
        "exponents": {k: exponent(rows, k) for k in ("export_cpu_s", "aggregate_cpu_s")},
        "sizes": rows,
    }
    print(json.dumps({k: v for k, v in found.items() if k != "sizes"}))
    flags.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
