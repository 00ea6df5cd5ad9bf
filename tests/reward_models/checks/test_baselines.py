"""`score --baselines`: trivial readings beside each score, never in place of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from r2w_eval.reward_models.checks.baselines import correlations
from r2w_eval.reward_models.checks.floors import area, floors, share
from r2w_eval.reward_models.data.sources import find_sets
from r2w_eval.reward_models.items import ReflectionItem
from r2w_eval.reward_models.scorer import load_reward

from r2w_eval.cli import cli

DRAFT = "He go home. It was late."


def test_the_command_puts_baselines_beside_values_and_says_how_they_agree(tmp_path: Path) -> None:
    remarks = [
        "Great.",
        'In "He go home." the verb is wrong; I should write "goes".',
        "",
        "It was.",
    ]
    items = [{"id": str(i), "draft": DRAFT, "reflection": r} for i, r in enumerate(remarks)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(item) + "\n" for item in items))
    arguments = ["score", "--baselines", "--input", str(source), "--output", str(target)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in target.read_text().splitlines()]
    plain = load_reward().score([ReflectionItem("1", "", DRAFT, remarks[1])])[0]
    assert found[1]["value"] == plain.value
    assert found[1]["parts"]["baselines"]["longer"] == len(remarks[1])
    assert found[1]["parts"]["baselines"]["requests"] > found[3]["parts"]["baselines"]["requests"]
    assert found[3]["parts"]["baselines"]["overlap"] >= found[0]["parts"]["baselines"]["overlap"]
    assert found[2]["value"] is None and "baselines" not in found[2]["parts"]
    assert "longer: rank correlation" in done.output and "n = 3" in done.output


def test_equal_readings_have_no_correlation() -> None:
    records = [{"value": v, "parts": {"baselines": {"longer": 3.0}}} for v in (0.1, 0.2, 0.3)]
    assert list(correlations(records)) == [
        "longer: no rank correlation with the value (n = 3; too few, or all are equal)"
    ]


def test_floors_are_those_of_the_specification(reward_data: Path) -> None:
    found = {(f.task, f.reading): f for f in floors(find_sets(reward_data))}
    assert len(found) == 28
    # of the first the specification says no rule for ties; of the second it rounds otherwise
    known = {("auto-j writing, within 20 %", "longer"), ("LLMBar Manual", "longer")}
    assert {key for key, floor in found.items() if not floor.agrees} == known


def test_ties_count_one_half_and_an_area_is_that_of_ranks() -> None:
    assert share([(1.0, 1.0), (2.0, 1.0), (0.0, 1.0)]) == (0.5, 3)
    assert area([3.0, 2.0], [1.0, 2.0]) == pytest.approx(0.875)
