"""Quality of a piece of writing from its words: ridge regression on hashed n-grams.

Words and word pairs (characters and character pairs for Chinese) with (1 + log tf) * idf in rows of
unit length: the strongest bag-of-words baseline of the specification, one part of the outcome.
"""

from __future__ import annotations

import math
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import WritingItem
from r2w_eval.reward_models.language.words import tokens, words
from r2w_eval.reward_models.linear.arrays import FloatArray, read_arrays, write_arrays
from r2w_eval.reward_models.linear.features import MAX_CHARS
from r2w_eval.reward_models.linear.heads import balanced

PLACES = 1 << 18
_FIRST_CJK = "\u2e7f"
MAX_PAIRS = 20
MIN_TEXTS = 3
LEVEL_SCALE = 10.0
MAX_ITERATIONS = 300
PENALTY = 1.0


@dataclass(frozen=True)
class Prose:
    """A fitted ridge regression; `idf` and `weights` are (PLACES,)."""

    idf: FloatArray
    weights: FloatArray
    bias: float

    def outcomes(self, texts: Sequence[str]) -> FloatArray:
        """One outcome per text, in about [-1, 1]."""
        found: FloatArray = self.rows(texts) @ self.weights + self.bias
        return found

    def rows(self, texts: Sequence[str]) -> Any:
        """The design matrix (texts, PLACES), rows of unit length."""
        return _unit_rows([gram_counts(text) for text in texts], self.idf)


def gram_counts(text: str, with_marks: bool = True) -> Counter[int]:
    """Counts of the hashed words, word pairs and punctuation marks of a text."""
    own = words(text[:MAX_CHARS])
    marks = [f"m:{t}" for t in tokens(text[:MAX_CHARS]) if with_marks and not t[0].isalnum()]
    pairs = [f"{a} {b}" for a, b in zip(own, own[1:], strict=False)]
    return Counter(map(_place, [*own, *pairs, *marks]))


def _place(gram: str) -> int:
    """The column of an n-gram; Chinese, Japanese and Korean ones have the upper half."""
    place = zlib.crc32(gram.encode("utf-8", "surrogatepass")) % (PLACES // 2)
    return place + PLACES // 2 if max(gram) > _FIRST_CJK else place


def _unit_rows(counts: Sequence[Mapping[int, int]], idf: FloatArray) -> Any:
    from scipy.sparse import csr_array

    data: list[float] = []
    columns: list[int] = []
    starts = [0]
    for own in counts:
        kept = {c: (1 + math.log(n)) * idf[c] for c, n in own.items() if idf[c] > 0}
        norm = math.sqrt(math.fsum(v * v for v in kept.values())) or 1.0
        columns += list(kept)
        data += [v / norm for v in kept.values()]
        starts.append(len(columns))
    shape = (len(counts), len(idf))
    return csr_array((np.array(data), np.array(columns, np.int64), starts), shape=shape)


def fit_prose(rows: Sequence[Row]) -> Prose:
    """Ridge on outcome labels with an intercept per source, plus the label differences inside each
    pair. The intercepts are dropped: the sets' scales are not comparable.
    """
    counts = [gram_counts(row.item.response, with_marks=False) for row in rows
              if isinstance(row.item, WritingItem)]  # fmt: skip
    seen = Counter(c for own in counts for c in own)
    idf = np.zeros(PLACES)
    for place, n in seen.items():
        if n >= MIN_TEXTS:
            idf[place] = math.log((1 + len(counts)) / (1 + n)) + 1
    design = _unit_rows(counts, idf)
    labels = np.array([row.labels["outcome"] for row in rows])
    weights = balanced(rows)
    first, second = differences(rows, labels)
    stacked = _with_levels(design, [row.source for row in rows])
    if len(first):
        stacked = _below(stacked, design[first] - design[second])
        labels = np.concatenate([labels, labels[first] - labels[second]])
        # a text in many pairs must not count for more
        once = 1.0 / np.bincount(first)[first]
        weights = np.concatenate([weights, weights[first] * once])
    return Prose(idf, _ridge(stacked, labels, weights)[:PLACES], 0.0)


def differences(
    rows: Sequence[Row], labels: FloatArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index pairs of texts of one prompt whose labels differ, at most MAX_PAIRS a prompt."""
    members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        members[row.source, row.pair_id].append(i)
    found: list[tuple[int, int]] = []
    for own in members.values():
        pairs = [(i, j) for k, i in enumerate(own) for j in own[:k] if labels[i] != labels[j]]
        found += random.Random(0).sample(pairs, min(len(pairs), MAX_PAIRS))
    table = np.array(found, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _with_levels(design: Any, sources: Sequence[str]) -> Any:
    """The design with a nearly unpenalised column for each source, its intercept."""
    from scipy.sparse import csr_array, hstack

    names = {name: i for i, name in enumerate(sorted(set(sources)))}
    columns = np.array([names[s] for s in sources])
    level = csr_array((np.full(len(sources), LEVEL_SCALE), (np.arange(len(sources)), columns)),
                      shape=(len(sources), len(names)))  # fmt: skip
    return hstack([design, level]).tocsr()


def _below(stacked: Any, differences: Any) -> Any:
    """The design with the rows of differences under it; these have no intercept."""
    from scipy.sparse import csr_array, hstack, vstack

    empty = csr_array((differences.shape[0], stacked.shape[1] - differences.shape[1]))
    return vstack([stacked, hstack([differences, empty])]).tocsr()


def _ridge(design: Any, labels: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted ridge regression as a damped least-squares problem (LSQR)."""
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import lsqr

    root = np.sqrt(weights)
    found: FloatArray = lsqr(
        diags_array(root) @ design, root * labels, damp=math.sqrt(PENALTY), iter_lim=MAX_ITERATIONS
    )[0]
    return found


def joined(latin: Prose, cjk: Prose) -> Prose:
    """Two regressions as one: by its script, each n-gram belongs to one of them."""
    half = PLACES // 2
    return Prose(
        np.concatenate([latin.idf[:half], cjk.idf[half:]]),
        np.concatenate([latin.weights[:half], cjk.weights[half:]]),
        0.0,
    )


def save_prose(prose: Prose, path: Path, facts: Mapping[str, object]) -> None:
    """Write as safetensors in float16."""
    arrays = {"idf": prose.idf.astype(np.float16), "weights": prose.weights.astype(np.float16)}
    write_arrays(path, arrays, {**facts, "bias": prose.bias})


def load_prose(path: Path) -> Prose:
    """Read stored weights. Raises DataError."""
    arrays, facts = read_arrays(path)
    return Prose(arrays["idf"], arrays["weights"], facts["bias"])
