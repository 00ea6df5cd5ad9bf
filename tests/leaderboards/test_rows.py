"""Rows: signed by their content, readable again, refused when altered or foreign."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from boards import HOSTILE, make_row
from r2w_eval.leaderboards.rows import RowInvalid, check_signature, read_row, sign, write_row


def test_a_row_comes_back_from_its_file_unchanged(tmp_path: Path) -> None:
    row = make_row("org/m", {"a": 7.0, "b": None, "c": 5.5})
    write_row(tmp_path / "row.json", row)
    assert read_row(tmp_path / "row.json") == row
    assert sign(row) == row


def test_the_signature_does_not_depend_on_where_the_raw_files_lie(tmp_path: Path) -> None:
    from dataclasses import replace

    row = make_row("org/m", {"a": 7.0, "b": 6.0})
    moved = replace(row, evidence=replace(row.evidence, folder="../runs/x"))
    write_row(tmp_path / "row.json", moved)
    assert read_row(tmp_path / "row.json").id == row.id


@pytest.mark.parametrize(
    "path",
    [("headline", "value"), ("model",), ("tokens", "completion"), ("items", "values", 0)],
)
def test_an_altered_row_names_itself(tmp_path: Path, path: tuple[str | int, ...]) -> None:
    file = tmp_path / "row.json"
    write_row(file, make_row("org/m", {"a": 7.0, "b": 6.0}))
    record = json.loads(file.read_text())
    target = record
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = "other" if path == ("model",) else 9
    file.write_text(json.dumps(record))
    with pytest.raises(RowInvalid, match="altered after signing"):
        read_row(file)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"schema": 7}', '{"schema": 1}', "\x00"])
def test_a_malformed_row_is_an_error_without_a_traceback(tmp_path: Path, content: str) -> None:
    file = tmp_path / "row.json"
    file.write_text(content)
    with pytest.raises(RowInvalid, match="leaderboard submit"):
        read_row(file)


def test_file_names_are_safe_for_any_model_name() -> None:
    for name in (HOSTILE, "../../x", "n" * 300, "🪶", "con"):
        row = make_row(name, {"a": 1.0, "b": 2.0})
        check_signature(row)
        assert "/" not in row.slug and ".." not in row.slug and len(row.slug) < 60
