"""Kills a pipeline with SIGKILL at several points, resumes it, and compares with an unbroken one.

    python benchmarks/pipeline_kill.py FOLDER

A random model of three million parameters with the embedded model's tokenizer stands for the base,
so that every stage really runs and most of the time is the start of the programs. Prints which
stages started how often, whether any call or answer was made twice, and whether the weights and the
scores are those of the unbroken run. Exit code 1 when something differs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from r2w_eval.models.embedded import convert_to_hf

Reached = Callable[[Path], bool]


def has_line(name: str) -> Reached:
    """Reached when a file of the stage has a complete line."""

    def reached(folder: Path) -> bool:
        path = folder / name
        return path.is_file() and b"\n" in path.read_bytes()

    return reached


def has(name: str) -> Reached:
    """Reached when a path in the stage's folder exists."""
    return lambda folder: (folder / name).exists()


POINTS: tuple[tuple[str, str, Reached], ...] = (
    ("traces-loop", "after a call", has_line("steps.jsonl")),
    ("sft-seed0", "after a checkpoint", has("checkpoints/checkpoint-2/trainer_state.json")),
    ("evaluate-sft-seed0", "after an answer", has_line("run/responses.jsonl")),
    ("rl-lambda0-seed0", "before a step", has("manifest.json")),
    ("rl-lambda0.3-seed0", "in a checkpoint", has("checkpoints/checkpoint-1")),
    ("rl-lambda0.3-seed0", "in its model", has("model/config.json")),
    ("leaderboard", "at its start", has("attempts.log")),
)


def make_model(folder: Path) -> None:
    """Write a model of random weights, small enough to train in milliseconds."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(convert_to_hf())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
        max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_recipe(path: Path, model: Path) -> None:
    """Write the smoke recipe with that model."""
    recipe = {
        "prompts": {"n": 2, "data_dir": str(path.parent)},
        "traces": {"sources": ["loop", "planted"], "limit": 6, "writer": str(model)},
        "synth": {"rounds": 1, "tries": 3, "writer_tokens": 32, "judge_tokens": 32},
        "sft": {
            "model": str(model), "epochs": 1, "batch_size": 1, "accumulate": 1, "save_steps": 2,
            "learning_rate": 1e-3,
        },
        "rl": {
            "steps": 3, "group": 2, "groups_per_step": 1, "max_completion_tokens": 24,
            "learning_rate": 1e-4, "save_steps": 1, "process_mapping": {"warmup_share": 0.0},
        },
        "evaluate": {"judge": ["r2w-quality"], "limit": 3, "gen_kwargs": "max_tokens=24",
                     "cache": False},
    }  # fmt: skip
    path.write_text(json.dumps(recipe, indent=1))


def start(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start the pipeline as a user does."""
    words = [sys.executable, "-m", "r2w_eval", "train", "pipeline", str(recipe), "--out", str(out)]
    with (out.parent / f"{out.name}.txt").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


def kill_at(recipe: Path, out: Path, stage: str, reached: Reached) -> bool:
    """Run until a stage has reached a point, and kill the pipeline there."""
    running = start(recipe, out)
    while running.poll() is None:
        if any(reached(folder) for folder in (out / "stages").glob(f"{stage}-*")):
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
            return True
        time.sleep(0.005)
    return False


def describe(out: Path) -> dict[str, dict[str, str]]:
    """Per stage the hashes of its weights, or of its scores."""
    found: dict[str, dict[str, str]] = {}
    for node in json.loads((out / "pipeline.json").read_bytes())["nodes"]:
        record = node["record"]
        weights = {o["path"]: o["sha256"] for o in record["outputs"] if "safetensors" in o["path"]}
        scores = {
            r["task"]: str(r["value"]) for r in record["facts"].get("rows", []) if "value" in r
        }
        found[node["name"]] = weights | scores
    return found


def count_twice(out: Path) -> int:
    """Records of calls, answers and verdicts with a duplicate key."""
    repeated = 0
    for pattern in ("steps.jsonl", "run/responses.jsonl", "run/judgements.jsonl"):
        for path in (out / "stages").glob(f"*/{pattern}"):
            keys = Counter(json.loads(line)["key"] for line in path.read_text().splitlines())
            repeated += sum(n > 1 for n in keys.values())
    return repeated


def main(folder: Path) -> int:
    """Both runs and their comparison."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_model(folder / "tiny")
    recipe = folder / "recipe.yaml"
    write_recipe(recipe, folder / "tiny")
    began = time.monotonic()
    unbroken, killed = folder / "unbroken", folder / "killed"
    if start(recipe, unbroken).wait():
        print((folder / "unbroken.txt").read_text())
        return 1
    print(f"unbroken: {time.monotonic() - began:.0f} s")
    for stage, where, reached in POINTS:
        print(f"SIGKILL in {stage}, {where}: {kill_at(recipe, killed, stage, reached)}", flush=True)
    if start(recipe, killed).wait():
        print((folder / "killed.txt").read_text())
        return 1
    before, after = describe(unbroken), describe(killed)
    differing = [name for name in before if before[name] != after[name]]
    nodes = json.loads((killed / "pipeline.json").read_bytes())["nodes"]
    starts = {node["name"]: node["record"]["attempts"] for node in nodes}
    print(f"starts of each stage: {starts}")
    print(f"records made twice: {count_twice(killed)}")
    print(f"weights and scores that differ from the unbroken run: {differing or 'none'}")
    return int(bool(differing) or bool(count_twice(killed)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
