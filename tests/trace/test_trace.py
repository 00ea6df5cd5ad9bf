"""Tagged traces, steps and token spans: laws by hypothesis, faults by example."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import UsageError
from r2w_eval.trace import segment_trace
from r2w_eval.trace.tags import parse_tagged
from r2w_eval.trace.tokens import decode_pieces, offsets_of_pieces, token_span, with_tokens
from r2w_eval.trace.types import Fault, Form, Kind, Span, TagSchema, Trace, steps
from r2w_eval.trace.units import units
from r2w_eval.trace.writing import write_tagged

SCHEMA = TagSchema()
TAGGED = [pair.kind for pair in SCHEMA.pairs]
SOUP = st.lists(
    st.sampled_from(
        [t for pair in SCHEMA.pairs for t in (pair.open, pair.close)]
        + ["a", " ", "\n", "`", "雨", "🙂", "<", "</think>", "Wait, ", "Draft: ", '"', "改成：“"]
    ),
    max_size=40,
).map("".join)


def kinds_and_texts(trace: Trace) -> list[tuple[str, str]]:
    return [(str(segment.kind), trace.text_of(segment)) for segment in trace.segments]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*TAGGED, Kind.OTHER]),
            st.text(alphabet="ab雨🙂`</> \n", min_size=1, max_size=20),
        ),
        max_size=8,
    )
)
def test_a_written_trace_is_read_back(parts: list[tuple[Kind, str]]) -> None:
    # bare text is told from white space and from its neighbours by its ends alone
    wanted = [
        (kind, text.strip(" \n`") or "x" if kind is Kind.OTHER else text or "x")
        for kind, text in parts
    ]
    kept: list[tuple[Kind, str]] = []
    for pair in wanted:
        if not kept or Kind.OTHER not in (kept[-1][0], pair[0]) or kept[-1][0] is not pair[0]:
            kept.append(pair)
    wanted = kept
    trace = write_tagged(wanted, SCHEMA)
    assert kinds_and_texts(trace) == [(str(kind), text) for kind, text in wanted]
    read = parse_tagged(trace.text, SCHEMA)
    # blank texts are faults to the reader
    assert replace(read, segments=tuple(s._replace(faults=()) for s in read.segments)) == trace


@given(SOUP)
def test_segments_are_disjoint_and_lie_in_the_text(text: str) -> None:
    trace = segment_trace(text)
    position = 0
    for segment in trace.segments:
        assert position <= segment.outer.start <= segment.span.start
        assert segment.span.start <= segment.span.end <= segment.outer.end
        position = segment.outer.end
    assert position <= len(text)


@given(SOUP)
def test_no_text_outside_white_space_and_tags_is_lost_in_tagged_traces(text: str) -> None:
    trace = parse_tagged(text, SCHEMA)
    left_over, position = "", 0
    for segment in trace.segments:
        left_over += text[position : segment.outer.start]
        position = segment.outer.end
    left_over += text[position:]
    for pair in SCHEMA.pairs:
        left_over = left_over.replace(pair.open, "").replace(pair.close, "")
    assert not left_over.strip()


def test_an_inner_segment_wins_and_cuts_the_outer_one() -> None:
    trace = parse_tagged("<draft>a<reflection>b</reflection>c</draft>", SCHEMA)
    assert kinds_and_texts(trace) == [("draft", "a"), ("reflection", "b"), ("draft", "c")]
    assert [s.faults for s in trace.segments] == [(Fault.NESTED,), (), (Fault.NESTED,)]


def test_interleaved_tags_leave_an_unclosed_segment_and_a_stray_tag() -> None:
    trace = parse_tagged("<draft>a<reflection>b</draft>c</reflection>", SCHEMA)
    assert kinds_and_texts(trace) == [("draft", "a"), ("reflection", "b"), ("other", "c")]
    assert trace.segments[1].faults == (Fault.UNCLOSED,)
    assert trace.faults == (Fault.STRAY_CLOSE,)


def test_an_unclosed_segment_ends_at_the_next_tag() -> None:
    trace = parse_tagged("<draft>a<revision>b</revision> tail", SCHEMA)
    assert kinds_and_texts(trace) == [("draft", "a"), ("revision", "b"), ("other", "tail")]
    assert trace.segments[0].faults == (Fault.UNCLOSED,)


def test_an_empty_thought_is_kept_with_its_fault() -> None:
    trace = parse_tagged("<reflection> </reflection>", SCHEMA)
    assert trace.segments[0].faults == (Fault.EMPTY,)
    assert parse_tagged("", SCHEMA).segments == ()
    assert segment_trace("  \n ").segments == ()


def test_tags_in_backticks_and_other_spellings_are_text() -> None:
    text = "I use `<draft>` for it; <Draft> and < draft > and <draft id=1> are none."
    assert parse_tagged(text, SCHEMA).segments[0].kind is Kind.OTHER
    assert segment_trace(text).form is Form.PROSE


def test_a_tag_in_the_answer_is_a_fault() -> None:
    trace = segment_trace("<draft>He typed", "</draft> and left.")
    assert trace.faults == (Fault.TAG_IN_ANSWER,)
    assert trace.segments[0].faults == (Fault.UNCLOSED,)


def test_a_schema_of_ones_own() -> None:
    schema = TagSchema.parse("draft=[D],[/D]; verification=[V],[/V]")
    trace = segment_trace("[D]x[/D] [V]ok[/V]", None, schema)
    assert kinds_and_texts(trace) == [("draft", "x"), ("verification", "ok")]
    with pytest.raises(UsageError, match="no tags for 'plan'"):
        schema.pair(Kind.PLAN)
    for bad in ("draft", "tale=<a>,</a>", "draft=<a>", "", "draft=<a>,<a>"):
        with pytest.raises(UsageError, match="Try:"):
            TagSchema.parse(bad)


def test_a_text_with_tags_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="holds a tag"):
        write_tagged([(Kind.DRAFT, "a </draft> b")], SCHEMA)


def test_steps_link_reflections_to_what_is_before_and_after() -> None:
    text = (
        "<draft>a</draft><reflection>r0</reflection><reflection>r1</reflection>"
        "<revision>b</revision><reflection>r2</reflection>"
    )
    trace = segment_trace(text, "final")
    found = units(trace, "p")
    assert [(u.draft, u.reflection, u.revision, u.earlier, u.in_answer) for u in found] == [
        ("a", "r0", "b", (), False),
        ("a", "r1", "b", ("r0",), False),
        ("b", "r2", "final", ("r0", "r1"), True),
    ]
    assert units(segment_trace("<reflection>r</reflection>"))[0].revision is None


def test_a_revision_before_any_draft_is_the_base_of_what_follows() -> None:
    trace = segment_trace("<revision>b</revision><reflection>r</reflection><draft>c</draft>")
    step = steps(trace)[0]
    assert step.base is not None and trace.text_of(step.base) == "b"
    assert step.outcome is not None and trace.text_of(step.outcome) == "c"


def byte_decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


@given(st.text(alphabet="aé雨🙂<>/", max_size=30))
def test_pieces_of_a_byte_tokenizer_join_to_the_text(text: str) -> None:
    ids = list(text.encode())
    pieces = decode_pieces(ids, byte_decode)
    assert "".join(pieces) == text
    assert len(pieces) == len(ids)


def test_token_spans_cover_emoji_and_tags_that_are_split_over_tokens() -> None:
    text = "<draft>雨🙂</draft><reflection>é</reflection>"
    ids = list(text.encode())
    offsets = offsets_of_pieces(decode_pieces(ids, byte_decode))
    trace = with_tokens(segment_trace(text), offsets)
    for segment in trace.segments:
        assert segment.tokens is not None and segment.outer_tokens is not None
        owned = ids[segment.tokens.start : segment.tokens.end]
        assert byte_decode(owned) == trace.text_of(segment)
        assert byte_decode(
            ids[segment.outer_tokens.start : segment.outer_tokens.end]
        ) == segment.outer.cut(text)


@given(st.lists(st.integers(1, 4), max_size=20), st.integers(0, 60), st.integers(0, 30))
def test_neighbouring_spans_never_share_a_token(sizes: list[int], cut: int, length: int) -> None:
    offsets = offsets_of_pieces(["x" * size for size in sizes])
    left, right = token_span(Span(0, cut), offsets), token_span(Span(cut, cut + length), offsets)
    assert left.end == right.start
    assert left.start == 0


def test_offsets_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(UsageError, match="do not ascend"):
        with_tokens(segment_trace("<draft>a</draft>"), [(3, 4), (0, 1)])


@pytest.mark.parametrize(
    "unit",
    [
        "<draft>",
        "</draft>",
        "<draft>a</draft>",
        "Rain fell. ",
        "改成：“",
        'Maybe "a. ',
        "Wait, no. ",
    ],
)
def test_time_grows_with_the_length_and_not_faster(unit: str) -> None:
    def seconds(n: int) -> float:
        text = unit * (n // len(unit))
        begin = time.process_time()
        segment_trace(text)
        return time.process_time() - begin

    def best(n: int) -> float:
        return min(seconds(n) for _ in range(3))

    # a square law would give 100 here
    assert best(200_000) < 40 * max(best(20_000), 0.002)


def test_bytes_that_never_become_characters_take_time_in_proportion() -> None:
    decoded = 0

    def count(ids: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return byte_decode(ids)

    n = 4_000
    decode_pieces([0x80] * n, count)
    assert decoded < 40 * n
    # and what is readable before, between and behind them stays whole
    text = "日本語 é 🙂 " * 9
    mixed = [0x80] * 20 + list(text.encode()) + [0xFF] * 13 + list(text.encode())
    assert "".join(decode_pieces(mixed, byte_decode)) == byte_decode(mixed)
