"""Load test of `r2w-eval serve` on loopback, and items per second of the scorer itself.

python benchmarks/reward_server.py --seconds 8 --out benchmarks/results/reward_server.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp.test_utils import TestServer
from r2w_eval.reward_models.checks.validity import material
from r2w_eval.reward_models.language.words import words
from r2w_eval.reward_models.scorer import load_reward
from r2w_eval.reward_models.serving.server import ServeSettings, make_app

from r2w_eval.hashing import to_plain
from r2w_eval.store import write_json


async def clients(url: Any, bodies: list[bytes], n: int, seconds: float) -> dict[str, Any]:
    """`n` clients that each send one item after the other; latencies in milliseconds."""
    until, spent, wrong = time.monotonic() + seconds, [], 0
    connector = aiohttp.TCPConnector(limit=n)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(start: int) -> None:
            nonlocal wrong
            place = start
            while time.monotonic() < until:
                began = time.monotonic()
                async with session.post(url, data=bodies[place % len(bodies)]) as reply:
                    wrong += reply.status != 200
                    await reply.read()
                spent.append((time.monotonic() - began) * 1000)
                place += n

        await asyncio.gather(*(one(i) for i in range(n)))
    p50, p95, p99 = np.quantile(spent, (0.5, 0.95, 0.99)).tolist()
    return {"clients": n, "requests": len(spent), "per_second": len(spent) / seconds,
            "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "not_200": wrong}  # fmt: skip


async def run(seconds: float) -> dict[str, Any]:
    """Direct scoring, then 1, 32 and 128 clients against a fresh server."""
    model, items = load_reward(), list(material().items)
    started = time.process_time()
    model.score(items)
    direct = time.process_time() - started
    n_words = sum(len(words(i.draft + i.reflection + (i.revision or ""))) for i in items)
    bodies = [json.dumps(to_plain(item)).encode() for item in items]
    found = []
    async with TestServer(make_app(model, ServeSettings())) as server:
        for n in (1, 32, 128):
            found.append(await clients(server.make_url("/score"), bodies, n, seconds))
    return {
        "direct": {"items": len(items), "items_per_cpu_second": len(items) / direct,
                   "words_per_cpu_second": n_words / direct},
        "served": found,
    }  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", default="benchmarks/results/reward_server.json")
    options = parser.parse_args()
    result = asyncio.run(run(options.seconds))
    write_json(Path(options.out), result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
