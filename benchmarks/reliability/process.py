"""A command as a process of its own that starts in milliseconds, and the server that it talks to.

The runner has everything imported and forks: signals, limits and the disk are real, the seconds of
importing are not paid in each of 150 cells.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# what the soaked server gives a request
SOAK_TIMEOUT_S = 5
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 600.0


@dataclass
class Running:
    """A started command. `returncode` is None until it is reaped."""

    pid: int
    log: Path
    started: float
    returncode: int | None = None
    ended: float | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
                self.ended = time.monotonic()
        return self.returncode

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """The exit code; a process that does not end is killed and has -9."""
        deadline = time.monotonic() + patience_s
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send(self, number: int) -> None:
        """Send a signal if it is still running."""
        if self.poll() is None:
            os.kill(self.pid, number)

    @property
    def seconds(self) -> float:
        """Wall time so far, or to its end."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def text(self) -> str:
        """All output so far."""
        return self.log.read_text("utf-8", "replace")


def start(words: Sequence[str], folder: Path, before: Callable[[], None] = lambda: None) -> Running:
    """`r2w-eval WORDS` in `folder`; `before` runs in the new process."""
    logs = folder.with_name(folder.name + ".logs")
    logs.mkdir(exist_ok=True)
    log = logs / f"{len(list(logs.iterdir()))}.txt"
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _become(words, folder, log, before)
    return Running(pid, log, time.monotonic())


def _become(words: Sequence[str], folder: Path, log: Path, before: Callable[[], None]) -> None:
    code = 70
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.chdir(folder)
        # its own cache: replies that another cell paid for would hide calls sent again
        os.environ["R2W_CACHE"] = str(folder.with_name(folder.name + ".cache"))
        sys.argv = ["r2w-eval", *words]
        before()
        from r2w_eval.cli import main

        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:  # noqa: BLE001 - what the interpreter would have shown
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Server:
    """The fake endpoint, the loop's, or one that trickles, in a process that can be killed."""

    def __init__(self, kind: str = "fake", port: int = 0) -> None:
        self.kind = kind
        module = "r2w_eval.fakeserver" if kind == "fake" else "benchmarks.reliability.servers"
        words = [f"--port={port}"] if kind == "fake" else [kind, str(port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *words], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.port = int(json.loads(line)["url"].rsplit(":", 1)[1] if kind == "fake" else line)

    @property
    def base_url(self) -> str:
        """The address for --model and --judge."""
        return f"http://127.0.0.1:{self.port}/v1"

    def requests(self) -> int:
        """Number of requests so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as reply:
            return int(json.load(reply)["total"]["requests"])

    def stop(self) -> None:
        """Kill the server with SIGKILL."""
        self._process.kill()
        self._process.communicate()


def commit() -> str:
    """The checked-out commit; `-dirty` where what is tested differs from it, results aside."""
    words = ["git", "describe", "--always"]
    name = subprocess.run(words, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    changed = ["git", "diff", "--quiet", "HEAD", "--", ".", ":!benchmarks/results", ":!docs"]
    return name + ("-dirty" if subprocess.run(changed, cwd=ROOT).returncode else "")
