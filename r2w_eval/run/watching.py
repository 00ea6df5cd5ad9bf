"""Progress while a run runs, on standard error and in `--progress-file`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

from r2w_eval.errors import UsageError
from r2w_eval.records.plan import Progress
from r2w_eval.store import write_atomically
from r2w_eval.types import WriterStatus

T = TypeVar("T")
TERMINAL_INTERVAL_S = 0.5
LOG_INTERVAL_S = 10.0


class ProgressDisplay:
    """Shows the counters twice a second on a terminal, else one line every ten seconds."""

    def __init__(self, quiet: bool, file: str | None) -> None:
        self._quiet = quiet
        self._file = Path(file) if file else None
        self._console = Console(stderr=True)
        self._started = time.monotonic()
        self.progress = Progress()

    def watch(self, progress: Progress) -> None:
        """Take the counters to show."""
        self.progress = progress

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show progress while the body runs; needs a running event loop. Raises UsageError for a
        progress file that cannot be written, before anything runs; later that ends nothing.
        """
        self._claim_file()
        task = asyncio.get_running_loop().create_task(self._show())
        try:
            yield
        finally:
            task.cancel()
            with suppress(OSError):
                self._write_file()

    async def _show(self) -> None:
        if self._quiet:
            return await self._every(TERMINAL_INTERVAL_S, lambda: None)
        if not self._console.is_terminal:
            return await self._every(LOG_INTERVAL_S, self._print_line)
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            await self._every(
                TERMINAL_INTERVAL_S, lambda: live.update(Text(self._lines()), refresh=True)
            )

    async def _every(self, seconds: float, show: Callable[[], object]) -> None:
        while True:
            await asyncio.sleep(seconds)
            show()
            with suppress(OSError):
                self._write_file()

    def _print_line(self) -> None:
        self._console.print(self.line(), soft_wrap=True, markup=False)

    def line(self) -> str:
        """The counters on one line, for logs."""
        return self._lines().replace("\n", " | ")

    def _lines(self) -> str:
        elapsed_s = time.monotonic() - self._started
        p = self.progress
        writing = progress_line("responses", p.responses_done, p.responses_expected, elapsed_s)
        judging = progress_line("judgements", p.judgements_done, p.judgements_expected, elapsed_s)
        # what was cut is judged: no loss
        losses = {name: n for name, n in p.losses.items() if name != WriterStatus.TRUNCATED}
        lost = ", ".join(f"{name} {count}" for name, count in sorted(losses.items())) or "none"
        cut = p.losses.get(WriterStatus.TRUNCATED, 0)
        lost += f", cut: {cut:,}" if cut else ""
        tokens = f"tokens in {p.prompt_tokens:,} out {p.completion_tokens:,}"
        money = f", ${p.budget.spent_usd:.2f} of ${p.budget.cap_usd:.2f}" if p.budget else ""
        return f"{writing}\n{judging}\nreused {p.reused:,}, lost: {lost}, {tokens}{money}"

    def _claim_file(self) -> None:
        try:
            self._write_file()
        except OSError as error:
            raise UsageError(
                f"--progress-file {str(self._file)!r}: {error.strerror}. Expected a file in a "
                f"folder that exists. Try: mkdir -p {self._file and self._file.parent}"
            ) from error

    def _write_file(self) -> None:
        if self._file is not None:
            write_atomically(self._file, json.dumps(self.progress.counters()).encode())


async def show_progress(
    start: Callable[[Callable[[Progress], None]], Awaitable[T]], quiet: bool, file: str | None
) -> T:
    """The result of a job, with its progress shown while it runs; `start` is given the function to
    which the job passes its counters. Raises UsageError for a progress file that cannot be written.
    """
    display = ProgressDisplay(quiet, file)
    with display.running():
        return await start(display.watch)


def progress_line(name: str, done: int, total: int, elapsed_s: float) -> str:
    """One stage as a bar with rate and time left.

    >>> progress_line("responses", 5, 10, 10.0)
    'responses  [###############---------------] 5/10  0.5/s  10 s left'
    """
    filled = 30 * done // total if total else 0
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    left = f"{(total - done) / rate:.0f} s left" if rate and done < total else ""
    bar = "#" * filled + "-" * (30 - filled)
    return f"{name:10} [{bar}] {done:,}/{total:,}  {rate:.1f}/s  {left}".rstrip()
