"""Submissions that somebody made to run, write, show or win what is not theirs."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from boards import answers, make_row, make_run, sample_ids
from click.testing import CliRunner
from r2w_eval.leaderboards.collect import Collection, Entry, collect, hash_raw_files
from r2w_eval.leaderboards.recompute import find_doubt
from r2w_eval.leaderboards.rows import Row, RowInvalid, read_row, sign, write_row
from r2w_eval.leaderboards.site import SiteOptions, write_site
from r2w_eval.leaderboards.submit import SubmissionRefused, merge, submit
from r2w_eval.leaderboards.training import split_checkpoint, training_curves
from r2w_eval.leaderboards.verify import verify

from r2w_eval.cli import cli
from r2w_eval.errors import UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.hashing import content_hash
from r2w_eval.types import Judgement, Score

VALUES = {item: 5.0 + n / 10 for n, item in enumerate(sample_ids())}

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


def test_a_row_of_an_lm_eval_task_is_noted_as_not_computed(
    submission: Path, tmp_path: Path
) -> None:
    def renamed(row: Row) -> Row:
        identity = {**row.identity, "suite": "lm_eval:humaneval"}
        key = content_hash(identity, 12)
        return replace(row, task="lm_eval:humaneval", identity=identity, score_key=key)

    forge(submission, renamed)
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


@pytest.mark.parametrize("key", ["/../../../out", "0" * 12])
def test_a_score_key_is_that_of_the_identity_and_names_no_file_elsewhere(
    tmp_path: Path, key: str
) -> None:
    row = make_row("m", VALUES, score_key=key)
    write_row(tmp_path / "row.json", row)
    with pytest.raises(RowInvalid, match="identity"):
        read_row(tmp_path / "row.json")
    site = write_site(Collection((Entry(row),), ()), tmp_path / "in" / "site", SiteOptions())
    inside = {file for file in tmp_path.rglob("*") if file.is_relative_to(site.path)}
    others = {file for file in tmp_path.rglob("*") if file.is_file()} - inside
    assert others == {tmp_path / "row.json"}


def test_a_submission_never_takes_the_place_of_anothers_row(
    submission: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    (theirs,) = merge([submission], tmp_path / "data")
    (held,) = (tmp_path / "data" / "rows").iterdir()
    submit(runs["second"], tmp_path / "mine")
    (file,) = (tmp_path / "mine" / "rows").iterdir()
    file.rename(file.with_name(held.name))
    (run,) = (tmp_path / "mine" / "runs").iterdir()
    run.rename(run.with_name(run_of(submission).name))
    moved = replace(read_row(file.with_name(held.name)), signature="")
    folder = f"../runs/{run_of(submission).name}"
    moved = replace(moved, evidence=replace(moved.evidence, folder=folder))
    write_row(file.with_name(held.name), sign(moved))
    merge([tmp_path / "mine"], tmp_path / "data")
    assert {entry.row.id for entry in collect([str(tmp_path / "data")]).entries} >= {theirs.id}
    assert len(list((tmp_path / "data" / "rows").iterdir())) == 2
    assert verify(tmp_path / "data").computed == 2


@pytest.mark.parametrize("trick", ["hashes", "latency", "blanks"])
def test_resubmitted_answers_are_detected_despite_other_changes(
    submission: Path, tmp_path: Path, trick: str
) -> None:
    merge([submission], tmp_path / "data")
    responses = run_of(submission) / "responses.jsonl"
    records = [json.loads(line) for line in responses.read_text().splitlines()]
    for record in records:
        record.update({"latency": {"latency_s": 9.5}, "blanks": {"answer": record["answer"] + " "}}
                      .get(trick, {}))  # fmt: skip
    responses.write_text("".join(json.dumps(record) + "\n" for record in records))
    if trick == "hashes":
        forge(submission, lambda row: replace(row, evidence=replace(row.evidence, files={})))
    else:
        forge(submission)
    with pytest.raises(SubmissionRefused, match="not signed over|the same answers"):
        merge([submission], tmp_path / "data")


def test_a_score_without_the_text_that_gives_it_is_a_difference(submission: Path) -> None:
    verdicts = run_of(submission) / "judgements.jsonl"
    records = [json.loads(line) for line in verdicts.read_text().splitlines()]
    for record in records:
        record["asks"], record["score"]["value"] = [], 10.0
    verdicts.write_text("".join(json.dumps(record) + "\n" for record in records))
    forge(submission)
    assert "no text of the judge" in verify(submission).differences[0]


@pytest.mark.parametrize(
    ("mode", "doubt"), [("text", "no text"), ("expected", "no probabilities"), ("", "")]
)
def test_what_proves_a_score(mode: str, doubt: str) -> None:
    found = find_doubt(Judgement("k", "r", "quickstart", "s", "j", "c", Score(9.0)), mode)
    assert doubt in found and bool(found) is bool(doubt)


MALFORMED: tuple[object, ...] = (None, True, -1, 1e300, "x", [], {"x": []})
"""What may stand in the place of any value; JSON holds all of it."""


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place of a record, the first of each list."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*path, name))
    if isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def test_no_malformed_row_ends_a_board(submission: Path, tmp_path: Path) -> None:
    """Every place of a real row, with every kind of wrong value, signed anew: what is read is
    shown, the rest is left out with its reason, and the sound row stands."""
    (file,) = (submission / "rows").iterdir()
    record = json.loads(file.read_bytes())
    (tmp_path / "rows").mkdir()
    told = set()
    for path, wrong in itertools.product(places(record), MALFORMED):
        forged = copy.deepcopy(record)
        *way, last = path
        functools.reduce(operator.getitem, way, forged)[last] = wrong  # type: ignore[index]
        plain = {k: v for k, v in forged.items() if k not in ("schema", "signature")}
        if isinstance(plain.get("evidence"), dict):
            plain["evidence"] = {k: v for k, v in plain["evidence"].items() if k != "folder"}
        forged["signature"] = content_hash(plain, 64) if path != ("signature",) else wrong
        # one row a place is enough where several values pass
        made = tmp_path / "rows" / f"{'-'.join(map(str, path)).replace('/', '-')}.json"
        made.write_text(json.dumps(forged))
        try:
            read_row(made)
        except RowInvalid as error:
            told.add(str(error).partition("(")[2][:40])
            made.unlink()
    assert len(told) > 20
    site = write_site(collect([str(tmp_path), str(file)]), tmp_path / "site", SiteOptions())
    shown = [s.row.id for board in site.boards for s in board.standings]
    assert read_row(file).id in shown


@pytest.mark.parametrize("number", ["NaN", "1e400", "-Infinity", "1" + "0" * 400, "9" * 5000])
def test_a_number_that_is_not_finite_makes_a_row_invalid(submission: Path, number: str) -> None:
    (file,) = (submission / "rows").iterdir()
    text = file.read_text()
    file.write_text(re.sub(r'("seed": )\d+', rf"\g<1>{number}", text))
    with pytest.raises(RowInvalid, match="finite|digits"):
        read_row(file)


def test_a_judge_that_answered_as_another_must_be_in_the_identity(
    tmp_path: Path,
) -> None:
    row = make_row("m", VALUES)
    row = replace(row, judging={**row.judging, "models_returned": ["a better one"]})
    write_row(tmp_path / "row.json", sign(row))
    with pytest.raises(RowInvalid, match="answered as 'a better one'"):
        read_row(tmp_path / "row.json")


def test_a_step_of_many_digits_is_not_a_checkpoint() -> None:
    assert split_checkpoint(f"m/checkpoint-{'9' * 400}") is None
    assert split_checkpoint(f"m/checkpoint-{'9' * 5000}") is None


@pytest.mark.parametrize(
    "change",
    [{"config": None}, {"config": {"judge": 5}}, {"config": {"judge": ["x"], "limit": "x"}},
     {"identity": {}}, {"identity": None}, {"model": 5}, {"identity": {"tasks": 5, "judges": 5}}],
)  # fmt: skip
def test_a_malformed_run_is_a_difference_and_ends_nothing(
    submission: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    file = run_of(submission) / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **change}))
    forge(submission)
    check = verify(submission)
    assert not check.is_sound and "cannot be computed again" in check.differences[0]
    with pytest.raises(UsageError):
        merge([submission], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_run_of_two_judges_is_submitted_with_the_row_of_both(tmp_path: Path) -> None:
    with FakeServer() as server:
        judges = [f"{server.base_url}#judge-{n}" for n in (0, 1)]
        make_run(tmp_path / "run", "org/two", answers("A tale."), *judges)
    rows = submit(tmp_path / "run", tmp_path / "sent").rows
    assert [row.judge for row in rows] == ["judge-0", "judge-1", "mean(judge-0, judge-1)"]
    assert len(merge([tmp_path / "sent"], tmp_path / "data")) == 3
    assert verify(tmp_path / "data").computed == 3


@pytest.mark.parametrize(
    "parent", [r"runs\1", r"runs\x", r"\042 onload=\042alert(1)", '" onload="alert(1)', "<b>&"]
)
def test_no_name_of_a_training_breaks_its_curve_or_adds_to_it(parent: str) -> None:
    rows = [make_row(f"{parent}/checkpoint-{step}", VALUES) for step in (10, 20)]
    (curve,) = training_curves([Entry(row) for row in rows])
    element = ElementTree.fromstring(curve.svg)
    assert element.attrib["aria-label"] == f"{parent} on {rows[0].task}"
    assert not [name for name in element.attrib if name.startswith("on")]
