"""Rules for prose, against the labelled traces and against texts that try to mislead them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

from r2w_eval.errors import UsageError
from r2w_eval.suites.suite import load_module
from r2w_eval.trace import segment_trace
from r2w_eval.trace.prose import parse_prose
from r2w_eval.trace.types import WRITTEN, Form, Kind, Trace
from r2w_eval.trace.writing import OPENINGS, write_prose

gold: Any = load_module(ROOT / "benchmarks" / "labelled_traces.py", "labelled_traces")
FIXTURES = ROOT / "tests" / "fixtures"
# Floors a little under the measured figures of docs/reflection.md: a rule that breaks shows here
FLOORS = {"dev": 0.88, "holdout": 0.70}


def kinds_and_texts(trace: Trace) -> list[tuple[str, str]]:
    return [(str(segment.kind), trace.text_of(segment)) for segment in trace.segments]


@pytest.mark.parametrize("split", FLOORS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_prose_rules_keep_their_measured_agreement(split: str, language: str) -> None:
    rows = [
        r for r in gold.read_labelled(FIXTURES / f"traces_{split}.jsonl") if r.language == language
    ]
    assert len(rows) >= 20
    own = [row for row in rows if row.form == "prose"]
    figures = {metric.name: metric.value for metric in gold.agreement(own, segment_trace)}
    assert (figures["all/f1"] or 0.0) >= FLOORS[split]
    tagged = [row for row in rows if row.form == "tagged"]
    assert {m.name: m.value for m in gold.agreement(tagged, segment_trace)}["all/f1"] == 1.0


LISTED = {
    "en": (
        "Thinking Process:\n\n1.  **Analyze the Request:**\n    *   Topic: lighthouse.\n"
        "    *   Length: 100 words.\n\n2.  **Brainstorm:**\n    *   The lamp goes out.\n\n"
        "3.  **Draft:**",
        "The lamp went out in March, and nobody came to ask why.",
        '4.  **Refine:**\n    *   "nobody came" is passive. Make it concrete.\n\n5.  **Final:**',
        "The lamp went out in March. Three boats called, and not one asked why.",
    ),
    "en bullets": (
        "A toast for a wedding.\n\n- keep it under a minute\n- the bakery\n\nLet me write it:",
        "To Ana and Tom, who met over the last loaf of rye.",
        "Hmm, the bakery is missing. Let me revise:",
        "To Ana and Tom, who met in the bakery over the last loaf of rye.",
    ),
    "zh": (
        "用户想要一首关于秋天的诗。\n\n1. **分析需求**：惆怅。\n2. **意象**：落叶。\n\n让我先写：",
        "叶子一片一片还给大地，\n风把名字念了又念。",
        '等等，"还给大地"有点俗套，换成具体的动作。\n\n修改后：',
        "叶子一片一片落进信箱，\n风把名字念了又念。",
    ),
    "zh labels": (
        "用户想要一首关于秋天的诗。\n\n**关键点**：\n- 意象：落叶、风\n\n**初稿**：",
        "叶子一片一片还给大地，\n风把名字念了又念。",
        '**反思**：\n"还给大地"有点俗套。可以换成更具体的动作。\n\n**修改**：',
        "叶子一片一片落进信箱，\n风把名字念了又念。",
    ),
}


@pytest.mark.parametrize("name", LISTED)
def test_a_plan_in_a_list_is_no_draft(name: str) -> None:
    trace = segment_trace("\n\n".join(LISTED[name]))
    plan, draft, reflection, revision = LISTED[name]
    kinds = [kind for kind, _ in kinds_and_texts(trace)]
    assert kinds[:2] == ["plan", "draft"] and set(kinds[2:-1]) == {"reflection"}
    assert kinds[-1] == "revision"
    assert [text for kind, text in kinds_and_texts(trace) if kind in WRITTEN] == [draft, revision]
    assert trace.text_of(trace.segments[0]) == plan


def test_dialogue_that_says_i_stays_in_the_draft() -> None:
    draft = '"Wait," she said. "Not yet."\n\n"Hmm," he said. "But I must."\n\nHe looked back.'
    trace = segment_trace(f"A scene.\n\nDraft:\n\n{draft}\n\nThe dialogue is stiff.")
    assert ("draft", draft) in kinds_and_texts(trace)


def test_the_fixtures_hold_what_the_guide_promises() -> None:
    rows = [row for s in FLOORS for row in gold.read_labelled(FIXTURES / f"traces_{s}.jsonl")]
    assert len(rows) >= 120
    assert {row.language for row in rows} == {"en", "zh"}
    assert {"none", "one", "many", "circular", "unclosed", "nested", "fake"} <= {
        row.trait for row in rows
    }
    for row in rows:
        for before, after in zip(row.segments, row.segments[1:], strict=False):
            assert before.span.end <= after.span.start


def test_agreement_with_itself_is_perfect_and_with_nothing_is_zero() -> None:
    rows = list(gold.read_labelled(FIXTURES / "traces_dev.jsonl"))[:5]
    marked = {row.text: row.segments for row in rows}
    same = gold.agreement(rows, lambda text: Trace(text, marked[text], Form.PROSE))
    assert {m.value for m in same if m.name.endswith("f1")} == {1.0}
    assert {m.value for m in same if m.name.endswith("boundary")} == {0.0}
    none = gold.agreement(rows, lambda text: Trace(text, (), Form.PROSE))
    assert {m.value for m in none if m.name.endswith("f1")} == {0.0}


def test_matching_is_one_to_one_and_by_kind() -> None:
    _, wanted = gold.read_marked("[d]abcd[r]efgh")
    _, found = gold.read_marked("[d]abcde[v]fgh")
    assert [pair.gold.kind for pair in gold.match_segments(wanted, found)] == [Kind.DRAFT]
    assert gold.overlap(wanted[0].span, found[0].span) == 4 / 5


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
    trace = write_prose(parts, language)
    assert parse_prose(trace.text) == trace
    assert [segment.kind for segment in trace.segments] == [kind for kind, _ in parts]
    assert trace.text_of(trace.segments[1]) == draft
    assert trace.text_of(trace.segments[3]) == revision


# what the pieces of the loop are made of: plain sentences, quoted speech, lists, patches
PLANS = ["I open on the stairs and end with the key.", "I keep it short, three paragraphs."]
TEXTS = [
    "The night was dark. She said nothing.",
    '"Wait," he said, "the lamp is out."\n\nNobody moved, and the rain went on.',
    "Dear council,\n\nWe ask for a lamp.\n\n- one by the door\n- one by the gate",
    "[2]\nNobody moved until the lamp was lit.",
]
THOUGHTS = [
    'I stumble over "The night was dark": it is worn, so I will name what is seen.',
    "The second line is flat. I want a verb that moves.",
    'Rereading "She said nothing", I see that it tells too little; I should show her hands.',
]
OF_ZH = {
    "plan": ["我先写夜色，最后写钥匙。"],
    "text": ["夜很黑，风很大。她什么也没说。", "亲爱的邻居：\n\n请在门口装一盏灯。"],
    "thought": ["“夜很黑”太平淡了，我要换成看得见的东西。", "第二句太直白，我想写她的手。"],
}
MADE = {"en": {"plan": PLANS, "text": TEXTS, "thought": THOUGHTS}, "zh": OF_ZH}


@given(st.data())
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("has_plan", [True, False])
def test_traces_of_the_loop_in_prose_are_read_as_they_were_written(
    language: str, has_plan: bool, data: st.DataObject
) -> None:
    def draw(kind: str) -> str:
        return data.draw(st.sampled_from(MADE[language][kind]))

    parts = [(Kind.PLAN, draw("plan"))] if has_plan else []
    parts.append((Kind.DRAFT, draw("text")))
    for _ in range(data.draw(st.integers(1, 4))):
        parts += [(Kind.REFLECTION, draw("thought")), (Kind.REVISION, draw("text"))]
    trace = write_prose(parts, language)
    assert parse_prose(trace.text, None) == trace
    written = [(s.kind, trace.text_of(s)) for s in trace.segments if s.kind in WRITTEN]
    assert written == [(kind, text) for kind, text in parts if kind in WRITTEN]


# segments of the labelled traces as parts: freer than what the loop writes, so that a part often
# speaks like another kind; such a trace is dropped there
SAME = {"dev": 0.70, "holdout": 0.48}


@pytest.mark.parametrize("split", SAME)
def test_how_many_labelled_traces_are_the_same_once_rewritten(split: str) -> None:
    written = []
    for row in gold.read_labelled(FIXTURES / f"traces_{split}.jsonl"):
        parts = [(segment.kind, segment.span.cut(row.text)) for segment in row.segments]
        if not any("<" in text for _, text in parts):
            written.append(write_prose(parts, row.language))
    same = sum(parse_prose(trace.text) == trace for trace in written)
    assert len(written) >= 45 and same / len(written) >= SAME[split]


def test_a_part_with_a_tag_is_not_written_in_prose() -> None:
    with pytest.raises(UsageError, match="holds a tag"):
        write_prose([(Kind.DRAFT, "He typed <draft> and left.")], "en")


def test_every_cue_is_read_as_its_own_kind() -> None:
    sentence = {"en": "It stays flat and says too little.", "zh": "这里太平淡，说得太少。"}
    for language, openings in OPENINGS.items():
        for cue in openings[Kind.REFLECTION]:
            text = f"{MADE[language]['text'][0]}\n\n{cue}{sentence[language]}"
            found = parse_prose(f"{openings[Kind.DRAFT][0]}{text}")
            assert [s.kind for s in found.segments][1:] == [Kind.DRAFT, Kind.REFLECTION]


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
