"""What p a sign-flip test can give: the least of so few items, and an upper bound for any data."""

from __future__ import annotations

import math

import numpy as np

from r2w_eval.stats.resampling import FloatArray


def least_p(n_items: int) -> float:
    """The smallest two-sided p that sign flips of so many items can give: all of one sign.

    >>> least_p(5), least_p(6)
    (0.0625, 0.03125)
    """
    return 2.0 ** (1 - n_items)


def hoeffding_bound(differences: FloatArray) -> float:
    """Upper bound of the sign-flip p for any data, 2 exp(-S^2 / (2 sum d^2)) (Hoeffding 1963).

    >>> round(hoeffding_bound(np.ones(25)), 8)
    7.45e-06
    """
    squares = float(np.square(differences).sum())
    total = math.fsum(differences)
    return min(1.0, 2 * math.exp(-(total**2) / (2 * squares))) if squares else 1.0
