"""Names that tell the systems of a board apart by what really differs between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from r2w_eval.leaderboards.rows import Row

MODEL_CHARS = 80
VALUE_CHARS = 48
# told before other facts; the rest follows in alphabetical order
_FIRST = ("system_prompt", "sampling")
# the decoding repeats the sampling in full
_UNTOLD = ("decoding",)


def label_rows(rows: Sequence[Row]) -> list[str]:
    """One unique label a row, in order: the model, and where that is not enough, what differs.

    Runs that differ in nothing but their day are numbered by day.
    """
    by_model: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_model[clip(row.model, MODEL_CHARS)].append(i)
    labels = [""] * len(rows)
    for model, own in by_model.items():
        if len(own) == 1:
            labels[own[0]] = model
            continue
        varying = _varying([_facts(rows[i]) for i in own])
        shared = set.intersection(*(set(_sampling(rows[i])) for i in own))
        for i in own:
            told = [_tell(name, rows[i].system.get(name), shared) for name in varying]
            labels[i] = " · ".join([model, *filter(None, told)])
    return _number(labels, rows)


def clip(text: str, limit: int) -> str:
    """At most `limit` characters on one line.

    >>> clip("a long name", 6)
    'a lon…'
    """
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _facts(row: Row) -> Mapping[str, Any]:
    return {**row.system, "full_model": row.model}


def _varying(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    names = {name for own in facts for name in own if name not in _UNTOLD}
    differing = [n for n in names if len({repr(own.get(n)) for own in facts}) > 1]
    return sorted(differing, key=lambda n: (n not in _FIRST, n))


def _sampling(row: Row) -> list[str]:
    return str(row.system.get("sampling") or "").split(",")


def _tell(name: str, value: Any, shared: Collection[str]) -> str:
    if value in (None, "", {}):
        return ""
    if name == "system_prompt":
        return f"“{clip(str(value), VALUE_CHARS)}”"
    if name == "sampling":
        own = ", ".join(one for one in str(value).split(",") if one not in shared)
        return clip(own.replace("=", " "), VALUE_CHARS)
    return f"{name} {clip(str(value), 24)}"


def _number(labels: Sequence[str], rows: Sequence[Row]) -> list[str]:
    counts = Counter(labels)
    order = sorted(range(len(rows)), key=lambda i: (rows[i].created, rows[i].signature))
    seen: Counter[str] = Counter()
    numbered = list(labels)
    for i in order:
        if counts[labels[i]] > 1:
            seen[labels[i]] += 1
            numbered[i] = f"{labels[i]} (run {seen[labels[i]]})"
    return numbered
