"""SFT without reflections: the same prompts and answers, and thinking that ends in the answer."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.synthesis.controls import without_reflections
from r2w_eval.training.synthesis.expert import planted_traces
from r2w_eval.training.synthesis.traces import place_parts

from r2w_eval.trace.segmentation import segment_trace
from r2w_eval.trace.types import Form, Kind
from r2w_eval.trace.writing import write_trace

TEXT = st.text(st.characters(exclude_characters="<"), min_size=1).filter(str.strip)
STEPS = st.lists(st.tuples(TEXT, TEXT), max_size=3)


@given(st.none() | TEXT, TEXT, STEPS, TEXT, st.sampled_from(Form))
def test_the_plan_stays_and_the_answer_is_the_draft(
    plan: str | None, draft: str, steps: list[tuple[str, str]], answer: str, form: Form
) -> None:
    before = [(Kind.PLAN, plan)] if plan is not None else []
    chain = [
        own for what, text in steps for own in ((Kind.REFLECTION, what), (Kind.REVISION, text))
    ]
    trace = write_trace([*before, (Kind.DRAFT, draft), *chain], form, "en")
    row = {
        "prompt": "p",
        "thinking": trace.text,
        "answer": answer,
        "segments": [asdict(part) for part in place_parts(trace, [(1, "wording")] * len(chain))],
    }
    control = without_reflections(row)
    expected = write_trace([*before, (Kind.DRAFT, answer)], form, "en")
    assert control["thinking"] == expected.text
    assert control["segments"] == [asdict(part) for part in place_parts(expected, [])]
    assert control["prompt"] == "p" and control["answer"] == answer


@pytest.mark.parametrize("form", Form)
def test_traces_of_ours_lose_their_reflections_and_nothing_else(form: Form) -> None:
    for made in planted_traces(12, form=form):
        trace, emptied = asdict(made), {"thinking": "", "segments": ()}
        control = without_reflections(trace)
        assert {**trace, **emptied} == {**control, **emptied}
        draft = control["segments"][-1]
        text = control["thinking"][draft["start"] : draft["end"]]
        assert draft["kind"] == "draft" and text == made.answer
        read = segment_trace(control["thinking"])
        assert read.form is form and Kind.REFLECTION not in [s.kind for s in read.segments]
