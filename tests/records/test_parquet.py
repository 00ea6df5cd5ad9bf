"""Runs as Parquet: nothing lost or doubled, other schemas refused, aggregates as in memory."""

from __future__ import annotations

import errno
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from r2w_eval.tasks.discox.aspects import GATE

from r2w_eval.cli import cli
from r2w_eval.errors import DataError, UnknownName, UsageError
from r2w_eval.estimates import pooled
from r2w_eval.records.parquet import JUDGEMENTS, PARTITIONS, RESPONSES, SCHEMAS, ParquetFolder
from r2w_eval.records.places import open_place
from r2w_eval.results.verdict_means import verdict_means
from r2w_eval.stats import measure
from r2w_eval.store import RunFolder, write_json
from r2w_eval.types import Judgement, JudgeStatus, Metric, Response, Score, Usage, WriterStatus

pa = pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")
MemoryFileSystem: Any = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
JUDGES = ("http://a/v1#j", "../b")


def verdicts(n_queries: int, answers: int = 2) -> Iterator[Judgement]:
    """Integer verdicts on two criteria by two judges; every seventh one is lost."""
    for query in range(n_queries):
        for answer in range(answers):
            for judge in JUDGES:
                for criterion in ("a", "b"):
                    n = query * 31 + answer * 7 + len(judge) + ord(criterion)
                    lost = n % 7 == 0
                    score = Score(None, JudgeStatus.TIMEOUT) if lost else Score(float(n % 10 + 1))
                    key = f"{query}-{answer}-{judge}-{criterion}"
                    names = (f"r{query}-{answer}", "quickstart", str(query), judge, criterion)
                    yield Judgement(key, *names, score, ("text",), usage=Usage(5, 1))


def make_run(folder: Path, judgements: Iterator[Judgement], text: str = "Once.") -> RunFolder:
    run = RunFolder(folder)
    with run.open_writers() as writers:
        write_json(
            run.manifest_path, {"created": str(folder), "model": "m", "identity": {}, "config": {}}
        )
        for judgement in judgements:
            writers.judgements.append(judgement)
        facts = (text, text, None, WriterStatus.OK)
        writers.responses.append(Response("r0-0", "quickstart", "0", "m", *facts))
    return run


def in_memory(judgements: Iterator[Judgement], judge: str) -> Metric:
    values: dict[str, list[float]] = defaultdict(list)
    for judgement in judgements:
        if judgement.judge == judge:
            own = values[judgement.sample_id]
            own += [] if judgement.score.value is None else [judgement.score.value]
    return measure(pooled("mean verdict", values.items(), len(values)))


def test_means_from_parquet_are_those_in_memory(tmp_path: Path) -> None:
    dataset = ParquetFolder(str(tmp_path / "out"))
    run = make_run(tmp_path / "run", verdicts(40))
    dataset.export(run)
    means = {row.group["judge"]: row for row in verdict_means(dataset)}
    assert list(means) == sorted(JUDGES)
    for judge, row in means.items():
        expected, found = in_memory(run.judgements(), judge), row.metric
        assert (found.n_scored, found.n_expected) == (expected.n_scored, expected.n_expected)
        for name in ("value", "low", "high"):
            assert math.isclose(getattr(found, name), getattr(expected, name), rel_tol=1e-12)
        own = [j for j in run.judgements() if j.judge == judge]
        assert row.n_verdicts == len(own)
        lost = sum(j.score.value is None for j in own)
        assert row.failures == {"timeout": lost} and lost > 0
    by_criterion = verdict_means(dataset, ["task", "judge", "criterion"])
    assert sum(row.n_verdicts for row in by_criterion) == 320 and len(by_criterion) == 4
    with pytest.raises(UnknownName, match="criterion"):
        verdict_means(dataset, ["critrion"])


def make_staged_run(folder: Path) -> RunFolder:
    """Four queries: judged; its gate lost; never answered; judged by the first judge alone."""
    run = make_run(folder, iter(()))
    ok = ("", "", None, WriterStatus.OK)
    lost = ("", "", None, WriterStatus.ERROR)
    with run.open_writers() as writers:
        for query in "0123":
            facts = lost if query == "2" else ok
            writers.responses.append(Response(f"r{query}", "discox", query, "m", *facts))
        told = [("0", GATE, 1.0), ("0", "tone", 60.0), ("1", GATE, None), ("3", GATE, 1.0),
                ("3", "tone", 80.0)]  # fmt: skip
        for judge in JUDGES:
            for query, criterion, value in told[: 5 if judge == JUDGES[0] else 3]:
                score = Score(None, JudgeStatus.TIMEOUT) if value is None else Score(value)
                names = (f"r{query}", "discox", query, judge, criterion)
                writers.judgements.append(Judgement(f"{judge}{names}", *names, score, ("text",)))
    return run


