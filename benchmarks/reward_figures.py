"""Figures of transformer variants from the raw scores that came back from the device.

Beside each stand the n-gram model on the same items, the mean of the two (each in standard
deviations of the calibration part, no weight was chosen), and the longer text. Variants that never
saw a group of sets are read on those sets, beside n-gram heads fitted without them. Intervals:
bootstrap over groups.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from r2w_eval.reward_models.data.recipe import build_corpus, reflection_rows
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import WritingItem
from r2w_eval.reward_models.linear.heads import HEADS, FitConfig, fit
from r2w_eval.reward_models.scorer import load_reward
from reward_model import cached_features, interval, length_of, outcome_pairs, pair_table
from reward_model import review_tables as reviews
from reward_outcome import kept, pairs_right
from reward_transformer import NOTES, SCORES, VARIANTS, labelled_texts

from r2w_eval.judge_check.labelled import SETS, load_set
from r2w_eval.stats.agreement import Method, associate
from r2w_eval.store import iter_jsonl

Values = Mapping[str, float]


@dataclass(frozen=True)
class Returned:
    """Raw scores of a variant: rows (rows, 5) and texts (texts,); what was logged."""

    rows: np.ndarray
    texts: np.ndarray
    validity: Any
    log: list[Any]


def read_notes(path: Path) -> dict[str, Returned]:
    """What each variant that came to its end left."""
    files: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            handle = archive.extractfile(member)
            if handle is not None:
                files[member.name] = handle.read()
    found = {}
    for name in VARIANTS:
        if f"{name}/{SCORES}" in files:
            arrays = np.load(io.BytesIO(files[f"{name}/{SCORES}"]))
            validity = files.get(f"{name}/validity.json", b"null")
            log = files.get(f"{name}/log.jsonl", b"").splitlines()
            found[name] = Returned(arrays["rows"], arrays["texts"], json.loads(validity),
                                   [json.loads(line) for line in log])  # fmt: skip
    return found


def both(first: Values, second: Values, over: Sequence[str]) -> dict[str, float]:
    """Mean of two readings, each in its standard deviations over the named items."""
    known = [key for key in over if key in first and key in second]
    scale = [float(np.std([own[key] for key in known])) or 1.0 for own in (first, second)]
    return {key: first[key] / scale[0] + second[key] / scale[1] for key in first if key in second}


def process_tables(rows: Sequence[Row], values: Values) -> dict[str, Any]:
    """Pairs and areas of one reading on held-out rows."""
    known = [row for row in rows if row.id in values and np.isfinite(values[row.id])]
    pairs = pair_table(known, lambda i: values[known[i].id])
    return {**pairs, **reviews(known, lambda row: values[row.id])}


def outcome_tables(root: Path, texts: Sequence[Mapping[str, str]], values: Any) -> dict[str, Any]:
    """Pairs of every labelled set, and the rank correlation with LAMP's scores."""
    by_set: dict[str, dict[tuple[str, str], float]] = {}
    for text, value in zip(texts, values, strict=True):
        by_set.setdefault(text["set"], {})[text["item"], text["text"]] = float(value)
    found = {}
    for name, spec in SETS.items():
        items = kept(name, load_set(spec, root).items)
        found[name] = interval(pairs_right(items, by_set[name]))
    human = [float(r["zscore"]) for r in iter_jsonl(root / SETS["lamp_val_pairs"].file)
             if r["sample_type"] == "reward"]  # fmt: skip
    rho = associate(list(by_set["lamp_val_scores"].values()), human, Method.SPEARMAN)
    found["lamp_val_scores"] = {"value": rho.value, "low": rho.low, "high": rho.high,
                                "n": len(human)}  # fmt: skip
    return found


def column(returned: Returned, rows: Sequence[Row]) -> dict[str, float]:
    """Values by row id."""
    pairs = zip(rows, returned.rows[:, 0].tolist(), strict=True)
    return {row.id: value for row, value in pairs if np.isfinite(value)}


