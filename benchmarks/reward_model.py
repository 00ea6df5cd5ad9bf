"""Figures of the shipped reward model beside trivial baselines, with ablations and left-out sets.

    python benchmarks/reward_model.py --reward-data DIR --work DIR --out benchmarks/results

Parts, each written to `reward_<part>.json`:

test        the shipped weights on the fifth of all groups that they never saw
ablations   the value head refitted with one kind of feature left out
left_out    the value head refitted without one labelled set, and read on that set

Intervals: bootstrap over groups (`r2w_eval.stats`).
"""

from __future__ import annotations

import argparse
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from r2w_eval.reward_models.data.recipe import Corpus, build_corpus, reflection_rows
from r2w_eval.reward_models.data.rows import POSITIVE, Row
from r2w_eval.reward_models.data.sources import reward_data_root
from r2w_eval.reward_models.items import ReflectionItem
from r2w_eval.reward_models.linear.features import Features
from r2w_eval.reward_models.linear.fit import read_features
from r2w_eval.reward_models.linear.heads import HEADS, FitConfig, fit
from r2w_eval.reward_models.scorer import load_reward
from scipy.stats import rankdata

from r2w_eval.estimates import share_of
from r2w_eval.hashing import text_hash
from r2w_eval.paths import packaged_text
from r2w_eval.stats import measure
from r2w_eval.store import write_json

REPORTED = ("relevance", "constructiveness", "value")
# everything except the reflection's own words
BLIND = ("c:", "cs:", "cw:", "k:", "kc:", "kr:", "t:", "quotes", "echo", "overlap", "restates",
         "span_", "earlier", "repeated", "same_target", "times", "unchanged", "rewritten",
         "replaced", "uptake", "touched", "missed", "lift", "added", "claims", "mention",
         "has_revision")  # fmt: skip
ABLATIONS = {
    "all": FitConfig(heads=("value",)),
    "no ranking loss": FitConfig(heads=("value",), ranking=0.0),
    "no word crosses (cw)": FitConfig(heads=("value",), dropped=("cw:",)),
    "no structure (cs, t)": FitConfig(heads=("value",), dropped=("cs:", "t:")),
    "no reflection words (r)": FitConfig(heads=("value",), dropped=("r:",)),
    "no change kinds (k)": FitConfig(heads=("value",), dropped=("k:", "kc:", "kr:")),
    "no claims or mentions": FitConfig(heads=("value",), dropped=("claims", "mention")),
    "no uptake": FitConfig(
        heads=("value",),
        dropped=("uptake", "touched", "missed", "lift", "unchanged", "rewritten", "replaced",
                 "added", "echo_change", "quotes_change"),
    ),
    "blind: reflection words only": FitConfig(heads=("value",), dropped=BLIND),
}  # fmt: skip


