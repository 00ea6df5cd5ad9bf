"""The validity suite: it runs on any scorer and tells a good one from a bad one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from bad_scorer import LongerScorer
from click.testing import CliRunner
from r2w_eval.reward_models.checks.validity import Check, Material, _still, material, run_validity
from r2w_eval.reward_models.data.flaws import build_flaws
from r2w_eval.reward_models.items import Item, ItemScore, ItemStatus, failed

from r2w_eval.cli import cli


def by_name(checks: Sequence[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_the_material_is_kept_for_the_suite_in_both_languages() -> None:
    base = material()
    assert {row.lang for row in base.rows} == {"en", "zh"}
    trained = {row.item.prompt for row in build_flaws(3)}
    assert not trained & {item.prompt for item in base.items}


def test_a_length_scorer_fails_where_it_must() -> None:
    checks = by_name(run_validity(LongerScorer()))
    assert not checks["length alone (partial correlation)"].passed
    assert not checks["self-praise in the reflection"].passed
    assert not checks["matching revision > unchanged"].passed
    assert checks["padding and neighbours"].passed


class CountingScorer(LongerScorer):
    """Remembers what each call asked."""

    def __init__(self) -> None:
        self.calls: list[Sequence[Item]] = []

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        self.calls.append(items)
        return super().score(items)


def test_all_tests_share_one_call_without_repeats() -> None:
    scorer = CountingScorer()
    run_validity(scorer)
    first, *others = scorer.calls
    assert len(set(first)) == len(first) > 5_000
    assert [len(items) for items in others] == [48] + [1] * 24


def scores(*values: float) -> list[ItemScore]:
    return [ItemScore(str(n), value) for n, value in enumerate(values)]


def test_items_that_rise_are_not_paid_for_by_those_that_fall() -> None:
    base = Material(material().rows[:4], material().sound_cut[:4])
    before = scores(-1.0, -1.0, 1.0, 1.0)
    cancelling = _still("x", before, scores(-0.5, -1.5, 1.5, 0.5), base)
    assert not cancelling.passed and cancelling.value == 0.5
    one_up = _still("x", before, scores(-0.9, -1.0, 1.0, 1.0), base)
    assert not one_up.passed and one_up.value == pytest.approx(0.025)
    assert _still("x", before, scores(-1.1, -1.0, 1.0, 1.0), base).passed
    assert _still("x", before, before, base).passed


class DeadScorer(LongerScorer):
    """Fault injection: no item ever gets a value."""

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        return [failed(item.id, ItemStatus.ERROR, "down") for item in items]


def test_a_scorer_without_any_value_passes_no_test() -> None:
    checks = run_validity(DeadScorer())
    assert not any(check.passed for check in checks)
    assert all(check.n == 0 and check.n_failed > 0 for check in checks)
    assert "padding and neighbours" in by_name(checks)


@pytest.mark.slow
def test_the_command_writes_a_report_for_rules(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["train", "rm", "--validate", "--scorer", "r2w-rules", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "validity.json").read_bytes())
    assert report["scorer"] == "r2w-rules"
    names = {check["name"] for check in report["checks"]}
    assert "matched > generic (zh)" in names and len(names) >= 25
