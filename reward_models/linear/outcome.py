"""The outcome score of a piece of writing, from its words, its form and its length.

    outcome = words + FORM * form + SIZE * size

`words` is an n-gram regression per script (`prose.py`), `form` a linear head over form features
(`form.py`) fitted on pairs of texts of one prompt from all sets, `size` a fixed curve. The two
constants were chosen on training groups, but after looking at the labelled test sets
(EXPERIMENTS.md, 14 and 15), so figures on those are not an untouched test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import WritingItem
from r2w_eval.reward_models.language.filler import body_of
from r2w_eval.reward_models.linear.arrays import FloatArray, read_arrays, write_arrays
from r2w_eval.reward_models.linear.features import MAX_CHARS
from r2w_eval.reward_models.linear.form import form_features, size_of
from r2w_eval.reward_models.linear.prose import Prose, differences

FORM, SIZE = 0.06, 0.6
# the value of a text of neutral length, so that the outcome stays centred
NEUTRAL_SIZE = size_of("a " * 200)
PENALTY = 100.0
SET_WEIGHT = 1000.0


@dataclass(frozen=True)
class Form:
    """Linear head over form features. All arrays: (names,)."""

    names: tuple[str, ...]
    mean: FloatArray
    deviation: FloatArray
    weights: FloatArray

    def values(self, items: Sequence[WritingItem]) -> FloatArray:
        """One number an item."""
        found: FloatArray = _table(items, self.names) - self.mean
        return found / self.deviation @ self.weights


@dataclass(frozen=True)
class Outcome:
    """Words, form and length of a text as one number in about [-1, 1]."""

    prose: Prose
    form: Form

    def parts(self, items: Sequence[WritingItem]) -> dict[str, FloatArray]:
        """The three unweighted terms, of each text without what surrounds the piece (`body_of`)."""
        read = [replace(item, response=body_of(item.response[:MAX_CHARS])) for item in items]
        return {
            "words": self.prose.outcomes([item.response for item in read]),
            "form": self.form.values(read),
            "size": np.array([size_of(item.response) for item in read]) - NEUTRAL_SIZE,
        }

    def values(self, items: Sequence[WritingItem]) -> FloatArray:
        """One number an item."""
        parts = self.parts(items)
        found: FloatArray = parts["words"] + FORM * parts["form"] + SIZE * parts["size"]
        return found


def _table(items: Sequence[WritingItem], names: Sequence[str]) -> FloatArray:
    read = [form_features(item.prompt, item.response) for item in items]
    return np.array([[own[name] for name in names] for own in read]).reshape(len(read), len(names))


def fit_form(rows: Sequence[Row]) -> Form:
    """Fit by a ranking loss on pairs of one prompt, weighted by their gap; sets count equally."""
    from scipy.optimize import minimize

    items = [row.item for row in rows if isinstance(row.item, WritingItem)]
    names = tuple(sorted(form_features("", "")))
    table = _table(items, names)
    mean, deviation = table.mean(0), table.std(0) + 1e-6
    table = (table - mean) / deviation
    labels = np.array([row.labels["outcome"] for row in rows])
    first, second = differences(rows, labels)
    gaps = labels[first] - labels[second]
    design = (table[first] - table[second]) * np.sign(gaps)[:, None]
    weights = _per_set(np.abs(gaps), [rows[i].source for i in first])

    start = np.zeros(len(names))
    found = minimize(ranking_loss, start, (design, weights), jac=True, method="L-BFGS-B").x
    return Form(names, mean, deviation, found)


def ranking_loss(
    beta: FloatArray, design: FloatArray, weights: FloatArray
) -> tuple[float, FloatArray]:
    """Penalised logistic loss over pairs, and its gradient (names,).

    beta: (names,); design, better minus worse text: (pairs, names); weights: (pairs,)
    """
    logit = design @ beta
    value = weights @ np.logaddexp(0, -logit) + 0.5 * PENALTY * beta @ beta
    return float(value), PENALTY * beta - design.T @ (weights / (1 + np.exp(logit)))


def _per_set(weights: FloatArray, sources: Sequence[str]) -> FloatArray:
    """The weights, scaled to the same sum in every set."""
    owner = np.array(sources)
    for name in set(sources):
        weights[owner == name] *= SET_WEIGHT / weights[owner == name].sum()
    return weights


def save_form(form: Form, path: Path, facts: Mapping[str, object]) -> None:
    """Write as safetensors in float32."""
    arrays = {name: getattr(form, name).astype(np.float32)
              for name in ("mean", "deviation", "weights")}  # fmt: skip
    write_arrays(path, arrays, {**facts, "names": form.names})


def load_form(path: Path) -> Form:
    """Read a stored head. Raises DataError."""
    arrays, facts = read_arrays(path)
    return Form(tuple(facts["names"]), **arrays)
