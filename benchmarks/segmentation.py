"""Segmentation: agreement with labelled traces, and time by length.

    python benchmarks/segmentation.py agreement [--out FILE.json]
    python benchmarks/segmentation.py speed [--out FILE.json]

Speed is processor time of one process on text put together from the labelled traces; a plain
counting loop is timed beside it, since a busy machine is slower, and the interpreter is named:
one built without optimisation is slower too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from labelled_traces import Labelled, agreement, read_labelled

from r2w_eval.trace import segment_trace

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures"
MEGABYTE = 1_000_000


def labelled(split: str) -> list[Labelled]:
    """The traces of one split."""
    return list(read_labelled(FIXTURES / f"traces_{split}.jsonl"))


def measure_agreement() -> dict[str, Any]:
    """F1 and boundary error per split, language, form and kind."""
    result: dict[str, Any] = {}
    for split, language, form in itertools.product(
        ("dev", "holdout"), ("en", "zh"), ("prose", "tagged")
    ):
        own = [r for r in labelled(split) if r.language == language and r.form == form]
        for metric in agreement(own, segment_trace):
            if metric.value is not None:
                row = {"value": metric.value, "low": metric.low, "high": metric.high}
                result[f"{split}/{language}/{form}/{metric.name}"] = {**row, "traces": len(own)}
    return result


def seconds(text: str) -> float:
    """Best of five runs."""
    best = float("inf")
    for _ in range(5):
        begin = time.process_time()
        segment_trace(text)
        best = min(best, time.process_time() - begin)
    return best


def join_traces(form: str, n_bytes: int) -> str:
    """Labelled traces of one form in random order, at least this long in UTF-8."""
    pick = random.Random(0)
    rows = [r.text for split in ("dev", "holdout") for r in labelled(split) if r.form == form]
    pieces: list[str] = []
    size = 0
    while size < n_bytes:
        pieces.append(pick.choice(rows))
        size += len(pieces[-1].encode()) + 2
    return "\n\n".join(pieces)


def measure_speed() -> dict[str, Any]:
    """Processor seconds for 1 and 10 MB of four kinds of text, and of a counting loop."""
    begin = time.process_time()
    for _ in range(2_000_000):
        pass
    result: dict[str, Any] = {
        "python": sys.version,
        "loop of 2e6": round(time.process_time() - begin, 3),
    }
    for n in (1, 10):
        size = n * MEGABYTE
        texts = {
            "prose": join_traces("prose", size),
            "tagged": join_traces("tagged", size),
            "tags every 29 bytes": "<draft>It rained.</draft><reflection>Flat.</reflection>\n"
            * (size // 58),
            "one sentence": "It rained on the town. " * (size // 23),
        }
        for name, text in texts.items():
            result[f"{name}, {n} MB"] = round(seconds(text), 3)
    return result


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["agreement", "speed"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    text = json.dumps(
        measure_agreement() if args.what == "agreement" else measure_speed(), indent=1
    )
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
