"""Templates: filled in one pass, so that nothing inside a story is ever a field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import UsageError
from r2w_eval.template import Template


@given(st.text(), st.text())
def test_what_is_filled_in_stays_as_it_is(a: str, b: str) -> None:
    assert Template("t", "<{a}|{b}>").fill(a=a, b=b) == f"<{a}|{b}>"
    assert Template("t", "$A$|$B$").replace(**{"$A$": a, "$B$": b}) == f"{a}|{b}"


@given(st.text(alphabet="ab \n"), st.text(alphabet="{}ab", max_size=20))
def test_filling_agrees_with_str_format_on_its_own_templates(plain: str, story: str) -> None:
    text = plain + "{{{x}}} {{}}" + plain
    assert Template("t", text).fill(x=story) == text.format(x=story)


@pytest.mark.parametrize("story", ["{b}", "{{", "}}", "{0}", "{a.__class__}", "%s", "$B$", "\\1"])
def test_hostile_texts_are_inert(story: str) -> None:
    assert Template("t", "{a} {b}").fill(a=story, b="B") == f"{story} B"
    assert Template("t", "$A$ $B$").replace(**{"$A$": story, "$B$": "B"}) == f"{story} B"


def test_markers_with_a_common_prefix_are_distinguished() -> None:
    fields = {"$Q": "short", "$Q2": "long"}
    assert Template("t", "$Q2 $Q").replace(**fields) == "long short"
    assert Template("t", "$Q2 $Q").replace(**dict(reversed(fields.items()))) == "long short"


def test_an_unknown_field_is_an_error_and_json_braces_are_not_fields() -> None:
    with pytest.raises(UsageError, match="prompt t: nothing fills {missing}, only {x}, {y}"):
        Template("t", "{missing} {x}").fill(y="", x="")
    assert Template("t", '{"score": 1, "x": { }').fill() == '{"score": 1, "x": { }'


def test_the_identity_changes_with_the_text_and_not_with_what_is_filled_in() -> None:
    assert Template("t", "a").id != Template("t", "a ").id
    assert Template("t", "a").id.startswith("t@") and len(Template("t", "a").id) == 14
