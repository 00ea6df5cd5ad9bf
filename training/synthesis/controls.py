"""The control of an ablation for traces: the same prompt and answer, no reflection on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r2w_eval.trace.types import Kind
from r2w_eval.trace.writing import DEFAULT_TAGS


def without_reflections(trace: Mapping[str, Any]) -> dict[str, Any]:
    """A trace (`TrainingTrace` as JSON) whose thinking is its plan, if it has one, and its answer
    as the draft.

    In both the thinking ends in the text that is then given as answer, so a policy learns the same
    answers, to plan, to think first, and to copy. What it does not see is a weaker text, what is
    wrong with it, and that it can be revised. The first draft instead of the answer would teach
    a leap from one to the other that nothing explains; no thinking at all would compare thinking
    with none.
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
