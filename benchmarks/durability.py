"""SIGKILL at random moments of a 1,000-verdict run, resumed until it is done.

Prints and writes what was sent over all starts, against one undisturbed run: nothing may be lost,
doubled or changed. `python benchmarks/durability.py [--kills 10]`
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.store import iter_jsonl, write_json

RESULTS = Path(__file__).parent / "results" / "durability.json"
SAMPLES = 8
REQUESTS = 24 * SAMPLES * 6


def command(server: FakeServer, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "r2w_eval", f"--model={server.base_url}#gen-40",
        f"--judge={server.base_url}#judge-40", "--tasks=quickstart", f"--samples={SAMPLES}",
        f"--out={out}", "--no-cache", "--quiet",
    ]  # fmt: skip


def sent(server: FakeServer) -> int:
    return int(server.stats().to_dict()["total"]["requests"])


def in_flight(server: FakeServer) -> int:
    return int(server.stats().to_dict()["total"]["in_flight"])


def kill_once(server: FakeServer, out: Path, after: int) -> dict[str, int]:
    process = subprocess.Popen(
        command(server, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    target = sent(server) + after
    while sent(server) < target and process.poll() is None:
        time.sleep(0.002)
    flying = in_flight(server)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return {"requests_so_far": sent(server), "in_flight_at_kill": flying}


def count_keys(path: Path) -> tuple[int, int]:
    keys = [record["key"] for record in iter_jsonl(path)]
    return len(keys), len(set(keys))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with FakeServer() as server, tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        subprocess.run(command(server, whole), check=True, capture_output=True)
        server.reset()
        kills = [
            kill_once(server, killed, moments.randint(10, 2 * REQUESTS // (options.kills + 2)))
            for _ in range(options.kills)
        ]
        subprocess.run(command(server, killed), check=True, capture_output=True)
        peak = int(server.stats().to_dict()["total"]["peak_in_flight"])
        result = {
            "planned": REQUESTS,
            "kills": kills,
            "sent_in_all": sent(server),
            "sent_again_per_kill": round((sent(server) - REQUESTS) / options.kills, 1),
            "peak_in_flight": peak,
            "responses_and_distinct": count_keys(killed / "responses.jsonl"),
            "judgements_and_distinct": count_keys(killed / "judgements.jsonl"),
            "results_equal": (killed / "results.json").read_bytes()
            == (whole / "results.json").read_bytes(),
        }
        before = sent(server)
        subprocess.run(command(server, killed), check=True, capture_output=True)
        result["sent_by_a_finished_run"] = sent(server) - before
    write_json(RESULTS, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
