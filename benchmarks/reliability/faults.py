"""The faults: each strikes a stage in its folder and reports the outcome."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reliability.cells import (
    Bench,
    Cell,
    check_end,
    digests,
    finish,
    keys_of,
    last,
    wait_for_strike,
)
from benchmarks.reliability.process import Server
from benchmarks.reliability.stages import Stage

Fault = Callable[[Bench, Stage, Cell], None]
INTERRUPTED = 130
# seconds until a silent endpoint is given up: what is shipped (300) is more than a table waits for
PATIENCE_S, SILENCE_S = 20.0, 120.0


def signalled(numbers: tuple[int, ...], bench: Bench, stage: Stage, cell: Cell) -> None:
    """Signals in the middle of the work; three times where the moment is a share of the time."""
    folder = bench.prepare(stage, cell.fault)
    before = bench.sent(stage)
    allowed = tuple(-number for number in numbers) + (INTERRUPTED, 0)
    for share in (0.5,) if stage.strike else (0.1, 0.3, 0.5):
        running, is_struck = bench.start(stage, folder), False
        # a quicker run than the undisturbed one may be over: then earlier, in a new one
        while not (is_struck := wait_for_strike(bench, stage, running, share)) and share > 0.02:
            running, share = bench.start(stage, folder), share / 2
        if not is_struck:
            cell.reds.append("ended before the strike")
        for number in numbers:
            running.send(number)
            time.sleep(0.02)
        running.wait()
        check_end(cell, running, allowed)
    finish(bench, cell, stage, folder, keys_of(stage, folder))
    if stage.server:
        cell.again = bench.sent(stage) - before - bench.baseline(stage).requests


@contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[Callable[[str], None]]:
    """A file system of its own, and a function that remounts it with other options."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "r2w", folder], check=True)

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def used_bytes(folder: Path) -> int:
    """Whole pages, as tmpfs counts."""
    return sum(
        -(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file()
    )


def disk_full(bench: Bench, stage: Stage, cell: Cell) -> None:
    """A disk with room for the inputs and half of what the stage writes; then a larger one."""
    whole = used_bytes(bench.baseline(stage).folder)
    folder = bench.root / f"{stage.name}-{cell.fault}"
    with small_disk(folder, 1 << 30) as remount:
        bench.prepare(stage, cell.fault, folder)
        inputs = used_bytes(folder)
        remount(f"size={inputs + max((whole - inputs) // 2, 4096)}")
        running = bench.start(stage, folder)
        running.wait()
        check_end(cell, running, (1, 2))
        cell.note = last(running)
        before = keys_of(stage, folder)
        remount("size=1g")
        finish(bench, cell, stage, folder, before)


def read_only(bench: Bench, stage: Stage, cell: Cell) -> None:
    """A folder that cannot be written to; then one that can."""
    folder = bench.root / f"{stage.name}-{cell.fault}"
    with small_disk(folder, 1 << 30) as remount:
        bench.prepare(stage, cell.fault, folder)
        remount("ro")
        running = bench.start(stage, folder)
        running.wait()
        check_end(cell, running, (1, 2))
        cell.note = last(running)
        remount("rw")
        finish(bench, cell, stage, folder, keys_of(stage, folder))


def lose_patience() -> None:
    """In the process of a cell: endpoints are given up sooner."""
    from r2w_eval.models.endpoint import ClientSettings

    names = [own.name for own in fields(ClientSettings) if own.init]
    made: Any = ClientSettings.__init__
    defaults = list(made.__defaults__)
    defaults[names.index("patience_s") - len(names)] = PATIENCE_S
    made.__defaults__ = tuple(defaults)


def endpoint_gone(kind: str, bench: Bench, stage: Stage, cell: Cell) -> None:
    """The endpoint dies, or answers one byte a second; then it is back."""
    if not stage.server:
        _not_here(cell, "asks no endpoint")
        return
    folder = bench.prepare(stage, cell.fault)
    running = bench.start(stage, folder, before=lose_patience)
    wait_for_strike(bench, stage, running)
    server = bench.servers[stage.server]
    server.stop()
    before = keys_of(stage, folder)
    bad = Server(kind, server.port) if kind else None
    code = running.wait(SILENCE_S)
    if bad:
        bad.stop()
    bench.servers[stage.server] = Server(server.kind, server.port)
    if code == -signal.SIGKILL:
        cell.reds.append(f"still waiting after {SILENCE_S:.0f} s")
    else:
        check_end(cell, running, (0, 1, 3))
        cell.note = f"ended after {running.seconds:.0f} s: {last(running)}"
    finish(bench, cell, stage, folder, before)


def damaged(where: str, bench: Bench, stage: Stage, cell: Cell) -> None:
    """A finished folder whose newest record is cut short, or whose middle one is no JSON."""
    if not stage.records:
        _not_here(cell, "keeps no record a piece of work")
        return
    folder = _finished(bench, stage, cell)
    path = sorted(found for name in stage.records for found in folder.glob(name))[0]
    lines = path.read_bytes().splitlines(keepends=True)
    if where == "last":
        path.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    else:
        middle = len(lines) // 2
        path.write_bytes(b"".join([*lines[:middle], b'{"key": "\xff\n', *lines[middle + 1 :]]))
        running = bench.start(stage, folder)
        running.wait()
        # scores are cheap, and made again from the broken line on; `watch` does not read the
        # verdicts of a checkpoint whose row stands
        check_end(cell, running, (0,) if stage.name in ("score", "watch") else (2,))
        cell.note = last(running)
        path.write_bytes(b"".join([*lines[:middle], *lines[middle + 1 :]]))
    finish(bench, cell, stage, folder, keys_of(stage, folder))


def cut_checkpoint(bench: Bench, stage: Stage, cell: Cell) -> None:
    """The newest weights at half of their length, as by a full disk or a kill."""
    if not stage.checkpoints:
        _not_here(cell, "reads no checkpoint")
        return
    folder = bench.prepare(stage, cell.fault)
    if stage.name != "watch":
        running = bench.start(stage, folder)
        wait_for_strike(bench, stage, running)
        running.send(signal.SIGKILL)
        running.wait()
    path = sorted(found for name in stage.checkpoints for found in folder.glob(name))[-1]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    if stage.name == "watch":
        running = bench.start(stage, folder)
        running.wait()
        check_end(cell, running, (0, 1, 2))
        cell.note = last(running)
        path.write_bytes(whole)
    finish(bench, cell, stage, folder, keys_of(stage, folder))


def two_processes(bench: Bench, stage: Stage, cell: Cell) -> None:
    """The same command twice at a time: the second is refused, the first not disturbed."""
    folder = bench.prepare(stage, cell.fault)
    before = bench.sent(stage)
    first = bench.start(stage, folder)
    wait_for_strike(bench, stage, first, 0.3)
    first.send(signal.SIGSTOP)  # on a busy machine it would be done before the second begins
    second = bench.start(stage, folder)
    second.wait()
    first.send(signal.SIGCONT)
    first.wait()
    check_end(cell, first, (0,))
    # a site is made aside and put in place whole: the later one stands
    check_end(cell, second, (0,) if stage.name == "leaderboard" else (2,))
    cell.note = last(second)
    finish(bench, cell, stage, folder, keys_of(stage, folder))
    if stage.server:
        cell.again = bench.sent(stage) - before - bench.baseline(stage).requests


def other_version(bench: Bench, stage: Stage, cell: Cell) -> None:
    """A finished folder as another version would have left it, which makes other suites and work.

    Either the command refuses and writes nothing, or what stands there in the end is its own.
    """
    if not stage.manifest:
        _not_here(cell, "has no manifest")
        return
    folder = _finished(bench, stage, cell)
    path = folder / stage.manifest
    content = json.loads(path.read_bytes())
    for name in ("identity", "run", "software"):
        if name in content:
            content[name] = _other(content[name])
    content["r2w_eval"] = "99.0"
    path.write_text(json.dumps(content))
    running = bench.start(stage, folder)
    running.wait()
    check_end(cell, running, (0, 2))
    now, usual = digests(stage, folder), bench.baseline(stage).digests
    cell.changed = sorted(name for name in usual if now.get(name) != usual[name])
    if cell.changed:
        cell.reds.append(f"other bytes: {', '.join(cell.changed[:3])}")
    did = "refused, nothing written" if running.returncode == 2 else "its own bytes in the end"
    cell.note = f"{did}: {last(running)}"


def _other(value: Any) -> Any:
    if not isinstance(value, dict):
        return "another"
    tasks = {name: {**facts, "version": "99.0"} for name, facts in value.get("tasks", {}).items()}
    return {**value, "made_by": "another version", **({"tasks": tasks} if tasks else {})}


def clock_jump(seconds: float, bench: Bench, stage: Stage, cell: Cell) -> None:
    """Wall time jumps in the middle of the work."""
    folder = bench.prepare(stage, cell.fault)

    def warp() -> None:
        real, born = time.time, time.monotonic()
        time.time = lambda: real() + (seconds if time.monotonic() - born > 0.2 else 0.0)

    running = bench.start(stage, folder, before=warp)
    running.wait()
    check_end(cell, running, (0,))
    finish(bench, cell, stage, folder, keys_of(stage, folder))


def memory_short(bench: Bench, stage: Stage, cell: Cell) -> None:
    """Address space ends 48 MB above what the process starts with."""
    import resource

    folder = bench.prepare(stage, cell.fault)

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + (48 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    running = bench.start(stage, folder, before=limit)
    running.wait()
    check_end(cell, running, (0, 1, 3))
    cell.note = last(running) if running.returncode else "48 MB were enough"
    finish(bench, cell, stage, folder, keys_of(stage, folder))


def _finished(bench: Bench, stage: Stage, cell: Cell) -> Path:
    folder = bench.root / f"{stage.name}-{cell.fault}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bench.baseline(stage).folder, folder)
    return folder


def _not_here(cell: Cell, reason: str) -> None:
    cell.applies, cell.note = False, reason


FAULTS: dict[str, Fault] = {
    "SIGKILL": partial(signalled, (signal.SIGKILL,)),
    "SIGTERM": partial(signalled, (signal.SIGTERM,)),
    "Ctrl-C twice": partial(signalled, (signal.SIGINT, signal.SIGINT)),
    "disk full": disk_full,
    "read-only folder": read_only,
    "endpoint dies": partial(endpoint_gone, ""),
    "slow-loris endpoint": partial(endpoint_gone, "trickle"),
    "corrupt last line": partial(damaged, "last"),
    "corrupt middle line": partial(damaged, "middle"),
    "truncated checkpoint": cut_checkpoint,
    "two processes": two_processes,
    "another version": other_version,
    "clock jumps back": partial(clock_jump, -86_400.0),
    "clock jumps ahead": partial(clock_jump, 86_400.0),
    "memory short": memory_short,
}
