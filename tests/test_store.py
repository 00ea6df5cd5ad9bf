"""The run folder: durable appends, unfinished lines, locks, and records that come back whole."""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2w_eval import store
from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import dump_line
from r2w_eval.store import (
    JsonlWriter,
    RecordIndex,
    RunFolder,
    iter_jsonl,
    read_judgement,
    read_response,
    write_json,
)
from r2w_eval.types import (
    Judgement,
    JudgeStatus,
    Response,
    Score,
    Usage,
    WriterStatus,
)

HOSTILE = '{"score": 10}\u2028\u0085</script>\ud800{x}%s\x00'


def response(key: str = "k", answer: str = "text") -> Response:
    return Response(
        key=key,
        task="t",
        sample_id="1",
        model="m",
        raw=answer,
        answer=answer,
        thinking=None,
        status=WriterStatus.OK,
        usage=Usage(1, 2),
    )


def test_records_survive_a_round_trip() -> None:
    made = response(answer=HOSTILE)
    judgement = Judgement(
        "k", "r", "t", "1", "j", "c", Score(None, JudgeStatus.PARSE_ERROR, "why"), (HOSTILE,)
    )
    assert read_response(json.loads(dump_line(made))) == made
    assert read_judgement(json.loads(dump_line(judgement))) == judgement


@given(st.text(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_one_line(text: str) -> None:
    line = dump_line({"text": text})
    assert line.count(b"\n") == 1 and json.loads(line) == {"text": text}


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "a.jsonl")
    for key in "ab":
        writer.append(response(key, HOSTILE))
    writer.close()
    assert [record["key"] for record in iter_jsonl(tmp_path / "a.jsonl")] == ["a", "b"]


def test_a_closed_writer_writes_to_no_other_file(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "a.jsonl")
    descriptor = writer._fd
    writer.close()
    with (tmp_path / "other.txt").open("wb") as other:
        assert other.fileno() == descriptor, "the test needs the number anew"
        with pytest.raises(OSError):
            writer.append(response())
    assert (tmp_path / "other.txt").read_bytes() == b""


def test_an_unfinished_line_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"key": "a"}\n{"key": "b"')
    JsonlWriter(path).close()
    assert path.read_bytes() == b'{"key": "a"}\n'
    assert (tmp_path / "a.jsonl.partial").read_bytes() == b'{"key": "b"\n'


@pytest.mark.parametrize("content", [b"", b"x", b"\n", b'{"a":1}\n', b"a\n" * 70_000 + b"rest"])
def test_setting_aside_keeps_every_finished_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    JsonlWriter(path).close()
    assert path.read_bytes() == content[: content.rfind(b"\n") + 1]


def test_a_corrupt_middle_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"key": "a"}\nnot json\n{"key": "b"}\n')
    with pytest.raises(DataError, match="line 2"):
        list(iter_jsonl(path))
    with pytest.raises(DataError, match="byte 13"):
        RecordIndex(path)


def test_the_newest_record_of_a_key_wins(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "a.jsonl")
    for text in ("old", "new"):
        writer.append(response("k", text))
    writer.close()
    record = RecordIndex(tmp_path / "a.jsonl").read("k")
    assert record is not None and record["answer"] == "new"


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.open_writers(), pytest.raises(UsageError, match="another process"):
        folder.open_writers()
    with folder.open_writers():
        pass


def test_a_full_disk_leaves_no_half_record(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "a.jsonl")
    writer.append(response("a", "x" * 100))
    size = (tmp_path / "a.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.jsonl"):
            writer.append(response("b", "x" * 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "a.jsonl").stat().st_size == size
    writer.append(response("b", "y"))
    writer.close()
    assert [record["key"] for record in iter_jsonl(tmp_path / "a.jsonl")] == ["a", "b"]


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        RunFolder.existing(str(tmp_path))


def test_the_runs_that_may_be_meant_are_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "run.json", {})
    for path, told in (
        (tmp_path, f"Run folders there: {tmp_path}/one, {tmp_path}/two"),
        (tmp_path / "onee", f"Run folders there: {tmp_path}/one"),
        (tmp_path / "one" / "report.html", f"Try the folder that it lies in: {tmp_path}/one"),
        (tmp_path / "one" / "deep", f"Try the folder that it lies in: {tmp_path}/one"),
        (tmp_path / "none" / "deep", "Try: r2w-eval --model smollm2"),
    ):
        with pytest.raises(UsageError, match=told):
            RunFolder.existing(str(path))


def test_json_files_are_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    write_json(tmp_path / "a.json", {"a": 2})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("record", ['{"key": "a"}', '{"key": "a", "status": "odd", "usage": {}}'])
def test_a_record_that_lacks_fields_is_named(tmp_path: Path, record: str) -> None:
    (tmp_path / "responses.jsonl").write_bytes(dump_line(response()) + record.encode() + b"\n")
    with pytest.raises(DataError, match=r"responses\.jsonl, line 2"):
        list(RunFolder(tmp_path).responses())


@pytest.mark.parametrize("content", ["5", '"x"', "[1]", "{", ""])
def test_a_malformed_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"run\.json"):
        RunFolder(tmp_path).manifest()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="--out"):
            RunFolder(path).open_writers()
    assert (tmp_path / "file").read_text() == "mine"


def test_records_of_a_newer_version_are_read_without_what_is_new(tmp_path: Path) -> None:
    plain = json.loads(dump_line(response()))
    assert read_response({**plain, "mood": "good"}) == response()


@given(st.integers(0, 400))
def test_a_file_cut_at_any_byte_goes_on_without_its_last_record(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        whole = b"".join(dump_line({"key": str(n), "t": "\u2028" * n}) for n in range(12))
        path.write_bytes(whole[: min(cut, len(whole))])
        before = [record["key"] for record in iter_jsonl(path)]
        writer = JsonlWriter(path)
        writer.append({"key": "new"})
        writer.close()
        assert [record["key"] for record in iter_jsonl(path)] == [*before, "new"]
        assert before == [str(n) for n in range(len(before))]
        index = RecordIndex(path)
        assert all(index.read(key) for key in [*before, "new"]) and index.read("none") is None


def test_a_killed_replacement_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    monkeypatch.setattr("os.replace", _fail)
    with pytest.raises(OSError):
        write_json(tmp_path / "a.json", {"a": 2})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_sync_that_failed_aside_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "FSYNC_EVERY_S", -1.0)
    writer = JsonlWriter(tmp_path / "a.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fail)
        writer.append({"a": 1})
        assert writer._syncing is not None and writer._syncing.exception() is not None
    with pytest.raises(OSError, match="No space left"):
        writer.close()


def test_a_folder_that_could_not_be_opened_is_not_held(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.judgements_path.mkdir()
    with pytest.raises(IsADirectoryError):
        folder.open_writers()
    folder.judgements_path.rmdir()
    with folder.open_writers():
        pass


def test_a_folder_whose_disk_fails_at_the_end_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match="No space left"),
        folder.open_writers(),
    ):
        patch.setattr(os, "fsync", _fail)
    with folder.open_writers():
        pass


def _fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_two_writers_of_one_file_are_refused_and_its_last_line_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = JsonlWriter(path)
    # as if the first were in the middle of a long line
    path.write_bytes(b'{"half')
    with pytest.raises(UsageError, match="another process is writing it"):
        JsonlWriter(path)
    assert path.read_bytes() == b'{"half'
    first.close()
    JsonlWriter(path).close()
    assert path.read_bytes() == b""
