"""Rows from the user's own synthesis: reflections of `r2w-eval train synth` with their gains.

The folder's `reflections.jsonl` has one `LoopReflection` per line, one for every step of every
episode, also those that changed nothing or did harm. The judge's gain is their only label, for the
axis `effect`. The texts were written by the models that the folder's manifest.json names; the user
is responsible for using them (specification: r2write.md sections 3.1, 3.5 and 6.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import ItemScore, WritingItem, read_item

from r2w_eval.data import read_jsonl
from r2w_eval.errors import DataError
from r2w_eval.hashing import content_hash, text_hash
from r2w_eval.types import is_number

FILE = "reflections.jsonl"
SOURCE, LICENCE = "own_synthesis", "own data"
# judge points of 10 that count as the whole effect
REFERENCE_GAIN = 1.0
SIGNS = {"improved": 1, "neutral": 0, "degraded": -1}


@dataclass(frozen=True, slots=True)
class LoopReflection:
    """One step of the loop, as a reflection item with its gain.

    `draft` is the text that was reflected on, `revision` the whole text after it, `earlier` the
    reflections before it that improved the piece, oldest first. `gain` is the change of the judge's
    weighted mean (marks of 1 to 10); `label` is improved, degraded, or neutral in the dead band.
    """

    id: str
    lang: str
    domain: str
    prompt: str
    draft: str
    reflection: str
    revision: str
    earlier: tuple[str, ...]
    level: str
    label: str
    gain: float


def find_reflections(folder: Path) -> Path:
    """The file of a synthesis folder. Raises DataError."""
    path = folder / FILE
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. Expected the output folder of `r2w-eval train synth`"
        )
    return path


def build_synthesis(folder: Path) -> Iterator[Row]:
    """A row per reflection. Rows of one prompt share a split group, those of one draft a pair.

    Raises DataError, also for an empty file.
    """
    path = find_reflections(folder)
    records = read_jsonl(path)
    if not records:
        raise DataError(f"{path}: empty: the loop made no step. Leave the folder out")
    for number, record in enumerate(records, 1):
        yield _row(record, number, f"{path}, line {number}")


def effect_of(label: str, gain: float) -> float:
    """The label of the axis effect, in [-1, 1]; 0 for a neutral step.

    >>> effect_of("improved", 0.5), effect_of("neutral", 0.2), effect_of("degraded", -3.0)
    (0.5, 0.0, -1.0)
    """
    return max(-1.0, min(1.0, gain / REFERENCE_GAIN)) if SIGNS[label] else 0.0


def _row(record: Any, number: int, where: str) -> Row:
    item = read_item(record, number)
    if isinstance(item, ItemScore):
        raise DataError(f"{where}: {item.reason}")
    if isinstance(item, WritingItem) or item.revision is None:
        raise DataError(f"{where}: expected draft, reflection and revision")
    label, gain = record.get("label"), record.get("gain")
    is_gain = is_number(gain) and math.isfinite(gain)
    if label not in SIGNS or not is_gain or SIGNS[label] * gain < 0:
        raise DataError(
            f"{where}: label {str(label)[:40]!r} with gain {str(gain)[:40]!r}: expected one of "
            f"{', '.join(SIGNS)}, and a number of the same sign"
        )
    name = f"synthesis:{content_hash(record)}"
    prompt = text_hash(" ".join(item.prompt.lower().split()))[:16]
    return Row(
        name,
        SOURCE,
        LICENCE,
        f"synthesis:{prompt}",
        str(record.get("lang", "en")),
        label,
        f"synthesis:{prompt}:{text_hash(item.draft)[:16]}",
        replace(item, id=name),
        {"effect": effect_of(label, float(gain))},
        meta={"gain": gain, "level": str(record.get("level", ""))},
    )
