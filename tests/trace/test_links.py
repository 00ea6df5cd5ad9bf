"""Targets, uptake, repeats, levels: by example, in both languages."""

from __future__ import annotations

import pytest

from r2w_eval.trace import links as module
from r2w_eval.trace import segment_trace
from r2w_eval.trace.levels import Level, is_praise_only, level_of, states_change
from r2w_eval.trace.links import (
    TargetKind,
    find_targets,
    link_reflections,
    locate,
    similarity_to,
    word_grams,
)
from r2w_eval.trace.types import Span

BASE = "The rain was very sad.\nA door stood open.\nNobody came."


def linked(draft: str, *parts: tuple[str, str]) -> list:
    pieces = [f"<draft>{draft}</draft>"]
    pieces += [f"<{kind}>{text}</{kind}>" for kind, text in parts]
    return list(link_reflections(segment_trace("".join(pieces))))


def test_a_quotation_is_found_exactly_without_case_and_nearly() -> None:
    assert locate("very sad", BASE) is not None
    assert locate("VERY SAD", BASE) is not None
    near = locate("door was standing open", "A door was standin open, then.")
    assert near is not None
    assert locate("an elephant in a hat", BASE) is None
    # "İ" is two characters in lower case
    assert locate("the red door", "İstanbul. The Red Door stood.") == Span(10, 22)


def test_named_places_are_resolved_in_both_languages() -> None:
    targets, missed = find_targets("The second line is flat.", BASE)
    assert [t.span.cut(BASE) for t in targets] == ["A door stood open."]
    assert targets[0].kind is TargetKind.NAMED and missed == 0
    zh = "雨停了。门开着。没有人来。"
    assert [t.span.cut(zh) for t in find_targets("第二句太平。", zh)[0]] == ["门开着。"]
    assert [t.span.cut(zh) for t in find_targets("结尾太平。", zh)[0]] == ["没有人来。"]


@pytest.mark.parametrize("idiom", ["In the end", "by the end of the day", "At the end of the day"])
def test_an_idiom_of_time_points_at_no_text(idiom: str) -> None:
    assert find_targets(f"{idiom} it all works.", BASE) == ((), 0)
    (target,) = find_targets(f"{idiom} it works, and the end is flat.", BASE)[0]
    assert target.span.cut(BASE) == "Nobody came."


def test_a_quotation_that_the_text_does_not_hold_is_counted() -> None:
    assert find_targets('"an elephant in a hat" is odd', BASE)[1] == 1


@pytest.mark.parametrize(
    ("revision", "low", "high"),
    [
        ("The rain kept count.\nA door stood open.\nNobody came.", 0.5, 1.0),
        (BASE, 0.0, 0.0),
        ("The rain was very sad.\nA gate stood shut.\nNobody came.", -1.0, -0.1),
        ("Snow buried what was left of it all, mercifully quick.", -0.3, 0.35),
    ],
    ids=["followed", "unchanged", "elsewhere", "rewritten"],
)
def test_uptake_orders_what_a_revision_may_do(revision: str, low: float, high: float) -> None:
    [link] = linked(BASE, ("reflection", '"was very sad" tells.'), ("revision", revision))
    assert link.uptake.lift is not None and low <= link.uptake.lift <= high


def test_a_short_revision_is_put_where_the_reflection_points() -> None:
    [link] = linked(
        BASE, ("reflection", "The second line is flat."), ("revision", "A door swung open.")
    )
    assert link.outcome == "The rain was very sad.\nA door swung open.\nNobody came."
    assert link.uptake.is_taken_up


def test_a_repeated_reflection_is_detected_and_the_first_one_is_not_a_repeat() -> None:
    text = "The rain line is a cliché and should go."
    first, second = linked(
        BASE, ("reflection", text), ("revision", "The rain fell."), ("reflection", text)
    )
    assert (first.similarity, first.is_repeat) == (0.0, False)
    assert second.is_repeat and second.is_useless


def test_containment_is_of_the_later_in_the_earlier() -> None:
    short, long = word_grams("a b c"), word_grams("a b c d")
    assert similarity_to(short, [long]) == 1.0
    assert similarity_to(long, [short]) == 0.5
    assert similarity_to(frozenset(), [short]) == 0.0


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("There is a comma missing and the tense slips, grammar is off.", Level.MECHANICS),
        ("That metaphor is a cliché.", Level.WORDING),
        ("这个比喻太俗。", Level.WORDING),
        ("结尾的反转来得太早，结构要换。", Level.STRUCTURE),
        ("The tone is preachy.", Level.VOICE),
        ("The user asked for 200 words.", Level.INSTRUCTION),
        ("Mm.", None),
    ],
)
def test_levels(text: str, level: Level | None) -> None:
    assert level_of(text) is level


def test_praise_change_and_both() -> None:
    assert is_praise_only("这句很好，我满意。")
    assert not is_praise_only("这句很好，但结尾太弱。")
    assert states_change("应该删掉最后一句") and not states_change("It is sad.")


@pytest.mark.parametrize("blank", ["", " ", "\n \n"])
def test_a_blank_revision_changes_nothing(blank: str) -> None:
    (link,) = linked(BASE, ("reflection", 'Cut "very sad".'), ("revision", blank))
    assert (link.base, link.outcome, link.edits) == (BASE, BASE, ())
    assert link.is_useless and link.uptake.is_taken_up is False


def test_a_blank_draft_has_no_place_for_a_part() -> None:
    (link,) = linked(" " * 40, ("reflection", "Nothing stands there yet."), ("revision", "Rain."))
    assert link.outcome == "Rain."


def test_reflections_in_a_row_share_one_diff(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(module, "diff", lambda a, b: compared.append(a) or ())
    thinking = (
        f"<draft>{BASE}</draft>"
        + '<reflection>Wait. The ending is weak, and "red" is too.</reflection>' * 30
        + "<revision>A blue door stood there, and nobody came to it for years.</revision>"
    )
    assert len(module.link_reflections(segment_trace(thinking))) == 30
    assert compared == [BASE]


def test_a_reflection_that_names_the_ending_without_end_is_read_in_part() -> None:
    targets, _ = find_targets("The ending is weak. " * 5_000 + "The opening too.", BASE)
    assert len(targets) == 1


@pytest.mark.parametrize("named", ["The twist at the end is flat.", "It drags from the start."])
def test_the_end_and_the_start_are_places(named: str) -> None:
    assert len(find_targets(named, BASE)[0]) == 1