def test_stages_are_no_verdicts_and_queries_without_one_are_expected(tmp_path: Path) -> None:
    dataset = ParquetFolder(str(tmp_path / "out"))
    dataset.export(make_staged_run(tmp_path / "run"))
    first, second = sorted(verdict_means(dataset), key=lambda row: -row.n_verdicts)
    assert first.metric.value == 70.0 and second.metric.value == 60.0
    assert (first.metric.n_scored, second.metric.n_scored) == (2, 1)
    assert (first.n_verdicts, second.n_verdicts) == (2, 1)
    assert first.metric.n_expected == second.metric.n_expected == 4
    assert first.failures == second.failures == {"timeout": 1}
    (tone,) = verdict_means(dataset, ["criterion"])
    assert tone.group == {"criterion": "tone"} and tone.metric.n_expected == 4
    odd = replace(next(verdicts(1)), task="no_suite")
    with pytest.raises(UnknownName, match="no_suite"):
        dataset.export(make_run(tmp_path / "odd", iter([odd])))


def test_a_run_of_an_earlier_schema_is_refused_until_it_is_exported_again(tmp_path: Path) -> None:
    dataset = ParquetFolder(str(tmp_path / "out"))
    run = make_run(tmp_path / "run", verdicts(1))
    with pytest.MonkeyPatch.context() as patch:
        earlier = {"judgements/1": SCHEMAS[JUDGEMENTS], RESPONSES: SCHEMAS[RESPONSES]}
        patch.setattr("r2w_eval.records.parquet.SCHEMAS", earlier)
        patch.setattr("r2w_eval.records.parquet.JUDGEMENTS", "judgements/1")
        patch.setitem(PARTITIONS, "judgements/1", PARTITIONS[JUDGEMENTS])
        dataset.export(run)
    with pytest.raises(DataError, match=r"another version \(.*judgements/1;.*Export it again"):
        dataset.judgements()
    assert dataset.export(run).is_new and dataset.judgements().count_rows() == 8
    assert len(list((tmp_path / "out" / "judgements").rglob("*.parquet"))) == 2


def test_the_last_word_counts_and_the_same_export_adds_nothing(tmp_path: Path) -> None:
    dataset = ParquetFolder(str(tmp_path / "out"))
    first = list(verdicts(3))
    again = replace(first[0], key="other", score=Score(10.0, parts={"reason": "a\ud800"}))
    run = make_run(tmp_path / "run", iter([*first, again]), text="lone \udc00 surrogate")
    assert dataset.export(run).is_new and not dataset.export(run).is_new
    rows = dataset.judgements().to_table().to_pylist()
    assert len(rows) == len(first)
    assert [r["value"] for r in rows if r["key"] == "other"] == [10.0]
    assert {(r["task"], r["judge"]) for r in rows} == {("quickstart", judge) for judge in JUDGES}
    (response,) = dataset.responses().to_table().to_pylist()
    assert response["answer"] == "lone \ufffd surrogate" and response["thinking"] is None
    # the run goes on: its files are replaced, the other run's stay
    dataset.export(make_run(tmp_path / "second", verdicts(1)))
    make_run(tmp_path / "run", iter([replace(first[1], response_key="new", key="new")]))
    dataset.export(run)
    assert dataset.judgements().count_rows() == len(first) + 1 + 8
    n_files = len(list((tmp_path / "out" / "judgements").rglob("*.parquet")))
    assert n_files == len(dataset.judgements().files) == 4


def test_runs_of_one_name_and_second_stand_side_by_side(tmp_path: Path) -> None:
    dataset = ParquetFolder(str(tmp_path / "out"))
    runs = [make_run(tmp_path / arm / "run", verdicts(1)) for arm in ("on", "off")]

    def export(**judges: Any) -> list[str]:
        for seed, run in enumerate(runs):
            told = {"created": "today", "model": "m", "config": {}}
            identity = {"seed": seed, "judges": judges}
            write_json(run.manifest_path, {**told, "identity": identity})
        return [dataset.export(run).run for run in runs]

    names = export(a={})
    assert len(set(names)) == 2 and dataset.judgements().count_rows() == 16
    assert export(a={}, b={}) == names, "an added judge makes no other run"


@pytest.mark.parametrize("name", ["judgements/x", "responses/judgements", "b[1]/x*"])
def test_a_dataset_may_have_any_path(tmp_path: Path, name: str) -> None:
    dataset = ParquetFolder(str(tmp_path / name))
    dataset.export(make_run(tmp_path / "run", verdicts(2)))
    assert dataset.judgements().count_rows() == 16 and dataset.responses().count_rows() == 1


