"""Chooses the weights of form and length in the outcome by a rule that reads training groups only.

    python benchmarks/reward_weights.py --reward-data DIR

The rule: words are predicted out of fold (five folds by group, no test group anywhere), form by a
head that was fitted on the other sets alone, so that what is chosen carries over to new ones. A
grid of both weights is compared by the share of pairs of one prompt that are ordered as people did.
Sets count the same within their kind, and the two kinds half each: edits of one text (LAMP,
FG-RLHF, planted flaws) and whole texts by different writers (WPB-zh, ArgRewrite drafts), because
in an edit the length is a by-product of the edit. Of all settings within one standard error of the
best, groups being the units, the one with the smallest weight of length is taken, then the smallest
of form.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from r2w_eval.reward_models.data.recipe import build_corpus, writing_rows
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import WritingItem
from r2w_eval.reward_models.linear.fit import fit_both
from r2w_eval.reward_models.linear.outcome import Form, Outcome, fit_form
from r2w_eval.reward_models.linear.prose import PLACES, Prose, differences

from r2w_eval.store import write_json

FOLDS = 5
FORMS = (0.0, 0.03, 0.06, 0.1, 0.15, 0.3)
SIZES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.2)
NO_WORDS = Prose(np.zeros(PLACES), np.zeros(PLACES), 0.0)
NO_FORM = Form(("self",), np.zeros(1), np.ones(1), np.zeros(1))
KINDS: Mapping[str, Sequence[str]] = {
    "edits": ("lamp_train", "fgrlhf_longform_qa", "generated_flaws"),
    "whole texts": ("wpb_zh_dev", "argrewrite_train"),
}


def unseen(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """The three terms of every text: words never saw its group, form never saw its set."""
    folds = [fold_of(row.split_group) for row in rows]
    sources = [row.source for row in rows]
    words = _held_out(rows, folds, lambda own: Outcome(fit_both(own), NO_FORM))
    form = _held_out(rows, sources, lambda own: Outcome(NO_WORDS, fit_form(own)))
    return {"words": words["words"], "form": form["form"], "size": form["size"]}


def fold_of(split_group: str) -> int:
    """The fold in which a group's words are predicted."""
    return hashlib.sha256(f"fold:{split_group}".encode()).digest()[0] % FOLDS


def _held_out(
    rows: Sequence[Row], parts: Sequence[object], fit: Callable[[list[Row]], Outcome]
) -> dict[str, np.ndarray]:
    """The terms of each part's texts, by a model fitted on all other parts."""
    found = {name: np.zeros(len(rows)) for name in ("words", "form", "size")}
    for part in sorted(set(parts), key=str):
        model = fit([row for row, own in zip(rows, parts, strict=True) if own != part])
        here = np.array([i for i, own in enumerate(parts) if own == part])
        items = [rows[i].item for i in here]
        read = model.parts([item for item in items if isinstance(item, WritingItem)])
        for name, column in read.items():
            found[name][here] = column
        print("without", part, flush=True)
    return found


def shares(rows: Sequence[Row], values: np.ndarray) -> dict[str, tuple[float, float]]:
    """Mean share of right pairs over groups, and the variance of that mean, by set."""
    labels = np.array([row.labels["outcome"] for row in rows])
    first, second = differences(rows, labels)
    right = np.sign(values[first] - values[second]) * np.sign(labels[first] - labels[second])
    groups: defaultdict[str, defaultdict[str, list[float]]]
    groups = defaultdict(lambda: defaultdict(list))
    for i, sign in zip(first, right, strict=True):
        groups[rows[i].source][rows[i].split_group].append((1 + sign) / 2)
    found = {}
    for source, own in groups.items():
        means = [float(np.mean(values)) for values in own.values()]
        found[source] = (float(np.mean(means)), float(np.var(means)) / len(means))
    return found


def criterion(rows: Sequence[Row], values: np.ndarray) -> dict[str, Any]:
    """The mean over kinds of the means over sets, and its standard error."""
    by_set = shares(rows, values)
    mean, variance = 0.0, 0.0
    for sets in KINDS.values():
        weight = 1 / len(KINDS) / len(sets)
        mean += sum(by_set[s][0] * weight for s in sets)
        variance += sum(by_set[s][1] * weight**2 for s in sets)
    return {
        "value": mean,
        "error": math.sqrt(variance),
        "sets": {k: v[0] for k, v in by_set.items()},
    }


def choose(table: Mapping[tuple[float, float], Mapping[str, Any]]) -> tuple[float, float]:
    """The rule's choice among (length, form)."""
    best = max(table.values(), key=lambda row: row["value"])
    floor = best["value"] - best["error"]
    return min(key for key, row in table.items() if row["value"] >= floor)


def main() -> None:
    """The grid, the choice, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reward-data", required=True, type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reward_weights.json"))
    options = parser.parse_args()
    rows = [r for r in writing_rows(build_corpus(options.reward_data).rows) if r.part != "test"]
    parts = unseen(rows)
    table = {
        (size, form): criterion(rows, parts["words"] + form * parts["form"] + size * parts["size"])
        for size, form in product(SIZES, FORMS)
    }
    size, form = choose(table)
    grid = [{"size": s, "form": f, **row} for (s, f), row in table.items()]
    for row in grid:
        sets = {name: round(value, 3) for name, value in row["sets"].items()}
        print(row["size"], row["form"], f"{row['value']:.4f} +- {row['error']:.4f}", sets)
    print("chosen: size", size, "form", form)
    found = {"size": size, "form": form, "rows": len(rows), "grid": grid}
    write_json(options.out, found)


if __name__ == "__main__":
    main()
