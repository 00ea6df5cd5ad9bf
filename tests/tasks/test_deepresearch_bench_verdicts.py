"""RACE verdicts: how they are read, weighed and averaged. Figures: parity.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.deepresearch_bench.race import (
    POINTWISE,
    RACE,
    VANILLA,
    make_suite,
)
from r2w_eval.tasks.deepresearch_bench.reading import DIMENSIONS, extract_json, read_strict
from r2w_eval.tasks.deepresearch_bench.scoring import (
    aggregate,
    compare_score,
    look_up_weight,
    share,
    single_score,
    weigh,
)

from r2w_eval.stats import measure
from r2w_eval.types import (
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Mode,
    Score,
    WriterStatus,
)

SUITE = make_suite(RACE)
OFFICIAL = {name: {"Breadth": 0.75, "Depth": 0.25} for name in DIMENSIONS}
FACTS = {"weights": dict.fromkeys(DIMENSIONS, 0.25), "criteria": OFFICIAL}
REQUEST = JudgeRequest("score", (), facts=FACTS)


def verdict(**changes: object) -> dict[str, Any]:
    rows = [
        {"criterion": name, "article_1_score": 6, "article_2_score": 4}
        for name in ("Breadth", "Depth")
    ]
    return {**{name: [dict(row) for row in rows] for name in DIMENSIONS}, **changes}


def parse(value: object, mode: Mode = Mode.STRICT) -> Score:
    return SUITE.parse_verdict[mode](
        REQUEST, value if isinstance(value, str) else json.dumps(value)
    )


def rows(*scores: tuple[str, object, object]) -> list[dict[str, object]]:
    return [{"criterion": c, "article_1_score": a, "article_2_score": b} for c, a, b in scores]


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        (rows(("Breadth", 6, 4)), "criteria_mismatch"),
        (rows(("Breadth", 6, 4), ("Breadth", 6, 4)), "criteria_mismatch"),
        (rows(("Breadth", 6, 4), ("Width", 6, 4)), "criteria_mismatch"),
        (rows(("Breadth", 6, 4), ("Depth", 6, 4), ("Style", 6, 4)), "criteria_mismatch"),
        (rows(("Breadth", 6, 4), ("depth", 6, 4)), "criteria_mismatch"),
        (rows((" Breadth\n", 6, 4), ("Depth", 6, 4)), "ok"),
        (rows(("Breadth", 6, 4), ("Depth", 10.5, 4)), "out_of_range"),
        (rows(("Breadth", 6, 4), ("Depth", 6, -1)), "out_of_range"),
        (rows(("Breadth", 6, 4), ("Depth", "6", 4)), "parse_error"),
        (rows(("Breadth", 6, 4), ("Depth", True, 4)), "parse_error"),
        (rows(("Breadth", 6, 4), ("Depth", 6, None)), "parse_error"),
        ("none", "parse_error"),
        ([1, 2], "parse_error"),
    ],
)
def test_strict_types_each_damage(entries: object, status: str) -> None:
    score = parse(verdict(insight=entries))
    assert score.status == status, score.reason


def test_a_mismatch_names_both_sets() -> None:
    score = parse(verdict(insight=rows(("Breadth", 6, 4), ("Width", 6, 4))))
    assert score.reason == "insight: missing Depth; not asked for or repeated Width"


def test_parity_takes_what_strict_refuses_and_reweights_silently() -> None:
    dropped = parse(verdict(insight=rows(("Breadth", 9, 1))), Mode.PARITY)
    assert dropped.parts["insight"] == 0.9
    renamed = parse(verdict(insight=rows(("broad BREADTH", 9, 1), ("Width", 1, 9))), Mode.PARITY)
    assert renamed.parts["insight"] == pytest.approx((9 * 0.75 + 0.5) / (10 * 0.75 + 5))
    assert parse(verdict(insight="none"), Mode.PARITY).parts["insight"] == 0.0
    assert parse({"insight": []}, Mode.PARITY).status is JudgeStatus.CRITERIA_MISMATCH
    assert parse("[1]", Mode.PARITY).status is JudgeStatus.PARSE_ERROR
    infinite = verdict(insight=rows(("Breadth", "inf", 4)))
    assert parse(infinite, Mode.PARITY).status is JudgeStatus.OUT_OF_RANGE


def test_the_value_is_the_share_of_the_totals() -> None:
    for mode in Mode:
        score = parse(verdict(), mode)
        assert score.value == 0.6 and score.parts["insight"] == 0.6
        assert (score.parts["target_total"], score.parts["reference_total"]) == (6.0, 4.0)


@given(st.floats(0, 10), st.floats(0, 10))
def test_equal_texts_give_one_half_and_shares_add_up(a: float, b: float) -> None:
    assert 0 <= share(a, b) <= 1
    assert share(a, a) == (0.5 if a > 0 else 0)
    if a + b > 1e-6:
        assert share(a, b) + share(b, a) == pytest.approx(1)


def test_a_broken_verdict_is_salvaged_as_upstream_does() -> None:
    cut = json.dumps(verdict())[:-30]
    assert parse(cut, Mode.PARITY).value == 0.6
    assert parse(cut).status is JudgeStatus.PARSE_ERROR
    assert extract_json("comprehensiveness article_1_score article_2_score") is None


@given(st.text(alphabet='{}[]":,`json comprehensiveness12_ article score', max_size=200))
def test_no_text_breaks_a_reader(text: str) -> None:
    for suite in map(make_suite, (RACE, POINTWISE, VANILLA)):
        for read in suite.parse_verdict.values():
            for request in (REQUEST, JudgeRequest("clean", ())):
                score = read(request, text)
                assert score.value is None or score.value >= 0
    read_strict(text, OFFICIAL, ("article_1_score",))


def test_single_scores_are_tenths() -> None:
    single = {d: [{"criterion": c, "target_score": 6} for c in OFFICIAL[d]] for d in DIMENSIONS}
    for mode in Mode:
        score = make_suite(POINTWISE).parse_verdict[mode](REQUEST, json.dumps(single))
        assert score.value == pytest.approx(0.6)
        overall = make_suite(VANILLA).parse_verdict[mode](REQUEST, '{"overall_score": 7.5}')
        assert overall.value == 0.75
    weighted = weigh(single, FACTS["weights"], OFFICIAL)
    assert share(*weighted.totals) == 1.0, "why the pointwise value is not the share"


def weighed(*entries: object, **official: float) -> tuple[float, float]:
    """Means of the report and of the reference in one dimension."""
    criteria = {"insight": official or OFFICIAL["insight"]}
    found = weigh({"insight": list(entries)}, {"insight": 0.5}, criteria)
    assert found.totals == (found.target["insight"] / 2, found.reference["insight"] / 2)
    return found.target["insight"], found.reference["insight"]


def test_weights_are_those_of_the_criteria_that_came_back() -> None:
    both = rows(("Breadth", 8, 4), ("Depth", 4, 6))
    assert weighed(*both) == (0.75 * 8 + 0.25 * 4, 0.75 * 4 + 0.25 * 6)
    assert weighed(*both, Breadth=3, Depth=1) == weighed(*both)
    assert weighed(*both, Breadth=0, Depth=0) == (0.0, 0.0)
    assert weighed(*rows(("Breadth", "8", "4"), ("Depth", "x", 9), ("Depth", 1, []))) == (8, 4)
    assert weighed(*rows(("", 9, 9), (" ", 9, 9), ("Depth", 2, 1)), 5, {"criterion": 5}) == (2, 0)
    # upstream asks only the last entry whether there is a reference
    assert weighed(*rows(("Breadth", 8, None), ("Depth", 4, 6))) == (7.0, 0.25 * 6)
    assert weighed(*rows(("Breadth", 8, 4), ("Depth", 4, None))) == (7.0, 0.0)
    single = [{"criterion": "Depth", "target_score": 3, "article_2_score": 1}]
    assert weighed(*single) == (3, 1)
    assert weighed({**single[0], "article_1_score": 5}) == (5, 1)
    assert weighed({"criterion": "Depth", "article_2_score": 1}) == (0.0, 0.0)
    assert weighed() == (0.0, 0.0)


def test_dimensions_without_list_weight_or_criteria_are_left_out() -> None:
    own = rows(("Breadth", 6, 4))
    verdict = {"insight": own, "readability": own, "mood": own, "comprehensiveness": "none"}
    weights = {"insight": 0.5, "readability": 0.25, "comprehensiveness": 0.25}
    criteria = {"insight": OFFICIAL["insight"], "readability": {}, "mood": {"Breadth": 1.0}}
    found = weigh(verdict, weights, criteria)
    assert (found.target, found.reference) == ({"insight": 6}, {"insight": 4})
    assert found.totals == (3.0, 2.0)
    score = compare_score(found)
    assert score.value == 0.6 and score.parts == {
        **dict.fromkeys(DIMENSIONS, 0.0), "insight": 0.6, "target_total": 3.0,
        "reference_total": 2.0,
    }  # fmt: skip
    alone = single_score(found)
    assert alone.value == 0.3 and alone.parts == {
        **dict.fromkeys(DIMENSIONS, 0.0), "insight": 0.6
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "official", "weight"),
    [
        ("Deep", {"Deepest Deep": 4, "deep": 2, "Deep": 1}, 1),
        ("Deep", {"Deepest Deep": 4, "deep": 2}, 2),
        ("Deep", {"Style": 1, "Deepest Deep": 4, "deeply": 2}, 4),
        ("how deep it is", {"Style": 1, "Deep": 4, "it": 2}, 4),
        ("Style", {"Depth": 1, "Deep": 4, "Breadth": 2}, 7 / 3),
    ],
)
def test_a_weight_is_looked_up_exactly_then_without_case_then_inside(
    name: str, official: dict[str, float], weight: float
) -> None:
    assert look_up_weight(name, official) == weight


def test_a_lost_task_is_left_out_and_counted() -> None:
    kept = (Score(0.4, parts=dict.fromkeys(DIMENSIONS, 0.4)),)
    lost = (Score(None, JudgeStatus.CRITERIA_MISMATCH),)
    items = [
        ItemVerdicts(name, "en", {"topic": "Art"}, WriterStatus.OK, {"score": own})
        for name, own in (("1", kept), ("2", lost))
    ]
    for mode in Mode:
        overall = aggregate(items, mode)[0]
        assert overall.is_headline and overall.n_expected == 2
        assert overall.strata[0].numerators == (0.4,)


def test_repeats_are_averaged_before_the_tasks() -> None:
    def scores(*values: float | None) -> tuple[Score, ...]:
        lost = Score(None, JudgeStatus.TIMEOUT)
        return tuple(lost if v is None else Score(v, parts={"insight": v / 2}) for v in values)

    items = [
        ItemVerdicts("1", "en", {"topic": "Art"}, WriterStatus.OK, {"score": scores(0.4, 0.8)}),
        ItemVerdicts("2", "zh", {"topic": "Art"}, WriterStatus.OK, {"score": scores(None, 0.2)}),
        ItemVerdicts("3", "zh", {"topic": "Law"}, WriterStatus.OK, {"score": (Score(0.0),)}),
        ItemVerdicts("4", "zh", {"topic": "Law"}, WriterStatus.OK, {}),
    ]
    found = {e.name: measure(e) for e in aggregate(items, Mode.STRICT)}
    assert {name: (m.value, m.n_scored, m.n_expected) for name, m in found.items()} == {
        "overall": (pytest.approx(0.8 / 3), 3, 4),
        "overall_x100": (pytest.approx(80 / 3), 3, 4),
        "insight": (pytest.approx(0.2), 2, 4),
        "language/en": (pytest.approx(0.6), 1, 1),
        "language/zh": (pytest.approx(0.1), 2, 3),
        "topic/Art": (pytest.approx(0.4), 2, 2),
        "topic/Law": (0.0, 1, 2),
    }
    assert [name for name, m in found.items() if m.is_headline] == ["overall"]
