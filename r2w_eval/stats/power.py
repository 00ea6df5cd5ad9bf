"""What a paired comparison could have found, and how many items would find it (harness A4)."""

from __future__ import annotations

import math

from scipy.special import ndtri

from r2w_eval.errors import UsageError


def minimum_detectable_effect(
    standard_error: float, alpha: float = 0.05, power: float = 0.8
) -> float:
    """(z(1 - alpha/2) + z(power)) * SE of the paired difference; `alpha` already corrected.

    >>> round(minimum_detectable_effect(1.0), 3)
    2.802
    """
    return float(ndtri(1 - alpha / 2) + ndtri(power)) * standard_error


def items_needed(effect: float, deviation: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items for a wished difference; `deviation` = standard deviation of the item differences.

    Never fewer than sign flips need to reach `alpha` at all.

    >>> items_needed(0.5, 1.0), items_needed(9.0, 1.0)
    (32, 6)
    """
    if effect == 0:
        raise UsageError("effect 0 needs infinitely many items; try an effect such as 0.2")
    needed = (minimum_detectable_effect(deviation, alpha, power) / abs(effect)) ** 2
    return math.ceil(max(needed, 1 - math.log2(alpha)))
