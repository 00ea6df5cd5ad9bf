"""The leak filter on lines that a writer may think and lines that give the judge away."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.synthesis.leaks import Leak, Thought, find_leak
from support import ROOT

DRAFTS = {
    "en": "The night was dark and stormy. She said nothing. It was a dark night, and very dark.",
    "zh": "夜很黑,风很大。她什么也没说。那是一个很黑的夜。",
}
PROMPTS = {"en": "Write a scene at night.", "zh": "写一个夜里的场景。"}


def lines(kind: str) -> list[tuple[str, str, str]]:
    path = ROOT / "tests" / "training" / "reflections.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return [
        (r["lang"], r["text"], r.get("leak", ""))
        for r in records
        if bool(r.get("leak")) == (kind == "refused")
    ]


def thought(lang: str, text: str) -> Thought:
    return Thought(text, lang, PROMPTS[lang], DRAFTS[lang])


@pytest.mark.parametrize("lang, text, leak", lines("accepted"))
def test_a_writers_own_thought_passes(lang: str, text: str, leak: str) -> None:
    assert find_leak(thought(lang, text)) is None


@pytest.mark.parametrize("lang, text, leak", lines("refused"))
def test_what_gives_the_judge_away_is_refused_with_its_reason(
    lang: str, text: str, leak: str
) -> None:
    assert find_leak(thought(lang, text)) == leak


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("kind", ["accepted", "refused"])
def test_there_are_enough_lines_of_each_kind(lang: str, kind: str) -> None:
    assert sum(own == lang for own, _, _ in lines(kind)) >= 40


def test_a_word_of_the_prompt_may_be_thought() -> None:
    line = thought("en", "I should quote the reviewer earlier; the middle is too slow.")
    assert find_leak(line) is Leak.NAMES_A_JUDGE
    assert find_leak(replace(line, prompt="Write as a film reviewer.")) is None
    # in whatever form
    assert find_leak(replace(line, prompt="Two reviewers quarrel.")) is None


def test_an_earlier_reflection_may_not_come_again() -> None:
    text = "I say dark three times in two lines; I will cut two of them and let the wind do it."
    line = thought("en", text)
    assert find_leak(replace(line, earlier=(text,))) is Leak.REPEATS_ITSELF
    assert find_leak(replace(line, earlier=("I want a slower opening.",))) is None


def test_a_long_draft_allows_a_longer_thought() -> None:
    line = thought("en", "I will change the opening, since it drags. " * 25)
    assert find_leak(line) is Leak.TOO_LONG
    assert find_leak(replace(line, draft=DRAFTS["en"] * 200)) is None


@given(st.text(max_size=300))
def test_any_text_gets_an_answer(text: str) -> None:
    assert find_leak(thought("en", text)) in {None, *Leak}
