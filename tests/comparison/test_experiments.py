"""Thinking on/off and budgets: the switch reaches the server, the pairs and figures are right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support import ScriptedServer, completion

from r2w_eval.cli import cli
from r2w_eval.comparison.experiments import (
    ArmResult,
    Side,
    lowest_score,
    on_minus_off,
    parse_arm,
    relative_change,
    spent_tokens,
    tokens_per_point,
)
from r2w_eval.comparison.experiments_display import budget_svg, tokens_per_point_told
from r2w_eval.comparison.scores import StoredResult
from r2w_eval.errors import BudgetReached, UnknownName, UsageError
from r2w_eval.estimates import mean_of
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.reflection.analysis import TraceInput
from r2w_eval.run.opening import read_extra_body
from r2w_eval.stats.inference import PairedComparison, mean_estimate, measure
from r2w_eval.store import iter_jsonl
from r2w_eval.types import Estimate, Usage

SWITCH = {"chat_template_kwargs": {"enable_thinking": True}}


@pytest.fixture
def writer() -> Iterator[ScriptedServer]:
    """A writer that thinks only when the switch is on, as Qwen3's template does."""
    seen: list[dict[str, Any]] = []

    def reply(_: dict[str, str]) -> bytes:
        if seen[-1].get("chat_template_kwargs") == SWITCH["chat_template_kwargs"]:
            return completion("<think>Draft: Rain.\nHmm, the line is flat.</think>Rain fell.")
        return completion("Rain.")

    with ScriptedServer((200, {}, reply)) as server:
        server.on_body = seen.append
        yield server


def invoke(*args: str) -> str:
    result = CliRunner().invoke(cli, ["experiment", *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_on_and_off_are_paired_under_two_judges(
    writer: ScriptedServer, tmp_path: Path, own_cache: Path
) -> None:
    with FakeServer() as judges:
        output = invoke(
            "thinking",
            "--model", f"{writer.base_url}#w",
            "--judge", f"{judges.base_url}#judge-0",
            "--judge", f"{judges.base_url}#judge-1",
            "--limit", "4", "--max-connections", "1",
            "--on", f"extra_body={json.dumps(SWITCH)}",
            "--off", "extra_body=",
            "--out", str(tmp_path / "x"),
        )  # fmt: skip
    rows = json.loads((tmp_path / "x/thinking.json").read_text())
    assert {"judge-0", "judge-1"} <= {row["judge"] for row in rows}
    for row in rows:
        assert row["difference"]["n_common"] == 4
        assert row["on"]["thinking"]["value"] > 0 == row["off"]["thinking"]["value"]
        on, off = row["on"]["score"]["value"], row["off"]["score"]["value"]
        assert row["difference"]["difference"] == pytest.approx(on - off)
        assert row["relative"]["value"] == pytest.approx((on / off - 1) * 100)
    assert "change %" in output
    manifest = json.loads((tmp_path / "x/on/run.json").read_text())
    assert manifest["identity"]["writer"]["extra_body"] == SWITCH
    responses = list(iter_jsonl(tmp_path / "x/off/responses.jsonl"))
    assert {row["thinking"] for row in responses} == {None}
    again = invoke("budget", "--run", f"none={tmp_path}/x/off", "--run", f"full={tmp_path}/x/on",
                   "--out", str(tmp_path / "b"))  # fmt: skip
    assert "full" in again and (tmp_path / "b/budget.svg").read_text().startswith("<svg")
    assert len(json.loads((tmp_path / "b/budget.json").read_text())) == 2 * len(rows)


def test_a_cap_is_one_for_all_arms_and_ends_the_experiment(tmp_path: Path, own_cache: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("gen-0: {input: 10, output: 10}\n")
    with FakeServer() as server, pytest.raises(BudgetReached, match="--max-cost 0.05"):
        invoke(
            "thinking",
            "--model", f"{server.base_url}#gen-0", "--judge", "none", "--limit", "4",
            "--on", "system_prompt=a", "--off", "system_prompt=b",
            "--prices", str(prices), "--max-cost", "0.05", "--max-connections", "1",
            "--out", str(tmp_path / "x"),
        )  # fmt: skip
    arms = [len(list(iter_jsonl(tmp_path / f"x/{arm}/responses.jsonl"))) for arm in ("on", "off")]
    assert arms[0] == 4 and arms[1] < 4


def test_the_relative_change_is_over_common_prompts() -> None:
    on = mean_estimate({"a": 6.0, "b": 8.0, "only on": 1.0})
    off = mean_estimate({"a": 5.0, "b": 5.0, "lost": None})
    metric = measure(relative_change(on, off))
    assert metric.value == pytest.approx(40.0)
    assert (metric.n_scored, metric.n_expected) == (2, 3)


def test_a_scale_below_0_is_counted_from_its_lowest_value() -> None:
    def hellobench(*values: float) -> Estimate:
        own = mean_estimate({str(n): value for n, value in enumerate(values)})
        return replace(own, scale=4.0, offset=-300.0)

    better, worse = hellobench(74.0, 74.5, 74.2), hellobench(70.0, 70.5, 70.9)
    assert measure(relative_change(better, worse)).value is None, "no ratio of negative means"
    metric = measure(relative_change(better, worse, lowest=-300.0))
    assert metric.value == pytest.approx((222.7 / 211.4 - 1) * 100)
    assert metric.low is not None and 0 < metric.low < metric.value < metric.high
    results = [
        StoredResult("r", "m", task, "j", "k", {}, measure(better), estimate)
        for task, estimate in (
            ("hellobench", better),
            ("writingbench", mean_estimate({"a": 5.0})),
            ("lm_eval:gsm8k", better),
        )
    ]
    assert [lowest_score(result) for result in results] == [-300.0, 0.0, 0.0]


def test_the_relative_change_is_that_of_the_weighted_scores() -> None:
    def two(first: tuple[float, ...], second: tuple[float, ...]) -> Estimate:
        strata = tuple(
            replace(mean_of(name, [(f"{name}{n}", v) for n, v in enumerate(own)], 1).strata[0],
                    weight=0.5)
            for name, own in (("a", first), ("b", second))
        )  # fmt: skip
        return Estimate("overall", strata, 11)

    on, off = two((10.0,) * 9, (2.0, 2.0)), two((5.0,) * 9, (4.0, 4.0))
    assert measure(relative_change(on, off)).value == pytest.approx((6.0 / 4.5 - 1) * 100)


def test_tokens_per_point_takes_tokens_and_points_of_the_same_prompts() -> None:
    def side(name: str, scores: dict[str, float | None], tokens: dict[str, float]) -> Side:
        own, spent = mean_estimate(scores), mean_estimate(tokens)
        arm = ArmResult(name, "t", "j", measure(own), measure(spent), measure(spent))
        return Side(arm, StoredResult(name, "m", "t", "j", "k", {}, measure(own), own), spent)

    points = {str(n): 5.0 + n / 10 for n in range(10)}
    better = {k: v + 0.9 + int(k) % 3 / 10 for k, v in points.items()}
    on = side("on", better, dict.fromkeys(points, 100.0) | {"9": 9e3})
    off = side("off", {**points, "9": None}, dict.fromkeys(points, 0.0))
    row = on_minus_off(on, off)
    assert row.tokens_per_point == pytest.approx(100.0)
    assert tokens_per_point_told(row) == "100.0"
    alike = on_minus_off(side("on", {k: v + 2 for k, v in points.items()}, points), off)
    assert "no interval" in tokens_per_point_told(alike)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.5, 1.5, 300.0), (-0.1, 2.1, None), (None, None, None)]
)
def test_tokens_per_point_needs_a_difference(
    low: float | None, high: float | None, expected: float | None
) -> None:
    paired = PairedComparison(1.0, low, high, 0.1, 0.01, False, 9, 0, 0)
    assert tokens_per_point(paired, 400.0, 100.0) == expected
    assert tokens_per_point(paired, None, 100.0) is None


