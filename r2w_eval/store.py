"""The run folder: one reader and one writer for append-only JSON lines and atomic JSON files.

A record is one line, written by one `write` and so safe from SIGKILL at once; `fsync` at most once
a second, in a thread because a busy disk takes its time, and at the end. An unfinished last line,
left by a crash, is moved to `*.partial` on the next start. A lock refuses a second writer
(specification: harness section 4, "Durable append").
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import dump_line, to_plain
from r2w_eval.types import Judgement, JudgeStatus, Response, Score, Usage, WriterStatus

FSYNC_EVERY_S = 1.0
T = TypeVar("T")


class JsonlWriter:
    """Appends records to one file, as its only writer. Raises UsageError when there is another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        # before the look at the last line: it may be one that the other writer is about to finish
        lock(self._fd, path)
        set_partial_line_aside(path)
        self._synced = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "fsync")
        self._syncing: Future[None] | None = None

    def append(self, record: object) -> None:
        """Write one line. Raises OSError (disk full, closed) with no half record left behind."""
        rest = memoryview(dump_line(record))
        size = os.fstat(self._fd).st_size
        try:
            # one write takes the whole line unless the disk is full, and then the next one says so
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.ftruncate(self._fd, size)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if time.monotonic() - self._synced > FSYNC_EVERY_S:
            self._sync_aside()

    def _sync_aside(self) -> None:
        """Begin to sync without waiting for it. Raises OSError where the last one failed."""
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()
        self._synced = time.monotonic()
        self._syncing = self._thread.submit(os.fsync, self._fd)

    def sync(self) -> None:
        """Put everything on disk before going on. Raises OSError, that of an earlier sync too."""
        if self._syncing is not None:
            self._syncing.result()
        os.fsync(self._fd)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close."""
        self._thread.shutdown()
        try:
            self.sync()
        finally:
            os.close(self._fd)
            # the number soon belongs to another file: what still appends must fail, not write there
            self._fd = -1


def lock(fd: int, path: Path) -> None:
    """Lock an open file until it is closed. Raises UsageError where another process holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise UsageError(
            f"{path}: another process is writing it. Wait for that one, or use another --out"
        ) from error


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Hold a folder's lock file inside a `with`. Raises UsageError where another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    lock(fd, path.parent)
    try:
        yield
    finally:
        os.close(fd)


def set_partial_line_aside(path: Path) -> None:
    """Move bytes after the last newline to `<name>.partial`, so that appending stays safe."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        end = _last_newline(file.fileno(), path.stat().st_size)
        file.seek(end)
        if rest := file.read():
            with path.with_name(path.name + ".partial").open("ab") as aside:
                aside.write(rest + b"\n")
            file.truncate(end)


def _last_newline(fd: int, size: int) -> int:
    """Offset just after the last newline; 0 when there is none."""
    step = 1 << 16
    while size > 0:
        start = max(0, size - step)
        found = os.pread(fd, size - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace a file in one step; readers see the old or the new content, never a mixture.

    What comes in pieces is never held whole.
    """
    pieces = [content] if isinstance(content, bytes) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Atomic, indented, ASCII-safe JSON with a final newline."""
    pieces = json.JSONEncoder(indent=1).iterencode(to_plain(value))
    write_atomically(path, (piece.encode() for piece in chain(pieces, "\n")))


def write_jsonl(path: Path, records: Iterable[object]) -> None:
    """A whole file of records in one step; `JsonlWriter` is for those that come one by one."""
    write_atomically(path, map(dump_line, records))


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a file, one at a time. A last line without its newline is left out."""
    for number, line in enumerate(_complete_lines(path), 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: not JSON ({error}). Move the line away and run the same "
                f"command again; what it held will be made anew"
            ) from error
        yield record


