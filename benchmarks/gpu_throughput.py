"""Speed of reward scoring and generation on one device, as shares of its measured ceilings.

    python benchmarks/gpu_throughput.py --out results.json --seconds 180

Scoring: `ArtifactScorer` beside the transformers pipeline on the same texts and random weights; the
share is model FLOP/s over the rate of a large matrix product. Generation: transformers, and
`training.rl.decoding`, which replays a decoding step as a CUDA graph, beside the time to read
weights and cache once a step at the measured copy rate. Weights are random (speed does not depend
on them) in the shapes of real models, all with Llama's layers. On a CPU it runs a tiny shape, to
check that it works; those figures say nothing about speed.
"""

from __future__ import annotations

import argparse
import platform
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_device import SHAPES, TINY, Run, Shape, ceilings
from r2w_eval.reward_models.items import Item, ReflectionItem, WritingItem
from r2w_eval.reward_models.transformer.backbone import load_tokenizer
from r2w_eval.reward_models.transformer.packing import by_budget
from r2w_eval.reward_models.transformer.plans import Plan, plan, tokenise, windows
from r2w_eval.reward_models.transformer.render import render
from r2w_eval.reward_models.transformer.scorer import BATCH_TOKENS, ArtifactScorer
from r2w_eval.training.rl.decoding import GraphedDecoding
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from r2w_eval.store import write_json

LENGTHS = (512, 1024, 2048)
BRANCHES = 8
Texts = Mapping[int, list[WritingItem]]


