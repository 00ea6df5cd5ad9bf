"""Labels that tell the systems of a board apart by what differs between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any

from r2w_eval.leaderboards.rows import Row

MODEL_CHARS = 80
VALUE_CHARS = 48
# shown first; the rest follows in alphabetical order
_FIRST = ("system_prompt", "sampling")
# the decoding repeats the sampling
_HIDDEN = ("decoding",)


def label_rows(rows: Sequence[Row]) -> list[str]:
    """A unique label per row: the model and, if needed, what differs.

    Runs that differ only in their date are numbered by date.
    """
    names = _short_names({row.model for row in rows})
    by_model: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_model[row.model].append(i)
    labels = [""] * len(rows)
    for model, own in by_model.items():
        if len(own) == 1:
            labels[own[0]] = names[model]
            continue
        varying = _varying([rows[i].system for i in own])
        shared = set.intersection(*(set(_sampling(rows[i])) for i in own))
        for i in own:
            facts = [_show_fact(name, rows[i].system.get(name), shared) for name in varying]
            labels[i] = " · ".join([names[model], *filter(None, facts)])
    return _number(labels, rows)


def _short_names(models: Collection[str]) -> dict[str, str]:
    """Each model's name on one line, cut in the middle if the beginnings agree."""
    clipped = {model: clip(model, MODEL_CHARS) for model in models}
    counts = Counter(clipped.values())
    return {
        model: name if counts[name] == 1 else clip_middle(model, MODEL_CHARS)
        for model, name in clipped.items()
    }


def clip_middle(text: str, limit: int) -> str:
    """At most `limit` characters on one line, from both ends.

    >>> clip_middle("models/a/checkpoint-40", 11)
    'model…nt-40'
    """
    line = " ".join(text.split())
    half = (limit - 1) // 2
    return line if len(line) <= limit else f"{line[:half]}…{line[-half:]}"


def clip(text: str, limit: int) -> str:
    """At most `limit` characters on one line.

    >>> clip("a long name", 6)
    'a lon…'
    """
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _varying(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    names = {name for own in facts for name in own if name not in _HIDDEN}
    differing = [n for n in names if len({repr(own.get(n)) for own in facts}) > 1]
    return sorted(differing, key=lambda n: (n not in _FIRST, n))


def _sampling(row: Row) -> list[str]:
    return str(row.system.get("sampling") or "").split(",")


def _show_fact(name: str, value: Any, shared: Collection[str]) -> str:
    if value in (None, "", {}):
        return ""
    if name == "system_prompt":
        return f"“{clip(str(value), VALUE_CHARS)}”"
    if name == "sampling":
        own = ", ".join(one for one in str(value).split(",") if one not in shared)
        return clip(own.replace("=", " "), VALUE_CHARS)
    return f"{name} {clip(str(value), 24)}"


def _number(labels: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Number equal labels by date, avoiding labels that are taken."""
    counts = Counter(labels)
    taken = set(labels)
    order = sorted(range(len(rows)), key=lambda i: (rows[i].created, rows[i].signature))
    numbered = list(labels)
    for i in order:
        if counts[labels[i]] > 1:
            runs = (f"{labels[i]} (run {n})" for n in count(1))
            numbered[i] = next(label for label in runs if label not in taken)
            taken.add(numbered[i])
    return numbered
