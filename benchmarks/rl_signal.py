"""Would RL see a signal? Rollouts of a model, scored as RL would score them; no GPU.

    python benchmarks/rl_signal.py FOLDER/stages/rollouts-sft-*/rollouts.jsonl --weights 0.3 1

Files of rollouts as a pipeline writes them; texts of several files on one prompt count as one
group. A file of traces for SFT is read, too: each is a group of its own, so that only what is said
of reflections within a trace has a value. A pipeline with rollouts tells the same in its report.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.scorer import open_scorer
from r2w_eval.training.rl.advantages import LocalMapping
from r2w_eval.training.rl.signal import read_signal, score_groups, tell_signal
from r2w_eval.training.trainer.sft import to_row

from r2w_eval.store import iter_jsonl, write_json


def as_text(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A rollout unchanged; a trace as the text that it teaches."""
    if "text" in row:
        return row
    text = to_row(dict(row))["completion"][0]["content"]
    return {"prompt_id": row["id"], "prompt": row["prompt"], "text": text}


def main() -> None:
    """The measures as lines and, with --out, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--outcome", default="r2w-reward")
    parser.add_argument("--process", default="r2w-reward")
    parser.add_argument("--weights", nargs="+", type=float, default=[0.3])
    parser.add_argument("--baseline", default="floored_mean")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    texts = [
        {**as_text(row), "policy": str(path)} for path in options.files for row in iter_jsonl(path)
    ]
    groups = score_groups(texts, open_scorer(options.outcome), open_scorer(options.process))
    found = [
        read_signal(groups, LocalMapping(weight=weight, baseline=options.baseline))
        for weight in options.weights
    ]
    for signal in found:
        print(*tell_signal(signal), sep="\n")
    if options.out:
        write_json(options.out, found)


if __name__ == "__main__":
    main()
