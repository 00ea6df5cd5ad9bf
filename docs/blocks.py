"""Runs the examples of documentation pages and writes their output into the pages.

    python docs/blocks.py README.md docs/tutorials/*.md     # run the examples, update the pages

A comment marks the fenced block after it: `<!-- run -->` runs it (each line after `$ ` in a console
block, or a whole Python block), `<!-- run: exit 3 -->` expects that exit code, and
`<!-- file: NAME -->` writes a file for later blocks. The blocks of a page share a folder, and
`127.0.0.1:8901` stands for the fake server that the page tells its readers to start.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ADDRESS = "127.0.0.1:8901"
TIMEOUT_S = 170
_BLOCK = re.compile(
    r"^<!-- (?P<kind>run|file)(?:: (?P<argument>[^>]+?))? -->\n"
    r"```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_COMMAND = re.compile(r"^\$ ((?:[^\n]*\\\n)*[^\n]*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A marked block and where its body stands in the page."""

    kind: str
    argument: str
    language: str
    body: str
    start: int
    end: int

    @property
    def exit_code(self) -> int:
        """What the last command of the block should return."""
        return (
            int(self.argument.removeprefix("exit ")) if self.kind == "run" and self.argument else 0
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """One command, its output (both streams) and its exit code."""

    command: str
    output: str
    exit_code: int


def read_blocks(page: str) -> list[Block]:
    """The marked blocks of a page, in order."""
    return [
        Block(
            match["kind"],
            match["argument"] or "",
            match["language"],
            match["body"],
            match.start("body"),
            match.end("body"),
        )
        for match in _BLOCK.finditer(page)
    ]


Shell = Callable[[str, Path], tuple[str, int]]


def run_shell(command: str, folder: Path) -> tuple[str, int]:
    """Output and exit code of a command run in a folder."""
    done = subprocess.run(
        ["bash", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, **environment()},
        timeout=TIMEOUT_S,
    )
    return done.stdout, done.returncode


def environment() -> dict[str, str]:
    """Our commands first on PATH, one thread, fixed width, no colours."""
    scripts = str(Path(sys.executable).parent)
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "R2W_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1"}


def run_page(
    page: str, folder: Path, address: str, shell: Shell = run_shell
) -> Iterator[tuple[Block, list[Ran]]]:
    """Run a page's blocks in a folder; `address` (host:port) is a running fake server."""

    def run(shown: str, command: str) -> Ran:
        output, exit_code = shell(command.replace(ADDRESS, address), folder)
        return Ran(shown, output.replace(address, ADDRESS).replace(str(folder), "."), exit_code)

    for block in read_blocks(page):
        if block.kind == "file":
            (folder / block.argument).write_text(block.body, "utf-8")
            yield block, []
        elif block.language == "python":
            yield block, [run("python", f"python -c {shlex.quote(block.body)}")]
        else:
            yield block, [run(match[1], match[1]) for match in _COMMAND.finditer(block.body)]


def rewrite(page: str, ran: list[tuple[Block, list[Ran]]]) -> str:
    """The page with new output below its commands; Python blocks show no output."""
    for block, commands in reversed(ran):
        if block.kind == "run" and block.language == "console":
            body = "".join(f"$ {one.command}\n{_tidy(one.output)}" for one in commands)
            page = page[: block.start] + body + page[block.end :]
    return page


def _tidy(output: str) -> str:
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Run the named pages and update them."""
    from r2w_eval.fakeserver.server import FakeServer

    for name in sys.argv[1:]:
        path = Path(name)
        page = path.read_text("utf-8")
        with FakeServer() as server, tempfile.TemporaryDirectory() as folder:
            os.environ["R2W_CACHE"] = str(Path(folder) / ".cache")
            address = server.base_url.split("/")[2]
            ran = list(run_page(page, Path(folder), address))
        for block, commands in ran:
            for one in commands:
                if one.exit_code != (block.exit_code if one is commands[-1] else 0):
                    sys.exit(f"{name}: {one.command}\nexit code {one.exit_code}\n{one.output}")
        path.write_text(rewrite(page, ran), "utf-8")


if __name__ == "__main__":
    main()
