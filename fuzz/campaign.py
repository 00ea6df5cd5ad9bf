"""Fuzzes targets one after the other and publishes the results.

    pip install atheris==3.0.0
    R2W_DATA=DATA python fuzz/campaign.py [--targets verdict,trace] [--seconds 600]

Each target starts from its corpus; inputs that reach new code are minimised and added to it. A
target keeps its last result until it is run again.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks.reliability.page import FOLDER, write_page  # noqa: E402 - as a script or a module

RESULTS = FOLDER / "fuzz.json"
CORPUS = Path(__file__).parent / "corpus"
HARNESS = [sys.executable, str(Path(__file__).parent / "harness.py")]
NAMES = (
    "verdict", "suites", "trace", "prose", "records", "recipe", "reply", "request", "handlers",
)  # fmt: skip
PROGRESS = re.compile(r"#(\d+)\s+(INITED|DONE)\s+cov: (\d+) ft: (\d+)")


def fuzz(target: str, seconds: int) -> dict[str, object]:
    """Fuzz one target: inputs tried, covered edges before and after, findings."""
    kept = CORPUS / target
    with tempfile.TemporaryDirectory() as folder:
        new, findings = Path(folder) / "new", Path(folder) / "findings"
        findings.mkdir()
        words = [target, str(new), str(kept), f"-max_total_time={seconds}", "-timeout=10",
                 "-max_len=4096", f"-artifact_prefix={findings}/"]  # fmt: skip
        done = subprocess.run([*HARNESS, *words], capture_output=True, text=True, errors="replace")
        found = {
            state: tuple(map(int, facts)) for _, state, *facts in PROGRESS.findall(done.stderr)
        }
        runs = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
        merged = [target, str(kept), str(new), "-merge=1"]
        subprocess.run([*HARNESS, *merged], capture_output=True, check=True)
        inputs = sorted(path.read_bytes() for path in findings.iterdir())
    return {
        "target": target, "asked_s": seconds, "exit_code": done.returncode,
        "inputs": int(runs[1]) if runs else None, "seconds": int(runs[2]) if runs else None,
        "edges_before": found.get("INITED", (None,))[0], "edges": found.get("DONE", (None,))[0],
        "corpus": len(list(kept.iterdir())), "findings": [repr(data)[:500] for data in inputs],
        "end": done.stderr[-1500:] if done.returncode else "",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(NAMES))
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    for target in options.targets.split(","):
        row = fuzz(target, options.seconds)
        known = json.loads(RESULTS.read_bytes()) if RESULTS.exists() else []
        known = [old for old in known if old["target"] != target] + [row]
        known.sort(key=lambda row: NAMES.index(row["target"]))
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        print(f"{target}: {row['inputs']} inputs, {len(row['findings'])} findings", flush=True)
    write_page()


if __name__ == "__main__":
    main()
