"""The gate before a policy is trained: only the scorer's own report, and only a good one, opens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from bad_scorer import LongerScorer
from r2w_eval.reward_models.checks.report import REPORT, WAIVED, read_report, require_valid
from r2w_eval.reward_models.items import Item, ItemScore, failed

from r2w_eval.errors import EndpointSilent, UsageError
from r2w_eval.types import JudgeStatus

PASSED = {
    "matched > generic (en)": True,
    "generic > shuffled (en)": True,
    "matching revision > unchanged": True,
    "said 1x > said 2x": True,
    "first > paraphrase of it": True,
    "self-praise in the reflection": True,
    "padding and neighbours": True,
    "length alone (partial correlation)": False,
}


def write(path: Path, scorer: str = LongerScorer.id, **changed: bool) -> str:
    checks = [{"name": n, "passed": ok} for n, ok in {**PASSED, **changed}.items()]
    path.write_text(json.dumps({"scorer": scorer, "checks": checks}))
    return str(path)


def test_a_report_without_a_required_failure_opens_despite_others(tmp_path: Path) -> None:
    require_valid(LongerScorer(), write(tmp_path / "good.json"), tmp_path)
    assert not (tmp_path / REPORT).exists()


@pytest.mark.parametrize("name", [name for name, ok in PASSED.items() if ok])
def test_each_required_test_is_asked_for_passed_and_present(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"failed {name.split()[0]}"):
        require_valid(LongerScorer(), write(tmp_path / "bad.json", **{name: False}), tmp_path)
    report = json.loads(Path(write(tmp_path / "part.json")).read_text())
    report["checks"] = [check for check in report["checks"] if check["name"] != name]
    (tmp_path / "part.json").write_text(json.dumps(report))
    assert "not in the report" in "".join(read_report(tmp_path / "part.json").failed)


def test_a_report_of_other_weights_does_not_count(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the report is of longer@0, the process scorer is"):
        require_valid(LongerScorer(), write(tmp_path / "old.json", "longer@0"), tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"scorer": "s", "checks": [1]}'])
def test_a_broken_report_says_how_to_make_one(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match="--validate"):
        require_valid(LongerScorer(), str(path), tmp_path)


class SilentScorer(LongerScorer):
    """A judge whose endpoint falls silent after its first answers."""

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        good = super().score(items)
        lost = [failed(item.id, JudgeStatus.TRANSPORT, "refused") for item in items[9:]]
        return [*good[:9], *lost]


def test_a_judge_that_was_silent_has_not_failed(tmp_path: Path) -> None:
    with pytest.raises(EndpointSilent, match=r"without an answer \(transport: refused\)"):
        require_valid(SilentScorer(), "", tmp_path)
    assert not (tmp_path / REPORT).exists()


def test_without_a_report_one_is_made_kept_and_obeyed_unless_waived(tmp_path: Path) -> None:
    stale = write(tmp_path / REPORT, "longer@0")
    require_valid(LongerScorer(), WAIVED, tmp_path)
    with pytest.raises(UsageError, match="matching revision > unchanged;.*waived"):
        require_valid(LongerScorer(), "", tmp_path)
    assert read_report(Path(stale)).scorer == LongerScorer.id
