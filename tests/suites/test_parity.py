"""Parity cases: what counts as equal, how scripted judges are replayed, what the command prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.cli import main
from r2w_eval.errors import DataError, R2WError, UnknownName
from r2w_eval.suites import parity
from r2w_eval.suites.parity import ParityCase, figures, replay, verification_folder, verify_parity
from r2w_eval.suites.suite import load_info, load_suite
from r2w_eval.types import JudgeRequest

SUITE = load_suite(load_info("writingbench").folder)


@pytest.mark.parametrize(
    ("wanted", "got", "equal"),
    [
        (1.0, 1.0 + 5e-10, True),
        (1.0, 1.0 + 5e-9, False),
        (8, 8.0, True),
        ("46.08", "46.08", True),
        ("46.08", 46.08, False),
        (None, None, True),
        (0.0, None, False),
        (True, 1, False),
        ([1, "a"], [1, "a"], True),
    ],
)
def test_what_is_equal(wanted: Any, got: Any, equal: bool) -> None:
    assert ParityCase("case", "figure", wanted, got).equal is equal


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_figure_equals_itself_and_a_missing_one_does_not(value: float) -> None:
    wanted, missing = figures("case", {"a": value, "b": value}, {"p/a": value}, "p/")
    assert (wanted.equal, missing.equal, missing.figure) == (True, False, "p/b")


def test_a_scripted_judge_is_asked_as_often_as_upstream_asks() -> None:
    good = '{"score": 8, "reason": "fine"}'
    score, calls = replay(SUITE, JudgeRequest("c", ()), ["nothing", good])
    assert (score.value, calls) == (8.0, 2)
    score, calls = replay(SUITE, JudgeRequest("c", ()), ["nothing"])
    assert (score.value, calls) == (None, 5)


def scripted(monkeypatch: pytest.MonkeyPatch, *cases: ParityCase) -> None:
    monkeypatch.setattr(parity, "verification_folder", lambda: Path())
    monkeypatch.setattr(parity, "parity_cases", lambda *_: list(cases))


def test_a_difference_without_a_cause_fails_and_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(
        monkeypatch,
        ParityCase("[b]model[/b]", "overall", "46.08", "46.08"),
        ParityCase("[b]model[/b]", "qa", 1.0, 2.0),
        ParityCase("[b]model[/b]", "chat", 1.0, 3.0, cause="stored item differs"),
    )
    with pytest.raises(R2WError, match=r"Not equal .* \[b\]model\[/b\] qa$"):
        verify_parity(["writingbench"], None, every_figure=False)
    shown = capsys.readouterr().out
    assert "[b]model[/b]" in shown and "1 of 3" in shown and "NO" in shown
    assert "3 figures, 1 equal, 2 differ, 1 of them without a named cause" in shown


def test_an_unknown_suite_and_a_missing_folder_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2W_VERIFICATION", str(tmp_path))
    with pytest.raises(UnknownName, match="Did you mean writingbench"):
        verify_parity(["writingbanch"], None, every_figure=False)
    monkeypatch.setenv("R2W_VERIFICATION", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="Set R2W_VERIFICATION to it"):
        verification_folder()


def test_the_command_prints_published_beside_ours(
    verification: Path,
    benchmarks: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("R2W_VERIFICATION", str(verification))
    command = ["r2w-eval", "data", "verify", "--parity", "writingbench"]
    monkeypatch.setattr("sys.argv", [*command, "--data-dir", str(benchmarks)])
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as stop:
        main()
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "judge prompts" in shown and "0 differ" in shown
