"""Citation precision and recall from the verdicts on single claims (eval_citation_async.py).

Verdicts: `claims` (a stage: the report's claims with their sources), `support:<n>` (1 full, 0.5
partial, 0 none; only for claims whose pages are available) and `recall` (share of claims that name
a source).
"""

from __future__ import annotations

import re

from r2w_eval.types import ItemVerdicts, Mode, Score

STAGES = ("claims",)
SUPPORT = {"full_support": 1.0, "partial_support": 0.5, "no_support": 0.0}
URL = re.compile(r"https?://\S+|www\.\S+")


def names_a_source(report: str) -> bool:
    """Whether a report has any address; without one, precision and recall are 0."""
    return URL.search(report) is not None


def precision(item: ItemVerdicts, mode: Mode) -> float | None:
    """Mean support of the judged claims, 0 without any; None if unknown.

    Of several repeats the last one counts. A failed check counts 0 upstream; strict leaves the
    report unscored.
    """
    claims = item.scores.get("claims", ())
    if item.measures.get("names_a_source") is False:
        return 0.0
    if not claims or claims[-1].value is None:
        return None
    last = len(claims) - 1
    support = [
        scores[last]
        for name, scores in item.scores.items()
        if name.startswith("support:") and len(scores) > last
    ]
    values = [_support(score, mode) for score in support]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return sum(known) / len(known) if known else 0.0


def _support(score: Score, mode: Mode) -> float | None:
    return 0.0 if score.value is None and mode is Mode.PARITY else score.value


def recall(item: ItemVerdicts) -> float | None:
    """Share of claims with a source; None if unknown."""
    if item.measures.get("names_a_source") is False:
        return 0.0
    scores = item.scores.get("recall", ())
    return scores[-1].value if scores else None
