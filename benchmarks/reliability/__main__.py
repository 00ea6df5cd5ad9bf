"""Runs cells and writes their table.

    python -m benchmarks.reliability [--stages generate,judge] [--faults SIGKILL] [--rest]

Needs root for the small disks, the train extra for sft, rl and watch, and R2W_REWARD_DATA for rm.
Cells that are not asked for keep their last result in `results/reliability.json`; a sweep that was
broken off goes on with --rest, which leaves out what was measured at this commit.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.reliability.cells import Bench, Cell
from benchmarks.reliability.faults import FAULTS
from benchmarks.reliability.page import RESULTS, write_page
from benchmarks.reliability.process import ROOT, Server, commit, start
from benchmarks.reliability.serve import serve_cell
from benchmarks.reliability.stages import BY_NAME, Stage
from r2w_eval.hashing import file_hash
from r2w_eval.paths import cache_dir
from r2w_eval.store import write_json
from r2w_eval.text.tokenise import load_punkt

# a silent endpoint is given up in a time that a table can wait for; the shipped patience is 600 s
SYNTH = {"rounds": 2, "concurrency": 2, "patience_s": 20}
# lines of each labelled set: the fit takes seconds, and passes through all of its steps
RM_SETS = {"tetra_train": 2, "lamp_train": 8, "wpb_zh_dev": 8}


def make_inputs(bench: Bench, stages: list[Stage]) -> None:
    """What stages read: two judged runs, answers without verdicts, and for trainings a toy."""
    inputs = bench.root / "inputs"
    inputs.mkdir(parents=True)
    url = bench.servers["fake"].base_url
    common = ["--tasks=quickstart", "--no-cache", "--quiet"]
    judge = f"--judge={url}#judge-0"
    for name, words in {
        "a": [f"--model={url}#gen-0", judge],
        "b": [f"--model={url}#gen-0+seed=2", judge],
        "answers": [f"--model={url}#gen-30", "--judge=none"],
    }.items():
        running = start([*words, *common, f"--out={name}"], inputs)
        if running.wait():
            raise RuntimeError(running.text)
    (inputs / "recipe.yaml").write_text(json.dumps({"synth": SYNTH}))
    if any(stage.is_slow for stage in stages):
        make_training_inputs(inputs)


def make_training_inputs(inputs: Path) -> None:
    """A model of eleven words, traces for it, a recipe, checkpoints to watch, two labelled sets."""
    import sys

    sys.path.insert(0, str(ROOT / "tests" / "training"))
    from toy_policy import save_policy

    toy = save_policy(inputs / "toy")
    traces = [{"prompt": "sun", "thinking": "rain " * n, "answer": "rain sun"} for n in range(1, 9)]
    (inputs / "traces.jsonl").write_text("".join(json.dumps(t) + "\n" for t in traces))
    recipe = {
        "synth": SYNTH,
        "sft": {"model": "../inputs/toy", "batch_size": 1, "accumulate": 1, "epochs": 2,
                "save_steps": 2, "learning_rate": 1e-2},
        "rl": {"model": "../inputs/toy", "outcome": "toy_scorer:Rain",
               "process": "toy_scorer:Rain", "validity": "waived", "steps": 12,
               "group": 2, "groups_per_step": 1, "max_completion_tokens": 12, "save_steps": 2},
    }  # fmt: skip
    (inputs / "recipe.yaml").write_text(json.dumps(recipe))
    for step in (1, 2):
        folder = inputs / "checkpoints" / f"checkpoint-{step}"
        shutil.copytree(toy, folder)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    if root := os.environ.get("R2W_REWARD_DATA"):
        for name, n_lines in RM_SETS.items():
            _copy_head(Path(root) / name, inputs / "reward_data" / name, n_lines)


def _copy_head(source: Path, target: Path, n_lines: int) -> None:
    """The first lines of each file of a labelled set, described as a set of their own."""
    target.mkdir(parents=True)
    described = json.loads((source / "SOURCE.json").read_bytes())
    for entry in described["output_files"]:
        lines = (source / entry["file"]).read_bytes().splitlines(keepends=True)[:n_lines]
        (target / entry["file"]).write_bytes(b"".join(lines))
        entry["sha256"] = file_hash(target / entry["file"])
    (target / "SOURCE.json").write_text(json.dumps(described))


def warm_up(stages: list[Stage]) -> None:
    """Import what the commands import, so that forked ones start at once."""
    import pyarrow.parquet  # noqa: F401
    import r2w_eval.leaderboards.site
    import r2w_eval.reward_models.scorer

    import r2w_eval.cli
    import r2w_eval.comparison.display
    import r2w_eval.run  # noqa: F401

    if any(stage.is_slow for stage in stages):
        from trl import GRPOTrainer, SFTTrainer  # noqa: F401 - trl itself imports nothing


def run_cell(bench: Bench, name: str, fault: str) -> Cell:
    """Run one cell; an error of the bench itself is red too."""
    cell = Cell(name, fault)
    try:
        if name == "serve":
            return serve_cell(bench, fault)
        stage = BY_NAME[name]
        bench.baseline(stage)
        FAULTS[fault](bench, stage, cell)
    except Exception:  # noqa: BLE001 - a cell must not end the table
        cell.reds.append("the bench failed: " + traceback.format_exc(limit=-1)[-300:])
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", default=",".join([*BY_NAME, "serve"]))
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--rest", action="store_true", help="without what this commit has")
    parser.add_argument("--page-only", action="store_true", help="write the page from the results")
    options = parser.parse_args()
    if options.page_only:
        return write_page()
    os.environ.update(OMP_NUM_THREADS="1", R2W_THREADS="1", COLUMNS="200")
    logging.disable(logging.INFO)
    chosen = options.stages.split(",")
    stages = [BY_NAME[name] for name in chosen if name != "serve"]
    tested = commit()
    known = {(c["stage"], c["fault"]): c for c in json.loads(RESULTS.read_bytes())} if (
        RESULTS.exists()) else {}  # fmt: skip
    warm_up(stages)
    load_punkt()  # each cell has its own cache, and must not fetch the model again
    os.environ.setdefault("R2W_PUNKT_TAB", str(cache_dir() / "nltk" / "punkt_tab.zip"))
    root = options.work or Path(tempfile.mkdtemp())
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    bench = Bench(root, {"fake": Server(), "loop": Server("loop")})
    done = {place for place, cell in known.items() if cell["commit"] == tested and options.rest}
    faults = options.faults.split(",")
    wanted = [(name, fault) for name in chosen for fault in faults if (name, fault) not in done]
    try:
        make_inputs(bench, stages)
        for name, fault in wanted:
            began = time.monotonic()
            cell = run_cell(bench, name, fault)
            known[name, fault] = asdict(replace(cell, commit=tested))
            state = "RED " + "; ".join(cell.reds) if cell.reds else cell.note or "ok"
            spent = time.monotonic() - began
            print(f"{name:12} {fault:22} {spent:5.1f} s  {state}", flush=True)
            write_json(RESULTS, list(known.values()))
            write_page()
    finally:
        for server in bench.servers.values():
            server.stop()


if __name__ == "__main__":
    main()
