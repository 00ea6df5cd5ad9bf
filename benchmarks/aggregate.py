"""Time and memory to aggregate a finished run, at growing numbers of judgements.

`python benchmarks/aggregate.py --data-dir DATA [--repeats 1 2 5 10 20]`: WritingBench's 1,000
queries, five verdicts an answer, so that 20 answers a query make 100,000 judgements. The records
are written as a run writes them, each with a verdict text of realistic length; each size is
aggregated by a process of its own, with all metrics and their intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import wait_for

from r2w_eval.data import data_roots
from r2w_eval.records.plan import TaskPlan
from r2w_eval.results.summary import RunFacts, summarise
from r2w_eval.store import JsonlWriter, RunFolder, write_json
from r2w_eval.suites.suite import load_info, load_suite
from r2w_eval.types import Judgement, Mode, Response, Score, WriterStatus

RESULTS = Path(__file__).parent / "results" / "aggregate.json"
JUDGE = "judge"
REASON = "The piece keeps to its brief and develops it, though some passages repeat themselves. "


def make_plan(data_dir: str) -> TaskPlan:
    info = load_info("writingbench")
    suite = load_suite(info.folder)
    samples = list(suite.load_samples(info.data(data_roots(data_dir))))
    return TaskPlan(info, suite, Mode.STRICT, {}, lambda: samples, info.decoding)


def write_records(plan: TaskPlan, folder: RunFolder, n_repeats: int) -> int:
    """Write answers of 4,000 characters and verdicts with reasons; the number of verdicts."""
    draw = random.Random(0)
    responses = JsonlWriter(folder.path / "responses.jsonl")
    judgements = JsonlWriter(folder.path / "judgements.jsonl")
    count = 0
    for repeat in range(n_repeats):
        for sample in plan.samples():
            key = f"{sample.id}-{repeat}"
            text = "word " * 800
            status = WriterStatus.OK
            facts = (key, sample.task, sample.id, "model", text, text, None, status, repeat)
            responses.append(Response(*facts))
            for criterion in plan.suite.criteria(sample):
                value = float(draw.randint(1, 10))
                verdict = json.dumps({"score": value, "reason": REASON * 4})
                score = Score(value, parts={"reason": REASON * 4})
                names = (f"{key}-{count}", key, sample.task, sample.id, JUDGE, criterion)
                judgements.append(Judgement(*names, score, asks=(verdict,), sample_repeat=repeat))
                count += 1
    responses.close()
    judgements.close()
    return count


def aggregate_once(folder: Path, n_repeats: int, data_dir: str) -> None:
    """Aggregate one folder and print the time; run by the measured process."""
    plan = make_plan(data_dir)
    started = time.monotonic()
    facts = RunFacts({}, n_repeats, {JUDGE: {}}, 1)
    (result,) = summarise(RunFolder(folder), [plan], facts)
    assert result.judging.n_valid == 5000 * n_repeats and not result.judging.failures
    spent = {"aggregate_s": round(time.monotonic() - started, 2), "metrics": len(result.metrics)}
    print(json.dumps(spent))


def measure_size(plan: TaskPlan, n_repeats: int, data_dir: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as path:
        n_judgements = write_records(plan, RunFolder(Path(path)), n_repeats)
        size = sum(file.stat().st_size for file in Path(path).glob("*.jsonl"))
        command = [sys.executable, __file__, "--data-dir", data_dir, "--one", path, str(n_repeats)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        end = wait_for(process)
        assert end.exit_code == 0, f"aggregation ended with {end.exit_code}"
        spent = json.loads(process.stdout.read())
    return {
        "judgements": n_judgements,
        "files_mb": round(size / 1e6, 1),
        **spent,
        "cpu_s": round(end.cpu_s, 2),
        "peak_rss_mb": round(end.peak_mb, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("R2W_DATA", "../shared/benchmarks"))
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "REPEATS"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        return aggregate_once(Path(flags.one[0]), int(flags.one[1]), flags.data_dir)
    plan = make_plan(flags.data_dir)
    rows = []
    for n_repeats in flags.repeats:
        rows.append(measure_size(plan, n_repeats, flags.data_dir))
        print(json.dumps(rows[-1]), flush=True)
    write_json(RESULTS, rows)


if __name__ == "__main__":
    main()