def texts_of(run: Run, length: int, total: int, seed: int) -> list[WritingItem]:
    """Pieces of random words, each about `length` tokens, together about `total`."""
    rng = random.Random(seed)
    return [
        WritingItem(str(i), "Write.", " ".join(rng.choices(run.words, k=length - 14)))
        for i in range(max(2, total // length))
    ]


def reflections_of(run: Run, length: int, drafts: int, seed: int) -> list[ReflectionItem]:
    """Drafts of `length` tokens with eight reflections of 64 and revisions of 64 tokens."""
    rng = random.Random(seed)

    def text(n: int) -> str:
        return " ".join(rng.choices(run.words, k=n))

    bases = [text(length) for _ in range(drafts)]
    return [
        ReflectionItem(f"{d}-{k}", "Write.", base, text(64), text(64))
        for d, base in enumerate(bases)
        for k in range(BRANCHES)
    ]


def scorer_of(run: Run, shape: Shape) -> ArtifactScorer:
    """A scorer with random weights of a shape."""
    tokenizer = run.vocabulary
    with torch.device(run.device):
        model = AutoModelForSequenceClassification.from_config(
            shape.config(len(tokenizer), tokenizer.pad_token_id), dtype=run.dtype
        )
    axes = torch.randn(4, shape.width, device=run.device)
    return ArtifactScorer(Path(shape.name), model.to(run.device).eval(), tokenizer, axes)


def plans_of(scorer: ArtifactScorer, items: Sequence[Item], shared: bool) -> list[list[Plan]]:
    """Batches of tokenised items; `shared=False` gives every item a pack of its own."""
    units = {i: render(item) for i, item in enumerate(items)}
    groups = [g for window in windows(units) for g in window]
    if not shared:
        groups = [[i] for g in groups for i in g]
    tokens = tokenise(units.values(), scorer.encode_all)
    ready = [plan(group, units, tokens) for group in groups]
    sizes = [len(p.pack.ids) for p in ready]
    budget = BATCH_TOKENS[scorer.model.device.type]
    return [[ready[k] for k in chosen] for chosen in by_budget(sizes, budget)]


def forward(scorer: ArtifactScorer, batches: Sequence[Sequence[Plan]]) -> torch.Tensor:
    """Scores of all batches, left on the device."""
    with torch.inference_mode():
        return torch.cat([scorer.read(batch) for batch in batches])


def count(batches: Sequence[Sequence[Plan]]) -> int:
    """Number of tokens without padding."""
    return sum(len(p.pack.ids) for batch in batches for p in batch)


def pipeline_row(
    run: Run, scorer: ArtifactScorer, items: Sequence[WritingItem]
) -> tuple[float, list[float]]:
    """Seconds and values of the transformers pipeline on rendered texts, batches of 32."""
    from transformers import pipeline

    # our own attention wants to know the drafts that a batch shares
    scorer.model.set_attn_implementation("sdpa")
    classify = pipeline("text-classification", model=scorer.model, tokenizer=scorer.tokenizer,
                        function_to_apply="none", device=run.device)  # fmt: skip
    texts = [scorer.text_of(item) for item in items]
    classify(texts[:32], batch_size=32)
    kept: list[Any] = []
    spent = run.seconds(lambda: kept.append(classify(texts, batch_size=32)), 1)
    return spent, [row["score"] for row in kept[-1]]


def score_shape(run: Run, shape: Shape, lengths: Sequence[int]) -> None:
    """One shape at all lengths: eager and pipeline, shared drafts, then with fused layers."""
    scorer = scorer_of(run, shape)
    total = shape.tokens if run.on_gpu else TINY.tokens
    sets = {n: texts_of(run, n, total, n) for n in lengths}
    run.section(f"{shape.name}: eager", 8, lambda own: eager_rows(run, shape, scorer, sets, own))
    run.section(f"{shape.name}: shared drafts", 5, lambda own: shared_rows(run, scorer, own))
    run.section(f"{shape.name}: fused", 20, lambda own: fused_rows(run, shape, scorer, sets, own))


def eager_rows(
    run: Run, shape: Shape, scorer: ArtifactScorer, sets: Texts, own: dict[str, Any]
) -> None:
    """Rates for tokenised input, from text to score, and of the transformers pipeline."""
    rate = run.found["ceilings"]["matrix_tflops"]
    for n, items in sets.items():
        batches = plans_of(scorer, items, True)
        forward(scorer, batches)
        spent = run.seconds(lambda b=batches: forward(scorer, b))
        own[str(n)] = rates(shape, n, count(batches), spent, rate)
        scores = scorer.score(items)
        ours = run.seconds(lambda i=items: scorer.score(i), 1)
        taken, values = pipeline_row(run, scorer, items)
        gaps = [abs(a - (s.value or 0.0)) for a, s in zip(values, scores, strict=True)]
        own[str(n)] |= {"items": len(items), "text_to_score_tokens_s": count(batches) / ours,
                        "pipeline_tokens_s": count(batches) / taken,
                        "largest_gap_to_pipeline": max(gaps)}  # fmt: skip


def rates(shape: Shape, length: int, tokens: int, spent: float, ceiling: float) -> dict[str, float]:
    """Tokens and model FLOP a second, and their share of the matrix rate."""
    tflops = tokens * shape.flop(length) / spent / 1e12
    return {"tokens_s": tokens / spent, "model_tflops": tflops, "share": tflops / ceiling}


def shared_rows(run: Run, scorer: ArtifactScorer, own: dict[str, Any]) -> None:
    """Eight reflections per draft: the draft computed once, or once per reflection."""
    for n in LENGTHS[:2] if run.on_gpu else (128,):
        items = reflections_of(run, n, max(2, (1 << 17) // (n + 1024)) if run.on_gpu else 2, n)
        row: dict[str, float] = {"reflections": len(items)}
        values = []
        for name, shared in (("shared", True), ("alone", False)):
            batches = plans_of(scorer, items, shared)
            values.append(forward(scorer, batches)[:, 0].float().sort().values)
            spent = run.seconds(lambda b=batches: forward(scorer, b))
            row |= {f"{name}_reflections_s": len(items) / spent, f"{name}_tokens": count(batches)}
        row["gain"] = row["shared_reflections_s"] / row["alone_reflections_s"]
        row["largest_gap"] = float((values[0] - values[1]).abs().max())
        own[str(n)] = row


def fused_rows(
    run: Run, shape: Shape, scorer: ArtifactScorer, sets: Texts, own: dict[str, Any]
) -> None:
    """Rates of the same texts with every layer compiled."""
    scorer.compiled()
    rate = run.found["ceilings"]["matrix_tflops"]
    batches = {n: plans_of(scorer, items, True) for n, items in sets.items()}
    started = time.monotonic()
    for own_batches in batches.values():
        forward(scorer, own_batches)
    run.sync()
    own["compile_s"] = round(time.monotonic() - started, 1)
    for n, items in sets.items():
        spent = run.seconds(lambda b=batches[n]: forward(scorer, b))
        own[str(n)] = rates(shape, n, count(batches[n]), spent, rate)
        ours = run.seconds(lambda i=items: scorer.score(i), 2)
        own[str(n)]["text_to_score_tokens_s"] = count(batches[n]) / ours
    if run.on_gpu and run.left() > 5:
        own["kernels"] = kernels(lambda: forward(scorer, batches[LENGTHS[1]]))


def kernels(work: Callable[[], object]) -> dict[str, Any]:
    """Shares of device time in matrix products and attention, and the longest kernels."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        torch.cuda.synchronize()
    spent = [(event.key, event.self_device_time_total) for event in seen.key_averages()]
    total = sum(t for _, t in spent) or 1.0
    kinds = {"matrix": r"gemm|nvjet|cutlass|xmma|cublas", "attention": r"flash|fmha|sdpa|attn"}
    shares = {name: sum(t for k, t in spent if re.search(pattern, k, re.IGNORECASE)) / total
              for name, pattern in kinds.items()}  # fmt: skip
    longest = sorted(spent, key=lambda kt: -kt[1])[:12]
    return {**shares, "longest": [[k[:100], round(t / total, 4)] for k, t in longest]}


def generation(run: Run, shape: Shape, own: dict[str, Any]) -> None:
    """Tokens a second by batch, and the floor of reading weights and cache once a step."""
    prompt, new = (128, 128) if run.on_gpu else (16, 4)
    pad = run.vocabulary.pad_token_id
    with torch.device(run.device):
        model = AutoModelForCausalLM.from_config(
            shape.config(len(run.vocabulary), pad), dtype=run.dtype
        ).eval()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    own["weights_gb"] = weights / 1e9
    for batch in (1, 32, 128) if run.on_gpu else (1, 2):
        ids = torch.randint(100, len(run.vocabulary) - 100, (batch, prompt), device=run.device)
        cache = batch * shape.layers * 2 * shape.kv_heads * shape.head * (prompt + new / 2)
        floor_s = (weights + cache * model.dtype.itemsize) / run.found["ceilings"]["copy_gbs"] / 1e9
        row = {"floor_tokens_s": batch / floor_s}
        settings = {"do_sample": False, "min_new_tokens": new, "max_new_tokens": new,
                    "pad_token_id": pad, "attention_mask": torch.ones_like(ids)}  # fmt: skip
        with torch.inference_mode():
            model.generate(ids, **settings | {"min_new_tokens": 2, "max_new_tokens": 2})
            spent = run.seconds(lambda i=ids, s=settings: model.generate(i, **s), 1)
            row["generate_tokens_s"] = batch * new / spent
            own[f"batch {batch}"] = row
            plain = model.generate(ids, **settings)
            graphed = partial(model.generate, custom_generate=GraphedDecoding())
            # random weights choose between near ties, so a few texts part where sums are rounded
            same = (graphed(ids, **settings)[:, prompt:] == plain[:, prompt:]).float().mean()
            spent = run.seconds(lambda i=ids, s=settings, g=graphed: g(i, **s), 3)
        row["graphed_tokens_s"] = batch * new / spent
        row["graphed_share_of_floor"] = floor_s * new / spent
        row["tokens_equal"] = float(same)


def words_of(tokenizer: Any) -> list[str]:
    """Lower-case words that are one token each, so that lengths can be planned."""
    pieces = (tokenizer.decode([i]) for i in range(300, min(20_000, len(tokenizer))))
    return [p.strip() for p in pieces if re.fullmatch(r" [a-z]{3,}", p)]


def table(found: dict[str, Any]) -> None:
    """Print all figures in short."""
    top = found["ceilings"]
    print(f"\nmatrix product {top['matrix_tflops']:.0f} TFLOP/s, copy {top['copy_gbs']:.0f} GB/s")
    for name, own in found.items():
        for key, row in own.items() if isinstance(own, dict) else ():
            if isinstance(row, dict) and key != "kernels":
                cells = ", ".join(f"{k} {v:,.4g}" for k, v in row.items())
                print(f"{name} | {key} | {cells}")


def main() -> None:
    """All sections, as JSON and as lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokenizer", type=Path, help="Folder; default: the embedded model's.")
    parser.add_argument("--out", type=Path, default=Path("gpu_throughput.json"))
    parser.add_argument("--seconds", type=float, default=75.0, help="No section begins later.")
    parser.add_argument("--shapes", default=",".join(s.name for s in SHAPES),
                        help="Of scoring, in order; empty: none.")  # fmt: skip
    options = parser.parse_args()
    if options.tokenizer is None:
        from r2w_eval.models.embedded import convert_to_hf

        options.tokenizer = convert_to_hf()
    tokenizer = load_tokenizer(options.tokenizer)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = Run(device, options.seconds, tokenizer, words_of(tokenizer))
    name = torch.cuda.get_device_name() if run.on_gpu else platform.processor() or "CPU"
    run.found["machine"] = {"device": name, "torch": torch.__version__, "figures mean something":
                            run.on_gpu}  # fmt: skip
    run.section("ceilings", 0, lambda own: own.update(ceilings(run)))
    chosen = [shape for name in options.shapes.split(",") for shape in SHAPES if shape.name == name]
    for shape in chosen if run.on_gpu or not chosen else (TINY,):
        score_shape(run, shape, LENGTHS if run.on_gpu else (64, 128))
    shape = SHAPES[0] if run.on_gpu else TINY
    run.section(f"generation, {shape.name}", 8, lambda own: generation(run, shape, own))
    run.found["shapes"] = [asdict(s) for s in SHAPES]
    table(run.found)
    write_json(options.out, run.found)


if __name__ == "__main__":
    main()