class RecordIndex:
    """Where the newest record of each key stands in a JSON-lines file; texts stay on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[str, int] = {}
        offset = 0
        for line in _complete_lines(path):
            try:
                self._offsets[json.loads(line)["key"]] = offset
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise DataError(
                    f"{path}, byte {offset}: not a record ({error}). Move that line to another "
                    f"file and run the same command again; what it held will be made anew"
                ) from error
            offset += len(line)

    def __contains__(self, key: str) -> bool:
        return key in self._offsets

    def read(self, key: str) -> dict[str, Any] | None:
        """The newest record with this key, or None."""
        if key not in self._offsets:
            return None
        with self._path.open("rb") as file:
            file.seek(self._offsets[key])
            record: dict[str, Any] = json.loads(file.readline())
        return record


def _complete_lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


_RESPONSE_FIELDS = frozenset(f.name for f in fields(Response))
_JUDGEMENT_FIELDS = frozenset(f.name for f in fields(Judgement))


def read_response(record: Mapping[str, Any]) -> Response:
    """A `Response` from its JSON form; unknown keys of a newer version are ignored."""
    known = {k: v for k, v in record.items() if k in _RESPONSE_FIELDS}
    return Response(
        **{**known, "status": WriterStatus(known["status"]), "usage": Usage(**known["usage"])}
    )


def read_judgement(record: Mapping[str, Any]) -> Judgement:
    """A `Judgement` from its JSON form; unknown keys of a newer version are ignored."""
    known = {k: v for k, v in record.items() if k in _JUDGEMENT_FIELDS}
    score = known["score"]
    return Judgement(
        **{
            **known,
            "score": Score(**{**score, "status": JudgeStatus(score["status"])}),
            "usage": Usage(**known["usage"]),
            "asks": tuple(known["asks"]),
        }
    )


def _read_all(path: Path, read: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
    for number, record in enumerate(iter_jsonl(path), 1):
        try:
            yield read(record)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number}: not such a record ({type(error).__name__}: {error}). "
                f"Move the line away and run the same command again"
            ) from error


def _check_manifest(manifest: Mapping[str, Any], path: str) -> None:
    expected = {"model": str, "identity": dict, "config": dict}
    wrong = [name for name, kind in expected.items() if not isinstance(manifest.get(name), kind)]
    if wrong:
        raise DataError(
            f"{path}/run.json lacks {', '.join(wrong)}: not written by this tool, or damaged. Run "
            f"it anew with another --out"
        )


def _find_runs(path: Path) -> str:
    """What to type in place of a path that is no run folder."""
    if (path.parent / "run.json").is_file():
        return f"Try the folder that it lies in: {path.parent}"
    place = path if path.is_dir() else path.parent
    runs = sorted(str(found.parent) for found in place.glob("*/run.json"))
    if not runs:
        return f"Try: r2w-eval --model smollm2 --tasks quickstart --out {path}"
    near = (not path.is_dir() and difflib.get_close_matches(str(path), runs)) or runs
    more = f" and {len(near) - 5} more" if len(near) > 5 else ""
    return f"Run folders there: {', '.join(near[:5])}{more}"


class RunFolder:
    """A run on disk. Reading needs no lock; `open_writers` takes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest_path = path / "run.json"
        self.responses_path = path / "responses.jsonl"
        self.judgements_path = path / "judgements.jsonl"
        self.results_path = path / "results.json"
        self.page_counts_path = path / "page_counts.json"
        self.report_path = path / "report.html"

    @classmethod
    def existing(cls, path: str) -> Self:
        """A folder that holds a run. Raises UsageError."""
        folder = cls(Path(path))
        if not folder.manifest_path.is_file():
            raise UsageError(
                f"{path!r}: not a run folder (no run.json). Expected the --out folder of an "
                f"earlier run. {_find_runs(folder.path)}"
            )
        manifest = folder.manifest()
        if (kind := manifest.get("kind", "run")) != "run":
            raise UsageError(
                f"{path!r} holds a {kind}, not a run. Expected the --out folder of r2w-eval run"
            )
        _check_manifest(manifest, path)
        return folder

    def manifest(self) -> dict[str, Any]:
        """run.json, or an empty dict for a new folder."""
        if not self.manifest_path.exists():
            return {}
        try:
            content = json.loads(self.manifest_path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{self.manifest_path}: not JSON ({error}). Use another --out"
            ) from error
        if not isinstance(content, dict):
            raise DataError(f"{self.manifest_path}: not a manifest. Use another --out")
        return content

    def record_sizes(self) -> list[int]:
        """Bytes of the two record files. Both only grow, so that the sizes name what they hold."""
        paths = (self.responses_path, self.judgements_path)
        return [path.stat().st_size if path.exists() else 0 for path in paths]

    def responses(self) -> Iterator[Response]:
        """All responses, in the order they came. Raises DataError."""
        return _read_all(self.responses_path, read_response)

    def judgements(self) -> Iterator[Judgement]:
        """All judgements, in the order they came. Raises DataError."""
        return _read_all(self.judgements_path, read_judgement)

    def open_writers(self) -> RunWriters:
        """Take the lock and open both files. Raises UsageError when another process writes here."""
        return RunWriters(self)


class RunWriters:
    """The only writer of a run folder."""

    def __init__(self, folder: RunFolder) -> None:
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise UsageError(
                f"--out {str(folder.path)!r}: {error.strerror}. Expected a new folder, or that of "
                f"an earlier run"
            ) from error
        self.folder = folder
        with ExitStack() as stack:
            stack.enter_context(only_process(folder.path / ".lock"))
            self.responses = stack.enter_context(closing(JsonlWriter(folder.responses_path)))
            self.judgements = stack.enter_context(closing(JsonlWriter(folder.judgements_path)))
            self._held = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.close()
