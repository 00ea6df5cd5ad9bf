"""Trains variants of the transformer reward side by side on one device, scores every set there.

    python benchmarks/reward_transformer.py prepare --reward-data DIR --data work
    python benchmarks/reward_transformer.py run --data work --out out --seconds 240
    python benchmarks/reward_transformer.py figures --reward-data DIR --scores out --out results

`prepare` writes all rows and labelled texts as two small files, so that the machine with the device
needs no data folder. `run` trains each variant in a process of its own (small models wait for the
host, not for the device) and ends before the given seconds; adapters and raw scores come back.
`figures` makes the tables beside the n-gram model and trivial baselines (`reward_figures.py`).
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROWS, TEXTS = "rows.jsonl.xz", "texts.jsonl.xz"
ADAPTER, SCORES, NOTES = "adapter.safetensors", "scores.npz", "notes.tar.gz"
# seconds kept for scoring and writing after training, and for the validity suite
SCORING_S, VALIDITY_S = 45.0, 25.0
FICTION = ("lamp_train", "generated_flaws")
OTHERS = ("tetra_train", "f1000rd_train", "fgrlhf_longform_qa", "substanreview_train",
          "argrewrite_train", "wpb_zh_dev")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """Layers and rank, and the sets that are left out of training."""

    layers: int
    rank: int
    without: tuple[str, ...] = ()
    shipped: bool = False
    """Its adapter comes back, and validity is tested."""


VARIANTS: Mapping[str, Variant] = {
    "full": Variant(30, 16, shipped=True),
    "half": Variant(16, 32, shipped=True),
    "half-without-fiction": Variant(16, 32, FICTION),
    "half-without-others": Variant(16, 32, OTHERS),
    "toy": Variant(2, 4, shipped=True),
}
DEFAULT = tuple(name for name in VARIANTS if name != "toy")


def read_xz(path: Path) -> Iterator[Any]:
    """Records of a compressed file of JSON lines."""
    with lzma.open(path, "rb") as file:
        for line in file:
            yield json.loads(line)


def write_xz(path: Path, lines: Iterator[bytes]) -> None:
    """JSON lines, compressed."""
    with lzma.open(path, "wb", preset=6) as file:
        for line in lines:
            file.write(line)


def prepare(root: Path, data: Path, every: int) -> None:
    """All rows of permissive sets, and the texts of every labelled set for checking.

    `every` n keeps one of n, to try the steps out.
    """
    from r2w_eval.reward_models.data.recipe import build_corpus

    from r2w_eval.hashing import dump_line

    data.mkdir(parents=True, exist_ok=True)
    corpus = build_corpus(root)
    write_xz(data / ROWS, (dump_line(row) for row in corpus.rows[::every]))
    write_xz(data / TEXTS, map(dump_line, islice(labelled_texts(root), 0, None, every)))
    for name in (ROWS, TEXTS):
        print(data / name, (data / name).stat().st_size, "bytes", flush=True)


def labelled_texts(root: Path) -> Iterator[dict[str, str]]:
    """Prompt and answer of all labelled sets; of WPB-zh the prompts that nothing was fitted to."""
    from r2w_eval.reward_models.data.lamp import PROMPT
    from r2w_eval.reward_models.data.rows import part_of

    from r2w_eval.judge_check.labelled import SETS, load_set
    from r2w_eval.store import iter_jsonl

    for name, spec in SETS.items():
        for item in load_set(spec, root).items:
            if name != "wpb_zh_dev" or part_of(f"wpb:{item.id}") == "test":
                for text in item.texts:
                    yield {"set": name, "item": item.id, "text": text.id,
                           "prompt": item.prompt, "response": text.text}  # fmt: skip
    for n, record in enumerate(iter_jsonl(root / SETS["lamp_val_pairs"].file)):
        if record["sample_type"] == "reward":
            yield {"set": "lamp_val_scores", "item": str(n), "text": "",
                   "prompt": PROMPT.format(kind="fiction"),
                   "response": record["paragraph"]}  # fmt: skip


def config_of(variant: Variant, seconds: float) -> Any:
    """The recipe, cut to the variant's shape."""
    from r2w_eval.reward_models.transformer.recipe import load_recipe

    config = load_recipe("smollm2-135m")
    shape = replace(config.backbone, layers=variant.layers, adapted=variant.layers,
                    rank=variant.rank, alpha=2.0 * variant.rank)  # fmt: skip
    return replace(config, backbone=shape, max_seconds=seconds)


