"""The lines of docs/reference/exit-codes.md that load completion, typed into real shells."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import ROOT

SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "--interactive"],
}
PATIENCE_S = 30.0


class Terminal:
    """A shell behind a pseudo terminal; `text` is all it has shown."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait_for(self, wanted: str) -> None:
        """Read until the text shows `wanted`; fails after PATIENCE_S."""
        end = time.monotonic() + PATIENCE_S
        while wanted not in self.text:
            ready, _, _ = select.select([self._descriptor], [], [], max(0, end - time.monotonic()))
            if not ready:
                pytest.fail(f"no {wanted!r} in {self.text[-500:]!r}")
            data = os.read(self._descriptor, 4096)
            if b"\x1b[c" in data or b"\x1b[0c" in data:
                # fish asks what terminal this is and waits for the answer
                self.type("\x1b[?62c")
            self.text += data.decode(errors="replace")


@contextmanager
def open_shell(name: str, home: Path) -> Iterator[Terminal]:
    """An interactive shell without settings of anyone's, in which `r2w-eval` is found."""
    scripts = Path(sys.executable).parent
    own = {"HOME": str(home), "PATH": f"{scripts}:{os.environ['PATH']}", "TERM": "xterm"}
    process, descriptor = pty.fork()
    if process == 0:
        os.execvpe(name, SHELLS[name], {**os.environ, **own})
    try:
        yield Terminal(descriptor)
    finally:
        os.close(descriptor)
        os.waitpid(process, 0)


def documented_line(shell: str) -> str:
    """What the page tells people to put into this shell's settings."""
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    found = re.search(rf"^(.*_R2W_EVAL_COMPLETE={shell}_source.*?)\s+# .*$", page, re.MULTILINE)
    assert found, f"no line for {shell}"
    return found[1]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_documented_line_completes_commands_and_options(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    with open_shell(shell, tmp_path) as terminal:
        # quotes keep the echo of what was typed from being taken for its output
        terminal.type(f"{documented_line(shell)}; echo load''ed\r")
        terminal.wait_for("loaded")
        terminal.type("r2w-eval doc\t")
        terminal.wait_for("doctor")
        terminal.type("--endp\t")
        terminal.wait_for("--endpoint")
        terminal.type("\x03exit\r")
