"""Verdicts about pairs of texts in both orders of showing: one outcome, side bias, flips.

In: margins or labels of one judge per item and order. Out: battles for the ratings, and what the
order did to the verdicts. A pair that lost one order has no outcome. Source: harness W1-W4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from r2w_eval.estimates import mean_of, share_of
from r2w_eval.stats.inference import measure
from r2w_eval.types import Metric


@dataclass(frozen=True, slots=True)
class OrderPair:
    """One judge about one item: the margin of `first` over `second`, in each order of showing.

    Margins are positive when model `first` is better, whatever stood first. None: that order was
    lost or never asked. Labels become margins through `LABEL_MARGINS`.
    """

    item: str
    first: str
    second: str
    shown_first: float | None
    """Margin of model `first` when it was shown first."""
    shown_second: float | None
    """Margin of model `first` when it was shown second."""

    @classmethod
    def by_order(
        cls, item: str, first: str, second: str, margins: Mapping[str, float | None]
    ) -> Self:
        """From the margins of the side shown as A: in order "ba" that is model `second`.

        >>> OrderPair.by_order("i", "x", "y", {"ab": 1.0, "ba": 2.0}).shown_second
        -2.0
        """
        mirrored = margins.get("ba")
        shown_second = None if mirrored is None else -mirrored
        return cls(item, first, second, margins.get("ab"), shown_second)


LABEL_MARGINS: Mapping[str, float] = {"A>>B": 2, "A>B": 1, "A=B": 0, "B>A": -1, "B>>A": -2}
"""Labels as margins of the side shown as A; negate for the order in which model `first` was B."""


@dataclass(frozen=True, slots=True)
class Battle:
    """One comparison: `share` 1 means `first` won, 0 lost, .5 tied; `weight` counts it (W4)."""

    item: str
    first: str
    second: str
    share: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Positions:
    """What the order of showing did, over one judge's pairs (W3)."""

    n_pairs: int
    n_both_orders: int
    first_wins: Metric
    """P(the text shown first wins), ties as half; .5 is unbiased."""
    side_bias: Metric
    """Mean margin of the text shown first, in units of the margin; 0 is unbiased."""
    flip_rate: Metric
    """Share of pairs in which the winner changed with the order."""
    consistency: Metric
    """Share of pairs with the same outcome in both orders."""


@dataclass(frozen=True, slots=True)
class PairMargin:
    """How far one model is ahead of another, before and after the side is taken out (W3)."""

    first: str
    second: str
    shown_first: Metric
    """Mean margin of `first` where it was shown first."""
    corrected: Metric
    """Less the side bias of the same pairs: the mean over both orders."""


def combined_margin(pair: OrderPair) -> float | None:
    """Mean of the two orders; None unless both have a verdict (W1, W2).

    >>> combined_margin(OrderPair("i", "x", "y", 3.0, -1.0))
    1.0
    """
    if pair.shown_first is None or pair.shown_second is None:
        return None
    return (pair.shown_first + pair.shown_second) / 2


def combined_label(pair: OrderPair) -> int | None:
    """1 / 0 / -1 for win, tie, loss of `first`; orders that disagree are a tie (W2).

    >>> [combined_label(OrderPair("i", "x", "y", 2, m)) for m in (1, 0, -1)]
    [1, 0, 0]
    """
    if pair.shown_first is None or pair.shown_second is None:
        return None
    outcomes = _sign(pair.shown_first), _sign(pair.shown_second)
    return outcomes[0] if outcomes[0] == outcomes[1] else 0


def combined_battle(pair: OrderPair, strong_weight: float = 1.0) -> Battle | None:
    """One battle for both orders; the weight is the mean weight of the orders that agree."""
    label = combined_label(pair)
    if label is None or pair.shown_first is None or pair.shown_second is None:
        return None
    weights = [_weight(m, strong_weight) for m in (pair.shown_first, pair.shown_second)]
    weight = sum(weights) / 2 if label else 1.0
    return Battle(pair.item, pair.first, pair.second, (label + 1) / 2, weight)


def _sign(margin: float) -> int:
    return (margin > 0) - (margin < 0)


def _weight(margin: float, strong_weight: float) -> float:
    return strong_weight if abs(margin) >= LABEL_MARGINS["A>>B"] else 1.0


def positions(pairs: Sequence[OrderPair]) -> Positions:
    """Side bias, flips and consistency with intervals clustered by item (W3).

    All are taken over the pairs with a verdict in both orders, so that the quality of the texts
    cancels out.
    """
    both = [
        (pair.item, pair.shown_first, pair.shown_second)
        for pair in pairs
        if pair.shown_first is not None and pair.shown_second is not None
    ]
    wins = [(item, (2 + _sign(a) - _sign(b)) / 4) for item, a, b in both]
    bias = [(item, (a - b) / 2) for item, a, b in both]
    flips = [(item, float(_sign(a) * _sign(b) < 0)) for item, a, b in both]
    same = [(item, float(_sign(a) == _sign(b))) for item, a, b in both]
    n = len({pair.item for pair in pairs})
    return Positions(
        len(pairs),
        len(both),
        first_wins=measure(share_of("first_wins", wins, n)),
        side_bias=measure(mean_of("side_bias", bias, n)),
        flip_rate=measure(share_of("flip_rate", flips, n)),
        consistency=measure(share_of("consistency", same, n)),
    )


def pair_margins(pairs: Sequence[OrderPair]) -> tuple[PairMargin, ...]:
    """Margins of every two models, over the pairs with both orders (W2, W3).

    >>> (margin,) = pair_margins([OrderPair("i", "x", "y", 2.0, 0.0)])
    >>> margin.shown_first.value, margin.corrected.value
    (2.0, 1.0)
    """
    by_models: dict[tuple[str, str], list[OrderPair]] = defaultdict(list)
    for pair in pairs:
        by_models[pair.first, pair.second].append(pair)
    return tuple(_pair_margin(*names, own) for names, own in sorted(by_models.items()))


def _pair_margin(first: str, second: str, pairs: Sequence[OrderPair]) -> PairMargin:
    both = [
        (pair.item, pair.shown_first, margin)
        for pair in pairs
        if pair.shown_first is not None and (margin := combined_margin(pair)) is not None
    ]
    n = len({pair.item for pair in pairs})
    return PairMargin(
        first,
        second,
        shown_first=measure(mean_of("margin", [(item, own) for item, own, _ in both], n)),
        corrected=measure(mean_of("corrected_margin", [(item, m) for item, _, m in both], n)),
    )
