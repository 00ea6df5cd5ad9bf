"""Memory, open files and latency of a long run against a server with faults, over time.

    python -m benchmarks.reliability.soak [--samples 834] [--latency 250] [--connections 12]

24 prompts, five verdicts a sample: 834 samples are 100,080 judgements. 5 % of the attempts fail, a
fifth each by 500, 429, reset, cut JSON and an unreadable verdict (a page, for answers). Stops at
the time limit by SIGTERM, and says how far it came.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.page import FOLDER, write_page
from benchmarks.reliability.process import ROOT, Server, commit
from r2w_eval.store import iter_jsonl

FAULTS = "http500=0.01+http429=0.01+reset=0.01+cutjson=0.01"
# of the plot of latencies
N_WINDOWS = 60
PLOT = ROOT / "docs" / "images" / "soak.svg"


def look(pid: int) -> tuple[float, int]:
    """Resident megabytes and open files of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))


def watch(process: subprocess.Popen[bytes], path: Path, limit_s: float) -> list[dict[str, float]]:
    """One row each two seconds: seconds, megabytes, open files, verdicts on disk."""
    began, rows, n, read = time.monotonic(), [], 0, 0
    while process.poll() is None:
        spent = time.monotonic() - began
        if spent > limit_s:
            process.send_signal(signal.SIGTERM)
        try:
            memory, files = look(process.pid)
        except (FileNotFoundError, ProcessLookupError):
            break
        if not memory:  # ended, and not reaped yet
            break
        if path.exists():
            with path.open("rb") as file:
                file.seek(read)
                new = file.read()
            n, read = n + new.count(b"\n"), read + len(new)
        rows.append({"s": round(spent, 1), "mb": round(memory, 1), "files": files, "n": n})
        time.sleep(2)
    return rows


def latencies(path: Path) -> list[dict[str, float]]:
    """Percentiles of the seconds that answered attempts took, by when they came."""
    read = [(row["at"], row["latency_s"]) for row in iter_jsonl(path) if row.get("at")]
    at, spent = np.array(read).T
    ages = at - at.min()
    edges = np.linspace(0, ages.max(), N_WINDOWS + 1)
    places = np.clip(np.digitize(ages, edges) - 1, 0, N_WINDOWS - 1)
    rows = []
    for n, end in enumerate(edges[1:]):
        inside = 1000 * spent[places == n]
        if inside.size:
            p50, p95, p99 = np.quantile(inside, (0.5, 0.95, 0.99)).round(1).tolist()
            rows.append({"s": round(float(end), 1), "n": inside.size, "p50": p50, "p95": p95,
                         "p99": p99})  # fmt: skip
    return rows


Panel = tuple[str, Sequence[dict[str, float]], Iterable[str], bool]
COLOURS = ("#1f4e79", "#c97b2d", "#8c2d2d")


def plot(panels: Sequence[Panel], path: Path) -> None:
    """Curves over minutes, a panel (label, rows, columns, whether logarithmic) below the other."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = path.stem
    figure, axes = plt.subplots(len(panels), 1, sharex=True, figsize=(7, 2 * len(panels)),
                                layout="constrained")  # fmt: skip
    for axis, (label, rows, columns, is_log) in zip(axes, panels, strict=True):
        for name, colour in zip(columns, COLOURS, strict=False):
            minutes = [row["s"] / 60 for row in rows]
            axis.plot(minutes, [row[name] for row in rows], color=colour, label=name)
        axis.set_ylabel(label)
        axis.spines[["top", "right"]].set_visible(False)
        if is_log:
            axis.set_yscale("log")
            axis.legend(ncols=3, frameon=False, loc="upper right")
        else:
            axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, metadata={"Date": None})


def panels_of(facts: dict[str, Any]) -> list[Panel]:
    """What the plot of a run shows."""
    rows = facts["rows"]
    return [
        ("verdicts on disk", rows, ["n"], False),
        ("ms to an answer", facts["latencies"], ["p50", "p95", "p99"], True),
        ("resident MB", rows, ["mb"], False),
        ("open files", rows, ["files"], False),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=834)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--latency", type=int, default=5, help="of the server, in milliseconds")
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    server = Server()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = [
            sys.executable, "-m", "r2w_eval", f"--out={out}", "--tasks=quickstart",
            f"--model={server.base_url}#gen-{options.latency}+{FAULTS}+html=0.01",
            f"--judge={server.base_url}#judge-{options.latency}+{FAULTS}+malformed=0.01",
            f"--samples={options.samples}", f"--max-connections={options.connections}",
            "--no-cache", "--quiet", "--timeout=10",
        ]  # fmt: skip
        with (Path(folder) / "log.txt").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        rows = watch(process, out / "judgements.jsonl", options.minutes * 60)
        if code := process.wait():
            print((Path(folder) / "log.txt").read_text("utf-8", "replace")[-500:])
        (result,) = json.loads((out / "results.json").read_bytes())
        timed = latencies(out / "judgements.jsonl")
    sent = server.requests()
    server.stop()
    judging = result["judging"]
    facts = {
        "commit": commit(), "samples": options.samples, "exit_code": code, "requests": sent,
        "planned": 120 * options.samples,
        "verdicts": judging["n_valid"], "lost": judging["failures"], "rows": rows,
        "latency": options.latency, "connections": options.connections, "latencies": timed,
    }  # fmt: skip
    (FOLDER / "soak.json").write_text(json.dumps(facts) + "\n")
    plot(panels_of(facts), PLOT)
    write_page()


if __name__ == "__main__":
    main()
