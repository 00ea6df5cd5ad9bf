"""Allowed ranges of numeric settings, checked when a settings object is made."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r2w_eval.errors import UsageError


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`; `is_open` excludes `low`. NaN is in no range."""

    low: float
    high: float = sys.float_info.max
    is_open: bool = False

    def __contains__(self, number: float) -> bool:
        return (self.low < number if self.is_open else self.low <= number) and number <= self.high

    def __str__(self) -> str:
        """The range in words, for error messages.

        >>> str(COUNT), str(POSITIVE), str(SHARE), str(FINITE)
        ('1 or more', 'a number above 0', 'from 0 to 1', 'a finite number')
        """
        if self.low == -self.high:
            return "a finite number"
        if self.high < sys.float_info.max:
            return f"from {self.low:g} to {self.high:g}"
        return f"a number above {self.low:g}" if self.is_open else f"{self.low:g} or more"


COUNT, NOT_NEGATIVE, POSITIVE = Range(1), Range(0), Range(0, is_open=True)
SHARE, SEED = Range(0, 1), Range(0, 2**32 - 1)
CAP, FINITE = Range(0, math.inf), Range(-sys.float_info.max)


def check_numbers(section: str, settings: Any, allowed: Mapping[Range, Sequence[str]]) -> None:
    """Raise UsageError for the first setting that is outside its range."""
    for within, names in allowed.items():
        for name in names:
            value = getattr(settings, name)
            if value not in within:
                raise UsageError(
                    f"{section}.{name} {value}: expected {within}. Correct it, or leave it out "
                    f"for the default {getattr(type(settings)(), name)}"
                )
