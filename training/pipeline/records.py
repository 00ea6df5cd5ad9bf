"""The completion record of a stage: its inputs, settings, outputs, versions and resource use.

The record is written last and atomically: a stage without one is not finished and is run again,
which resumes it. Only one process at a time works in a stage's folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from r2w_eval.training.pipeline.plan import Stage

import r2w_eval
from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import file_hash
from r2w_eval.store import write_json

RECORD, ATTEMPTS = "record.json", "attempts.log"
PACKAGES = ("torch", "transformers", "trl", "peft", "lm_eval", "vllm", "xllamacpp", "numpy")


@dataclass(frozen=True, slots=True)
class Output:
    """One file that a stage made; the path is relative to the stage's folder."""

    path: str
    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class Record:
    """A finished stage.

    inputs: keys of the input stages by name
    seconds, cpu_seconds: wall-clock and CPU time (all threads) of the attempt that finished
    peak_bytes: largest resident memory of that process
    peak_gpu_bytes: most memory that its tensors took on GPUs; None without a GPU
    attempts: how often the stage was started
    """

    stage: str
    kind: str
    key: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    outputs: tuple[Output, ...]
    command: str
    versions: Mapping[str, str]
    started: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    peak_gpu_bytes: int | None
    attempts: int
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_record(folder: Path) -> Record | None:
    """The record of a stage's folder, or None. Raises DataError."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        outputs = tuple(Output(**output) for output in content.pop("outputs"))
        return Record(**content, outputs=outputs)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(
            f"{path}: not a record ({error}). Remove that file; the stage then goes on from what "
            f"it has"
        ) from error


def write_record(folder: Path, record: Record) -> None:
    """Write the record atomically."""
    write_json(folder / RECORD, record)


def finished(stage: Stage, out: Path) -> Record | None:
    """The record of a stage if it is finished: the key matches and the outputs have their size."""
    folder = stage.folder(out)
    record = read_record(folder)
    if record is None or record.key != stage.key:
        return None
    whole = all(_size(folder / output.path) == output.n_bytes for output in record.outputs)
    return record if whole else None


def describe_outputs(folder: Path, paths: Sequence[Path]) -> tuple[Output, ...]:
    """Every file in `paths`, folders included, with its hash."""
    files = [file for path in paths for file in _files(path)]
    return tuple(
        Output(str(file.relative_to(folder)), file_hash(file), file.stat().st_size)
        for file in files
    )


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def note_attempt(folder: Path, when: str) -> int:
    """Log the start of a stage; how many starts there were, this one included."""
    with (folder / ATTEMPTS).open("a", encoding="ascii") as file:
        file.write(when + "\n")
    return len((folder / ATTEMPTS).read_text("ascii").splitlines())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a stage's folder. Raises UsageError while another process works there."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UsageError(
            f"{folder}: another process is at work on this stage. Wait for it, or end it"
        ) from error
    finally:
        os.close(lock)


def peak_memory() -> tuple[int, int | None]:
    """Peak resident bytes of this process, and peak bytes of its tensors on GPUs (None: no GPU)."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return _peak_resident(), None
    return _peak_resident(), sum(
        torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())
    )


def cpu_seconds() -> float:
    """CPU seconds of this process so far; unlike wall-clock time not inflated by other load."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round(used.ru_utime + used.ru_stime, 2)


def _peak_resident() -> int:
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text("ascii").splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    # bytes on macOS, kilobytes elsewhere
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the installed packages that training uses."""
    found = {"r2w-eval": r2w_eval.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
