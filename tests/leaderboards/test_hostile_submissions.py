"""Submissions that somebody made to run, write, show or win what is not theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from r2w_eval.leaderboards.collect import hash_raw_files
from r2w_eval.leaderboards.rows import Row, read_row, sign, write_row
from r2w_eval.leaderboards.submit import merge, submit
from r2w_eval.leaderboards.verify import verify

from r2w_eval.cli import cli
from r2w_eval.errors import UsageError

TASK = """
task: evil
dataset_path: json
dataset_kwargs: {data_files: {test: DOCS}}
test_split: test
output_type: generate_until
doc_to_text: !function utils.f
doc_to_target: "{{a}}"
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def submission(runs: dict[str, Path], tmp_path: Path) -> Path:
    submit(runs["plain"], tmp_path / "submission")
    return tmp_path / "submission"


def run_of(submission: Path) -> Path:
    (found,) = (submission / "runs").iterdir()
    return found


def forge(submission: Path, change: Callable[[Row], Row] = lambda row: row) -> Path:
    """Change the row and sign it anew, over the raw files as they are now."""
    (file,) = (submission / "rows").glob("*.json")
    row = read_row(file)
    files = hash_raw_files(run_of(submission))
    row = change(replace(row, evidence=replace(row.evidence, files=files)))
    write_row(file, sign(row))
    return file


def set_config(run: Path, **changes: Any) -> None:
    file = run / "run.json"
    manifest = json.loads(file.read_bytes())
    file.write_text(json.dumps({**manifest, "config": {**manifest["config"], **changes}}))


def test_task_files_of_a_submission_are_never_run_unless_the_user_names_them(
    submission: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder, mark = tmp_path / "evil", tmp_path / "it ran"
    folder.mkdir()
    (folder / "docs.jsonl").write_text('{"q": "a", "a": "b"}\n')
    (folder / "evil.yaml").write_text(TASK.replace("DOCS", str(folder / "docs.jsonl")))
    (folder / "utils.py").write_text(
        f"import pathlib; pathlib.Path({str(mark)!r}).touch()\ndef f(doc): return doc['q']\n"
    )
    run = run_of(submission)
    set_config(run, tasks="quickstart,lm_eval:evil", include_path=str(folder))
    forge(submission)
    assert verify(submission).is_sound
    assert merge([submission], tmp_path / "data")
    commands = (["judge", str(run), "--reparse"], ["judge", str(run), "--judge=none"],
                ["compare", str(run), str(tmp_path / "other"), "--judge=none"],
                ["leaderboard", str(submission), "--out", str(tmp_path / "site")],
                ["leaderboard", "verify", str(tmp_path / "site")])  # fmt: skip
    other = json.loads((run / "run.json").read_bytes())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text(json.dumps({**other, "model": "other"}))
    for words in commands:
        done = CliRunner().invoke(cli, words)
        if words[0] != "leaderboard":
            assert isinstance(done.exception, UsageError)
            assert "--include-path" in str(done.exception)
    assert not mark.exists()
    # the attack is a real one: named by the user, the file runs
    CliRunner().invoke(cli, [*commands[0], "--include-path", str(folder)])
    assert mark.exists()


def test_a_row_of_an_lm_eval_task_is_told_as_not_computed(submission: Path, tmp_path: Path) -> None:
    forge(submission, lambda row: replace(row, task="lm_eval:humaneval"))
    check = verify(submission)
    assert (check.is_sound, check.computed) == (True, 0)
    assert "a task of lm-eval is a program" in check.notes[0]


def test_no_file_that_a_submission_names_is_opened(
    submission: Path, tmp_path: Path, own_cache: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password: [unfinished")
    names = ("prices", "baseline", "references", "context", "replay", "cache_dir", "progress_file")
    set_config(run_of(submission), pages=f"replay:{tmp_path}", **dict.fromkeys(names, str(secret)))
    forge(submission)
    assert verify(submission).is_sound
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "submission"]


def test_what_lets_programs_run_is_not_taken_from_a_folder(submission: Path) -> None:
    from r2w_eval.config import stored_config
    from r2w_eval.store import RunFolder

    run = run_of(submission)
    set_config(run, model_args="trust_remote_code=True", pages_allow="10.0.0.0/8", limit=2)
    stored = stored_config(RunFolder.existing(str(run)).manifest(), str(run))
    assert (stored.model_args, stored.pages_allow, stored.limit) == ("", "", 2)
