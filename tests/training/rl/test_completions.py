"""What of a completion is thinking, by every reader alike: a template's tag, none, many blocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.prompts import Prompt
from r2w_eval.training.rl.completions import (
    read_completion,
    read_pieces,
    reflections,
    template_tags,
    thinking_tokens,
    without_end,
)
from r2w_eval.training.rl.rollouts import read_text
from r2w_eval.training.rl.signal import score_groups
from toy_scorer import Rain

from r2w_eval.models.thinking import ThinkTags, answer_of, split_thinking
from r2w_eval.trace.types import TagSchema

SCHEMA = TagSchema()
OPENED = ThinkTags(opened_by_template=True)
THOUGHT = "<draft>sun</draft><reflection>rain</reflection>"
PIECES = ["<think>", "</think>", "\n", " ", "sun", "<draft>", "</draft>", "<reflection>",
          "</reflection>", "<revision>", "</revision>"]  # fmt: skip


def template(text: str) -> Any:
    """A tokenizer whose chat template adds `text` to the prompt."""
    return SimpleNamespace(
        chat_template=text, apply_chat_template=lambda turns, **_: turns[0]["content"] + text
    )


def read(text: str, tags: ThinkTags = ThinkTags()) -> list[tuple[str, str | None]]:
    """Each reflection with the text that followed it, and its place checked."""
    trace = read_completion(
        [ord(c) for c in text], lambda ids: "".join(map(chr, ids)), SCHEMA, tags
    )
    found = reflections(trace, "p", "0")
    assert all(text[one.span.start : one.span.end] == one.item.reflection for one in found)
    return [(one.item.reflection, one.item.revision) for one in found]


@pytest.mark.parametrize(
    ("text", "tags", "expected"),
    [
        (f"<think>{THOUGHT}</think>A.", ThinkTags(), [("rain", "A.")]),
        (f"<think>{THOUGHT}", ThinkTags(), [("rain", None)]),
        (THOUGHT, ThinkTags(), []),
        (f"A. {THOUGHT} B.", ThinkTags(), []),
        (THOUGHT, OPENED, [("rain", None)]),
        (f"{THOUGHT}</think>A.", OPENED, [("rain", "A.")]),
        (
            f"<think>{THOUGHT}</think>A.\n<think><reflection>fog</reflection></think>B.",
            ThinkTags(),
            [("rain", "A.\nB."), ("fog", "A.\nB.")],
        ),
    ],
)
def test_reflections_stand_in_thinking_and_nowhere_else(
    text: str, tags: ThinkTags, expected: list[tuple[str, str | None]]
) -> None:
    assert read(text, tags) == expected


@given(st.lists(st.sampled_from(PIECES), max_size=25), st.booleans())
def test_all_readers_agree_on_what_was_thought(pieces: list[str], is_opened: bool) -> None:
    text, tags = "".join(pieces), OPENED if is_opened else ThinkTags()
    trace, split = read_pieces(pieces, SCHEMA, tags), split_thinking(text, tags)
    assert trace.answer == answer_of(text, tags)
    assert "".join(trace.text.split()) == "".join((split.thinking or "").split())
    assert (thinking_tokens(pieces, tags) > 0) == (split.thinking is not None and bool(pieces))
    rollout = read_text(Prompt("p", "en", "d", "x"), 0, pieces, True, tags)
    assert (rollout.thinking, rollout.answer) == (split.thinking, trace.answer)


def test_an_end_of_turn_is_no_part_of_the_revised_text() -> None:
    added = {
        n: SimpleNamespace(content=f"<|{n}|>", special=n < 2) for n in (0, 1, ord("A"), ord("."))
    }
    tokenizer = SimpleNamespace(
        added_tokens_decoder=added, decode=lambda ids: "".join(map(chr, ids))
    )
    ids = [*map(ord, f"<think>{THOUGHT}</think>"), 0]
    for answer, expected in (("A.", "A."), ("", None)):
        whole = without_end([*ids[:-1], *map(ord, answer), 1, 0], tokenizer)
        trace = read_completion(whole, tokenizer.decode, SCHEMA)
        (found,) = reflections(trace, "p", "0")
        assert found.item.revision == expected


def test_signal_reads_what_a_template_opened_as_rl_does() -> None:
    pieces = list(f"{THOUGHT}</think>sun")
    row = read_text(Prompt("p", "en", "d", "x"), 0, pieces, True, OPENED)
    text = {"prompt_id": "p", "prompt": "x", "text": row.text}
    (group,) = score_groups([text, {**text, "text": THOUGHT}], Rain(), Rain())
    assert [len(one.segments) for one in group.rollouts] == [1, 0]


def test_the_chat_template_says_who_opens_the_thinking() -> None:
    assert template_tags(template("<think>\n")).opened_by_template
    assert not template_tags(template("<think>\n\n</think>\n\n")).opened_by_template
    assert not template_tags(SimpleNamespace(chat_template=None)).opened_by_template
