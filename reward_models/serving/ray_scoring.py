"""Scoring on Ray: input files are cut into splits, and actors write one Parquet part per split.

    OUTPUT/run.json, OUTPUT/part-00000000.parquet, …

Ray Data gives the splits to the actors, and to another actor when a worker dies. A split is a range
of bytes (JSON lines) or a row group (Parquet), so that it always holds the same items; its part is
published atomically under the split's number. Every item therefore counts once: a split that is
scored twice replaces its part with the same scores, and a restarted job skips finished parts. In a
part with transient failures of a judge it asks for those alone. Parts in order of number are in
input order.
"""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.items import TRANSIENT, ItemScore, read_score
from r2w_eval.reward_models.scorer import ItemScorer, open_scorer, score_all
from r2w_eval.reward_models.serving.files import check_own
from r2w_eval.reward_models.serving.splits import Split, find_inputs, plan_splits, read_split

from r2w_eval.errors import R2WError, UsageError
from r2w_eval.hashing import content_hash, to_plain
from r2w_eval.records.parquet import make_column
from r2w_eval.records.places import list_files, open_place, publish
from r2w_eval.store import JsonlWriter

FORMAT = {"r2w_eval": "scores/1"}
COLUMNS = ("id", "value", "parts", "status", "reason")
STARTS = 6
SLOW_START = "timed out during startup"


@dataclass(frozen=True, slots=True)
class RayJob:
    """What to score where. `source` and `target` are paths or fsspec addresses."""

    scorer: str
    source: str
    target: str
    workers: int = 2
    worker_gpus: float = 0.0
    split_bytes: int = 8 << 20
    batch: int = 256


def score_on_ray(job: RayJob) -> Counter[str]:
    """Score all splits without a finished part; counts by status over all items.

    Raises UsageError for what cannot be used, R2WError when a worker cannot go on.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UsageError("--on ray needs ray. Try: pip install 'r2w-eval[ray]'") from error
    _check_target(job.target)
    splits = plan_splits(job.source, job.split_bytes)
    folder = _parts_folder(job.target)
    _claim(job, folder)
    done = _finished(folder)
    with _connected():
        _check_resources(job, ray.cluster_resources())  # type: ignore[no-untyped-call, unused-ignore]
        _score_splits(job, folder, [split for split in splits if split.number not in done])
    numbers = [split.number for split in splits]
    if job.target.endswith(".jsonl"):
        write_lines(folder, numbers, Path(job.target))
    return Counter(row["status"] for row in read_scores(folder, numbers))


@contextmanager
def _connected() -> Iterator[None]:
    """Use Ray as already connected, else the cluster in RAY_ADDRESS, else start one here."""
    import ray

    if ray.is_initialized():
        yield
        return
    start_ray()
    try:
        yield
    finally:
        ray.shutdown()


def start_ray(**options: Any) -> None:
    """Connect to a cluster, or start Ray on this machine; `options` are those of `ray.init`.

    Ray 2.60 gives its own agents 30 s to start (node.py) and gives up when a busy machine needs
    more; a later try often succeeds, since the programs are in memory by then. Raises R2WError
    after STARTS tries.
    """
    import ray

    for _ in range(STARTS):
        try:
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
            return
        except Exception as error:
            ray.shutdown()
            if SLOW_START not in str(error):
                raise
    raise R2WError(
        f"Ray did not start within 30 s on this machine, {STARTS} times: it is too busy. Try: ray "
        f"start --head, then the same command with RAY_ADDRESS=auto"
    )


def _score_splits(job: RayJob, folder: str, splits: Sequence[Split]) -> None:
    import ray.data
    import ray.exceptions

    if not splits:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"split": json.dumps(asdict(split))} for split in splits]
    work = ray.data.from_items(rows, override_num_blocks=min(len(rows), 10_000)).map_batches(
        SplitScorer,
        fn_constructor_args=(job.scorer, folder, job.batch),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(job.workers, len(rows))),
        num_cpus=1,
        num_gpus=job.worker_gpus,
    )
    try:
        problems = (one for done in work.iter_batches(batch_size=None) for one in done["problem"])
        # read to the end: Ray Data complains of an iterator that is left behind
        problem = next(filter(None, list(problems)), None)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        problem = f"{type(cause).__name__}: {cause}"
    if problem:
        raise R2WError(
            f"Scoring stopped: {problem[:500]}. Finished parts are in {folder}; the same command "
            f"goes on from there"
        )


class SplitScorer:
    """An actor that opens the scorer once, and writes the part of each split it is given."""

    def __init__(self, scorer: str, folder: str, batch: int) -> None:
        self._scorer: ItemScorer = open_scorer(scorer)
        self._folder = folder
        self._batch = batch
        self._problem = ""

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Score the given splits; the returned `problem` is empty, or says what went wrong.

        Errors are returned because Ray Data does not report the cause of what is raised here. After
        the first problem nothing more is scored.
        """
        for text in rows["split"]:
            self._problem = self._problem or self._try(Split(**json.loads(text)))
        return {"problem": [self._problem]}

    def _try(self, split: Split) -> str:
        try:
            self.score_split(split)
        except Exception as error:  # noqa: BLE001 - a scorer may be anyone's code
            return f"{type(error).__name__}: {error}"
        return ""

    def score_split(self, split: Split) -> None:
        """Score one split and publish its part; scores that are in the part already are kept."""
        fs, path = open_place(f"{self._folder}/{_part_name(split.number)}")
        known = _settled(fs, path)
        items = (known.get(place, item) for place, item in enumerate(read_split(split)))
        publish(fs, path, _as_parquet(list(score_all(self._scorer, items, self._batch))))


