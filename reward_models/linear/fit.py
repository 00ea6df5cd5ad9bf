"""Fits the shipped weights from a corpus, and predicts out of fold for honest figures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from r2w_eval.reward_models.data.recipe import Corpus, reflection_rows, writing_rows
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import ReflectionItem, WritingItem
from r2w_eval.reward_models.linear.arrays import FORM_FILE, HEADS_FILE, PROSE_FILE, FloatArray
from r2w_eval.reward_models.linear.features import Features, reflection_features
from r2w_eval.reward_models.linear.heads import HEADS, FitConfig, fit, save_heads
from r2w_eval.reward_models.linear.outcome import Outcome, fit_form, save_form
from r2w_eval.reward_models.linear.prose import Prose, fit_prose, joined, save_prose

from r2w_eval.store import write_json

FOLDS = 5
DEFAULT = FitConfig()
# Adding essays, answers or planted flaws lowered pair accuracy on held-out fiction.
OUTCOME_SOURCES = ("lamp_train", "wpb_zh_dev")
PROSE_PENALTY, PROSE_PAIRS = 1.0, 1.0


def fit_both(rows: Sequence[Row]) -> Prose:
    """One regression per script; each on the set that alone predicted its script best."""
    parts = []
    for source in OUTCOME_SOURCES:
        own = [row for row in rows if row.source == source]
        parts.append(fit_prose(own, PROSE_PENALTY, PROSE_PAIRS, marks=False))
    return joined(*parts)


def fit_outcome(rows: Sequence[Row]) -> Outcome:
    """Words by script and form from all sets."""
    return Outcome(fit_both(rows), fit_form(rows))


def read_features(rows: Sequence[Row]) -> list[Features]:
    """Features of reflection rows, in order."""
    return [reflection_features(row.item) for row in rows if isinstance(row.item, ReflectionItem)]


def fold_of(split_group: str) -> int:
    """The fold in which a group is predicted.

    >>> fold_of("lamp:a") == fold_of("lamp:a")
    True
    """
    return hashlib.sha256(f"fold:{split_group}".encode()).digest()[0] % FOLDS


def fit_shipped(
    corpus: Corpus, features: Sequence[Features], out: Path, config: FitConfig = DEFAULT
) -> dict[str, Any]:
    """Fit on train and calibrate parts and write the weights; the test part stays unseen."""
    out.mkdir(parents=True, exist_ok=True)
    kept = [(r, f) for r, f in zip(reflection_rows(corpus.rows), features, strict=True)
            if r.part != "test"]  # fmt: skip
    rows, found = [r for r, _ in kept], [f for _, f in kept]
    held = [i for i, row in enumerate(rows) if row.part == "calibrate"]
    heads = fit(rows, found, config, held)
    origin = {"data": corpus.hash, "licences": dict(corpus.licences)}
    save_heads(heads, out / HEADS_FILE, origin)
    texts = [row for row in writing_rows(corpus.rows) if row.part != "test"]
    outcome = fit_outcome(texts)
    save_prose(outcome.prose, out / PROSE_FILE, origin)
    save_form(outcome.form, out / FORM_FILE, origin)
    facts = {
        "data_sha256": corpus.hash,
        "licences": dict(corpus.licences),
        "restricted": list(corpus.restricted),
        "config": asdict(config),
        "n_process_rows": len(rows),
        "n_outcome_rows": len(texts),
    }
    write_json(out / "fit.json", facts)
    return facts


def predict_out_of_fold(
    rows: Sequence[Row], features: Sequence[Features], config: FitConfig = DEFAULT
) -> FloatArray:
    """Values (rows, heads), each from heads that never saw the row's group."""
    folds = [fold_of(row.split_group) for row in rows]
    found = np.zeros((len(rows), len(HEADS)))
    for fold in range(FOLDS):
        train = [i for i, f in enumerate(folds) if f != fold]
        test = [i for i, f in enumerate(folds) if f == fold]
        heads = fit([rows[i] for i in train], [features[i] for i in train], config)
        found[test] = heads.values([features[i] for i in test])
    return found


def predict_left_out(
    rows: Sequence[Row], features: Sequence[Features], source: str,
    config: FitConfig = DEFAULT,
) -> FloatArray:  # fmt: skip
    """Values for the rows of one set from heads trained on all other sets."""
    inside = [i for i, row in enumerate(rows) if row.source == source]
    rest = [i for i, row in enumerate(rows) if row.source != source]
    heads = fit([rows[i] for i in rest], [features[i] for i in rest], config)
    return heads.values([features[i] for i in inside])


def outcomes_out_of_fold(rows: Sequence[Row]) -> FloatArray:
    """Outcomes of writing rows, each from a model that never saw the row's group."""
    folds = [fold_of(row.split_group) for row in rows]
    found = np.zeros(len(rows))
    for fold in range(FOLDS):
        train = [row for row, f in zip(rows, folds, strict=True) if f != fold]
        test = [i for i, f in enumerate(folds) if f == fold]
        items = [rows[i].item for i in test]
        own = [item for item in items if isinstance(item, WritingItem)]
        found[test] = fit_outcome(train).values(own)
    return found