def test_a_number_that_no_column_holds_is_unknown_there(tmp_path: Path) -> None:
    dataset = ParquetFolder(str(tmp_path / "out"))
    first, *rest = verdicts(1)
    odd = replace(first, usage=Usage(2**70, 2**62))
    dataset.export(make_run(tmp_path / "run", iter([odd, *rest])))
    rows = dataset.judgements().to_table().to_pylist()
    (row,) = [row for row in rows if row["key"] == first.key]
    assert (row["prompt_tokens"], row["completion_tokens"]) == (None, 2**62)
    assert sum(row["prompt_tokens"] == 5 for row in rows) == 7


def test_a_full_store_leaves_the_dataset_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = ParquetFolder("memory://full/store")
    dataset.export(make_run(tmp_path / "a", verdicts(2)))

    def refuse(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(type(dataset._fs), "open", refuse)
        dataset.export(make_run(tmp_path / "b", verdicts(2)))
    assert dataset.judgements().count_rows() == 16
    dataset.export(RunFolder(tmp_path / "b"))
    assert dataset.judgements().count_rows() == 32


def test_a_file_of_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    dataset = ParquetFolder(str(tmp_path / "out"))
    with pytest.raises(UsageError, match="no exported runs"):
        dataset.judgements()
    dataset.export(make_run(tmp_path / "run", verdicts(1)))
    path = next((tmp_path / "out" / "judgements").rglob("*.parquet"))
    pq.write_table(pa.table({"key": ["x"], "score": [1.0]}), path)
    with pytest.raises(DataError, match=r"schema 'none', expected 'judgements/2'.*score.*value"):
        dataset.judgements()
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match=r"Export its run again"):
        dataset.judgements()
    note = next((tmp_path / "out" / "runs").glob("*.json"))
    note.write_text('{"files": {"judgements/1": ["../../etc/passwd"]}}')
    with pytest.raises(DataError, match="outside the dataset"):
        dataset.judgements()


def test_a_run_that_has_lost_a_file_is_exported_again(tmp_path: Path) -> None:
    dataset = ParquetFolder(str(tmp_path / "out"))
    run = make_run(tmp_path / "run", verdicts(1))
    dataset.export(run)
    for spoil in (Path.unlink, lambda path: path.write_bytes(b"PAR1 cut off")):
        spoil(next((tmp_path / "out" / "judgements").rglob("*.parquet")))
        assert dataset.export(run).is_new and not dataset.export(run).is_new
        assert dataset.judgements().count_rows() == 8


class Listed(MemoryFileSystem):  # type: ignore[misc]
    """A store that, as s3fs does, takes its last listing of a folder for all that is there."""

    protocol = "listed"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("listed://")))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        if path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True)
        return [one if detail else one["name"] for one in self.dircache[path]]

    def info(self, path: str, **kwargs: Any) -> Any:
        known = self._ls_from_cache(path)
        return known[0] if known else super().info(path, **kwargs)

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()


def test_what_another_process_put_into_a_store_is_seen() -> None:
    fsspec.register_implementation("listed", Listed, clobber=True)
    store = MemoryFileSystem()
    store.pipe_file("/stale/one", b"1")
    fs, root = open_place("listed://stale")
    assert fs.ls(root, detail=False) == ["/stale/one"]
    store.pipe_file("/stale/two", b"2")
    with pytest.raises(FileNotFoundError):
        fs.info(f"{root}/two")
    fs, root = open_place("listed://stale")
    assert fs.info(f"{root}/two")["size"] == 1


def test_the_commands_show_what_is_there(tmp_path: Path) -> None:
    make_run(tmp_path / "run", verdicts(4))
    out = str(tmp_path / "out")
    export = CliRunner().invoke(cli, ["export", str(tmp_path / "run"), "--parquet", out])
    assert "1 responses, 32 judgements" in export.output, export.output
    shown = CliRunner().invoke(cli, ["aggregate", out, "--by", "judge,criterion"])
    assert "4/4" in shown.output and "timeout" in shown.output
    rows = json.loads(CliRunner().invoke(cli, ["aggregate", out, "--json"]).output)
    assert [row["group"]["judge"] for row in rows] == sorted(JUDGES)


def test_suites_have_tables_of_their_own_and_no_common_mean(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for task in ("quickstart", "hellobench"):
        own = (replace(judgement, task=task) for judgement in verdicts(2))
        ParquetFolder(out).export(make_run(tmp_path / task, own))
    tables = CliRunner().invoke(cli, ["aggregate", out, "--by", "task,judge"]).output
    assert tables.index("task hellobench") < tables.index("task quickstart")
    mixed = CliRunner().invoke(cli, ["aggregate", out, "--by", "judge"])
    assert isinstance(mixed.exception, UsageError)
    assert str(mixed.exception).endswith("Try: --by task,judge")
