"""What scorers of reflections get from a trace: the texts of each step, patches applied."""

from __future__ import annotations

from dataclasses import dataclass

from r2w_eval.trace.patches import versions
from r2w_eval.trace.types import Segment, Trace, steps


@dataclass(frozen=True, slots=True)
class ReflectionUnit:
    """The tuple that scorers of reflections get: whole texts only.

    `draft` is the text that the reflection looks back at, `revision` the one that followed. A
    patch is applied, and the revision is the resulting text. Any other revision is taken for the
    whole text, however short: rewards must not depend on a guess about what it replaces, as
    `links.full_texts` makes.
    """

    prompt: str
    draft: str | None
    reflection: str
    revision: str | None
    earlier: tuple[str, ...]
    in_answer: bool = False
    """The revision is the final answer, because the thinking holds none after the reflection."""


def units(trace: Trace, prompt: str = "") -> tuple[ReflectionUnit, ...]:
    """The texts of every step, in the order of `steps`. Without a revision in the thinking, the
    final answer takes its place.
    """
    after = versions([(segment.kind, trace.text_of(segment)) for segment in trace.segments])
    texts = {own.span: one.text for own, one in zip(trace.segments, after, strict=True)}

    def text(segment: Segment | None) -> str | None:
        return None if segment is None else texts[segment.span]

    found = []
    for step in steps(trace):
        in_answer = step.outcome is None and bool(trace.answer)
        found.append(
            ReflectionUnit(
                prompt,
                text(step.base),
                trace.text_of(step.reflection),
                trace.answer if in_answer else text(step.outcome),
                tuple(trace.text_of(segment) for segment in step.earlier),
                in_answer,
            )
        )
    return tuple(found)
