"""Scoring in splits, and on a real local Ray whose worker is killed in the middle."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from r2w_eval.reward_models.items import Item, ItemScore
from r2w_eval.reward_models.scorer import open_scorer
from r2w_eval.reward_models.serving.files import score_file
from r2w_eval.reward_models.serving.ray_scoring import (
    SLOW_START,
    STARTS,
    RayJob,
    SplitScorer,
    _check_resources,
    _check_target,
    _claim,
    _finished,
    read_scores,
    start_ray,
    write_lines,
)
from r2w_eval.reward_models.serving.splits import Split, plan_splits, read_split

from r2w_eval.errors import DataError, R2WError, UsageError
from r2w_eval.types import JudgeStatus

pa = pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
HERE = Path(__file__)


class Lengths:
    """A scorer whose value is the length; kills its own process at the item that LETHAL names."""

    id = "lengths"

    def describe(self) -> dict[str, Any]:
        return {}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        lethal = Path(os.environ.get("R2W_TEST_LETHAL", "/nonexistent"))
        if lethal.is_file() and any(item.id == lethal.read_text() for item in items):
            lethal.unlink()
            os.kill(os.getpid(), 9)
        return [ItemScore(item.id, float(len(item.prompt))) for item in items]


class Silent:
    """A judge that gives no score, and quotes a reply that no file can hold."""

    id = "silent"

    def __init__(self, status: JudgeStatus) -> None:
        self.status = status

    def describe(self) -> dict[str, Any]:
        return {}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        return [ItemScore(item.id, None, {}, self.status, "said \ud800") for item in items]


def write_items(path: Path, count: int) -> None:
    lines = [json.dumps({"id": f"i{n}", "prompt": "p" * n, "response": "x"}) for n in range(count)]
    # hostile lines keep their place: no JSON, no item, two equal items, an empty line, no id
    lines[3:3] = ["{no json", '{"id": "empty"}', lines[0], "", '{"response": "Été \\ud800"}']
    path.write_text("\n".join(lines), "utf-8")


def score_here(job: RayJob, folder: str) -> list[int]:
    """What the actors do, without Ray."""
    actor = SplitScorer(job.scorer, folder, job.batch)
    splits = plan_splits(job.source, job.split_bytes)
    for split in splits:
        actor.score_split(split)
    return [split.number for split in splits]


@pytest.mark.parametrize("split_bytes", [1, 57, 300, 1 << 20])
def test_every_line_is_in_exactly_one_split_of_any_size(tmp_path: Path, split_bytes: int) -> None:
    source = tmp_path / "items.jsonl"
    write_items(source, 20)
    job = RayJob("r2w-rules", str(source), str(tmp_path / "out"), split_bytes=split_bytes)
    found = [
        item.id for split in plan_splits(job.source, job.split_bytes) for item in read_split(split)
    ]
    assert [name for name in found if name.startswith("i")] == [
        "i0", "i1", "i2", "i0", *(f"i{n}" for n in range(3, 20)),
    ]  # fmt: skip
    assert len(found) == 24


def test_parts_give_the_lines_that_scoring_without_ray_gives(tmp_path: Path) -> None:
    source, out = tmp_path / "items.jsonl", tmp_path / "out.jsonl"
    write_items(source, 12)
    text = source.read_text("utf-8").replace('{"response"', '{"id": "odd", "response"')
    source.write_text(text.replace("{no json\n", ""), "utf-8")
    job = RayJob("r2w-reward", str(source), str(out), split_bytes=300)
    numbers = score_here(job, str(tmp_path / "parts"))
    write_lines(str(tmp_path / "parts"), numbers, out)
    score_file(open_scorer("r2w-reward"), str(source), str(tmp_path / "plain.jsonl"), 256)
    assert len(numbers) > 2 and out.read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_parquet_in_gives_one_part_a_row_group_and_other_columns_are_refused(
    tmp_path: Path,
) -> None:
    import pyarrow.parquet as pq

    rows = [{"id": f"i{n}", "prompt": "p" * n, "response": "x"} for n in range(10)]
    rows += [{"id": "r", "prompt": "p", "draft": "d", "reflection": "why", "earlier": ["e"]}]
    pq.write_table(pa.Table.from_pylist(rows[:10]), tmp_path / "a.parquet", row_group_size=4)
    job = RayJob(f"{__name__}:Lengths", str(tmp_path / "a.parquet"), str(tmp_path / "out"))
    numbers = score_here(replace(job, scorer="r2w-rules"), job.target)
    assert numbers == [0, 1, 2]
    assert [row["id"] for row in read_scores(job.target, numbers)] == [r["id"] for r in rows[:10]]
    table = pa.table({"text": ["x"]})
    pq.write_table(table, tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"columns text. Expected prompt and response"):
        plan_splits(str(tmp_path / "b.parquet"), 1)


def test_a_parquet_bomb_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    text = "x" * 1_000_000
    places = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), [text])
    pq.write_table(pa.table({"response": places}), tmp_path / "bomb.parquet", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 1_000_000  # 20 GB of text
    items = read_split(Split(0, str(tmp_path / "bomb.parquet"), 0, 0))
    before = pa.default_memory_pool().max_memory()
    assert [next(items).id for _ in range(100)] == [str(n) for n in range(1, 101)]
    assert pa.default_memory_pool().max_memory() < before + 500_000_000


def test_parts_of_another_scorer_and_a_cluster_without_gpus_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "items.jsonl"
    write_items(source, 2)
    job = RayJob("r2w-rules", str(source), str(tmp_path / "out"))
    _claim(job, job.target)
    _claim(job, job.target)
    with pytest.raises(UsageError, match="parts are of another scorer"):
        _claim(replace(job, scorer="r2w-reward"), job.target)
    with pytest.raises(UsageError, match="parts are of another split_bytes"):
        _claim(replace(job, split_bytes=5), job.target)
    with pytest.raises(UsageError, match="one worker needs 1 GPU, and the cluster has CPU 2"):
        _check_resources(replace(job, worker_gpus=1.0), {"CPU": 2.0})
    with pytest.raises(UsageError, match="nothing there"):
        plan_splits(str(tmp_path / "none.jsonl"), 1)


def test_only_files_of_items_are_taken_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    job = RayJob("r2w-rules", str(folder), str(tmp_path / "out"))
    for name in ("run.json", "_SUCCESS", ".hidden.jsonl", "a.jsonl~", "_temporary.parquet"):
        (folder / name).write_text("{}")
    with pytest.raises(UsageError, match=r"Expected \*.jsonl, \*.ndjson or \*.parquet; it holds"):
        plan_splits(job.source, job.split_bytes)
    for name in ("_temporary", ".ipynb_checkpoints"):
        (folder / name).mkdir()
        write_items(folder / name / "a-checkpoint.jsonl", 2)
    write_items(folder / "a.jsonl", 2)
    _claim(job, job.target)
    (folder / "run.json").write_text("changed")
    _claim(job, job.target)
    assert [Path(split.path).name for split in plan_splits(job.source, job.split_bytes)] == [
        "a.jsonl"
    ]


def test_items_without_id_of_several_files_have_names_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl", "c.jsonl.gz", "d.json"):
        (folder / name).write_text('{"response": "x"}\n{"id": "own", "response": "x"}\n')
    found = [item.id for split in plan_splits(str(folder), 9) for item in read_split(split)]
    assert found == ["a.jsonl:0", "own", "b.jsonl:0", "own"]
    assert "no items are read from c.jsonl.gz, d.json; expected *.jsonl" in capsys.readouterr().err
    alone = [read_split(split) for split in plan_splits(str(folder / "a.jsonl"), 1 << 20)]
    assert [item.id for items in alone for item in items] == ["0", "own"]


def test_json_lines_are_not_promised_to_an_object_store() -> None:
    with pytest.raises(UsageError, match="Name a folder there for Parquet parts"):
        _check_target("s3://bucket/scores.jsonl")
    for target in ("s3://bucket/scores", "scores.jsonl"):
        _check_target(target)


def test_lines_never_replace_a_file_that_is_not_of_scores(tmp_path: Path) -> None:
    out = tmp_path / "items.jsonl"
    write_items(out, 3)
    with pytest.raises(UsageError, match=r"no r2w-eval score has written"):
        _check_target(str(out))
    folder = tmp_path / "items.jsonl.parts"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    _check_target(str(out))


def test_a_full_store_and_a_broken_scorer_are_reported_and_leave_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "items.jsonl"
    write_items(source, 2)
    folder = "memory://full/scores"
    (split,) = plan_splits(str(source), 1 << 20)
    rows = {"split": [json.dumps({k: getattr(split, k) for k in split.__slots__})]}

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "bucket/part")

    actor = SplitScorer("r2w-rules", folder, 256)
    with monkeypatch.context() as patch:
        patch.setattr("r2w_eval.reward_models.serving.ray_scoring.publish", refuse)
        told = actor(rows)
    assert told == {"problem": ["OSError: [Errno 28] No space left on device: 'bucket/part'"]}
    assert actor(rows) == told and not _finished(folder), "it does no more"
    assert SplitScorer("r2w-rules", folder, 256)(rows) == {"problem": [""]}
    assert _finished(folder) == {0}
    actor = SplitScorer("r2w-rules", f"{folder}/other", 256)
    actor._scorer = object()  # type: ignore[assignment]
    assert actor(rows)["problem"] == ["AttributeError: 'object' object has no attribute 'score'"]


def test_a_part_with_a_transient_failure_is_scored_again(tmp_path: Path) -> None:
    source, folder = tmp_path / "items.jsonl", str(tmp_path / "out[1]")
    write_items(source, 2)
    job = RayJob("r2w-rules", str(source), folder, split_bytes=40)
    first = plan_splits(job.source, job.split_bytes)[0]
    actor = SplitScorer(job.scorer, folder, 256)
    for status in (JudgeStatus.TIMEOUT, JudgeStatus.PARSE_ERROR):
        actor._scorer = Silent(status)
        actor.score_split(first)
        assert _finished(folder) == (frozenset() if status.is_transient else {first.number})
        reasons = {row["reason"] for row in read_scores(folder, [first.number])}
        assert reasons == {"said \ufffd"}, "Parquet holds no lone surrogates"


class HalfSilent:
    """Answers about what it is not silent on; counts what it is asked."""

    id = "half"

    def __init__(self, silent_on: str) -> None:
        self.silent_on, self.asked = silent_on, 0

    def describe(self) -> dict[str, Any]:
        return {}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        self.asked += len(items)
        return [
            ItemScore(item.id, None, {}, JudgeStatus.TRANSPORT, "silent")
            if item.id == self.silent_on
            else ItemScore(item.id, 0.5, {"axis": 0.25})
            for item in items
        ]


def test_only_the_scores_that_a_judge_owes_are_asked_for_again(tmp_path: Path) -> None:
    source, folder = tmp_path / "items.jsonl", str(tmp_path / "out")
    write_items(source, 8)
    (split,) = plan_splits(str(source), 1 << 20)
    actor = SplitScorer("r2w-rules", folder, 256)
    whole = list(read_split(split))
    n_good = sum(not isinstance(item, ItemScore) for item in whole)
    for judge, asked in ((HalfSilent("i5"), n_good), (HalfSilent("i5"), 1), (HalfSilent(""), 1)):
        actor._scorer = judge
        actor.score_split(split)
        assert judge.asked == asked
    rows = list(read_scores(folder, [split.number]))
    assert [row["id"] for row in rows] == [item.id for item in whole]
    assert [row["value"] for row in rows if row["status"] == "ok"] == [0.5] * n_good
    assert {row["status"] for row in rows} == {"ok", "bad_item"} and rows[0]["parts"] == {
        "axis": 0.25
    }


def test_a_ray_that_starts_too_slowly_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # a folder of that name elsewhere on the path imports as "ray", too
    pytest.importorskip("ray.data", reason="scoring on Ray needs pip install 'r2w-eval[ray]'")
    import ray

    failures = [Exception(f"The current node {SLOW_START}.")] * (STARTS - 1)
    started = iter([*failures, None, *failures, failures[0], Exception("other")])

    def init(**_: Any) -> None:
        if error := next(started):
            raise error

    monkeypatch.setattr(ray, "init", init)
    start_ray()
    with pytest.raises(R2WError, match="too busy"):
        start_ray()
    with pytest.raises(Exception, match="^other$"):
        start_ray()


@pytest.mark.slow
@pytest.mark.timeout(540)
def test_a_killed_ray_worker_loses_and_doubles_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="scoring on Ray needs pip install 'r2w-eval[ray]'")
    source, out, lethal = tmp_path / "items.jsonl", tmp_path / "out.jsonl", tmp_path / "lethal"
    write_items(source, 40)
    lethal.write_text("i20")
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "R2W_TEST_LETHAL": str(lethal),
        # a cluster that happens to run on the machine is not the test's
        "RAY_ADDRESS": "local",
        # a busy machine takes its time to start Ray's agents
        "RAY_agent_register_timeout_ms": "400000",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    argv = [sys.executable, "-m", "r2w_eval", "score", "--on", "ray", "--scorer",
            f"{HERE.stem}:Lengths", "--input", str(source), "--output", str(out),
            "--split-mb", "0.0005"]  # fmt: skip
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[:2500] + done.stderr[-1500:]
    assert not lethal.exists(), "the worker was to be killed"
    records = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    expected = ["i0", "i1", "i2", None, "empty", "i0", None, *(f"i{n}" for n in range(3, 40))]
    assert [r["id"] if r["status"] == "ok" and r["id"][0] == "i" else None for r in records] == [
        name if name and name[0] == "i" else None for name in expected
    ]
    assert all(r["value"] == float(r["id"][1:]) for r in records if r["id"][0] == "i")
    # Ray tells of the dead worker on the lines before
    assert done.stdout.splitlines()[-1] == "3 bad_item, 41 ok"
