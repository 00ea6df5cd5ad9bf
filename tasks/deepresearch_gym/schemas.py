"""The JSON schemas that upstream's endpoint enforces on the judge's replies.

Equal to the models of cxcscmu/deepresearch_benchmarking@d5fa708 (KeyPointRecall,
CriterionEvaluation, ClaimsModel, CitationSupport) in OpenAI's strict form, without titles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r2w_eval.tasks.deepresearch_gym.citations import SUPPORT

from r2w_eval.types import JudgeRequest

TEXT = {"type": "string"}
LABELS = ("Supported", "Omitted", "Contradicted")
RATINGS = tuple(range(11))


def closed_object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """An object with exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def one_of(values: Sequence[str | int]) -> dict[str, Any]:
    """One of these values: all texts or all integers."""
    return {"type": "string" if isinstance(values[0], str) else "integer", "enum": list(values)}


CLAIM = closed_object(
    {"claim_id": {"type": "integer"}, "claim": TEXT, "sources": {"type": "array", "items": TEXT}}
)
# by the prefix of a criterion
SCHEMAS = {
    "point": ("KeyPointRecall", {"label": one_of(LABELS), "justification": TEXT}),
    "quality": ("CriterionEvaluation", {"rating": one_of(RATINGS), "justification": TEXT}),
    "claims": ("ClaimsModel", {"claims": {"type": "array", "items": CLAIM}}),
    "recall": ("ClaimsModel", {"claims": {"type": "array", "items": CLAIM}}),
    "support": ("CitationSupport", {"support": one_of(tuple(SUPPORT)), "justification": TEXT}),
}


def reply_schema(request: JudgeRequest) -> dict[str, Any]:
    """Name, schema and strictness for the reply to one question."""
    name, properties = SCHEMAS[request.criterion.partition(":")[0]]
    return {"name": name, "schema": closed_object(properties), "strict": True}
