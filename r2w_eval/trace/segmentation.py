"""The front door to traces: any thinking text in, segments out; tags first, else prose rules."""

from __future__ import annotations

from r2w_eval.trace.prose import parse_prose
from r2w_eval.trace.tags import has_tags, parse_tagged
from r2w_eval.trace.types import TagSchema, Trace


def segment_trace(
    thinking: str, answer: str | None = None, schema: TagSchema | None = None
) -> Trace:
    """Segments of a thinking text. Never raises for any text; linear in its length.

    A text with at least one opening tag of the schema is read by its tags, any other as prose.

    >>> str(segment_trace("<draft>Rain.</draft>").form)
    'tagged'
    """
    tags = schema or TagSchema()
    if has_tags(thinking, tags):
        return parse_tagged(thinking, tags, answer)
    return parse_prose(thinking, answer)
