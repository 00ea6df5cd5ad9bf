"""One cell: a stage disturbed, run again, and compared with an undisturbed one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.reliability.process import Running, Server, start
from benchmarks.reliability.stages import Stage, url_of


@dataclass(frozen=True)
class Baseline:
    """An undisturbed run: its folder, wall time, calls and bytes of each result."""

    folder: Path
    seconds: float
    requests: int
    digests: dict[str, str]


@dataclass
class Cell:
    """What a fault did. `reds` says what should not have happened; `note` what did.

    lost: finished rows that the next start no longer had; doubled: rows whose key stands twice
    again: calls sent beyond those of an undisturbed run; changed: results with other bytes
    seconds: of the run after the fault, beside `usual` for a whole one
    """

    stage: str
    fault: str
    lost: int | None = None
    doubled: int | None = None
    again: int | None = None
    changed: list[str] = field(default_factory=list)
    seconds: float | None = None
    usual: float | None = None
    code: int | None = None
    reds: list[str] = field(default_factory=list)
    note: str = ""
    applies: bool = True
    commit: str = ""


@dataclass
class Bench:
    """Where cells are run, and their servers."""

    root: Path
    servers: dict[str, Server]
    baselines: dict[str, Baseline] = field(default_factory=dict)

    def prepare(self, stage: Stage, name: str, folder: Path | None = None) -> Path:
        """A fresh folder with the stage's inputs."""
        place = folder or self.root / f"{stage.name}-{name}"
        if folder is None:
            for ending in ("", ".logs", ".cache"):
                shutil.rmtree(place.with_name(place.name + ending), ignore_errors=True)
            place.mkdir()
        stage.prepare(self.root / "inputs", place)
        return place

    def start(
        self, stage: Stage, folder: Path, before: Callable[[], None] = lambda: None
    ) -> Running:
        """The stage's command in a folder; `before` runs first in its process."""
        return start(stage.words(url_of(stage, self.servers)), folder, before)

    def sent(self, stage: Stage) -> int:
        """Calls so far at the stage's server."""
        return self.servers[stage.server].requests() if stage.server else 0

    def baseline(self, stage: Stage) -> Baseline:
        """The undisturbed run, made once."""
        if stage.name not in self.baselines:
            folder = self.prepare(stage, "undisturbed")
            before = self.sent(stage)
            running = self.start(stage, folder)
            if running.wait():
                raise RuntimeError(f"{stage.name} fails undisturbed: {running.text[-2000:]}")
            sent = self.sent(stage) - before
            self.baselines[stage.name] = Baseline(
                folder, running.seconds, sent, digests(stage, folder)
            )
        return self.baselines[stage.name]


def digests(stage: Stage, folder: Path) -> dict[str, str]:
    """Hashes of all results. Rows of a JSON-lines file count in any order."""
    found = {}
    for pattern in stage.results:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                content = path.read_bytes()
                if path.suffix == ".jsonl":
                    content = b"".join(sorted(content.splitlines(keepends=True)))
                name = path.relative_to(folder).as_posix()
                found[name] = hashlib.sha256(content).hexdigest()
    return found


def keys_of(stage: Stage, folder: Path) -> Counter[str]:
    """Finished rows by key: neither a last line without its end nor a call that failed."""
    return Counter(
        f"{path.parent.name}:{json.loads(line)[stage.key]}"
        for pattern in stage.records
        for path in sorted(folder.glob(pattern))
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n") and _is_finished(line)
    )


def _is_finished(line: bytes) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    status = row.get("status") or row.get("score", {}).get("status", "ok")
    return status in ("ok", "valid")


def wait_for_strike(bench: Bench, stage: Stage, running: Running, share: float = 0.5) -> bool:
    """Whether the moment came before the command ended."""
    usual = bench.baseline(stage).seconds
    while running.poll() is None:
        if stage.strike is None:
            if running.seconds > share * usual:
                return True
        elif stage.strike(running.log.parent.with_name(running.log.parent.name[: -len(".logs")])):
            return True
        time.sleep(0.002)
    return False


def finish(bench: Bench, cell: Cell, stage: Stage, folder: Path, before: Counter[str]) -> None:
    """Run the same command again, and compare with the undisturbed one."""
    usual = bench.baseline(stage)
    again = bench.start(stage, folder)
    if again.wait():
        cell.reds.append(f"the same command again ends with {again.returncode}: {last(again)}")
        return
    after = keys_of(stage, folder)
    cell.seconds, cell.usual = round(again.seconds, 2), round(usual.seconds, 2)
    if stage.records:
        cell.lost = sum(key not in after for key in before)
        cell.doubled = sum(n > 1 for n in after.values())
    now = digests(stage, folder)
    names = usual.digests.keys() | now.keys()
    cell.changed = sorted(name for name in names if now.get(name) != usual.digests.get(name))
    cell.reds += list(_reds(cell))


def _reds(cell: Cell) -> Iterator[str]:
    if cell.lost:
        yield f"{cell.lost} finished rows lost"
    if cell.doubled:
        yield f"{cell.doubled} rows twice"
    if cell.changed:
        yield f"other bytes: {', '.join(cell.changed[:3])}"


def check_end(cell: Cell, running: Running, allowed: tuple[int, ...]) -> None:
    """The exit code is one of those, and nothing looks like a traceback."""
    cell.code = running.returncode
    if "Traceback (most recent call last)" in running.text:
        cell.reds.append(f"traceback: {last(running)}")
    elif running.returncode not in allowed:
        cell.reds.append(f"exit code {running.returncode}: {last(running)}")


def last(running: Running) -> str:
    """The reported error, else the last printed line."""
    lines = [line for line in running.text.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("r2w-eval: ")] or lines
    # a published table names no folder of the machine that made it
    return re.sub(r"/[^ (]*(?=/lib/python)", "PREFIX", told[-1])[:200] if told else "no output"
