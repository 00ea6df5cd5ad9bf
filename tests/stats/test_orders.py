"""Both orders of showing, against a table of every pair of outcomes."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.stats.orders import (
    LABEL_MARGINS,
    OrderPair,
    combined_battle,
    combined_label,
    combined_margin,
    pair_margins,
    positions,
)

MARGIN = st.sampled_from([None, -2.0, -1.0, 0.0, 1.0, 2.0])
PAIRS = st.lists(st.builds(OrderPair, st.sampled_from("abc"), st.just("x"), st.just("y"),
                           MARGIN, MARGIN), max_size=12)  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "label", "share", "weight"),
    [
        (2.0, 2.0, 1, 1.0, 3.0),
        (2.0, 1.0, 1, 1.0, 2.0),
        (0.5, 1.9, 1, 1.0, 1.0),
        (-2.0, -3.0, -1, 0.0, 3.0),
        (-1.0, -2.0, -1, 0.0, 2.0),
        (2.0, -2.0, 0, 0.5, 1.0),
        (-2.0, 2.0, 0, 0.5, 1.0),
        (0.0, 2.0, 0, 0.5, 1.0),
        (0.0, 0.0, 0, 0.5, 1.0),
    ],
)
def test_orders_that_agree_win_and_strong_ones_weigh_more(
    first: float, second: float, label: int, share: float, weight: float
) -> None:
    pair = OrderPair("i", "x", "y", first, second)
    battle = combined_battle(pair, strong_weight=3.0)
    assert combined_label(pair) == label and battle is not None
    assert (battle.item, battle.first, battle.second) == ("i", "x", "y")
    assert (battle.share, battle.weight) == (share, weight)
    plain = combined_battle(pair)
    assert plain is not None and plain.weight == 1.0
    assert combined_margin(pair) == (first + second) / 2


@pytest.mark.parametrize("margins", [(None, 1.0), (1.0, None), (None, None)])
def test_a_pair_that_lost_an_order_has_no_outcome(margins: tuple[float | None, ...]) -> None:
    pair = OrderPair("i", "x", "y", *margins)
    assert combined_margin(pair) is combined_label(pair) is combined_battle(pair) is None


@given(PAIRS)
def test_positions_count_what_the_order_did(pairs: list[OrderPair]) -> None:
    found = positions(pairs)
    both = [(p.shown_first, p.shown_second) for p in pairs
            if p.shown_first is not None and p.shown_second is not None]  # fmt: skip
    assert (found.n_pairs, found.n_both_orders) == (len(pairs), len(both))
    metrics = (found.first_wins, found.side_bias, found.flip_rate, found.consistency)
    assert [metric.name for metric in metrics] == [
        "first_wins", "side_bias", "flip_rate", "consistency",
    ]  # fmt: skip
    if not both:
        assert all(metric.value is None for metric in metrics)
        return
    # the text shown first is the second model in the other order
    shown = [margin for a, b in both for margin in (a, -b)]
    by_hand = (
        fmean(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in shown),
        fmean(shown),
        fmean(a * b < 0 for a, b in both),
        fmean((a > 0, a < 0) == (b > 0, b < 0) for a, b in both),
    )
    assert [metric.value for metric in metrics] == pytest.approx(by_hand)
    items = len({p.item for p in pairs if None not in (p.shown_first, p.shown_second)})
    assert all(
        m.n_scored == items and m.n_expected == len({p.item for p in pairs}) for m in metrics
    )


def test_the_corrected_margin_is_the_margin_without_the_side_bias() -> None:
    # y is ahead by one label, and the judge adds one to whatever stands first
    pairs = [OrderPair(str(i), "x", "y", 0.0, -2.0 + i % 2) for i in range(8)]
    lost = OrderPair("lost", "x", "y", 2.0, None)
    (margin,) = pair_margins([*pairs, lost])
    bias = positions([*pairs, lost]).side_bias.value
    assert (margin.shown_first.value, margin.corrected.value, bias) == (0.0, -0.75, 0.75)
    assert (margin.corrected.n_scored, margin.corrected.n_expected) == (8, 9)
    assert margin.corrected.low < -0.75 < margin.corrected.high < 0


def test_a_bias_may_be_negative_and_a_share_may_not() -> None:
    found = positions([OrderPair(str(i), "x", "y", -2.0, 1.5 + i % 2) for i in range(9)])
    assert found.side_bias.high is not None and found.side_bias.high < 0
    assert (found.first_wins.low, found.first_wins.value) == (0.0, 0.0)
    assert sorted(LABEL_MARGINS.values()) == [-2, -1, 0, 1, 2]
