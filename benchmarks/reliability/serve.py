"""The cells of `serve`, which stores nothing: requests, seconds and exit codes."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Callable

from benchmarks.measure import free_port
from benchmarks.reliability.cells import Bench, Cell, check_end
from benchmarks.reliability.process import Running, start

BODY = json.dumps(
    {"id": "1", "draft": "He go home.", "reflection": 'In "He go home." the verb is wrong.'}
).encode()


def ask(port: int, timeout_s: float = 10.0) -> bytes:
    """Ask for one score."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/score", BODY)
    with urllib.request.urlopen(request, timeout=timeout_s) as reply:
        return bytes(reply.read())


def up(bench: Bench, cell: Cell, port: int, before: Callable[[], None]) -> tuple[Running, bytes]:
    """Start a server and wait for its first answer."""
    folder = bench.root / f"serve-{cell.fault}"
    folder.mkdir(exist_ok=True)
    running = start(
        ["serve", "--scorer=r2w-rules", f"--port={port}", "--timeout=3"], folder, before
    )
    while running.poll() is None:
        try:
            return running, ask(port)
        except OSError:
            time.sleep(0.01)
    return running, b""


def struck(bench: Bench, fault: str, signals: tuple[int, ...], before: Callable[[], None]) -> Cell:
    """Signals while it serves, then a new server at the same port: the same answer."""
    cell, port = Cell("serve", fault), free_port()
    running, answer = up(bench, cell, port, before)
    for number in signals:
        running.send(number)
        time.sleep(0.02)
    if not signals:
        answer = ask(port)
        running.send(15)
    running.wait(30)
    check_end(cell, running, (*(-number for number in signals), 0, 130))
    again, now = up(bench, cell, port, lambda: None)
    cell.seconds, cell.changed = round(again.seconds, 2), [] if now == answer else ["the answer"]
    if not answer or cell.changed:
        cell.reds.append("another answer after the restart")
    again.send(15)
    again.wait(30)
    return cell


def slow_client(bench: Bench, fault: str) -> Cell:
    """Let 200 clients stall while sending, and an honest one ask meanwhile."""
    cell, port = Cell("serve", fault), free_port()
    running, answer = up(bench, cell, port, lambda: None)
    head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    for one in slow:
        one.sendall(head + BODY[:1])
    began = time.monotonic()
    same = ask(port) == answer
    took = time.monotonic() - began
    slow[0].settimeout(10)
    ended = slow[0].recv(64).startswith(b"HTTP/1.1 504")
    cell.note = f"an honest client waits {took * 1000:.0f} ms beside 200 slow ones"
    if not same or not ended:
        cell.reds.append(
            "slow clients are not ended" if same else "the honest client is not served"
        )
    for one in slow:
        one.close()
    running.send(15)
    running.wait(30)
    check_end(cell, running, (0,))
    return cell


def two_servers(bench: Bench, fault: str) -> Cell:
    """Start a second server at a port in use."""
    cell, port = Cell("serve", fault), free_port()
    first, _ = up(bench, cell, port, lambda: None)
    folder = bench.root / f"serve-{fault}"
    second = start(["serve", "--scorer=r2w-rules", f"--port={port}"], folder)
    second.wait(30)
    check_end(cell, second, (1, 2))
    cell.note = second.text.strip().splitlines()[-1][:200] if second.text.strip() else ""
    first.send(15)
    first.wait(30)
    return cell


REASONS = {
    "disk full": "writes nothing",
    "read-only folder": "writes nothing",
    "endpoint dies": "asks no endpoint",
    "corrupt last line": "keeps no records",
    "corrupt middle line": "keeps no records",
    "truncated checkpoint": "an exported folder is refused at loading: test_artifact.py",
    "another version": "has no folder",
    "memory short": "see `score`: the same scorer",
}  # fmt: skip


def serve_cell(bench: Bench, fault: str) -> Cell:
    """Run the cell of one fault."""
    if fault in REASONS:
        return Cell("serve", fault, applies=False, note=REASONS[fault])
    if fault == "slow-loris endpoint":
        return slow_client(bench, fault)
    if fault == "two processes":
        return two_servers(bench, fault)
    signals = {"SIGKILL": (9,), "SIGTERM": (15,), "Ctrl-C twice": (2, 2)}.get(fault, ())
    jump = {"clock jumps back": -86_400.0, "clock jumps ahead": 86_400.0}.get(fault, 0.0)

    def warp() -> None:
        real, born = time.time, time.monotonic()
        time.time = lambda: real() + (jump if time.monotonic() - born > 0.2 else 0.0)

    return struck(bench, fault, signals, warp)