def ngram_values(rows: Sequence[Row], features: Sequence[Any]) -> dict[str, float]:
    """The shipped n-gram heads on held-out reflections."""
    held = [i for i, row in enumerate(rows) if row.part != "train"]
    values = load_reward().heads.values([features[i] for i in held])[:, HEADS.index("value")]
    return {rows[i].id: float(v) for i, v in zip(held, values, strict=True)}


def ngram_without(
    rows: Sequence[Row], features: Sequence[Any], without: Sequence[str]
) -> dict[str, float]:
    """Heads fitted on the training part without the sets, on the held-out rows of those."""
    train = [i for i, r in enumerate(rows) if r.part == "train" and r.source not in without]
    held = [i for i, r in enumerate(rows) if r.part != "train" and r.source in without]
    heads = fit([rows[i] for i in train], [features[i] for i in train],
                FitConfig(heads=("value",)))  # fmt: skip
    values = heads.values([features[i] for i in held])[:, HEADS.index("value")]
    return {rows[i].id: float(v) for i, v in zip(held, values, strict=True)}


def summary(returned: Returned) -> dict[str, Any]:
    """How far training came."""
    last = returned.log[-1] if returned.log else {}
    return {"steps": last.get("step"), "tokens": last.get("tokens"), "seconds": last.get("seconds"),
            "validity": returned.validity and returned.validity["checks"]}  # fmt: skip


def write_figures(root: Path, scores: Path, out: Path, work: Path) -> None:
    """All tables as JSON, and as lines."""
    corpus = build_corpus(root)
    returned = read_notes(scores / NOTES)
    rows = reflection_rows(corpus.rows)
    features = cached_features(rows, corpus, work)
    texts = list(labelled_texts(root))
    test = [row for row in rows if row.part == "test"]
    calibrate = [row.id for row in rows if row.part == "calibrate"]
    ngram = ngram_values(rows, features)
    written = [r for r in corpus.rows if isinstance(r.item, WritingItem) and r.part == "test"]
    items = [WritingItem("", t["prompt"], t["response"]) for t in texts]
    outcome = load_reward().outcome.values(items)
    lengths = np.array([float(len(t["response"])) for t in texts])
    found: dict[str, Any] = {"data_sha256": corpus.hash, "process": {}, "outcome": {}, "runs": {}}
    found["process"]["n-grams"] = process_tables(test, ngram)
    found["process"]["longer"] = process_tables(test, {r.id: length_of(r) for r in test})
    found["outcome"]["n-grams"] = outcome_tables(root, texts, outcome)
    found["outcome"]["longer"] = outcome_tables(root, texts, lengths)
    for name, own in returned.items():
        variant, values = VARIANTS[name], column(own, corpus.rows)
        found["runs"][name] = summary(own)
        found["outcome"][name] = outcome_tables(root, texts, own.texts)
        mixed = own.texts / np.std(own.texts) + outcome / np.std(outcome)
        found["outcome"][f"{name} and n-grams"] = outcome_tables(root, texts, mixed)
        if variant.without:
            held = [r for r in rows if r.part != "train" and r.source in variant.without]
            beside = ngram_without(rows, features, variant.without)
            found["process"] |= {
                name: process_tables(held, values),
                f"{name}: n-grams": process_tables(held, beside),
                f"{name}: both": process_tables(held, both(values, beside, [r.id for r in held])),
            }
            continue
        found["process"][name] = process_tables(test, values)
        mean = both(values, ngram, calibrate)
        found["process"][f"{name} and n-grams"] = process_tables(test, mean)
        found["outcome"][name] |= outcome_pairs(written, [values[r.id] for r in written])
    show(found)
    path = out / "reward_transformer.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(path, flush=True)


def show(found: Mapping[str, Any]) -> None:
    """One line a task, one column a reading."""
    for part in ("process", "outcome"):
        tasks = dict.fromkeys(task for table in found[part].values() for task in table)
        for task in tasks:
            cells = [
                f"{name} {row[task]['value']:.3f} [{row[task]['low']:.3f}, {row[task]['high']:.3f}]"
                for name, row in found[part].items()
                if task in row and row[task]["value"] is not None
            ]
            print(task, *cells, sep=" | ", flush=True)
