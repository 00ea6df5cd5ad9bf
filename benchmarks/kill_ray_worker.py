"""Scoring on Ray with the shipped reward model, one worker killed in mid-run.

In: the labelled items of the scorer's own validity check, repeated under new ids. A Ray of this
machine is started with two CPUs and about the smallest object store that Ray allows. The same job
twice: undisturbed, and with SIGKILL of one worker once a third of the parts is there. Out: items by
status, seconds, and whether the bytes are those of scoring without Ray, as JSON in a new folder;
exit code 1 when they are not, or when no worker was killed.

    R2W_THREADS=1 python benchmarks/kill_ray_worker.py --items 6000 --out FOLDER
    python benchmarks/kill_ray_worker.py --scorer kill_ray_worker:Lengths --items 80000 --out FOLDER

The input of the second is larger than the object store.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measure import descendants
from r2w_eval.reward_models.checks.validity import material
from r2w_eval.reward_models.items import Item, ItemScore
from r2w_eval.reward_models.scorer import open_scorer
from r2w_eval.reward_models.serving.files import score_file
from r2w_eval.reward_models.serving.ray_scoring import RayJob, score_on_ray, start_ray

from r2w_eval.hashing import to_plain
from r2w_eval.store import write_json

SPLITS = 30
# Ray takes no less than 75 MB
OBJECT_STORE_BYTES = 80_000_000


class Lengths:
    """A scorer that costs nothing, so that reading and moving the items is what remains."""

    id = "lengths"

    def describe(self) -> dict[str, Any]:
        """Nothing changes its scores."""
        return {}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """Characters of each reflection."""
        return [ItemScore(item.id, float(len(item.reflection or ""))) for item in items]


def write_items(path: Path, count: int) -> None:
    """`count` items as JSON lines, each with an id of its own."""
    items = list(material().items)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            record = to_plain(items[number % len(items)])
            file.write(json.dumps({**record, "id": f"item-{number}"}) + "\n")


def workers() -> Iterator[int]:
    """Ids of this program's Ray workers that score splits."""
    for pid in descendants(os.getpid()):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::") and b"MapWorker" in title:
            yield pid


def kill_after(parts: Path, count: int, killed: list[int]) -> None:
    """Kill one worker once `count` parts exist, and append its process id to `killed`."""
    while len(list(parts.glob("part-*.parquet"))) < count:
        time.sleep(0.05)
    pid = next(workers())
    os.kill(pid, signal.SIGKILL)
    killed.append(pid)


def run(job: RayJob, kill_at: int) -> dict[str, Any]:
    """One job on the running Ray, with a worker killed after `kill_at` parts (0: none)."""
    killed: list[int] = []
    if kill_at:
        arguments = (Path(f"{job.target}.parts"), kill_at, killed)
        threading.Thread(target=kill_after, args=arguments, daemon=True).start()
    started = time.monotonic()
    statuses = score_on_ray(job)
    seconds = time.monotonic() - started
    lines = Path(job.target).read_text("utf-8").splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    return {
        "seconds": round(seconds, 1),
        "workers_killed": len(killed),
        "statuses": dict(statuses),
        "scores": len(ids),
        "doubled": len(ids) - len(set(ids)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scorer", default="r2w-reward")
    parser.add_argument("--items", type=int, default=6000)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    source, alone = args.out / "items.jsonl", args.out / "alone.jsonl"
    write_items(source, args.items)
    here = score_file(open_scorer(args.scorer), str(source), str(alone), RayJob.batch)
    split_bytes = -(-source.stat().st_size // SPLITS)
    # not the cluster that may run on the machine
    start_ray(address="local", num_cpus=2, object_store_memory=OBJECT_STORE_BYTES)
    result: dict[str, Any] = {
        "scorer": args.scorer,
        "items": args.items,
        "object_store_mb": OBJECT_STORE_BYTES / 1e6,
        "input_mb": round(source.stat().st_size / 1e6, 1),
        "splits": SPLITS,
        "workers": 2,
        "without_ray": dict(here),
    }
    for name, kill_at in (("calm", 0), ("killed", SPLITS // 3)):
        target = args.out / f"{name}.jsonl"
        job = RayJob(args.scorer, str(source), str(target), split_bytes=split_bytes)
        result[name] = run(job, kill_at)
        result[name]["bytes_equal"] = target.read_bytes() == alone.read_bytes()
    print(json.dumps(result, indent=1))
    write_json(args.out / "kill_ray_worker.json", result)
    runs = (result["calm"], result["killed"])
    is_whole = all(one["bytes_equal"] and not one["doubled"] for one in runs)
    return 0 if is_whole and result["killed"]["workers_killed"] == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