def _as_parquet(scores: Sequence[ItemScore]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": make_column([str(score.id) for score in scores], pa.string()),
            "value": pa.array([score.value for score in scores], pa.float64()),
            "parts": pa.array([json.dumps(to_plain(score.parts)) for score in scores], pa.string()),
            "status": pa.array([str(score.status) for score in scores], pa.string()),
            "reason": make_column([score.reason for score in scores], pa.string()),
        }
    ).replace_schema_metadata(FORMAT)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_scores(folder: str, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The public records of the named parts, in input order."""
    fs, root = open_place(folder)
    for number in numbers:
        for row in _read_part(fs, f"{root}/{_part_name(number)}", COLUMNS):
            row["parts"] = json.loads(row["parts"])
            yield {k: v for k, v in row.items() if k != "reason" or v}


def _read_part(fs: Any, path: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    with fs.open(path, "rb") as file:
        # read_table leaves callbacks to Arrow's threads; one that wants the interpreter while the
        # process ends aborts it
        table = pq.ParquetFile(file).read(columns=list(columns), use_threads=False)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _settled(fs: Any, path: str) -> dict[int, ItemScore]:
    """The scores of a part by their place, without those that a judge owes; none without a part."""
    if not fs.exists(path):
        return {}
    rows = enumerate(_read_part(fs, path, COLUMNS))
    return {place: _from_row(row) for place, row in rows if row["status"] not in TRANSIENT}


def _from_row(row: dict[str, Any]) -> ItemScore:
    return read_score({**row, "parts": json.loads(row["parts"])})


def write_lines(folder: str, numbers: Sequence[int], target: Path) -> None:
    """The parts as one file of JSON lines, as `r2w-eval score` writes it without Ray."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    writer = JsonlWriter(unfinished)
    try:
        for record in read_scores(folder, numbers):
            writer.append(record)
    finally:
        writer.close()
    unfinished.replace(target)


def _check_target(target: str) -> None:
    """Raises UsageError: JSON lines grow in a file, an object store has none that grow, and a file
    that is not of this command stays as it is.
    """
    if not target.endswith(".jsonl"):
        return
    if "://" in target:
        raise UsageError(
            f"--output {target!r}: JSON lines are written to a file of this machine. Name a folder "
            f"there for Parquet parts, or a local file"
        )
    check_own(Path(target), Path(f"{target}.parts", "run.json"))


def _parts_folder(target: str) -> str:
    """The folder of the parts; beside the file if the target is JSON lines."""
    folder = f"{target}.parts" if target.endswith(".jsonl") else target
    fs, path = open_place(folder)
    return str(fs.unstrip_protocol(path))


def _part_name(number: int) -> str:
    return f"part-{number:08}.parquet"


def _finished(folder: str) -> frozenset[int]:
    """Numbers of the finished parts; parts with transient failures are made again."""
    fs, root = open_place(folder)
    return frozenset(
        int(path.rpartition("part-")[2].removesuffix(".parquet"))
        for path in list_files(fs, root, "part-*.parquet")
        if all(row["status"] not in TRANSIENT for row in _read_part(fs, path, ["status"]))
    )


def _claim(job: RayJob, folder: str) -> None:
    """Record the job in run.json. Raises UsageError if the parts belong to another job."""
    source, path = open_place(job.source)
    paths, _ = find_inputs(source, path)
    scorer = open_scorer(job.scorer)
    own = {
        "input": content_hash([[file, source.ukey(file)] for file in paths]),
        "scorer": content_hash([scorer.id, dict(scorer.describe())]),
        "split_bytes": job.split_bytes,
    }
    fs, root = open_place(folder)
    note = f"{root}/run.json"
    if not fs.exists(note):
        publish(fs, note, json.dumps(own).encode())
        return
    known = json.loads(fs.cat_file(note))
    if differing := [name for name, value in own.items() if known.get(name) != value]:
        raise UsageError(
            f"--output {job.target!r}: its parts are of another {' and '.join(differing)}. Use "
            f"another --output, or remove {folder}"
        )


def _check_resources(job: RayJob, found: dict[str, float]) -> None:
    """Raise UsageError for resources that the cluster lacks: Ray would wait for them for ever."""
    for name, flag, needed in (("GPU", "--worker-gpus", job.worker_gpus), ("CPU", "--workers", 1)):
        if found.get(name, 0.0) < needed:
            has = ", ".join(f"{k} {found.get(k, 0):g}" for k in ("CPU", "GPU"))
            raise UsageError(
                f"{flag}: one worker needs {needed:g} {name}, and the cluster has {has}. Add nodes "
                f"or ask for less. Try: ray status"
            )
