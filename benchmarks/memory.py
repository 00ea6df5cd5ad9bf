"""Peak memory and CPU of a whole run at growing sizes: flat memory is the target.

`python benchmarks/memory.py [--sizes 100 1000 10000]`; each size is a run of its own process, with
five verdicts per answer, against the loopback server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import wait_for

from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.store import write_json

RESULTS = Path(__file__).parent / "results" / "memory.json"
PROMPTS = 24


def run_size(answers: int) -> dict[str, float]:
    with FakeServer() as server, tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "r2w_eval", f"--model={server.base_url}#gen-0",
            f"--judge={server.base_url}#judge-0", "--tasks=quickstart",
            f"--samples={max(1, round(answers / PROMPTS))}", f"--out={folder}/run", "--no-cache",
            "--quiet",
        ]  # fmt: skip
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        run = wait_for(process)
        assert run.exit_code == 0, f"run ended with {run.exit_code}"
        made = max(1, round(answers / PROMPTS)) * PROMPTS
        return {
            "answers": made,
            "verdicts": 5 * made,
            "peak_rss_mb": round(run.peak_mb, 1),
            "cpu_s": round(run.cpu_s, 1),
            "wall_s": round(time.monotonic() - started, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000])
    rows = []
    for size in parser.parse_args().sizes:
        rows.append(run_size(size))
        print(json.dumps(rows[-1]), flush=True)
    write_json(RESULTS, rows)


if __name__ == "__main__":
    main()
