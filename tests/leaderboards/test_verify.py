"""Verification names what differs; submissions come in only when they can be computed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from boards import make_row, make_run, sample_ids
from r2w_eval.leaderboards.collect import collect, rows_of_run
from r2w_eval.leaderboards.recompute import check_verdicts
from r2w_eval.leaderboards.rows import RowInvalid, read_row, sign, write_row
from r2w_eval.leaderboards.site import SiteOptions, write_site
from r2w_eval.leaderboards.submit import SubmissionRefused, merge, published_data, submit
from r2w_eval.leaderboards.verify import verify

from r2w_eval.errors import DataAbsent, IdentityMismatch, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.hashing import content_hash
from r2w_eval.results.notices import Notice
from r2w_eval.store import RunFolder


@pytest.fixture
def submission(runs: dict[str, Path], tmp_path: Path) -> Path:
    submit(runs["thinking"], tmp_path / "submission")
    return tmp_path / "submission"


def only_row(folder: Path) -> Path:
    (row,) = (folder / "rows").glob("*.json")
    return row


def raw(folder: Path, name: str) -> Path:
    (found,) = (folder / "runs").glob(f"*/{name}")
    return found


def edit(path: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    """Change the last record of a JSON-lines file."""
    lines = path.read_text().splitlines()
    record = json.loads(lines[-1])
    change(record)
    path.write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n")


def test_a_sound_row_is_computed_again_from_the_judges_texts(submission: Path) -> None:
    check = verify(submission)
    assert check.is_sound and (check.rows, check.computed) == (1, 1)


def test_a_verdict_that_the_judge_never_gave_is_found(submission: Path) -> None:
    """Score and text disagree: reading the text again gives another number."""
    edit(raw(submission, "judgements.jsonl"), lambda record: record["score"].update(value=10.0))
    row = read_row(only_row(submission))
    files = {**row.evidence.files}
    from r2w_eval.leaderboards.collect import hash_raw_files

    files.update(hash_raw_files(raw(submission, "run.json").parent))
    forged = sign(replace(row, evidence=replace(row.evidence, files=files)))
    values = list(forged.items.values)
    values[-1] = (values[-1] or 0) + 0.8
    forged = sign(replace(forged, items=replace(forged.items, values=tuple(values))))
    write_row(only_row(submission), forged)
    check = verify(submission)
    assert any("items.values" in text for text in check.differences)
    with pytest.raises(SubmissionRefused, match=r"items\.values"):
        merge([submission], submission.parent / "data")
    assert not (submission.parent / "data").exists()


def test_an_altered_headline_is_named_with_both_values(submission: Path) -> None:
    row = read_row(only_row(submission))
    better = sign(replace(row, headline=replace(row.headline, value=9.99)))
    write_row(only_row(submission), better)
    (told,) = verify(only_row(submission)).differences
    assert "headline 9.99 (6 of 6)" in told and f"give {row.headline.value}" in told
    narrow = sign(replace(row, headline=replace(row.headline, low=5.0)))
    write_row(only_row(submission), narrow)
    assert "headline.low: the row says 5.0" in " ".join(verify(only_row(submission)).differences)
    shutil.rmtree(submission / "runs")
    assert "headline.low: the row says 5.0" in " ".join(verify(only_row(submission)).differences)


def test_a_reworded_warning_is_the_same_warning_and_another_code_is_not(tmp_path: Path) -> None:
    rows = published_data() / "rows"
    row = next(row for row in map(read_row, sorted(rows.glob("*.json"))) if row.warnings)
    evidence = replace(row.evidence, folder=str(rows / row.evidence.folder))
    for text, code, is_sound in (("in other words", None, True), ("x", "invented", False)):
        told = tuple(Notice(code or notice.code, text) for notice in row.warnings)
        write_row(tmp_path / "row.json", sign(replace(row, warnings=told, evidence=evidence)))
        assert verify(tmp_path / "row.json").is_sound is is_sound


def test_altered_raw_files_are_named(submission: Path) -> None:
    edit(raw(submission, "responses.jsonl"), lambda record: record.update(latency_s=9.0))
    check = verify(submission)
    assert any("responses.jsonl is not the file" in text for text in check.differences)


def test_a_row_whose_raw_data_is_gone_passes_with_a_note(submission: Path) -> None:
    shutil.rmtree(submission / "runs")
    check = verify(submission)
    assert check.is_sound and check.computed == 0 and "raw data gone" in check.notes[0]
    with pytest.raises(SubmissionRefused, match="raw files"):
        merge([submission], submission.parent / "data")


def test_a_row_of_a_suite_without_data_is_neither_refuted_nor_confirmed(
    submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object) -> None:
        raise DataAbsent("samples.jsonl is not here")

    monkeypatch.setattr("r2w_eval.leaderboards.verify.recompute_rows", absent)
    check = verify(submission)
    assert check.is_sound and check.computed == 0
    assert "quickstart: files and signatures compared, no row computed" in check.notes[0]
    with pytest.raises(SubmissionRefused, match=r"1 of 1 row\(s\) could not be computed again"):
        merge([submission], tmp_path / "data")
    edit(raw(submission, "responses.jsonl"), lambda record: record.update(latency_s=9.0))
    assert "not the file that was signed" in verify(submission).differences[0]


def test_an_expectation_that_its_probabilities_do_not_give_is_found(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(runs["plain"], tmp_path / "run")
    folder = RunFolder(tmp_path / "run")

    def to_expectation(record: dict) -> None:  # type: ignore[type-arg]
        record.update(asks=[], judge="another")
        record["score"].update(value=4.0, parts={"probabilities": {"3": 0.5, "4": 0.5}})

    edit(folder.judgements_path, to_expectation)
    assert "the probabilities give 3.5, the stored score is 4" in next(iter(check_verdicts(folder)))


def test_a_submission_is_added_once(submission: Path, tmp_path: Path) -> None:
    (row,) = merge([submission], tmp_path / "data")
    assert verify(tmp_path / "data").computed == 1
    with pytest.raises(SubmissionRefused, match="exists already"):
        merge([submission], tmp_path / "data")
    assert [e.row.id for e in collect([str(tmp_path / "data")]).entries] == [row.id]


def test_the_same_answers_judged_again_are_no_second_row(
    runs: dict[str, Path], submission: Path, tmp_path: Path
) -> None:
    merge([submission], tmp_path / "data")
    row = read_row(only_row(submission))
    again = sign(replace(row, created="2026-12-01T00:00:00+00:00"))
    write_row(only_row(submission), again)
    with pytest.raises(SubmissionRefused, match="the same answers"):
        merge([submission], tmp_path / "data")


def test_a_partial_run_is_refused_with_its_counts(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SubmissionRefused, match="3 of 6 items are scored"):
        submit(runs["half"], tmp_path / "submission")


def test_a_mixture_of_models_is_refused(submission: Path) -> None:
    row = read_row(only_row(submission))
    two = ["judge-0", "judge-1"]
    identity = {**row.identity, "judge_returned": {row.judge: two}}
    mixed = replace(
        row,
        judging={**row.judging, "models_returned": two},
        identity=identity,
        score_key=content_hash(identity, 12),
    )
    write_row(only_row(submission), sign(mixed))
    with pytest.raises(IdentityMismatch, match="mixture"):
        merge([submission], submission.parent / "data")


def test_rows_and_raw_files_of_different_runs_are_refused(
    runs: dict[str, Path], submission: Path
) -> None:
    target = raw(submission, "run.json").parent
    for name in ("run.json", "responses.jsonl", "judgements.jsonl"):
        shutil.copyfile(runs["plain"] / name, target / name)
    with pytest.raises(IdentityMismatch, match="the raw files are of 'org/plain'"):
        merge([submission], submission.parent / "data")


def test_a_score_key_of_another_identity_is_refused(submission: Path) -> None:
    row = read_row(only_row(submission))
    write_row(only_row(submission), sign(replace(row, score_key="0" * 12)))
    with pytest.raises(RowInvalid, match="not the hash of its identity"):
        merge([submission], submission.parent / "data")


def test_a_tampered_row_file_is_refused_before_anything_else(submission: Path) -> None:
    text = only_row(submission).read_text().replace("org/thinking", "org/better")
    only_row(submission).write_text(text)
    with pytest.raises(RowInvalid, match="altered after signing"):
        merge([submission], submission.parent / "data")


def test_a_run_without_results_says_how_to_get_them(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["plain"], tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(UsageError, match="--reparse"):
        rows_of_run(tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text('[{"task": "quickstart"}]')
    with pytest.raises(UsageError, match="not results of this version"):
        rows_of_run(tmp_path / "run")


def test_a_verdict_from_a_broken_judge_costs_the_row_nothing_silently(tmp_path: Path) -> None:
    """Malformed verdicts are lost by the judge, counted, and still verifiable."""
    with FakeServer() as server:
        judge = f"{server.base_url}#judge-0+malformed=0.3+sticky+seed=2"
        texts = {key: f"Tale {key}" for key in sample_ids()}
        run = make_run(tmp_path / "run", "org/m", texts, judge)
    (row,) = rows_of_run(run)
    assert sum(row.losses.judge.values()) > 0 and row.headline.n_scored < 6
    with pytest.raises(SubmissionRefused, match="--retry-failed"):
        submit(run, tmp_path / "submission")


def test_a_site_is_verified_down_to_its_pages(runs: dict[str, Path], tmp_path: Path) -> None:
    site = write_site(
        collect([str(runs["plain"]), str(runs["null"])]), tmp_path / "site", SiteOptions()
    )
    assert verify(site.path).is_sound
    page = next((site.path / "boards").glob("*.html"))
    page.write_text(page.read_text("utf-8").replace("org/plain", "org/best"), "utf-8")
    (site.path / "extra.html").write_text("mine")
    told = " ".join(verify(site.path).differences)
    assert f"boards/{page.name}: changed since" in told and "extra.html: not part" in told
    assert f"boards/{page.name}: does not match the rows" in told


def test_a_forged_site_with_new_hashes_is_found_by_its_rows(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    from r2w_eval.hashing import file_hash

    site = write_site(collect([str(runs["plain"])]), tmp_path / "site", SiteOptions())
    page = next((site.path / "boards").glob("*.html"))
    page.write_text(page.read_text("utf-8").replace("org/plain", "org/best"), "utf-8")
    manifest = json.loads((site.path / "site.json").read_text())
    manifest["files"][f"boards/{page.name}"] = file_hash(page)
    (site.path / "site.json").write_text(json.dumps(manifest))
    (told,) = verify(site.path).differences
    assert told.startswith(f"boards/{page.name}: does not match the rows")


def test_a_site_whose_runs_are_gone_still_proves_its_rows(tmp_path: Path) -> None:
    row = make_row("m", {item: 5.0 + n / 10 for n, item in enumerate(sample_ids())})
    write_row(tmp_path / "row.json", row)
    site = write_site(collect([str(tmp_path / "row.json")]), tmp_path / "site", SiteOptions())
    check = verify(site.path)
    assert check.is_sound and (check.rows, check.computed) == (1, 0)


def test_a_row_that_points_at_anothers_run_shows_none_of_its_texts(
    submission: Path, runs: dict[str, Path]
) -> None:
    """The folder's name is not signed: only the files that the row was signed over are shown."""
    file = only_row(submission)
    (sound,) = collect([str(file)]).entries
    assert sound.has_raw
    row = read_row(file)
    pointing = replace(row, evidence=replace(row.evidence, folder=str(runs["plain"].resolve())))
    write_row(file, pointing)
    (entry,) = collect([str(file)]).entries
    assert (entry.has_raw, entry.runs) == (False, ())
