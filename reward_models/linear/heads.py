"""Linear heads over reflection features: hashing, ranking loss, calibration, storage.

A head maps `Features` to a number in [-1, 1], one per axis and one for the overall value. Heads are
fitted by L-BFGS on logistic losses, without torch, and stored as safetensors.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from r2w_eval.reward_models.axes import HEAD_AXES, combine
from r2w_eval.reward_models.data.rows import POSITIVE, SAME_REFLECTION, Row
from r2w_eval.reward_models.linear.arrays import FloatArray, read_arrays, write_arrays
from r2w_eval.reward_models.linear.features import Features

HASHED = 1 << 16
HEADS = (*HEAD_AXES, "value")
# Balance of the two kinds of features before the common penalty. Words weigh little: what is
# learned of them carries over less to sources never seen (EXPERIMENTS.md, 24 and 33).
DENSE_SCALE, SPARSE_SCALE = 0.3, 0.5
MAX_ITERATIONS = 150


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Settings of the fit.

    penalty: of the squared weights; ranking: weight of pairs of one draft against single labels
    """

    penalty: float = 1.0
    ranking: float = 1.0
    dropped: tuple[str, ...] = ()
    """Prefixes of dense and sparse features to leave out (ablations)."""
    heads: tuple[str, ...] = HEADS
    """Heads to fit; the others stay at zero."""


DEFAULT = FitConfig()


@dataclass(frozen=True)
class Heads:
    """Fitted heads. `dense` (features, heads), `hashed` (HASHED, heads), `bias` (heads,)."""

    names: tuple[str, ...]
    mean: FloatArray
    deviation: FloatArray
    dense: FloatArray
    hashed: FloatArray
    bias: FloatArray
    slope: FloatArray
    """Calibration: value = 2 sigmoid(slope * logit + offset) - 1, per head."""
    offset: FloatArray
    dropped: tuple[str, ...] = ()

    def logits(self, features: Sequence[Features]) -> FloatArray:
        """Uncalibrated outputs, (items, heads)."""
        dense, hashed = _matrices(features, self.names, self.dropped)
        scaled = (dense - self.mean) / self.deviation * DENSE_SCALE
        found: FloatArray = scaled @ self.dense + hashed @ self.hashed + self.bias
        return found

    def values(self, features: Sequence[Features]) -> FloatArray:
        """Calibrated outputs in [-1, 1], (items, heads)."""
        return squash(self.logits(features) * self.slope + self.offset)


def squash(logits: FloatArray) -> FloatArray:
    """2 sigmoid(x) - 1, i.e. tanh(x / 2).

    >>> float(squash(np.array(0.0)))
    0.0
    """
    found: FloatArray = np.tanh(np.asarray(logits) / 2)
    return found


def _matrices(
    features: Sequence[Features], names: Sequence[str], dropped: Sequence[str]
) -> tuple[FloatArray, Any]:
    """Dense features (items, names) and hashed tokens (items, HASHED), each row of equal norm."""
    from scipy.sparse import csr_array

    index = {name: i for i, name in enumerate(names)}
    dense = np.zeros((len(features), len(names)))
    data: list[float] = []
    columns: list[int] = []
    starts = [0]
    for row, found in enumerate(features):
        for name, value in found.dense.items():
            if name in index:
                dense[row, index[name]] = value
        kept = {token_hash(t) for t in found.sparse if not t.startswith(tuple(dropped) or ("\0",))}
        columns += sorted(kept)
        data += [SPARSE_SCALE / math.sqrt(max(1, len(kept)))] * len(kept)
        starts.append(len(columns))
    shape = (len(features), HASHED)
    return dense, csr_array((np.array(data), np.array(columns, np.int64), starts), shape=shape)


def token_hash(token: str) -> int:
    """Column of a token among the hashed features."""
    return zlib.crc32(token.encode("utf-8", "surrogatepass")) % HASHED


@dataclass(frozen=True)
class _Problem:
    """The optimisation problem of one head: design, soft labels in [0, 1], weights, pairs."""

    design: Any
    labels: FloatArray
    weights: FloatArray
    gaps: Any
    gap_weights: FloatArray
    config: FitConfig

    def loss(self, beta: FloatArray) -> tuple[float, FloatArray]:
        """Penalised loss and gradient."""
        logit = self.design @ beta
        share = 1 / (1 + np.exp(-logit))
        loss = float(self.weights @ (np.logaddexp(0, logit) - self.labels * logit))
        slope = self.design.T @ (self.weights * (share - self.labels))
        if self.gaps is not None:
            gap = self.gaps @ beta
            loss += float(self.gap_weights @ np.logaddexp(0, -gap))
            slope = slope - self.gaps.T @ (self.gap_weights / (1 + np.exp(gap)))
        loss += 0.5 * self.config.penalty * float(beta @ beta)
        return loss, slope + self.config.penalty * beta


