"""The exported reward model on one machine's processor: ours, the transformers pipeline and vLLM.

    python benchmarks/reward_speed.py --scorer DIR --reward-data DIR --vllm-python P --out F

Held-out reflections, up to sixteen on a draft, and single pieces of writing, the same for all, in
one run. Tokens are those of the whole texts for everyone, whatever an engine need not compute
twice; so tokens a second compare as items do. Values are compared too: a fast wrong answer is none.
`DIR` comes from `r2w-eval train rm --export DIR`; without `--vllm-python` (an interpreter that has
vLLM) its rows are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from r2w_eval.reward_models.data.recipe import build_corpus
from r2w_eval.reward_models.items import Item, ReflectionItem
from r2w_eval.reward_models.transformer.scorer import ArtifactScorer
from transformers import pipeline

from r2w_eval.store import write_json

BATCH = 16
MOST_TOKENS = 2000
READER = Path(__file__).with_name("vllm_read.py")


def work(scorer: ArtifactScorer, root: Path, drafts: int, texts: int) -> dict[str, list[Item]]:
    """Reflections on `drafts` held-out drafts of LAMP, and `texts` held-out pieces of writing."""
    rng, by_draft, pieces = random.Random(0), defaultdict(list), []
    for row in build_corpus(root).rows:
        if row.part != "test" or row.source != "lamp_train":
            continue
        if len(scorer.encode(scorer.text_of(row.item))) > MOST_TOKENS:
            continue
        if isinstance(row.item, ReflectionItem):
            by_draft[row.item.draft].append(row.item)
        else:
            pieces.append(row.item)
    chosen = rng.sample(sorted(by_draft), drafts)
    reflections = [item for draft in chosen for item in by_draft[draft][:16]]
    return {"reflections": reflections, "texts": rng.sample(pieces, texts)}


def with_ours(scorer: ArtifactScorer, items: Sequence[Item]) -> list[float]:
    """Values by our scorer, from items to numbers."""
    return [float("nan") if s.value is None else s.value for s in scorer.score(items)]


def with_pipeline(classify: Any, texts: Sequence[str]) -> list[float]:
    """Values by the transformers pipeline, texts of like length together."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = classify([texts[i] for i in order], batch_size=BATCH)
    values = dict(zip(order, (row["score"] for row in found), strict=True))
    return [values[i] for i in range(len(texts))]


def timed(run: Callable[[], list[float]], rounds: int) -> tuple[float, list[float]]:
    """Median seconds of `rounds` passes, and the values of the last."""
    spent, values = [], []
    for _ in range(rounds):
        started = time.monotonic()
        values = run()
        spent.append(time.monotonic() - started)
    return statistics.median(spent), values


def with_vllm(python: str, folder: Path, texts: Sequence[str], **options: Any) -> dict[str, Any]:
    """What `vllm_read.py` says in the interpreter that has vLLM; it times its second pass."""
    request = {"model": str(folder), "texts": list(texts), "max_tokens": 2 * MOST_TOKENS, **options}
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([python, READER], input=json.dumps(request), text=True, check=True,
                          capture_output=True, env=env)  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows_of(
    folder: Path, dtype: str, root: Path, args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """One row a kind of work: seconds of each engine, and its largest distance from ours."""
    scorer = ArtifactScorer.load(folder, dtype=dtype, device="cpu")
    # the pipeline gets a model of its own: ours attends in another way
    plain = type(scorer.model).from_pretrained(folder, dtype=getattr(torch, dtype))
    classify = pipeline("text-classification", model=plain, tokenizer=scorer.tokenizer,
                        function_to_apply="none", device="cpu")  # fmt: skip
    rows = {}
    for name, items in work(scorer, root, args.drafts, args.texts).items():
        texts = [scorer.text_of(item) for item in items]
        tokens = sum(len(ids) for ids in scorer.encode_all(texts))
        with_ours(scorer, items[:4]), with_pipeline(classify, texts[:4])
        seconds, values = timed(partial(with_ours, scorer, items), args.rounds)
        taken = {"ours": (seconds, values)}
        taken["pipeline"] = timed(partial(with_pipeline, classify, texts), args.rounds)
        for label, caching in (("vllm", False), ("vllm, prefix cache", True)):
            if args.vllm_python:
                own = with_vllm(args.vllm_python, folder, texts, dtype=dtype, cache=caching)
                taken[label] = own["seconds"], own["pooling"]
        engines = {
            label: {"seconds": spent, "items_s": len(items) / spent, "tokens_s": tokens / spent,
                    "largest_gap": max(abs(a - b) for a, b in zip(values, found, strict=True))}
            for label, (spent, found) in taken.items()
        }  # fmt: skip
        rows[name] = {"items": len(items), "tokens": tokens, "engines": engines}
        print(f"{dtype} {name}: {len(items)} items, {tokens} tokens")
        for label, own in engines.items():
            print(f"  {label:20} {own['items_s']:7.2f} items/s {own['tokens_s']:8.0f} tokens/s, "
                  f"largest gap {own['largest_gap']:.1e}")  # fmt: skip
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scorer", type=Path, required=True)
    parser.add_argument("--reward-data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vllm-python", default="")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--drafts", type=int, default=12)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found = {d: rows_of(args.scorer, d, args.reward_data, args) for d in args.dtypes}
    write_json(args.out, {"machine": platform.processor() or platform.machine(),
                          "threads": torch.get_num_threads(), "torch": torch.__version__,
                          "results": found})  # fmt: skip


if __name__ == "__main__":
    main()
