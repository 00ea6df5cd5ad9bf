"""`r2w-eval leaderboard` as a user types it: outputs, messages and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2w_eval import cli


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["r2w-eval", "leaderboard", *words])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_a_site_is_built_verified_and_a_change_is_named(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = tmp_path / "site"
    chosen = [str(runs["plain"]), str(runs["null"])]
    assert command(monkeypatch, *chosen, str(tmp_path / "absent"), "--out", str(site)) == 0
    told = capsys.readouterr()
    assert "2 ranked, score key" in told.out and "left out: absent" in told.err
    assert command(monkeypatch, "verify", str(site)) == 0
    assert "2 of 2 row(s) computed again; nothing differs" in capsys.readouterr().out
    (site / "index.html").write_text("mine")
    assert command(monkeypatch, "verify", str(site)) == 1
    assert "index.html: changed since the site was made" in capsys.readouterr().err


def test_a_run_goes_through_submit_and_merge(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submission, data = str(tmp_path / "submission"), str(tmp_path / "data")
    assert command(monkeypatch, "submit", str(runs["plain"]), "--out", submission) == 0
    assert "leaderboard merge" in capsys.readouterr().out
    assert command(monkeypatch, "merge", submission, "--into", data) == 0
    assert capsys.readouterr().out.startswith("added ")
    assert command(monkeypatch, "merge", submission, "--into", data) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere", "--out", "site"], "no row in 1 source(s). 'nowhere': neither a run"),
        (["--out", "site"], "None was named"),
        (["verify", "nowhere"], "neither a site"),
        (["submit", "nowhere"], "not a run folder"),
        (["merge", "nowhere"], "neither a row file nor a submission"),
        (["nowhere"], "Missing option '--out'"),
    ],
)
def test_mistakes_end_with_a_message_and_code_two(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *words) == 2
    assert told in capsys.readouterr().err
