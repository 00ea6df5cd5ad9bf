"""The table of suites: complete, and equal to what the docs hold."""

from __future__ import annotations

import re

import pytest
from support import ROOT

from r2w_eval.cli import main
from r2w_eval.suites.catalogue import COMMAND, read_catalogue, write_markdown
from r2w_eval.suites.suite import suite_folders


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["r2w-eval", "list", *arguments])
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0


def test_the_docs_are_what_the_command_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--suites", "--markdown")
    written = (ROOT / "docs/suites.md").read_text(encoding="utf-8")
    assert written == capsys.readouterr().out, f"out of date, try: {COMMAND}"


def test_every_suite_stands_in_both_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--suites")
    shown = capsys.readouterr().out
    text = write_markdown(read_catalogue())
    for name in suite_folders():
        assert name in shown
        assert f"[`{name}`](../tasks/{name}/README.md)" in text


IN_EVERY_README = (
    "full run", r"\$[0-9]", "tokens", "judge", "licence|MIT|Apache-2.0", "English|languages",
    r"\*\*Pitfalls\.\*\*", r"\*\*How our numbers were checked\.\*\*",
)  # fmt: skip


def test_every_readme_says_what_a_run_costs_what_to_beware_of_and_how_it_was_checked() -> None:
    for entry in read_catalogue():
        text = (entry.info.folder / "README.md").read_text("utf-8")
        absent = [part for part in IN_EVERY_README if not re.search(part, text)]
        assert not absent, entry.info.name


def test_every_suite_says_where_it_comes_from_and_under_which_licence() -> None:
    for entry in read_catalogue():
        info = entry.info
        assert info.licence and info.source and info.title
        assert 20 < len(info.measures) < 60, info.name
        assert (info.folder / "README.md").is_file(), info.name
        assert all(len(file.sha256) == 64 for file in info.files.values()), info.name
        assert entry.calls > 0
