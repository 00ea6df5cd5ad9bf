"""`r2w-eval serve` under mixed load: memory, open files and latency over time.

    python -m benchmarks.reliability.serve_soak [--minutes 15] [--rate 20]

Arrivals are an open Poisson stream at a fixed rate, so that a slow server is not asked less. Most
requests are honest (one item, sixteen items, a long text, the shapes of vLLM and OpenRLHF); beside
them come bodies that are no JSON, bodies that are too large, clients that leave before the answer,
and clients that never finish sending. An honest request must be 200 and give the same bytes as the
first of its kind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from benchmarks.measure import free_port
from benchmarks.reliability.page import FOLDER, write_page
from benchmarks.reliability.process import ROOT, SOAK_TIMEOUT_S, commit
from benchmarks.reliability.serve import BODY
from benchmarks.reliability.soak import look, plot

PLOT = ROOT / "docs" / "images" / "serve_soak.svg"
WINDOW_S = 10.0
ITEM = json.loads(BODY)
LONG = "He go home. It was late. " * 400
HONEST = {
    "one remark": ("/score", BODY),
    "sixteen remarks": ("/score", json.dumps({"items": [ITEM] * 16}).encode()),
    "10,000 characters": ("/score", json.dumps({"id": "l", "response": LONG}).encode()),
    "vLLM's shape": ("/classify", json.dumps({"input": ["A text about a river."]}).encode()),
    "OpenRLHF's shape": ("/get_reward", json.dumps({"query": ["A text."]}).encode()),
}  # fmt: skip
FAULTY = {"not JSON": (400, b"{"), "too large": (413, b"[" + b"a" * (2 << 20))}
WEIGHTS = {
    "one remark": 50, "sixteen remarks": 10, "10,000 characters": 5, "vLLM's shape": 10,
    "OpenRLHF's shape": 10, "not JSON": 5, "too large": 2, "leaves": 6, "never finishes": 2,
}  # fmt: skip


@dataclass
class Load:
    """Requests sent, and their outcomes."""

    base: str
    first: dict[str, bytes] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    spent: list[tuple[float, float]] = field(default_factory=list)
    """Arrival, and milliseconds to the answer, of honest requests."""

    async def one(self, session: aiohttp.ClientSession, kind: str) -> None:
        """Send one request of a kind; any undocumented reply counts as wrong."""
        self.sent[kind] += 1
        try:
            if kind == "leaves":
                await self._leave(session)
            elif kind == "never finishes":
                await self._stall()
            elif kind in FAULTY:
                status, body = FAULTY[kind]
                async with session.post(self.base + "/score", data=body) as reply:
                    self.wrong[kind] += reply.status != status
            else:
                await self._honest(session, kind)
        except (aiohttp.ClientError, OSError, TimeoutError):
            self.wrong[kind] += 1

    async def _honest(self, session: aiohttp.ClientSession, kind: str) -> None:
        path, body = HONEST[kind]
        began = time.monotonic()
        async with session.post(self.base + path, data=body) as reply:
            content = await reply.read()
        self.spent.append((began, (time.monotonic() - began) * 1000))
        same = content == self.first.setdefault(kind, content)
        self.wrong[kind] += reply.status != 200 or not same

    async def _leave(self, session: aiohttp.ClientSession) -> None:
        path, body = HONEST["sixteen remarks"]
        try:
            async with asyncio.timeout(0.002), session.post(self.base + path, data=body):
                pass
        except TimeoutError:
            pass

    async def _stall(self) -> None:
        """Send half a request; the server must answer 504 by itself."""
        host, port = self.base.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n{{"
        writer.write(head.encode())
        async with asyncio.timeout(60):
            self.wrong["never finishes"] += b" 504 " not in await reader.readline()
        writer.close()


async def drive(load: Load, pid: int, minutes: float, rate: float) -> list[dict[str, float]]:
    """Send for some minutes; one row a window of ten seconds."""
    rows: list[dict[str, float]] = []
    pick = random.Random(0)
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as group,
    ):
        due, until = began, began + minutes * 60
        while due < until:
            due += pick.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            (kind,) = pick.choices(list(WEIGHTS), list(WEIGHTS.values()))
            group.create_task(load.one(session, kind))
            if time.monotonic() - began >= WINDOW_S * (len(rows) + 1):
                rows.append(window(load, pid, began, WINDOW_S * len(rows)))
    return rows


def window(load: Load, pid: int, began: float, start_s: float) -> dict[str, float]:
    """Percentiles of the honest requests of one window, memory and open files at its end."""
    memory, files = look(pid)
    inside = [ms for at, ms in load.spent if start_s <= at - began < start_s + WINDOW_S]
    p50, p95, p99 = np.quantile(inside or [0.0], (0.5, 0.95, 0.99)).round(2).tolist()
    return {
        "s": start_s + WINDOW_S, "n": len(inside), "p50": p50, "p95": p95, "p99": p99,
        "mb": round(memory, 1), "files": files,
    }  # fmt: skip


async def wait_until_up(base: str) -> None:
    """Wait until /health answers."""
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            try:
                async with session.get(base + "/health") as reply:
                    reply.raise_for_status()
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
    raise RuntimeError("the server did not start")


async def measure(minutes: float, rate: float) -> dict[str, Any]:
    """A server of its own, the load, and how the server ends on SIGTERM."""
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "r2w_eval", "serve", f"--port={port}", "--max-body-mb=1",
             f"--timeout={SOAK_TIMEOUT_S}"], stdout=log, stderr=log,
        )  # fmt: skip
        load = Load(f"http://127.0.0.1:{port}")
        await wait_until_up(load.base)
        rows = await drive(load, process.pid, minutes, rate)
        process.terminate()
        code = await asyncio.to_thread(process.wait, 60)
        log.seek(0)
        tracebacks = log.read().count(b"Traceback")
    p50, p95, p99 = np.quantile([ms for _, ms in load.spent], (0.5, 0.95, 0.99)).tolist()
    return {
        "commit": commit(), "minutes": minutes, "rate": rate,
        "exit_code": code, "tracebacks": tracebacks,
        "sent": dict(load.sent), "wrong": {k: n for k, n in load.wrong.items() if n},
        "p50": p50, "p95": p95, "p99": p99, "rows": rows,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    options = parser.parse_args()
    facts = asyncio.run(measure(options.minutes, options.rate))
    (Path(FOLDER) / "serve_soak.json").write_text(json.dumps(facts) + "\n")
    rows = facts["rows"]
    plot([("milliseconds", rows, ["p50", "p95", "p99"], True), ("resident MB", rows, ["mb"], False),
          ("open files", rows, ["files"], False)], PLOT)  # fmt: skip
    write_page()
    print({name: value for name, value in facts.items() if name != "rows"})


if __name__ == "__main__":
    main()
