"""Rules for prose, against the labelled traces and against texts that try to mislead them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

from r2w_eval.trace import segment_trace
from r2w_eval.trace.gold import agreement, match_segments, overlap, read_labelled, read_marked
from r2w_eval.trace.prose import parse_prose, write_prose
from r2w_eval.trace.types import Form, Kind, Trace

FIXTURES = ROOT / "tests" / "fixtures"
# Floors a little under the measured figures of docs/reflection.md: a rule that breaks shows here
FLOORS = {"dev": 0.88, "holdout": 0.70}


def kinds_and_texts(trace: Trace) -> list[tuple[str, str]]:
    return [(str(segment.kind), trace.text_of(segment)) for segment in trace.segments]


@pytest.mark.parametrize("split", FLOORS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_prose_rules_keep_their_measured_agreement(split: str, language: str) -> None:
    rows = [r for r in read_labelled(FIXTURES / f"traces_{split}.jsonl") if r.language == language]
    assert len(rows) >= 20
    own = [row for row in rows if row.form == "prose"]
    figures = {metric.name: metric.value for metric in agreement(own, segment_trace)}
    assert (figures["all/f1"] or 0.0) >= FLOORS[split]
    tagged = [row for row in rows if row.form == "tagged"]
    assert {m.name: m.value for m in agreement(tagged, segment_trace)}["all/f1"] == 1.0


def test_the_fixtures_hold_what_the_guide_promises() -> None:
    rows = [row for s in FLOORS for row in read_labelled(FIXTURES / f"traces_{s}.jsonl")]
    assert len(rows) >= 120
    assert {row.language for row in rows} == {"en", "zh"}
    assert {"none", "one", "many", "circular", "unclosed", "nested", "fake"} <= {
        row.trait for row in rows
    }
    for row in rows:
        for before, after in zip(row.segments, row.segments[1:], strict=False):
            assert before.span.end <= after.span.start


def test_agreement_with_itself_is_perfect_and_with_nothing_is_zero() -> None:
    rows = list(read_labelled(FIXTURES / "traces_dev.jsonl"))[:5]
    gold = {row.text: row.segments for row in rows}
    same = agreement(rows, lambda text: Trace(text, gold[text], Form.PROSE))
    assert {m.value for m in same if m.name.endswith("f1")} == {1.0}
    assert {m.value for m in same if m.name.endswith("boundary")} == {0.0}
    none = agreement(rows, lambda text: Trace(text, (), Form.PROSE))
    assert {m.value for m in none if m.name.endswith("f1")} == {0.0}


def test_matching_is_one_to_one_and_by_kind() -> None:
    _, gold = read_marked("[d]abcd[r]efgh")
    _, found = read_marked("[d]abcde[v]fgh")
    assert [pair.gold.kind for pair in match_segments(gold, found)] == [Kind.DRAFT]
    assert overlap(gold[0].span, found[0].span) == 4 / 5


@pytest.mark.parametrize(
    ("language", "plan", "draft", "reflection", "revision", "check"),
    [
        (
            "en",
            "The user wants two lines about snow.",
            "Snow fell on the bus.",
            "the bus is too plain.",
            "Snow fell on line 12.",
            "two lines, yes.",
        ),
        (
            "zh",
            "用户想要两行写雪的诗。",
            "雪落在公交车上。",
            "这句太平淡。",
            "雪落在十二路车上。",
            "两行，没问题。",
        ),
    ],
)
def test_a_written_prose_trace_is_read_back(
    language: str, plan: str, draft: str, reflection: str, revision: str, check: str
) -> None:
    parts = [
        (Kind.PLAN, plan),
        (Kind.DRAFT, draft),
        (Kind.REFLECTION, reflection),
        (Kind.REVISION, revision),
        (Kind.VERIFICATION, check),
    ]
    trace = parse_prose(write_prose(parts, language))
    assert [segment.kind for segment in trace.segments] == [kind for kind, _ in parts]
    assert trace.text_of(trace.segments[1]) == draft
    assert trace.text_of(trace.segments[3]) == revision


def test_dialogue_that_sounds_like_a_thought_stays_in_the_draft() -> None:
    text = (
        "Draft:\nWait, she thought, that is my chair.\n\n"
        '"Hmm," he said, "too long."\n\nActually the window was open.'
    )
    assert [kind for kind, _ in kinds_and_texts(parse_prose(text))] == ["plan", "draft"]


def test_a_revision_may_come_before_any_draft() -> None:
    trace = parse_prose("The user asks for a title.\nBetter: A Year Without Rain\n")
    assert kinds_and_texts(trace)[-1] == ("revision", "A Year Without Rain")


@given(st.text(alphabet="ab .,\n\"“”'*-:：。雨🙂שWait改成Draft", max_size=120))
def test_any_text_gives_ordered_segments_without_white_space_at_their_ends(text: str) -> None:
    position = 0
    for segment in parse_prose(text).segments:
        assert position <= segment.span.start < segment.span.end <= len(text)
        assert segment.span.cut(text).strip() == segment.span.cut(text)
        position = segment.span.end


def test_a_character_that_grows_in_lower_case_shifts_no_span() -> None:
    text = "İİİ the user wants rain.\nDraft:\nİstanbul rain.\n"
    assert kinds_and_texts(parse_prose(text))[-1] == ("draft", "İstanbul rain.")
