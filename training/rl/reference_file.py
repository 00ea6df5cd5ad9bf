"""Stored answers that a policy's answers are compared with: their file, and their ranking.

A file has one JSON object per line, `{"prompt_id", "text", "score"?}`, several for a prompt;
instead of `prompt_id` it may have `prompt`, the prompt's text. A prompt's references are ranked
from weak to strong by their scores or, if they have none, by their order in the file
(specification: r2write.md section 6.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.training.limits import FINITE
from r2w_eval.training.prompts import Prompt

from r2w_eval.data import read_jsonl
from r2w_eval.errors import UsageError
from r2w_eval.types import is_number

EXAMPLE = '{"prompt_id": "1", "text": "…", "score": 6.5}'


@dataclass(frozen=True, slots=True)
class Reference:
    """One line of a file; `prompt` is the id or the text of a prompt."""

    prompt: str
    text: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """The references of one prompt, from weak to strong."""

    prompt_id: str
    texts: tuple[str, ...]


def check_references(section: str, form: str, file: str) -> None:
    """Raise UsageError if references are given but not used, or needed but not given."""
    if form == "references" and not file:
        raise UsageError(
            f"{section}.outcome_form references: no file of them. Set {section}.references: FILE, "
            f"with lines like {EXAMPLE}"
        )
    if file and form != "references":
        raise UsageError(
            f"{section}.references {file!r} with outcome_form {form}, which reads none. Set "
            f"{section}.outcome_form: references, or leave the file out"
        )


def read_reference_file(path: Path) -> dict[str, list[Reference]]:
    """The references of a file by prompt id or text. Raises DataError, UsageError with the line."""
    if not path.is_file():
        raise UsageError(f"references {str(path)!r}: no such file. Expected lines like {EXAMPLE}")
    found: dict[str, list[Reference]] = {}
    for n, record in enumerate(read_jsonl(path), 1):
        reference = _read_reference(record, f"{path}, record {n}")
        found.setdefault(reference.prompt, []).append(reference)
    if not found:
        raise UsageError(f"{path}: empty. Expected lines like {EXAMPLE}")
    return found


def _read_reference(record: Any, where: str) -> Reference:
    if not isinstance(record, dict):
        raise UsageError(f"{where}: {str(record)[:80]!r} is not an object. Expected {EXAMPLE}")
    name = "prompt_id" if "prompt_id" in record else "prompt"
    for key in (name, "text"):
        value = record.get(key)
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{where}: {key} is {str(value)[:80]!r}. Expected text: {EXAMPLE}")
    score = record.get("score")
    if score is not None and not (is_number(score) and score in FINITE):
        raise UsageError(
            f"{where}: score is {str(score)[:80]!r}. Expected a finite number, or leave it out of "
            f"all references of the prompt, from weak to strong"
        )
    return Reference(record[name], record["text"], score)


def rank_references(
    stored: Mapping[str, Sequence[Reference]], prompt_id: str, prompt: str
) -> Ranked:
    """The ranked references of a prompt, possibly none.

    Raises UsageError if only some of them have a score.

    >>> stored = {"p": [Reference("p", "good", 7.0), Reference("p", "poor", 2.0)]}
    >>> rank_references(stored, "p", "Write.").texts
    ('poor', 'good')
    """
    own = [one for name in dict.fromkeys((prompt_id, prompt)) for one in stored.get(name, ())]
    scores = [one.score for one in own if one.score is not None]
    if scores and len(scores) < len(own):
        raise UsageError(
            f"references of prompt {prompt_id[:80]!r}: {len(scores)} of {len(own)} have a score, "
            f"so they have no order. Give all of them one, or none, from weak to strong"
        )
    ranked = sorted(own, key=lambda one: one.score or 0.0)
    return Ranked(prompt_id, tuple(one.text for one in ranked))


def match_references(
    stored: Mapping[str, Sequence[Reference]], prompts: Sequence[Prompt]
) -> dict[str, Ranked]:
    """The ranked references of every prompt, by prompt text. Raises UsageError naming the prompts
    without any, since their rollouts could not be rewarded.
    """
    found = {one.prompt: rank_references(stored, one.id, one.prompt) for one in prompts}
    without = [ranked.prompt_id for ranked in found.values() if not ranked.texts]
    if without:
        shown = ", ".join(repr(name[:80]) for name in without[:5])
        raise UsageError(
            f"{len(without)} of {len(found)} prompts without a reference: {shown}"
            f"{', …' if len(without) > 5 else ''}. Give each a line in the file, as "
            f"{EXAMPLE}, or take them out of the prompts"
        )
    return found