def train_variant(name: str, data: Path, out: Path, deadline: float) -> None:
    """Train, score and write one variant before the deadline (seconds of the clock)."""
    from r2w_eval.reward_models.data.rows import read_row
    from r2w_eval.reward_models.transformer.train import train

    from r2w_eval.store import write_json

    variant = VARIANTS[name]
    rows = [read_row(record) for record in read_xz(data / ROWS)]
    kept = [row for row in rows if row.part == "train" and row.source not in variant.without]
    print(name, len(kept), "rows", f"{deadline - time.time():.0f} s left", flush=True)
    reserve = SCORING_S + (VALIDITY_S if variant.shipped else 0.0)
    seconds = max(5.0, deadline - time.time() - reserve)
    learner = train(kept, config_of(variant, seconds), out)
    print(name, "trained", f"{deadline - time.time():.0f} s left", memory(), flush=True)
    release()
    scorer = learner.scorer()
    np.savez_compressed(out / SCORES, **scores_of(scorer, rows, list(read_xz(data / TEXTS))))
    print(name, "scored", f"{deadline - time.time():.0f} s left", flush=True)
    if variant.shipped:
        from r2w_eval.reward_models.checks.validity import run_validity

        write_json(out / "validity.json", {"scorer": name, "checks": run_validity(scorer)})
    print(name, "done", f"{deadline - time.time():.0f} s left", flush=True)


def release() -> None:
    """Give memory of training back to others on the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory() -> str:
    """The most device memory that was taken."""
    import torch

    if not torch.cuda.is_available():
        return "on the CPU"
    return f"{torch.cuda.max_memory_reserved() / 1e9:.1f} GB"


def scores_of(scorer: Any, rows: Sequence[Any], texts: Sequence[Any]) -> dict[str, Any]:
    """Value and axes of held-out rows (NaN: not scored), and outcomes of all labelled texts."""
    from r2w_eval.reward_models.axes import HEAD_AXES
    from r2w_eval.reward_models.items import WritingItem

    held = [i for i, row in enumerate(rows) if row.part != "train"]
    table = np.full((len(rows), 1 + len(HEAD_AXES)), np.nan, np.float32)
    for i, score in zip(held, scorer.score([rows[i].item for i in held]), strict=True):
        if score.value is not None:
            axes = [score.parts.get(axis, np.nan) for axis in HEAD_AXES]
            table[i] = [score.value, *axes]
    items = [WritingItem(str(n), text["prompt"], text["response"]) for n, text in enumerate(texts)]
    outcomes = [np.nan if s.value is None else s.value for s in scorer.score(items)]
    return {"rows": table, "texts": np.array(outcomes, np.float32)}


def run(data: Path, out: Path, seconds: float, names: Sequence[str]) -> None:
    """All variants at once; what is there when a process ends is taken over at once."""
    started = time.time()
    if os.environ.get("R2W_SMOLLM2_GGUF"):
        from r2w_eval.models.embedded import convert_to_hf

        print("base", convert_to_hf(), f"{time.time() - started:.0f} s", flush=True)
    work = Path(os.environ.get("TMPDIR", "/tmp")) / "reward-transformer"
    shutil.rmtree(work, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    deadline = started + seconds - 5.0
    running = {}
    for name in names:
        (work / name).mkdir(parents=True)
        command = [sys.executable, __file__, "variant", "--name", name, "--data", str(data),
                   "--out", str(work / name), "--deadline", str(deadline)]  # fmt: skip
        log = (work / name / "process.log").open("wb")
        running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    while running and time.time() < deadline + 2.0:
        for name in [n for n, process in running.items() if process.poll() is not None]:
            print(name, "ended with", running.pop(name).returncode, flush=True)
            collect(work, out)
        time.sleep(0.5)
    for process in running.values():
        process.kill()
    collect(work, out)
    for log_file in sorted(work.glob("*/process.log")):
        print(log_file.parent.name, log_file.read_text(errors="replace")[-600:], flush=True)


def collect(work: Path, out: Path) -> None:
    """Adapters of shipped variants as files, everything else in one archive."""
    for name, variant in VARIANTS.items():
        if variant.shipped and (work / name / ADAPTER).is_file():
            shutil.copyfile(work / name / ADAPTER, out / f"{name}.safetensors")
    with tarfile.open(out / NOTES, "w:gz") as archive:
        for path in sorted(work.glob("*/*")):
            if path.name != ADAPTER:
                archive.add(path, path.relative_to(work))


def main() -> None:
    """One of four steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=["prepare", "run", "variant", "figures"])
    parser.add_argument("--reward-data", type=Path)
    parser.add_argument("--data", type=Path, default=Path("reward-transformer"))
    parser.add_argument("--out", type=Path, default=Path("reward-transformer/out"))
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--deadline", type=float)
    parser.add_argument("--name", choices=[*VARIANTS])
    parser.add_argument("--variants", default=",".join(DEFAULT))
    parser.add_argument("--every", type=int, default=1, help="With prepare: one row of so many.")
    options = parser.parse_args()
    if options.step == "prepare":
        prepare(options.reward_data, options.data, options.every)
    elif options.step == "run":
        run(options.data, options.out, options.seconds, options.variants.split(","))
    elif options.step == "variant":
        train_variant(options.name, options.data, options.out, options.deadline)
    else:
        from reward_figures import write_figures

        write_figures(options.reward_data, options.scores, options.out, options.data)


if __name__ == "__main__":
    main()
