"""Validation of untrusted rows. A signature proves that nothing changed, not that it is sound.

Checks types against the dataclasses, column lengths, the headline against the row's own estimate,
and the score key against the identity.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from r2w_eval.leaderboards.rows import Row

from r2w_eval.hashing import content_hash
from r2w_eval.results.summary import is_another_judge
from r2w_eval.stats.inference import count_scored, evaluate

ROUNDING = 1e-9
_ATOMS = frozenset({str, int, float, bool, NoneType})
# the keys of a judging block that boards read
_JUDGING: Mapping[str, Any] = {
    "status": str,
    "n_valid": int,
    "n_total": int,
    "n_parsed_first": int,
    "histogram": Mapping[str, int],
    "failures": Mapping[str, int],
    "share_at_floor": float | None,
    "share_at_ceiling": float | None,
    "answers": Mapping[str, int] | None,
}


def check_row(row: Row) -> None:
    """Raises ValueError, which names the first problem."""
    for field in fields(row):
        _require(field.name, getattr(row, field.name), _hints(Row)[field.name])
    for name, kind in _JUDGING.items():
        _require(f"judging.{name}", row.judging.get(name), kind)
    _require("judging.models_returned", tuple(row.judging["models_returned"]), tuple[str, ...])
    _require("scored", row.scored.share, float)
    for value in row.judging["histogram"]:
        float(value)
    datetime.datetime.fromisoformat(row.created).timestamp()
    if "/" in row.task or "\\" in row.task:
        raise ValueError(f"task {row.task!r:.80} is not a name")
    _check_sizes(row)
    _check_identity(row)
    _check_headline(row)


def _require(name: str, value: object, kind: Any) -> None:
    if not fits(value, kind):
        raise ValueError(f"{name} is {value!r:.80}, expected {getattr(kind, '__name__', kind)}")


def fits(value: object, kind: Any) -> bool:
    """Whether a value has an annotated type; an int is a float, a bool is not a number.

    >>> fits({"a": (1, None)}, Mapping[str, tuple[float | None, ...]]), fits(True, float)
    (True, False)
    """
    if kind is Any:
        return True
    if (atoms := _atoms(kind)) is not None:
        return type(value) in atoms
    args = get_args(kind)
    if isinstance(kind, UnionType):
        return any(fits(value, one) for one in args)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and _all_fit(value, args[0])
    if is_dataclass(kind):
        return _fits_class(value, kind)
    return (
        isinstance(value, Mapping)
        and _all_fit(tuple(value), args[0])
        and _all_fit(tuple(value.values()), args[1])
    )


def _fits_class(value: object, kind: Any) -> bool:
    hints = _hints(kind)
    return type(value) is kind and all(fits(getattr(value, n), one) for n, one in hints.items())


def _all_fit(values: tuple[object, ...], kind: Any) -> bool:
    # fast path for long columns
    if (atoms := _atoms(kind)) is not None:
        return set(map(type, values)) <= atoms
    return all(fits(value, kind) for value in values)


@cache
def _atoms(kind: Any) -> frozenset[type] | None:
    """The types of an annotation made of atomic types; None for any other annotation."""
    parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if not _ATOMS.issuperset(parts):
        return None
    return frozenset(parts) | ({int} if float in parts else set())


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _check_sizes(row: Row) -> None:
    sizes = {field.name: len(getattr(row.items, field.name)) for field in fields(row.items)}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"columns of items have different lengths: {sizes}")
    for stratum in row.estimate.strata:
        if not len(stratum.clusters) == len(stratum.numerators) == len(stratum.denominators):
            raise ValueError("a stratum of the estimate has columns of different lengths")


def _check_identity(row: Row) -> None:
    if content_hash(row.identity, 12) != row.score_key:
        raise ValueError(f"score key {row.score_key!r:.40} is not the hash of its identity")
    told = {"suite": row.task, "version": row.version, "mode": row.mode, "judge": row.judge}
    for name, value in told.items():
        if row.identity.get(name, value) != value:
            raise ValueError(f"{name} {value!r:.80} is not that of its identity")
    returned = row.judging["models_returned"]
    if is_another_judge(row.judge, returned) and "judge_returned" not in row.identity:
        raise ValueError(
            f"judge {row.judge!r:.80} answered as {', '.join(returned)!r:.80}, which its identity "
            f"does not say"
        )


def _check_headline(row: Row) -> None:
    """Value and counts; `verify` checks the interval, which takes thousands of draws."""
    head, value = row.headline, evaluate(row.estimate)
    found = (value, count_scored(row.estimate), row.estimate.n_expected)
    is_equal = (head.n_scored, head.n_expected) == found[1:] and (
        value == head.value
        if value is None or head.value is None
        else math.isclose(value, head.value, rel_tol=ROUNDING, abs_tol=ROUNDING)
    )
    if not is_equal:
        raise ValueError(
            f"headline {head.value} ({head.n_scored} of {head.n_expected}), the row's own items "
            f"give {found[0]} ({found[1]} of {found[2]})"
        )