def fit(
    rows: Sequence[Row],
    features: Sequence[Features],
    config: FitConfig = DEFAULT,
    calibrate: Sequence[int] = (),
) -> Heads:
    """Fit all heads on the rows that are not in `calibrate`; calibrate on those that are."""
    from scipy.sparse import csr_array, hstack

    names = tuple(
        sorted(
            {n for f in features for n in f.dense if not n.startswith(config.dropped or ("\0",))}
        )
    )
    dense, hashed = _matrices(features, names, config.dropped)
    held = np.zeros(len(rows), bool)
    held[list(calibrate)] = True
    mean, deviation = dense[~held].mean(0), dense[~held].std(0) + 1e-6
    scaled = (dense - mean) / deviation * DENSE_SCALE
    design = hstack([csr_array(scaled), hashed, csr_array(np.ones((len(rows), 1)))]).tocsr()
    betas, slopes, offsets = [], [], []
    for head in HEADS:
        if head not in config.heads:
            betas.append(np.zeros(design.shape[1]))
            slopes.append(1.0)
            offsets.append(0.0)
            continue
        beta = _fit_head(head, rows, design, np.flatnonzero(~held), config)
        slope, offset = _calibrate(head, rows, design @ beta, np.flatnonzero(held))
        betas.append(beta)
        slopes.append(slope)
        offsets.append(offset)
    table = np.array(betas).T
    n = len(names)
    return Heads(
        names, mean, deviation, table[:n], table[n : n + HASHED], table[-1],
        np.array(slopes), np.array(offsets), config.dropped,
    )  # fmt: skip


def label_of(row: Row, head: str) -> float | None:
    """The row's label for a head, in [-1, 1]; None if it has none."""
    return combine(row.labels) if head == "value" else row.labels.get(head)


def _fit_head(
    head: str, rows: Sequence[Row], design: Any, chosen: NDArray[np.int64], config: FitConfig
) -> FloatArray:
    from scipy.optimize import minimize

    known = [i for i in chosen if label_of(rows[i], head) is not None]
    labels = np.array([(label_of(rows[i], head) or 0.0) / 2 + 0.5 for i in known])
    weights = balanced([rows[i] for i in known])
    better, worse = _ranked(rows, known, head)
    gaps, gap_weights = None, np.zeros(0)
    if better and config.ranking:
        gaps = design[better] - design[worse]
        gap_weights = config.ranking * balanced([rows[i] for i in worse])
    problem = _Problem(design[known], labels, weights, gaps, gap_weights, config)
    found = minimize(problem.loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B",
                     options={"maxiter": MAX_ITERATIONS})  # fmt: skip
    beta: FloatArray = found.x
    return beta


def balanced(rows: Sequence[Row]) -> FloatArray:
    """Row weights with mean one: each set counts with the square root of its size."""
    sizes = Counter(row.source for row in rows)
    raw = np.array([row.weight / math.sqrt(sizes[row.source]) for row in rows])
    found: FloatArray = raw / raw.mean() if len(raw) else raw
    return found


def _ranked(rows: Sequence[Row], known: Sequence[int], head: str) -> tuple[list[int], list[int]]:
    """Indices of pairs on one draft whose labels differ: the better rows, and the worse."""
    members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for i in known:
        members[rows[i].source, rows[i].pair_id].append(int(i))
    better, worse = [], []
    for own in members.values():
        for i in own:
            for j in own:
                if rows[i].kind != POSITIVE and not _same_reflection(rows[i], rows[j]):
                    continue
                if (label_of(rows[i], head) or 0.0) - (label_of(rows[j], head) or 0.0) > 0.1:
                    better.append(i)
                    worse.append(j)
    return better, worse


def _same_reflection(first: Row, second: Row) -> bool:
    """Whether two wrong items differ only in their revision; such pairs are ordered too."""
    return first.kind in SAME_REFLECTION and second.kind in SAME_REFLECTION


def _calibrate(
    head: str, rows: Sequence[Row], logits: FloatArray, held: NDArray[np.int64]
) -> tuple[float, float]:
    """Slope and offset of Platt scaling on held-out rows; (1, 0) without any."""
    from scipy.optimize import minimize

    known = [i for i in held if label_of(rows[i], head) is not None]
    if len(known) < 50:
        return 1.0, 0.0
    labels = np.array([(label_of(rows[i], head) or 0.0) / 2 + 0.5 for i in known])
    weights, x = balanced([rows[i] for i in known]), logits[known]

    def loss(p: FloatArray) -> float:
        z = p[0] * x + p[1]
        return float(weights @ (np.logaddexp(0, z) - labels * z))

    slope, offset = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return float(slope), float(offset)


def save_heads(heads: Heads, path: Path, facts: Mapping[str, object]) -> None:
    """Write as safetensors: float16 for the hashed table, float32 for the rest."""
    arrays = {name: getattr(heads, name).astype(np.float32)
              for name in ("mean", "deviation", "dense", "bias", "slope", "offset")}  # fmt: skip
    arrays["hashed"] = heads.hashed.astype(np.float16)
    write_arrays(path, arrays, {**facts, "names": heads.names, "dropped": heads.dropped})


def load_heads(path: Path) -> tuple[Heads, dict[str, Any]]:
    """Read stored heads, and the facts about them. Raises DataError."""
    arrays, facts = read_arrays(path)
    names, dropped = (tuple(facts.pop(key)) for key in ("names", "dropped"))
    return Heads(names=names, dropped=dropped, **arrays), facts
