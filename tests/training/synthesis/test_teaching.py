"""What fine-tuning teaches after the chat template: thinking kept, finished, parsed, its own."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("jinja2", reason="needs the train extra: pip install 'r2w-eval[train]'")

from r2w_eval.training.synthesis.teaching import Teaching, check_rows, read_teaching
from r2w_eval.training.trainer.sft import to_row

from r2w_eval.errors import UsageError
from r2w_eval.trace.types import Kind
from r2w_eval.trace.writing import write_prose

THOUGHT = "<draft>It rained.</draft>\n<reflection>{}</reflection>\n<revision>Rain.</revision>"
OWN = 'I see that "It rained." is flat; I will cut it.'
KEEPS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
# as R1's distillations do: only what stands after the thinking
DROPS = KEEPS.replace("m.content", "m.content.split('</think>')[-1]")
OPENS = KEEPS + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"


class Rendering:
    """A tokenizer's chat template, without the tokenizer."""

    def __init__(self, template: str) -> None:
        self.template = template

    def apply_chat_template(
        self, messages: Any, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        made = ImmutableSandboxedEnvironment().from_string(self.template)
        return made.render(messages=messages, add_generation_prompt=add_generation_prompt)


def teaching(template: str, *reflections: str) -> Teaching:
    rows = [
        to_row({"prompt": "Write.", "thinking": THOUGHT.format(own), "answer": "Rain."})
        for own in reflections
    ]
    return read_teaching(rows, Rendering(template))


@pytest.mark.parametrize("template", [KEEPS, OPENS])
def test_a_template_that_keeps_the_thinking_passes_every_check(template: str) -> None:
    found = teaching(template, OWN, OWN)
    assert found == Teaching(2, 0, 2, 2, 0, 2, 0)
    assert not any("expected" in note for note in found.notes())


def test_a_template_that_drops_the_thinking_is_seen() -> None:
    found = teaching(DROPS, OWN)
    assert (found.n_lost, found.n_finished) == (1, 0)
    row = to_row({"prompt": "Write.", "thinking": THOUGHT, "answer": "Rain."})
    with pytest.raises(UsageError, match="drops or changes the thinking of 1 of 1 rows"):
        check_rows("some/model", [row], Rendering(DROPS))


def test_a_mention_of_a_judge_and_a_broken_tag_are_counted_and_reported() -> None:
    found = teaching(KEEPS, OWN, "The judge says that it is flat; I will cut it.", "<plan>I will")
    assert (found.n_lost, found.n_parsed, found.n_leaking) == (0, 2, 1)
    assert sum("expected" in note for note in found.notes()) == 2


def test_reflections_in_prose_are_read_and_searched_for_a_judge() -> None:
    def row(thought: str) -> dict[str, Any]:
        parts = [(Kind.DRAFT, "It rained."), (Kind.REFLECTION, thought), (Kind.REVISION, "Rain.")]
        return to_row(
            {"prompt": "Write.", "thinking": write_prose(parts, "en").text, "answer": "Rain."}
        )

    plain = to_row({"prompt": "Add.", "thinking": "Two and two make four.", "answer": "4"})
    rows = [row(OWN), row("The judge says that it is flat; I will cut it."), plain]
    assert read_teaching(rows, Rendering(KEEPS)) == Teaching(3, 0, 3, 3, 1, 0, 2)
    notes = read_teaching(rows, Rendering(KEEPS)).notes()
    assert notes[-1] == "reflections on a draft in 2 of 3 (2 in prose)"
