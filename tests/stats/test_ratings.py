"""Ratings against choix, and what rank ranges and order effects must say."""

from __future__ import annotations

import random

import choix
import numpy as np
import pytest

from r2w_eval.errors import UsageError
from r2w_eval.stats.inference import mean_estimate
from r2w_eval.stats.noise import Observation, noise_split
from r2w_eval.stats.orders import Battle, OrderPair, combined_label, combined_margin, positions
from r2w_eval.stats.ratings import bradley_terry, rank_by_paired_tests

STRENGTHS = {"a": 1.2, "b": 0.4, "c": -0.2, "d": -1.4}


def battles(n: int = 600, seed: int = 0) -> list[Battle]:
    draw = random.Random(seed)
    made = []
    for item in range(n):
        first, second = draw.sample(sorted(STRENGTHS), 2)
        chance = 1 / (1 + np.exp(STRENGTHS[second] - STRENGTHS[first]))
        made.append(Battle(str(item), first, second, float(draw.random() < chance)))
    return made


def test_strengths_equal_choix() -> None:
    rows = battles()
    names = sorted(STRENGTHS)
    wins = [
        (names.index(b.first), names.index(b.second))
        if b.share
        else (names.index(b.second), names.index(b.first))
        for b in rows
    ]
    oracle = choix.ilsr_pairwise(4, wins, alpha=1e-4)
    found = {row.model: row.strength for row in bradley_terry(rows, draws=50, ridge=1e-4).rows}
    centred = oracle - oracle.mean()
    assert [found[name] for name in names] == pytest.approx(centred, abs=0.01)


def test_every_rating_lies_inside_its_interval_and_ranks_are_ordered() -> None:
    ratings = bradley_terry(battles(120, seed=3), draws=300)
    assert [row.model for row in ratings.rows][0] == "a"
    for row in ratings.rows:
        assert row.low <= row.strength <= row.high
    for chances in ratings.rank_probabilities:
        assert sum(chances) == pytest.approx(1.0)


def test_an_unbeaten_model_stays_finite() -> None:
    rows = [Battle(str(i), "winner", "loser", 1.0) for i in range(10)]
    assert all(np.isfinite(row.strength) for row in bradley_terry(rows, draws=50).rows)


def test_unlinked_models_are_named() -> None:
    rows = [Battle("1", "a", "b", 1.0), Battle("2", "c", "d", 0.0)]
    with pytest.raises(UsageError, match="[abcd]"):
        bradley_terry(rows)


def test_two_orders_are_combined_and_a_lost_one_is_unscored() -> None:
    assert combined_margin(OrderPair("1", "x", "y", 2.0, 1.0)) == 1.5
    assert combined_label(OrderPair("1", "x", "y", 1.0, -1.0)) == 0
    assert combined_margin(OrderPair("1", "x", "y", 1.0, None)) is None


def test_a_judge_that_prefers_the_first_is_found_out() -> None:
    pairs = [OrderPair(str(i), "x", "y", 1.0, -1.0) for i in range(20)]
    found = positions(pairs)
    assert found.first_wins.value == 1.0 and found.flip_rate.value == 1.0
    assert found.side_bias.value == 1.0 and found.consistency.value == 0.0


def test_rank_ranges_come_from_the_paired_tests() -> None:
    draw = random.Random(1)
    base = {str(i): draw.gauss(5, 1) for i in range(200)}
    estimates = {
        "best": mean_estimate({k: v + 1 for k, v in base.items()}),
        "same": mean_estimate({k: v + draw.gauss(0, 0.5) for k, v in base.items()}),
        "base": mean_estimate(dict(base)),
    }
    rows = {row.model: row for row in rank_by_paired_tests(estimates).rows}
    assert (rows["best"].best, rows["best"].worst) == (1, 1)
    assert (rows["same"].best, rows["same"].worst) == (2, 3)
    assert rows["base"].tied_with == ("same",) and not rows["base"].is_tied_with_best


def test_a_run_scored_on_easy_items_alone_does_not_stand_first() -> None:
    draw = random.Random(3)
    base = {str(i): 9.0 if i < 12 else 3.0 for i in range(40)}
    easy = {k: v + draw.uniform(0, 0.2) if v > 8 else None for k, v in base.items()}
    better = {k: v + draw.uniform(0.3, 0.5) for k, v in base.items()}
    ranking = rank_by_paired_tests({"a": mean_estimate(better), "b": mean_estimate(easy)})
    shown = [(row.model, row.best, row.is_tied_with_best) for row in ranking.rows]
    assert shown == [("a", 1, True), ("b", 2, False)] and ranking.rows[1].value > 9


def test_variance_components_are_recovered() -> None:
    draw = np.random.default_rng(2)
    rows = []
    for item in range(400):
        mean = draw.normal(5, 1.0)
        for sample in range(3):
            own = mean + draw.normal(0, 0.6)
            rows += [Observation(str(item), own + draw.normal(0, 0.4), sample) for _ in range(2)]
    split = noise_split(rows)
    assert split.var_item == pytest.approx(1.0, abs=0.2)
    assert split.var_sample == pytest.approx(0.36, abs=0.06)
    assert split.var_repeat == pytest.approx(0.16, abs=0.03)
