"""The axes of a reflection's quality, and their weighted mean."""

from __future__ import annotations

from collections.abc import Mapping

# weights of the axes in the scalar (specification: method, section 6.2)
AXIS_WEIGHTS: Mapping[str, float] = {
    "relevance": 0.25,
    "constructiveness": 0.25,
    "efficiency": 0.20,
    "effect": 0.30,
}
HEAD_AXES = tuple(AXIS_WEIGHTS)


def combine(labels: Mapping[str, float]) -> float:
    """The weighted mean of the axes that have a label; without any, the label `outcome`.

    >>> combine({"relevance": 1.0, "effect": -1.0})
    -0.09090909090909088
    """
    known = {axis: AXIS_WEIGHTS[axis] for axis in labels if axis in AXIS_WEIGHTS}
    if not known:
        return labels["outcome"]
    return sum(labels[axis] * w for axis, w in known.items()) / sum(known.values())
