"""What DiscoX's judge said: the gate's label, the critique, and the deductions of a list."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from r2w_eval.tasks.discox.aspects import ASPECTS, CRITIQUE, FIRST, GATE, Aspect

from r2w_eval.judge.extraction import last_list
from r2w_eval.types import JudgeRequest, JudgeStatus, Score

TRIES = 3
GATE_LABEL = re.compile(r"是否存在问题：\s*([^\s])")
# bold, quoted or as a JSON key, as judges write it
ANY_GATE_LABEL = re.compile(r"是否存在问题[\s*\"”]*[：:][\s*\"“【]*([^\s*\"“【])")
FENCE = re.compile(r"```(?:json)?\s*([\s\S]*?)\s*```")


def unfence(text: str) -> str:
    """The content of the first plain or json fence, or all of the text.

    >>> unfence("x ```json [3] ``` y"), unfence("[7]")
    ('[3]', '[7]')
    """
    match = FENCE.search(text)
    return match[1].strip() if match else text


def decode_as_upstream(text: str) -> Any:
    """Any JSON value. Raises ValueError where upstream's decoding fails."""
    try:
        return json.loads(unfence(text))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """Gate: the last 是 or 否. Lists: the last JSON list, every entry with a known label."""
    if request.criterion == GATE:
        return _gate_score(ANY_GATE_LABEL.findall(text)[-1:])
    if request.criterion == CRITIQUE:
        return Score(float(len(text))) if text else Score(None, JudgeStatus.PARSE_ERROR, "empty")
    aspect = ASPECTS[request.criterion.removeprefix(f"{FIRST}:")]
    found = last_list(text)
    if found is None:
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON list of objects")
    labels = [entry.get(aspect.key) if isinstance(entry, dict) else None for entry in found]
    names = [re.split("[（(]", str(label))[0].strip() for label in labels]
    if unknown := [name for name in names if name not in aspect.costs]:
        why = f"{aspect.key} is {unknown[0][:40]!r}, expected {' / '.join(aspect.costs)}"
        return Score(None, JudgeStatus.UNKNOWN_LABEL, why)
    return _list_score(aspect, sum(aspect.costs[name] for name in names), len(found))


def _gate_score(labels: Sequence[str]) -> Score:
    if not labels:
        return Score(None, JudgeStatus.PARSE_ERROR, "no 是否存在问题：是/否")
    if labels[0] not in "是否":
        return Score(None, JudgeStatus.UNKNOWN_LABEL, f"{labels[0]!r}, expected 是 or 否")
    return Score(float(labels[0] == "否"))


def _list_score(aspect: Aspect, lost: int, n_entries: int) -> Score:
    """The share of the aspect's points that remains; the points lost go on as a part."""
    kept = max(0, aspect.points - lost) / aspect.points
    return Score(kept, parts={"lost": lost, "entries": n_entries})


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """Upstream's reading: a gate without a label passes; unknown labels have their own cost."""
    if request.criterion == GATE:
        match = GATE_LABEL.search(unfence(text))
        return Score(float(match is None or match[1] != "是"))
    if request.criterion == CRITIQUE:
        return Score(float(len(text)))
    try:
        found = decode_as_upstream(text)
    except ValueError:
        return Score(None, JudgeStatus.PARSE_ERROR, "not JSON after upstream's cleaning")
    if request.criterion.startswith(FIRST):
        return Score(1.0, parts={"entries": len(found) if isinstance(found, list) else 0})
    aspect = ASPECTS[request.criterion]
    try:
        lost = sum(cost_as_upstream(aspect, entry) for entry in found)
    except TypeError:
        return Score(None, JudgeStatus.UPSTREAM_LOST, "upstream's formula fails on such a list")
    return _list_score(aspect, lost, len(found))


def cost_as_upstream(aspect: Aspect, entry: Any) -> int:
    """Points that one entry costs. Raises TypeError where upstream does."""
    if aspect.key in entry and entry[aspect.key] in aspect.costs:
        return aspect.costs[entry[aspect.key]]
    return aspect.unknown


def ask_again(texts: Sequence[str]) -> bool:
    """Upstream asks three times for a list."""
    return len(texts) < TRIES


def settle(request: JudgeRequest, texts: Sequence[str]) -> Score | None:
    """What upstream makes of three unreadable lists: an empty list, which costs nothing.

    A gate or critique is unreadable only where it was cut in its thinking, and stays lost.
    """
    aspect = ASPECTS.get(request.criterion.removeprefix(f"{FIRST}:"))
    return None if aspect is None else _list_score(aspect, 0, 0)
