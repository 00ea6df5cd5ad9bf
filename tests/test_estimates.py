"""The two averages, against plain arithmetic."""

from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.estimates import (
    AS_WRITTEN,
    as_headline,
    criterion_means,
    group_means,
    mean_of,
    pooled,
    share_of,
)
from r2w_eval.stats.inference import evaluate, measure
from r2w_eval.types import ItemVerdicts, WriterStatus

SCORES = st.lists(st.integers(1, 10).map(float), min_size=1, max_size=30)


@given(SCORES)
def test_a_mean_is_the_mean(values: list[float]) -> None:
    estimate = mean_of("m", ((str(i), v) for i, v in enumerate(values)), len(values))
    value = evaluate(estimate)
    assert value is not None and abs(value - statistics.fmean(values)) < 1e-12


@given(st.lists(SCORES, min_size=1, max_size=10))
def test_a_pooled_mean_weighs_single_values(items: list[list[float]]) -> None:
    estimate = pooled("p", ((str(i), own) for i, own in enumerate(items)), len(items))
    flat = [value for own in items for value in own]
    value = evaluate(estimate)
    assert value is not None and abs(value - statistics.fmean(flat)) < 1e-12


def test_without_scores_the_value_is_none_and_not_zero() -> None:
    assert evaluate(mean_of("m", [], 5)) is None
    assert evaluate(pooled("p", [], 5)) is None
    assert evaluate(pooled("p", [("a", [])], 5)) is None
    assert mean_of("m", [], 5).n_expected == 5


def item(number: int, language: str) -> ItemVerdicts:
    return ItemVerdicts(str(number), language, {}, WriterStatus.OK, {})


def test_groups_stand_in_order_of_appearance_and_count_what_they_lack() -> None:
    items = [item(1, "zh"), item(2, "en"), item(3, "zh"), item(4, "fr")]
    scored = [(items[0], 4.0), (items[1], 8.0)]
    groups = group_means("language", lambda i: i.language, items, scored)
    assert [(g.name, g.n_expected, evaluate(g)) for g in groups] == [
        ("language/zh", 2, 4.0), ("language/en", 1, 8.0), ("language/fr", 1, None),
    ]  # fmt: skip


def test_each_criterion_has_the_mean_of_those_that_name_it() -> None:
    verdicts = [("a", {"plot": 4.0, "voice": 2.0}), ("b", {"plot": 6.0})]
    found = criterion_means("criterion", ["plot", "voice", "pace"], verdicts, 3)
    assert [(e.name, e.n_expected, evaluate(e)) for e in found] == [
        ("criterion/plot", 3, 5.0), ("criterion/voice", 3, 2.0), ("criterion/pace", 3, None),
    ]  # fmt: skip
    assert {e.note for e in found} == {f"{AS_WRITTEN}: of a fault, low is good"}


def test_the_headline_mark_changes_nothing_else() -> None:
    plain = mean_of("m", [("a", 1.0)], 1)
    assert not plain.is_headline and as_headline(plain).is_headline
    assert as_headline(plain).strata == plain.strata


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=12))
def test_the_interval_of_a_share_stays_between_0_and_1(values: list[float]) -> None:
    metric = measure(share_of("s", ((str(i // 2), v) for i, v in enumerate(values)), len(values)))
    assert metric.low is not None and metric.high is not None and metric.value is not None
    assert 0.0 <= metric.low <= metric.value <= metric.high <= 1.0
