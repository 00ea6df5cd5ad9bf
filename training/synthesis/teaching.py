"""Checks SFT rows as the chat template renders them.

Some templates drop the thinking of assistant turns, even of the last one. A policy trained through
such a template learns answers only, and its loss does not show it (specification: r2write.md
section 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from r2w_eval.training.synthesis.leaks import shows_a_judge

from r2w_eval.errors import UsageError
from r2w_eval.models.thinking import SplitText, ThinkTags, split_thinking
from r2w_eval.trace import segment_trace
from r2w_eval.trace.types import Form, Kind, Trace, steps

LEAST_PARSED = 0.95


@dataclass(frozen=True, slots=True)
class Teaching:
    """Counts over `n` rendered rows.

    n_lost: the template dropped or changed the thinking
    n_finished: the thinking is closed and followed by an answer
    n_parsed: the trace has no faults
    n_leaking: a reflection reveals the judge
    n_tagged, n_prose: there is a reflection on a draft, in tags or in prose
    """

    n: int
    n_lost: int
    n_finished: int
    n_parsed: int
    n_leaking: int
    n_tagged: int
    n_prose: int

    def notes(self) -> tuple[str, ...]:
        """The checks as text; failed ones say what was expected.

        >>> Teaching(4, 0, 4, 3, 0, 3, 0).notes()[1]
        'parsed 3 of 4 (75.0 %): expected at least 95 %'
        """
        parsed = self.n_parsed / self.n
        told = [
            (f"finished thoughts {self.n_finished} of {self.n}", self.n_finished == self.n, "all"),
            (
                f"parsed {self.n_parsed} of {self.n} ({100 * parsed:.1f} %)",
                parsed >= LEAST_PARSED,
                f"at least {100 * LEAST_PARSED:.0f} %",
            ),
            (f"a judge in {self.n_leaking} of {self.n}", not self.n_leaking, "none"),
        ]
        notes = [said if passed else f"{said}: expected {limit}" for said, passed, limit in told]
        return (
            *notes,
            f"reflections on a draft in {self.n_tagged + self.n_prose} of {self.n} "
            f"({self.n_prose} in prose)",
        )


def check_rows(model: str, rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> Teaching:
    """Check all rows. Raises UsageError if the template drops the thinking of any."""
    found = read_teaching(rows, tokenizer)
    if found.n_lost:
        raise UsageError(
            f"sft.model {model!r}: its chat template drops or changes the thinking of "
            f"{found.n_lost} of {found.n} rows, so a policy would learn answers without it. "
            f"Expected a template that keeps <think> in the last message. Try another sft.model, "
            f"or put such a template into a copy of its folder (chat_template.jinja)"
        )
    return found


def read_teaching(rows: Iterable[Mapping[str, Any]], tokenizer: Any) -> Teaching:
    """Count over all rows, rendered as the trainer renders them."""
    counts = dict.fromkeys((field.name for field in fields(Teaching)), 0)
    for row in rows:
        written = split_thinking(row["completion"][-1]["content"])
        seen = as_seen(row, tokenizer)
        trace = segment_trace(seen.thinking or "", seen.answer)
        counts["n"] += 1
        counts["n_lost"] += (written.thinking or "").strip() not in (seen.thinking or "")
        counts["n_finished"] += bool(seen.thinking and seen.answer and not seen.unclosed)
        counts["n_parsed"] += is_faultless(trace)
        counts["n_leaking"] += has_judge(trace, row["prompt"][-1]["content"])
        if any(step.base for step in steps(trace)):
            counts["n_tagged" if trace.form is Form.TAGGED else "n_prose"] += 1
    return Teaching(**counts)


def as_seen(row: Mapping[str, Any], tokenizer: Any) -> SplitText:
    """Thinking and answer of a row as rendered by the chat template."""
    prompt: str = tokenizer.apply_chat_template(
        row["prompt"], tokenize=False, add_generation_prompt=True
    )
    whole: str = tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], tokenize=False)
    # a generation prompt may open the thinking, which the whole text then repeats
    tags = ThinkTags().after(prompt)
    completion = whole.removeprefix(prompt)
    head, opened, _ = completion.partition(tags.open)
    if opened and tags.close not in head:
        # without a generation prompt in the template, the turn's header comes first
        completion = completion.removeprefix(head)
    return split_thinking(completion, tags)


def is_faultless(trace: Trace) -> bool:
    """Tags are closed, not nested and not in the answer, and patches apply; prose always passes."""
    return not trace.faults and not any(segment.faults for segment in trace.segments)


def has_judge(trace: Trace, prompt: str) -> bool:
    """A reflection mentions a judge or a mark, in words of neither the prompt nor the draft."""
    texts = {kind: [trace.text_of(s) for s in trace.segments if s.kind is kind]
             for kind in (Kind.DRAFT, Kind.REFLECTION)}  # fmt: skip
    draft = "\n".join(texts[Kind.DRAFT])
    return shows_a_judge(texts[Kind.REFLECTION], "en", prompt, draft)
