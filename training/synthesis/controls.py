"""The control for traces with reflections: the same prompt and answer without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r2w_eval.trace.types import Kind
from r2w_eval.trace.writing import DEFAULT_TAGS


def without_reflections(trace: Mapping[str, Any]) -> dict[str, Any]:
    """The trace (`TrainingTrace` as JSON) with its thinking reduced to the plan, if any, and the
    answer in place of the draft.

    With both kinds of trace a policy learns the same answers, to plan, and to write a text in its
    thinking before it copies it as the answer. The control lacks a weaker draft, its criticism and
    its revision. Keeping the first draft would teach an unexplained leap to the answer; removing
    the thinking would test thinking rather than reflection.
    """
    parts, thinking, answer = trace["segments"], trace["thinking"], trace["answer"]
    place = next(n for n, part in enumerate(parts) if part["kind"] == Kind.DRAFT)
    start, rest = parts[place]["start"], thinking[parts[place]["end"] :]
    # in prose nothing closes it
    close = DEFAULT_TAGS.pair(Kind.DRAFT).close
    end = close if rest.startswith(close) else ""
    draft = {**parts[place], "end": start + len(answer)}
    return {
        **trace,
        "thinking": f"{thinking[:start]}{answer}{end}",
        "segments": [*parts[:place], draft],
    }
