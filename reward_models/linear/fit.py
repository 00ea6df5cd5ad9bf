"""Fits the shipped weights, process heads and outcome, from a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from r2w_eval.reward_models.data.recipe import Corpus, hash_of, reflection_rows, writing_rows
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import ReflectionItem
from r2w_eval.reward_models.linear.arrays import FORM_FILE, HEADS_FILE, PROSE_FILE
from r2w_eval.reward_models.linear.features import Features, reflection_features
from r2w_eval.reward_models.linear.heads import FitConfig, fit, save_heads
from r2w_eval.reward_models.linear.outcome import Outcome, fit_form, save_form
from r2w_eval.reward_models.linear.prose import Prose, fit_prose, joined, save_prose

from r2w_eval.store import write_json

# Adding essays, answers or planted flaws lowered pair accuracy on held-out fiction.
OUTCOME_SOURCES = ("lamp_train", "wpb_zh_dev")


def fit_both(rows: Sequence[Row]) -> Prose:
    """One regression per script; each on the set that alone predicted its script best."""
    return joined(
        *(fit_prose([row for row in rows if row.source == source]) for source in OUTCOME_SOURCES)
    )


def fit_outcome(rows: Sequence[Row]) -> Outcome:
    """Words by script and form from all sets."""
    return Outcome(fit_both(rows), fit_form(rows))


def read_features(rows: Sequence[Row]) -> list[Features]:
    """Features of reflection rows, in order."""
    return [reflection_features(row.item) for row in rows if isinstance(row.item, ReflectionItem)]


def fit_shipped(corpus: Corpus, features: Sequence[Features], out: Path) -> None:
    """Fit on the train and calibrate parts and write the weights; the test part stays unseen.

    `features` are those of the corpus's reflection rows, in order.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = [(r, f) for r, f in zip(reflection_rows(corpus.rows), features, strict=True)
            if r.part != "test"]  # fmt: skip
    rows, found = [r for r, _ in kept], [f for _, f in kept]
    config = FitConfig()
    held = [i for i, row in enumerate(rows) if row.part == "calibrate"]
    heads = fit(rows, found, config, held)
    licences = dict(corpus.licences)
    save_heads(heads, out / HEADS_FILE, {"data": corpus.hash, "licences": licences})
    texts = [row for row in writing_rows(corpus.rows) if row.part != "test"]
    outcome = fit_outcome(texts)
    # of the writing alone: other reflections do not make another judge
    origin = {"data": hash_of(texts), "licences": licences}
    save_prose(outcome.prose, out / PROSE_FILE, origin)
    save_form(outcome.form, out / FORM_FILE, origin)
    facts = {
        "data_sha256": corpus.hash,
        "licences": licences,
        "restricted": list(corpus.restricted),
        "config": asdict(config),
        "n_process_rows": len(rows),
        "n_outcome_rows": len(texts),
    }
    write_json(out / "fit.json", facts)
