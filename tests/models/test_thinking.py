"""Splitting thinking from the answer: every row of the status table, and laws for any text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.models.chat import Reply
from r2w_eval.models.thinking import (
    ThinkTags,
    read_reply_text,
    split_thinking,
    thinking_blocks,
    writer_status,
)
from r2w_eval.types import WriterStatus

TAGS = ThinkTags()


@pytest.mark.parametrize(
    ("raw", "thinking", "answer"),
    [
        ("Once.", None, "Once."),
        ("<think>plan</think>Once.", "plan", "Once."),
        ("\n <think>\nplan\n</think>\n\nOnce.", "plan", "Once."),
        ("plan</think>Once.", "plan", "Once."),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("He said <think>no</think> twice.", None, "He said <think>no</think> twice."),
        ("<think></think>Once.", "", "Once."),
    ],
)
def test_tags_are_read(raw: str, thinking: str | None, answer: str) -> None:
    split = split_thinking(raw)
    assert (split.thinking, split.answer, split.unclosed) == (thinking, answer, False)


def test_a_block_opened_by_the_template_is_thinking() -> None:
    tags = ThinkTags(opened_by_template=True)
    assert split_thinking("plan</think>Once.", tags).answer == "Once."
    assert split_thinking("plan without end", tags).unclosed


def test_a_prompt_shows_who_opens_the_thinking() -> None:
    assert TAGS.after("[assistant]<think>\n").opened_by_template
    assert not TAGS.after("[assistant]<think>\n\n</think>\n\n").opened_by_template
    assert ThinkTags(opened_by_template=True).after("").opened_by_template


def test_interleaved_blocks_are_thinking_and_are_flagged() -> None:
    split = split_thinking("<think>a</think>one\n<think>b</think>two")
    assert split.thinking == "a\nb" and split.answer == "one\ntwo" and split.multi_block


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply("Once.", "stop"), WriterStatus.OK),
        (Reply("Once.", "length"), WriterStatus.TRUNCATED),
        (Reply("<think>plan", "length"), WriterStatus.UNCLOSED_THINK),
        (Reply("<think>plan", "stop"), WriterStatus.UNCLOSED_THINK),
        (Reply("", "stop"), WriterStatus.EMPTY),
        (Reply(" \n", "stop"), WriterStatus.EMPTY),
        (Reply("<think>plan</think>", "stop"), WriterStatus.EMPTY),
        (Reply("", "length", reasoning="plan"), WriterStatus.UNCLOSED_THINK),
        (Reply("Once.", "stop", reasoning="plan"), WriterStatus.OK),
        (Reply("", "stop", refusal="no"), WriterStatus.REFUSAL),
    ],
)
def test_each_status_has_its_cause(reply: Reply, status: WriterStatus) -> None:
    assert writer_status(reply, read_reply_text(reply, TAGS)) is status


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", " "])).map("".join))
def test_any_order_of_tags_is_split_without_error(raw: str) -> None:
    split = split_thinking(raw)
    assert not (split.unclosed and split.answer)


@given(st.text(max_size=200), st.text(max_size=200))
def test_what_was_joined_is_split_again(thinking: str, answer: str) -> None:
    if "think>" in thinking or "think>" in answer:
        return
    split = split_thinking(f"<think>{thinking}</think>{answer}")
    assert split.thinking == thinking.strip() and split.answer == answer.strip()


@pytest.mark.parametrize(
    "raw",
    [
        "<think></think>" + "\n<think>" * 200_000,
        "<think></think>" + "\n<think>x</think>" * 50_000,
        "<think>" * 200_000,
        "</think>" * 200_000,
        "<think></think>\n" + " " * 1_000_000,
        "<think>" + "\n" * 1_000_000,
    ],
)
def test_hostile_texts_are_split_in_linear_time(raw: str) -> None:
    started = time.monotonic()
    split_thinking(raw)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("raw", "answer", "multi_block"),
    [
        ("<think>a</think>one <think>b</think> two", "one <think>b</think> two", False),
        ("<think>a</think>one\n<think>b", "one\n<think>b", False),
        ("<think>a</think>one\n  <think>b</think>\ntwo\n<think>c</think>", "one\n\ntwo", True),
        ("Once\n<think>b</think>upon", "Once\n<think>b</think>upon", False),
        ("<think>a</think>one\n<think>b</think>two\n<think>c", "one\ntwo\n<think>c", True),
        # opened by a template that nobody knows of
        ("a</think>one\n<think>b</think>two", "one\ntwo", True),
        ("a</think>one, by the tag <think>", "one, by the tag <think>", False),
    ],
)
def test_only_complete_blocks_at_the_start_of_a_line_leave_the_answer(
    raw: str, answer: str, multi_block: bool
) -> None:
    split = split_thinking(raw)
    assert (split.answer, split.multi_block) == (answer, multi_block)


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "b", "\n"])).map("".join))
def test_no_visible_character_is_lost_or_doubled(raw: str) -> None:
    split = split_thinking(raw)
    kept = (split.thinking or "") + split.answer
    assert sorted(c for c in raw if c in "ab") == sorted(c for c in kept if c in "ab")


def test_other_tags_are_configurable_and_regular_expressions_in_them_are_inert() -> None:
    tags = ThinkTags("[THINK(", ")]")
    split = split_thinking("[THINK(a)]one\n[THINK(b)]two <think>c</think>", tags)
    assert split.thinking == "a\nb" and split.answer == "one\ntwo <think>c</think>"


def test_thinking_of_the_server_leaves_the_text_alone() -> None:
    reply = Reply("<think>told</think>", "stop", reasoning="own")
    split = read_reply_text(reply, TAGS)
    assert split.thinking == "own" and split.answer == "<think>told</think>"


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "a", "b "]), max_size=12).map(
        "".join
    ),
    st.booleans(),
)
def test_blocks_are_where_the_split_found_its_thoughts(raw: str, is_opened: bool) -> None:
    tags = ThinkTags(opened_by_template=is_opened)
    blocks, split = thinking_blocks(raw, tags), split_thinking(raw, tags)
    assert (split.thinking is None) == (not blocks)
    assert split.unclosed == any(not one.is_closed for one in blocks)
    places = [place for one in blocks for place in one]
    assert places == sorted(places) and all(one.is_closed for one in blocks[1:])
    thoughts = "\n".join(raw[one.start : one.end] for one in blocks)
    assert (split.thinking or "").strip() == thoughts.strip()
