"""Memory and file handles of a long run against a server with faults, over time.

    python -m benchmarks.reliability.soak [--samples 834] [--minutes 120]

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
from pathlib import Path

from benchmarks.reliability.page import FOLDER, write_page
from benchmarks.reliability.process import ROOT, Server

FAULTS = "http500=0.01+http429=0.01+reset=0.01+cutjson=0.01"
PLOT = ROOT / "docs" / "images" / "soak.svg"


def look(pid: int) -> tuple[float, int]:
    """Resident megabytes and open files of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))


def watch(process: subprocess.Popen[bytes], path: Path, limit_s: float) -> list[dict[str, float]]:
    """One row a second: seconds, megabytes, open files, verdicts on disk."""
    began, rows = time.monotonic(), []
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
        n = path.read_bytes().count(b"\n") if path.exists() else 0
        rows.append({"s": round(spent, 1), "mb": round(memory, 1), "files": files, "n": n})
        time.sleep(1)
    return rows


def plot(rows: list[dict[str, float]]) -> None:
    """Three curves over time, one below the other."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(7, 5.5), layout="constrained")
    names = (("n", "verdicts on disk"), ("mb", "resident MB"), ("files", "open files"))
    for axis, (name, label) in zip(axes, names, strict=True):
        axis.plot([row["s"] for row in rows], [row[name] for row in rows], color="#1f4e79")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("seconds")
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=834)
    parser.add_argument("--minutes", type=float, default=120.0)
    options = parser.parse_args()
    server = Server()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = [
            sys.executable, "-m", "r2w_eval", f"--model={server.base_url}#gen-5+{FAULTS}+html=0.01",
            f"--judge={server.base_url}#judge-5+{FAULTS}+malformed=0.01", "--tasks=quickstart",
            "--no-cache", f"--samples={options.samples}", "--quiet", f"--out={out}", "--timeout=10",
        ]  # fmt: skip
        with (Path(folder) / "log.txt").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        rows = watch(process, out / "judgements.jsonl", options.minutes * 60)
        if code := process.wait():
            print((Path(folder) / "log.txt").read_text("utf-8", "replace")[-500:])
        (result,) = json.loads((out / "results.json").read_bytes())
    sent = server.requests()
    server.stop()
    judging = result["judging"]
    facts = {
        "samples": options.samples, "exit_code": code, "requests": sent,
        "planned": 120 * options.samples,
        "verdicts": judging["n_valid"], "lost": judging["failures"], "rows": rows,
    }  # fmt: skip
    (FOLDER / "soak.json").write_text(json.dumps(facts) + "\n")
    plot(rows)
    write_page()


if __name__ == "__main__":
    main()
