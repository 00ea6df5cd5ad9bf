"""The outcome reading and its parts on people's judgements, beside "longer" and "shorter".

    python benchmarks/reward_outcome.py --labels DIR --out benchmarks/results/reward_outcome.json

auto-j, StoryER, NextChapter and LLMBar were never trained on: they show what to expect on sources
never seen. Of WPB-zh only the prompts that no weight was fitted to are read. Intervals: bootstrap
over requests.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from r2w_eval.reward_models.data.lamp import PROMPT
from r2w_eval.reward_models.data.rows import part_of
from r2w_eval.reward_models.items import WritingItem
from r2w_eval.reward_models.linear.outcome import FORM, SIZE, Outcome
from r2w_eval.reward_models.scorer import load_reward
from reward_model import interval

from r2w_eval.judge_check.labelled import SETS, LabelledItem, load_set
from r2w_eval.stats.agreement import Method, associate
from r2w_eval.store import iter_jsonl, write_json

Parts = Mapping[str, np.ndarray]
READINGS: Mapping[str, Callable[[Parts], np.ndarray]] = {
    "r2w-reward": lambda p: p["words"] + FORM * p["form"] + SIZE * p["size"],
    "without form": lambda p: p["words"] + SIZE * p["size"],
    "without length": lambda p: p["words"] + FORM * p["form"],
    "without words": lambda p: FORM * p["form"] + SIZE * p["size"],
    "words alone": lambda p: p["words"],
    "longer": lambda p: p["chars"],
    "shorter": lambda p: -p["chars"],
}


def parts_of(model: Outcome, items: Sequence[WritingItem]) -> Parts:
    """The terms of the outcome, and characters, of each item."""
    return {**model.parts(items), "chars": np.array([float(len(i.response)) for i in items])}


def pairs_right(
    items: Sequence[LabelledItem], values: Mapping[tuple[str, str], float]
) -> list[tuple[str, float]]:
    """(request, 1 where the preferred text has the higher value, .5 for equal values)."""
    found = []
    for item in items:
        for pair in item.pairs:
            if pair.human:
                gap = values[item.id, pair.first] - values[item.id, pair.second]
                share = 0.5 if gap == 0 else float((gap > 0) == (pair.human > 0))
                found.append((item.cluster, share))
    return found


def pair_figures(model: Outcome, items: Sequence[LabelledItem]) -> dict[str, Any]:
    """Figures of every reading on the pairs of one set."""
    keys = [(item.id, text.id) for item in items for text in item.texts]
    texts = [WritingItem("", item.prompt, text.text) for item in items for text in item.texts]
    parts = parts_of(model, texts)
    found = {}
    for name, read in READINGS.items():
        values = dict(zip(keys, read(parts).tolist(), strict=True))
        found[name] = interval(pairs_right(items, values))
    return found


def lamp_texts(root: Path) -> tuple[list[str], list[float]]:
    """Paragraphs of LAMP's validation split, and the writers' scores."""
    records = [r for r in iter_jsonl(root / SETS["lamp_val_pairs"].file)
               if r["sample_type"] == "reward"]  # fmt: skip
    return [r["paragraph"] for r in records], [float(r["zscore"]) for r in records]


def lamp_scores(model: Outcome, root: Path) -> dict[str, Any]:
    """Rank correlation with the writers' scores of LAMP's validation split."""
    texts, human = lamp_texts(root)
    parts = parts_of(model, [WritingItem("", PROMPT.format(kind="fiction"), t) for t in texts])
    found = {}
    for name, read in READINGS.items():
        rho = associate(read(parts).tolist(), human, Method.SPEARMAN)
        found[name] = {"value": rho.value, "low": rho.low, "high": rho.high, "n": len(human)}
    return found


def kept(name: str, items: Sequence[LabelledItem]) -> Sequence[LabelledItem]:
    """The items that were not trained on."""
    if name != "wpb_zh_dev":
        return items
    return [item for item in items if part_of(f"wpb:{item.id}") == "test"]


def main() -> None:
    """All sets, as JSON and as lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", required=True, type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reward_outcome.json"))
    options = parser.parse_args()
    reward = load_reward()
    found = {"lamp_val_scores (Spearman)": lamp_scores(reward.outcome, options.labels)}
    for name, spec in SETS.items():
        items = load_set(spec, options.labels).items
        found[name] = pair_figures(reward.outcome, kept(name, items))
    for name, row in found.items():
        cells = (f"{k} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for k, v in row.items())
        print(name, row["longer"]["n"], *cells, sep=" | ", flush=True)
    write_json(options.out, {"model": reward.id, **found})


if __name__ == "__main__":
    main()
