"""Reads the text of pages in a separate process, which is killed when a page takes too long.

A thread cannot be stopped; a process can. It is started for the first page, and again after each
page that broke it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

from r2w_eval.web.page_text import LENGTH, PageText, frame

# the parsers take a second or two to load, more on a busy machine
START_S = 120.0


class UnreadablePage(Exception):
    """Its reader broke off or took too long; the message says which."""


class TextReader:
    """One reading process, which reads one page after another."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._process: Process | None = None

    async def read(self, content: bytes, content_type: str, charset: str | None) -> PageText:
        """The text of one page. Raises UnreadablePage."""
        facts = json.dumps({"content_type": content_type, "charset": charset}).encode()
        async with self._turn:
            is_finished = False
            try:
                process = self._process or await self._start()
                async with asyncio.timeout(self.timeout_s):
                    reply = await _ask(process, frame(facts) + frame(content))
                found = PageText(**json.loads(reply))
                is_finished = True
            except TimeoutError as error:
                raise UnreadablePage(f"reading it took over {self.timeout_s:g} s") from error
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise UnreadablePage(f"it broke the reader of {content_type}") from error
            finally:
                # also when the caller was cancelled: a late reply would be taken for the next one
                if not is_finished:
                    await self.close()
        return found

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        # reads what is left, so that both pipes are closed with the process
        await process.communicate()

    async def _start(self) -> Process:
        command = (sys.executable, "-P", "-m", "r2w_eval.web.page_text")
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        async with asyncio.timeout(START_S):
            await _read_frame(self._process)
        return self._process


async def _ask(process: Process, request: bytes) -> bytes:
    assert process.stdin is not None, "opened with pipes"
    process.stdin.write(request)
    await process.stdin.drain()
    return await _read_frame(process)


async def _read_frame(process: Process) -> bytes:
    assert process.stdout is not None, "opened with pipes"
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return await process.stdout.readexactly(length)