def interval(pairs: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Mean of shares with a clustered interval, which stays between 0 and 1."""
    metric = measure(share_of("", pairs, len(pairs)))
    return {"value": metric.value, "low": metric.low, "high": metric.high, "n": len(pairs)}


def pair_table(rows: Sequence[Row], value: Callable[[int], float]) -> dict[str, Any]:
    """Share of pairs in which the positive is above the negative, by set and kind of negative."""
    best = {(r.source, r.pair_id): i for i, r in enumerate(rows) if r.kind == POSITIVE}
    found: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for i, row in enumerate(rows):
        top = best.get((row.source, row.pair_id))
        if top is not None and top != i:
            gap = value(top) - value(i)
            share = 1.0 if gap > 0 else 0.5 if gap == 0 else 0.0
            found[f"{row.source} {row.kind}"].append((row.split_group, share))
            found[f"{row.source} all"].append((row.split_group, share))
    return {name: interval(pairs) for name, pairs in sorted(found.items())}


def auc(rows: Sequence[Row], value: Callable[[int], float], wrong: Sequence[str]) -> dict[str, Any]:
    """Area under the curve of positives against kinds, None where one of both is missing; interval
    over groups by placements.
    """
    chosen = [i for i, r in enumerate(rows) if r.kind == POSITIVE or r.kind in wrong]
    values = np.array([value(i) for i in chosen])
    good = np.array([rows[i].kind == POSITIVE for i in chosen], bool)
    ranks, own = rankdata(values), np.zeros(len(values))
    own[good] = rankdata(values[good])
    placed = [
        (rows[i].split_group, float((ranks[k] - own[k]) / (~good).sum()))
        for k, i in enumerate(chosen)
        if good[k] and not good.all()
    ]
    return interval(placed)


def length_of(row: Row) -> float:
    """Characters of the reflection."""
    return float(len(row.item.reflection)) if isinstance(row.item, ReflectionItem) else 0.0


def review_tables(rows: Sequence[Row], value: Callable[[Row], float]) -> dict[str, Any]:
    """AUC on requests and on substantiated claims."""
    found = {}
    tasks = (
        ("f1000rd_train", "request against the rest",
         ("neg_recap", "neg_structure", "neg_strength", "neg_other")),
        ("f1000rd_train", "request against weakness", ("neg_weakness",)),
        ("substanreview_train", "justified against bare", ("neg_bare",)),
    )  # fmt: skip
    for source, name, wrong in tasks:
        own = [r for r in rows if r.source == source]
        if own:
            found[name] = auc(own, lambda i, own=own: value(own[i]), wrong)
    return found


def head_tables(rows: Sequence[Row], values: Sequence[float]) -> dict[str, Any]:
    """Pairs and areas under the curve of one reading; `values` are those of the rows, in order."""
    by_id = dict(zip((row.id for row in rows), map(float, values), strict=True))
    return {
        "pairs": pair_table(rows, lambda i: float(values[i])),
        **review_tables(rows, lambda row: by_id[row.id]),
    }


def left_out(rows: Sequence[Row], features: Sequence[Any]) -> dict[str, Any]:
    """Figures of each set, by heads trained on all the others."""
    found = {}
    for source in sorted({row.source for row in rows}):
        inside = [i for i, row in enumerate(rows) if row.source == source]
        rest = [i for i, row in enumerate(rows) if row.source != source]
        values = fitted_values(rows, features, (rest, inside), FitConfig(heads=("value",)))
        found[source] = head_tables([rows[i] for i in inside], values)
    return found


def fitted_values(
    rows: Sequence[Row],
    features: Sequence[Any],
    places: tuple[Sequence[int], Sequence[int]],
    config: FitConfig,
) -> Any:
    """Values of a head fitted on the first rows of `places`, on the second."""
    train, test = places
    heads = fit([rows[i] for i in train], [features[i] for i in train], config)
    return heads.values([features[i] for i in test])[:, HEADS.index("value")]


def ablations(rows: Sequence[Row], features: Sequence[Any]) -> dict[str, Any]:
    """Figures of the value head on the test part, with one kind of feature left out at a time."""
    train = [i for i, row in enumerate(rows) if row.part != "test"]
    test = [i for i, row in enumerate(rows) if row.part == "test"]
    own = [rows[i] for i in test]
    found = {}
    for name, config in ABLATIONS.items():
        tables = head_tables(own, fitted_values(rows, features, (train, test), config))
        pairs = {k: v for k, v in tables.pop("pairs").items() if k.endswith("all")}
        found[name] = {**pairs, **tables}
        print(name, {k: round(v["value"], 3) for k, v in found[name].items()}, flush=True)
    return found


def test_part(corpus: Corpus, features: Sequence[Any]) -> dict[str, Any]:
    """The shipped weights on the test part, which they never saw, beside two baselines."""
    model = load_reward()
    kept = [(r, f) for r, f in zip(reflection_rows(corpus.rows), features, strict=True)
            if r.part == "test"]  # fmt: skip
    rows = [r for r, _ in kept]
    values = model.heads.values([f for _, f in kept])
    found = {head: head_tables(rows, values[:, HEADS.index(head)]) for head in REPORTED}
    found["longer"] = head_tables(rows, [length_of(row) for row in rows])
    found["words only"] = _bag_of_words(corpus, features, rows)
    return found


def _bag_of_words(corpus: Corpus, features: Sequence[Any], test: Sequence[Row]) -> dict[str, Any]:
    """Logistic regression on the reflection's words: the blind baseline, on the same rows."""
    every = reflection_rows(corpus.rows)
    only = [Features({}, tuple(t for t in f.sparse if t.startswith("r:"))) for f in features]
    train = [i for i, row in enumerate(every) if row.part != "test"]
    held = [i for i, row in enumerate(every) if row.part == "test"]
    values = fitted_values(every, only, (train, held), FitConfig(heads=("value",)))
    return head_tables(test, values)


def cached_features(rows: Sequence[Row], corpus: Corpus, work: Path) -> list[Any]:
    """Features, kept in the work folder under the hash of corpus and code (our own file)."""
    path = work / f"features-{corpus.hash}-{_reading()}.pkl"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(read_features(rows)))
    found: list[Any] = pickle.loads(path.read_bytes())
    return found


def _reading() -> str:
    """Hash of the files that turn an item into features."""
    words = ("claims.py", "claims.yaml", "words.py", "cues.yaml", "cue_words.yaml")
    names = ["linear/features.py", *(f"language/{name}" for name in words)]
    texts = [packaged_text(name, "r2w_eval.reward_models") for name in names]
    return text_hash("".join(texts))[:12]


def main() -> None:
    """Run the named parts and write one JSON file each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reward-data")
    parser.add_argument("--work", default="reward-work")
    parser.add_argument("--out", default="benchmarks/results")
    parser.add_argument("--parts", default="test,ablations,left_out")
    options = parser.parse_args()
    root = reward_data_root(options.reward_data)
    corpus = build_corpus(root)
    rows = reflection_rows(corpus.rows)
    parts: Mapping[str, Callable[[], dict[str, Any]]] = {
        "test": lambda: test_part(corpus, features()),
        "ablations": lambda: ablations(rows, features()),
        "left_out": lambda: left_out(rows, features()),
    }

    def features() -> list[Any]:
        return cached_features(rows, corpus, Path(options.work))

    for name in options.parts.split(","):
        result = {"data_sha256": corpus.hash, name: parts[name]()}
        path = Path(options.out) / f"reward_{name}.json"
        write_json(path, result)
        print(path, flush=True)


if __name__ == "__main__":
    main()
