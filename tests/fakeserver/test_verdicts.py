"""The fake judge answers in the form that the question asks for."""

from __future__ import annotations

import json

import pytest

from r2w_eval.fakeserver.verdicts import Question, answer_question, write_verdict


def ask(prompt: str, *, out_of_range: bool = False) -> object:
    return answer_question(Question(prompt, "0" * 64, out_of_range))


def test_the_default_form_is_a_score() -> None:
    assert ask("Judge the story.") is None
    assert set(json.loads(write_verdict("Judge.", "0" * 64, None, unit=False))) == {
        "score",
        "reason",
    }


@pytest.mark.parametrize(("word", "key"), [("label", "label"), ("rating", "rating")])
def test_a_named_key_is_answered_under_that_key(word: str, key: str) -> None:
    assert key in ask(f'Answer as {{"{word}": ...}}')  # type: ignore[operator]


def test_every_criterion_and_rubric_of_the_question_is_rated() -> None:
    criteria = {"comprehensiveness": [{"criterion": "Breadth"}, {"criterion": "Depth"}]}
    rated = ask(f"article_2_score\n{json.dumps(criteria)}")
    assert [entry["criterion"] for entry in rated["comprehensiveness"]] == ["Breadth", "Depth"]  # type: ignore[index]
    asked = {"task": "t", "rubric_items": ["one", "two"]}
    results = ask(f'"rubric_item"\n{json.dumps(asked)}')["results"]  # type: ignore[index]
    assert [entry["rubric_item"] for entry in results] == ["one", "two"]


def test_an_article_comes_back_whole() -> None:
    assert ask('<user_prompt>\nClean:\n"Line one.\nLine two."\n</user_prompt>') == (
        "Line one.\nLine two."
    )


def test_a_wrong_number_is_outside_every_scale() -> None:
    assert ask('"rating"', out_of_range=True)["rating"] == 1000  # type: ignore[index]
