"""Runs one client against one fake server and measures it from outside.

In: a command. Out: a `Measurement`: requests, rate and peak in flight as the server counted them,
wall, CPU and memory as the kernel did. Rate = requests / (last reply - first request), so that a
client's start-up stands apart (harness specification, section 16).
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

LATENCY_MS = 200


@dataclass(frozen=True, slots=True)
class Command:
    """A process to measure. `env` is added to ours; `expected_requests` is what servers must
    see.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    expected_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Resource use of one process with its children."""

    started_s: float
    wall_s: float
    cpu_s: float
    max_rss_mb: float
    exit_code: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """One client, one workload, one number of connections."""

    client: str
    workload: str
    connections: int
    requests: int
    rate: float
    peak_in_flight: int
    start_up_s: float
    wall_s: float
    cpu_s: float
    max_rss_mb: float
    server_cpu_s: float
    load_before: float
    problem: str = ""

    @property
    def cpu_s_per_10k(self) -> float:
        """CPU seconds for 10,000 requests, start-up included."""
        return self.cpu_s / self.requests * 10_000 if self.requests else float("nan")


class Server:
    """`python -m r2w_eval.fakeserver` in a process of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    @property
    def base_url(self) -> str:
        """The address with `/v1`."""
        return f"{self.url}/v1"

    def __enter__(self) -> Self:
        argv = [sys.executable, "-m", "r2w_eval.fakeserver", "--latency-ms", str(LATENCY_MS)]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def stats(self) -> dict[str, Any]:
        """All counts since the last reset."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as reply:
            counts: dict[str, Any] = json.load(reply)
        return counts

    def reset(self) -> None:
        """Forget all counts."""
        urllib.request.urlopen(f"{self.url}/reset", b"", timeout=10).close()


def run_process(command: Command, log: Path, timeout_s: float) -> Usage:
    """Run a command to its end; after `timeout_s` it is killed with its process group."""
    env = {**os.environ, "PYTHONPATH": "", **command.env}
    with log.open("wb") as out:
        started = time.monotonic()
        process = subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        watchdog = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            finished = wait_for(process)
        finally:
            watchdog.cancel()
        wall_s = time.monotonic() - started
    return Usage(started, wall_s, finished.cpu_s, finished.peak_mb, finished.exit_code)


@dataclass(frozen=True, slots=True)
class Finished:
    """Exit code and resource use of a process."""

    exit_code: int
    cpu_s: float
    peak_mb: float


def wait_for(process: subprocess.Popen[Any]) -> Finished:
    """Wait for the end, reading the peak memory of the process and its children all the while.

    The kernel's `ru_maxrss` is at least the peak of the process that started this one, and so
    hides any that is lower; it is used only where there is no /proc. What grows in the last 20 ms
    is missed.
    """
    peak = 0.0
    while True:
        peak = max([peak, *map(peak_mb, descendants(process.pid))])
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    # ru_maxrss counts bytes on macOS and KiB everywhere else
    unit = 1 if sys.platform == "darwin" else 1024
    cpu_s = usage.ru_utime + usage.ru_stime
    return Finished(process.returncode, cpu_s, peak or usage.ru_maxrss * unit / 1e6)


def free_port() -> int:
    """A free port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peak_mb(pid: int) -> float:
    """Peak memory of a process so far, in MB; 0 if it cannot be read."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def descendants(pid: int) -> Iterator[int]:
    """The ids of a process and of all its descendants."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from descendants(int(child))


def measure(
    name: tuple[str, str, int],
    command: Command,
    servers: Iterable[Server],
    log: Path,
    timeout_s: float = 900.0,
) -> Measurement:
    """Run a command; `name` is (client, workload, connections). Failures are noted, not raised."""
    servers = list(servers)
    for server in servers:
        server.reset()
    cpu_before = sum(server.stats()["process_cpu_s"] for server in servers)
    load_before = os.getloadavg()[0]
    usage = run_process(command, log, timeout_s)
    counts = [server.stats() for server in servers]
    totals = [one["total"] for one in counts if one["total"]["requests"]]
    requests = sum(total["requests"] for total in totals)
    first = min((total["first_request_s"] for total in totals), default=usage.started_s)
    last = max((total["last_reply_s"] for total in totals), default=usage.started_s)
    client, workload, connections = name
    return Measurement(
        client=client,
        workload=workload,
        connections=connections,
        requests=requests,
        rate=requests / (last - first) if last > first else 0.0,
        peak_in_flight=sum(total["peak_in_flight"] for total in totals),
        start_up_s=first - usage.started_s,
        wall_s=usage.wall_s,
        cpu_s=usage.cpu_s,
        max_rss_mb=usage.max_rss_mb,
        server_cpu_s=sum(one["process_cpu_s"] for one in counts) - cpu_before,
        load_before=load_before,
        problem=_describe_problem(usage.exit_code, requests, command.expected_requests, log),
    )


def _describe_problem(exit_code: int, requests: int, expected: int | None, log: Path) -> str:
    if exit_code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")
        return f"exit code {exit_code}: {lines[-1][:200]}"
    if expected is not None and requests != expected:
        return f"{requests} requests instead of {expected}"
    return ""
