"""What becomes of 1,000 verdicts under each kind of fault: one row a fault.

`python benchmarks/fault_matrix.py [--rate 0.1]`; rates are per attempt, so that a retry can
succeed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from r2w_eval.config import RunConfig
from r2w_eval.errors import EndpointDown
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.run import evaluate
from r2w_eval.store import write_json

RESULTS = Path(__file__).parent / "results" / "fault_matrix.json"
SAMPLES = 9
FAULTS = (
    "http429", "http429+retryafter=1", "http500", "http503", "reset", "hang", "cutjson", "html",
    "nochoices", "filter", "refusal", "length", "empty", "malformed", "fenced", "comma", "score11",
    "huge", "injection", "linesep", "newmodel", "http400", "context", "http401",
)  # fmt: skip


def run_fault(fault: str, rate: float) -> dict[str, object]:
    name, _, rest = fault.partition("+")
    judge = f"judge-0+{name}={rate}" + (f"+{rest}" if rest else "")
    started = time.monotonic()
    with FakeServer() as server, tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            model=f"{server.base_url}#gen-0",
            tasks="quickstart",
            samples=SAMPLES,
            judge=(f"{server.base_url}#{judge}",),
            out=folder,
            cache=False,
            timeout=3.0,
        )
        row: dict[str, object] = {"fault": fault, "rate": rate}
        try:
            outcome = asyncio.run(evaluate(config))
        except EndpointDown as error:
            row["stopped"] = str(error)[:120]
        else:
            judging = outcome.results[0].judging
            row |= {
                "verdicts": judging.n_total,
                "usable": judging.n_valid,
                "lost": dict(judging.failures),
                "asked_again": judging.n_reasked,
                "scored_zero": judging.histogram.get("0", 0),
                "models_returned": len(judging.models_returned),
            }
        row["requests"] = server.stats().to_dict()["total"]["requests"]
    row["seconds"] = round(time.monotonic() - started, 1)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=0.1)
    options = parser.parse_args()
    os.environ["R2W_CACHE"] = tempfile.mkdtemp()
    rows = []
    for fault in FAULTS:
        rows.append(run_fault(fault, options.rate))
        print(json.dumps(rows[-1]), flush=True)
    write_json(RESULTS, rows)


if __name__ == "__main__":
    main()
