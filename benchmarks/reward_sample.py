"""A transformer's weights on a sample of held-out pairs, where scoring everything takes too long.

    python benchmarks/reward_sample.py --weights DIR --reward-data DIR --out sample.json

`DIR` holds `adapter.safetensors` and `train.json`. Beside it stand the n-gram model, both together
as in `r2w-ensemble`, and the longer text on the same pairs, and LAMP's validation pairs whole.
`--fresh` draws from what the usual sample leaves of the test part. Some minutes on two cores; with
`--at-most N` N pairs of each source, which shows that it works and is no measurement.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.data.lamp import PROMPT
from r2w_eval.reward_models.data.recipe import build_corpus, reflection_rows
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.data.sources import find_sets
from r2w_eval.reward_models.ensemble import SHARE
from r2w_eval.reward_models.items import Item, WritingItem
from r2w_eval.reward_models.scorer import load_reward
from r2w_eval.reward_models.transformer.artifact import load_merged
from r2w_eval.reward_models.transformer.scorer import ArtifactScorer
from reward_model import interval, length_of, pair_table, review_tables

from r2w_eval.store import write_json

# pairs of a source; of the reviews, whose claims stand alone, remarks
PAIRS = {"lamp_train": 25, "generated_flaws": 25, "tetra_train": 40, "fgrlhf_longform_qa": 20}
REMARKS = {"f1000rd_train": 120, "substanreview_train": 80}


def sample(rows: Sequence[Row], most: int, seen: Sequence[Row] = ()) -> list[Row]:
    """A fixed sample of test rows: at most `most` pairs or remarks of a source, none in `seen`."""
    known = {(row.source, row.pair_id) for row in seen}
    test = [r for r in rows if r.part == "test" and (r.source, r.pair_id) not in known]
    rng = random.Random(0)
    chosen: list[Row] = []
    for source, n in (PAIRS | REMARKS).items():
        own, n = [row for row in test if row.source == source], min(n, most)
        if source in REMARKS:
            chosen += rng.sample(own, min(n, len(own)))
            continue
        pairs = sorted({row.pair_id for row in own if not row.pair_id.endswith(":open")})
        keep = set(rng.sample(pairs, min(n, len(pairs))))
        chosen += [row for row in own if row.pair_id in keep]
    return chosen


def scorer_of(weights: Path) -> ArtifactScorer:
    """The scorer of an adapter merged into its base, in float32."""
    return ArtifactScorer(weights, *load_merged(weights))


def tables(rows: Sequence[Row], values: Mapping[str, float]) -> dict[str, Any]:
    """Pairs and areas of one reading."""
    pairs = pair_table(rows, lambda i: values[rows[i].id])
    return {**pairs, **review_tables(rows, lambda row: values[row.id])}


def values_of(scorer: Any, items: Sequence[Item]) -> list[float]:
    """Values of all items; exits if an item has none, since that is not a zero."""
    scores = scorer.score(items)
    if bad := [score for score in scores if score.value is None]:
        raise SystemExit(f"{len(bad)} items have no value, the first: {bad[0].reason}")
    return [score.value for score in scores]


def lamp_pairs(scorer: Any, root: Path, most: int) -> dict[str, Any]:
    """LAMP's validation pairs, the first `most`."""
    records = [r for r in find_sets(root)["lamp_train"].read("pairs_and_scores_val.jsonl")
               if r["sample_type"] == "pairwise"][:most]  # fmt: skip
    prompt = PROMPT.format(kind="fiction")
    items = [WritingItem("", prompt, r[f"paragraph{k}"]) for r in records for k in (1, 2)]
    values = values_of(scorer, items)
    right = zip(records, values[::2], values[1::2], strict=True)
    return interval([(str(i), float((a > b) == (r["reference_preference"] == "1")))
                     for i, (r, a, b) in enumerate(right)])  # fmt: skip


def shown(row: Mapping[str, Any]) -> str:
    """Value and interval, or n/a."""
    if row["value"] is None or row["low"] is None:
        return "n/a" if row["value"] is None else f"{row['value']:.3f}"
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def main() -> None:
    """The tables as lines and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--reward-data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--at-most", type=int, default=1000, metavar="N")
    parser.add_argument("--fresh", action="store_true", help="a second, disjoint sample")
    options = parser.parse_args()
    corpus = reflection_rows(build_corpus(options.reward_data).rows)
    rows = sample(corpus, options.at_most)
    if options.fresh:
        rows = sample(corpus, options.at_most, seen=rows)
    found: dict[str, Any] = {"longer": tables(rows, {row.id: length_of(row) for row in rows})}
    known = {"n-grams": load_reward(), "transformer": scorer_of(options.weights)}
    values = {name: values_of(one, [row.item for row in rows]) for name, one in known.items()}
    pairs = zip(values["n-grams"], values["transformer"], strict=True)
    values["ensemble"] = [(1 - SHARE) * first + SHARE * second for first, second in pairs]
    for name, own in values.items():
        found[name] = tables(rows, {row.id: v for row, v in zip(rows, own, strict=True)})
    for name, one in known.items():
        whole = lamp_pairs(one, options.reward_data, options.at_most)
        found[name]["LAMP validation pairs"] = whole
    write_json(options.out, found)
    for task, row in found["transformer"].items():
        beside = [f"{name} {shown(own[task])}" for name, own in found.items() if task in own]
        print(task, row["n"], *beside, sep=" | ")


if __name__ == "__main__":
    main()