def test_arms_are_read_strictly() -> None:
    arm = parse_arm('low:extra_body={"a": 1};system_prompt=Think.')
    assert (arm.name, dict(arm.settings)) == (
        "low",
        {"extra_body": '{"a": 1}', "system_prompt": "Think."},
    )
    odd = parse_arm('a:system_prompt=Plan; then write; mode=strict;extra_body={"stop": ";"};')
    assert dict(odd.settings) == {
        "system_prompt": "Plan; then write", "mode": "strict", "extra_body": '{"stop": ";"}',
    }  # fmt: skip
    with pytest.raises(UnknownName, match="'sample'"):
        parse_arm("a:system_prompt=Plan;sample=2")
    with pytest.raises(UsageError, match="expected NAME"):
        parse_arm("extra")
    with pytest.raises(UnknownName, match="Did you mean model_args"):
        parse_arm("low:model_arg=x=1")
    for bad in ("[1]", "{", '{"model": "m"}', '{"stream": true}', '{"n": 2}', '{"top_k": 5}'):
        with pytest.raises(UsageError, match="--extra-body"):
            read_extra_body(bad)


def test_an_empty_budget_plot_is_still_a_plot() -> None:
    assert budget_svg([]).startswith("<svg")


def test_the_tokens_of_a_conversation_are_those_of_all_its_turns() -> None:
    inputs = [
        TraceInput(f"s{sample}-turn{turn}", "a b", "c", cluster=f"s{sample}",
                   answer_id=f"s{sample}",
                   usage=Usage(completion_tokens=30, reasoning_tokens=20))
        for sample in range(3) for turn in range(4)
    ]  # fmt: skip
    thinking, answers = (measure(estimate) for estimate in spent_tokens(inputs))
    assert (thinking.value, thinking.n_scored) == (80.0, 3)
    assert answers.value == 40.0


def test_every_suite_and_judge_has_its_line_in_the_plot() -> None:
    def result(judge: str, arm: str) -> ArmResult:
        metric = measure(mean_of("overall", [(str(i), float(i)) for i in range(9)], 9))
        return ArmResult(arm, "quickstart", judge, metric, metric, metric)

    svg = budget_svg([result(f"judge {i}", arm) for i in range(6) for arm in ("low", "high")])
    assert all(f"judge {i}" in svg for i in range(6))


def test_a_name_stands_for_one_run_only(tmp_path: Path) -> None:
    for given, told in (
        (("--run", "a=x", "--run", "a=y", "--run", "b=z"), "another run is named 'a'"),
        (("--run", "a=x", "--arm", "a:system_prompt=Be brief."), "both name a"),
    ):
        done = CliRunner().invoke(cli, ["experiment", "budget", *given, "--out", str(tmp_path)])
        assert done.exit_code == 2 and told in done.output
