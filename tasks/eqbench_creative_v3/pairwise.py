"""Pairs of EQ-Bench Creative Writing v3: nine criteria, each with a winner and one to five pluses.

Used by `r2w-eval compare --judge`: both orders, 4,000 characters of each text, seven prompts left
out. Ratings are ours (Bradley-Terry); upstream's depend on the order of matches and cannot be
reproduced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from r2w_eval.judge.parsing import MAX_TEXT_CHARS, last_object
from r2w_eval.suites import PairwiseForm
from r2w_eval.template import Template
from r2w_eval.types import Decoding, JudgeRequest, JudgeStatus, Message, Sample, Score

SHOWN_CHARS = 4000
EXCLUDED = frozenset({"5", "16", "20", "21", "26", "28", "30"})
MAX_PLUSES = 5
DECODING = Decoding(max_tokens=4000, temperature=0.0)
_WRITER = re.compile(r"^\[WRITER (\w+)\]$", re.MULTILINE)
_CRITERION = re.compile(r'^"(\w+)": "winner', re.MULTILINE)
_LABEL = re.compile(r"\s*(\w+?)\s*(\++)\s*")


def make_form(template: Template) -> PairwiseForm:
    """The official prompt; the names of sides and criteria are read from it."""
    first, second = _WRITER.findall(template.text)
    facts = {"sides": [first, second], "criteria": _CRITERION.findall(template.text)}

    def build(prompt: str, shown_first: str, shown_second: str) -> JudgeRequest:
        content = template.replace(
            **{
                "{writing_prompt}": prompt,
                "{model_a_analysis}": shown_first[:SHOWN_CHARS],
                "{model_b_analysis}": shown_second[:SHOWN_CHARS],
            }
        )
        return JudgeRequest("preference", (Message("user", content),), facts=facts)

    return PairwiseForm((template.id,), DECODING, build, parse_pluses, prompt_of)


def prompt_of(sample: Sample) -> str | None:
    """The writing prompt as the rubric's judge sees it; None for excluded prompts."""
    if sample.meta["prompt_id"] in EXCLUDED:
        return None
    return str(sample.material["writing_prompt"])


def parse_pluses(request: JudgeRequest, text: str) -> Score:
    """Pluses of the text shown first minus those of the second, over all criteria.

    The last JSON object that has a criterion counts; it must have them all.
    """
    if len(text) > MAX_TEXT_CHARS:
        return Score(None, JudgeStatus.PARSE_ERROR, f"verdict of {len(text)} characters")
    criteria = request.facts["criteria"]
    found = last_object(text, *criteria)
    if found is None:
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object with a criterion")
    missing = [name for name in criteria if name not in found]
    if missing:
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, f"missing: {', '.join(missing)}")
    margins = {name: read_pluses(found[name], request.facts) for name in criteria}
    unread = [name for name, margin in margins.items() if margin is None]
    if unread:
        shown = ", ".join(f"{name} {str(found[name])[:40]!r}" for name in unread)
        return Score(None, JudgeStatus.UNKNOWN_LABEL, shown)
    total = sum(margin for margin in margins.values() if margin is not None)
    return Score(float(total), parts={"criteria": margins})


def read_pluses(label: object, facts: Mapping[str, Any]) -> int | None:
    """Signed pluses of one label, positive for the first side; None for another label."""
    match = _LABEL.fullmatch(label) if isinstance(label, str) else None
    if match is None or match[1] not in facts["sides"] or len(match[2]) > MAX_PLUSES:
        return None
    return len(match[2]) if match[1] == facts["sides"][0] else -len(match[2])
