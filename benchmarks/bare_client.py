"""The bare client: the least that can be done with asyncio, as the yardstick of throughput.py.

In: an address, a workload (generate, judge, or both for each query) and a number of connections.
Out: nothing; the server counts. No retries, no records: every reply is read and parsed, then
dropped.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

# what the workload `judge` has judged
FIXED_ANSWER = "The ferry had not come for nine days. " * 125
Send = Callable[[dict[str, Any]], Awaitable[str]]


def build_chat(model: str, text: str, seed: int) -> dict[str, Any]:
    """The body of a chat completion; the seed distinguishes repeated prompts."""
    return {"model": model, "messages": [{"role": "user", "content": text}], "seed": seed}


def read_queries(data: Path) -> Iterator[dict[str, Any]]:
    """WritingBench's queries in an endless cycle."""
    lines = (data / "benchmark_all.jsonl").read_text(encoding="utf-8").split("\n")
    return itertools.cycle([json.loads(line) for line in lines if line])


def judge_prompts(template: str, query: dict[str, Any], answer: str) -> list[str]:
    """The judge prompts of one answer, one per criterion."""
    filled = template.replace("{query}", query["query"]).replace("{response}", answer)
    return [filled.replace("{criteria}", repr(entry)) for entry in query["checklist"]]


@asynccontextmanager
async def open_aiohttp(url: str, _: int) -> AsyncIterator[Send]:
    """Send by aiohttp."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send(body: dict[str, Any]) -> str:
            async with session.post(url, json=body) as reply:
                reply.raise_for_status()
                return str(json.loads(await reply.read())["choices"][0]["message"]["content"])

        yield send


@asynccontextmanager
async def open_httpx(url: str, connections: int) -> AsyncIterator[Send]:
    """Send by httpx."""
    import httpx

    limits = httpx.Limits(
        max_connections=2 * connections, max_keepalive_connections=2 * connections
    )
    async with httpx.AsyncClient(limits=limits, timeout=600) as session:

        async def send(body: dict[str, Any]) -> str:
            reply = await session.post(url, json=body)
            reply.raise_for_status()
            return str(reply.json()["choices"][0]["message"]["content"])

        yield send


def plan_requests(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """The requests of the workloads in which none depends on a reply."""
    queries = enumerate(itertools.islice(read_queries(options.data), options.queries))
    if options.workload == "generate":
        return (build_chat(options.model, query["query"], i) for i, query in queries)
    template = read_template(options.data)
    return (
        build_chat(options.judge, prompt, i)
        for i, query in queries
        for prompt in judge_prompts(template, query, FIXED_ANSWER)
    )


def read_template(data: Path) -> str:
    """WritingBench's judge prompt."""
    prompts = json.loads((data / "prompts.json").read_text(encoding="utf-8"))
    return str(prompts["v2"]["user_template"])


async def run_independent(send: Send, options: argparse.Namespace) -> None:
    """Send all requests from workers that share one iterator."""
    bodies = iter(plan_requests(options))

    async def work() -> None:
        for body in bodies:
            await send(body)

    await asyncio.gather(*(work() for _ in range(options.connections)))


async def run_judged(send: Send, options: argparse.Namespace) -> None:
    """Answer each query and judge the answer by all criteria as soon as it is there.

    Both models have the full number of connections, as in the harnesses that limit per model;
    with --shared the two have them together, as in those that limit samples.
    """
    template = read_template(options.data)
    queries = enumerate(itertools.islice(read_queries(options.data), options.queries))
    slots = asyncio.Semaphore(options.connections * (1 if options.shared else 2))
    to_judge: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def generate() -> None:
        for seed, query in queries:
            async with slots:
                answer = await send(build_chat(options.model, query["query"], seed))
            for prompt in judge_prompts(template, query, answer):
                to_judge.put_nowait(build_chat(options.judge, prompt, seed))

    async def judge() -> None:
        while (body := await to_judge.get()) is not None:
            async with slots:
                await send(body)

    judges = [asyncio.create_task(judge()) for _ in range(options.connections)]
    await asyncio.gather(*(generate() for _ in judges))
    for _ in judges:
        to_judge.put_nowait(None)
    await asyncio.gather(*judges)


async def run(options: argparse.Namespace) -> None:
    """Open the client and run the workload."""
    opener = open_aiohttp if options.library == "aiohttp" else open_httpx
    async with opener(f"{options.base_url}/chat/completions", options.connections) as send:
        workload = run_judged if options.workload == "judged" else run_independent
        await workload(send, options)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--workload", choices=("generate", "judge", "judged"), required=True)
    parser.add_argument("--library", choices=("aiohttp", "httpx"), default="aiohttp")
    parser.add_argument("--model", default="gen-200")
    parser.add_argument("--judge", default="judge-200")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--shared", action="store_true", help="both models share the connections")
    parser.add_argument("--data", type=Path, required=True, help="folder of WritingBench's files")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
