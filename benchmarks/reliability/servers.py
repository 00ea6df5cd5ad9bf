"""Two servers that the fake one is not: a partner for the synthesis loop, and one that never ends.

`python -m benchmarks.reliability.servers loop|trickle PORT`; the first line of output is the port.
`loop` answers each question of the loop by its own text alone, so that a resumed synthesis must end
as an unbroken one. `trickle` accepts every request and sends one byte of its answer a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys

from aiohttp import web

LATENCY_S = 0.02
DRAFT = "The night was dark and stormy.\n\nNothing much happened for a while."
STEPS = {
    "judge": "You assess one piece",
    "rubric": "Name the five qualities",
    "reflect": "You notice the problems listed",
    "revise": "On reading it over you thought",
    "draft": "This is your own plan",
}


def write_reply(text: str) -> str:
    """The reply to a question of the loop."""
    step = next((name for name, cue in STEPS.items() if cue in text), "plan")
    digest = hashlib.sha256(text.encode()).hexdigest()
    if step == "judge":
        return _judge(text)
    if step == "rubric":
        return json.dumps({"criteria": [{"name": "Clarity", "description": "It is clear."}]})
    if step == "reflect":
        return f'I stumble over "dark and stormy": it is worn, I will change it ({digest[:4]}).'
    if step == "revise":
        return f"{_cut(text, 'draft')} Better {digest[:4]}."
    return f"I open in the dark, {digest[:4]}." if step == "plan" else f"{DRAFT} {digest[:4]}"


def _judge(text: str) -> str:
    names = re.findall(r"^- ([^:]+):", text, re.MULTILINE)
    issue = {
        "criterion": names[0], "level": "wording", "severity": "major", "quote": "dark and stormy",
        "problem": "worn", "suggestion": "another image",
    }  # fmt: skip
    mark = min(9.0, 4.0 + _cut(text, "piece").count("Better"))
    return json.dumps({"scores": {name: mark for name in names}, "issues": [issue]})


def _cut(text: str, tag: str) -> str:
    found = re.search(rf"<{tag}>\n(.*?)\n</{tag}>", text, re.DOTALL)
    return found[1] if found else ""


class LoopServer:
    """Chat completions after `write_reply`, with the fake server's `/stats`."""

    def __init__(self) -> None:
        self.requests = 0

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests += 1
        await asyncio.sleep(LATENCY_S)
        message = {"role": "assistant", "content": write_reply(body["messages"][-1]["content"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        return web.json_response({"model": body["model"], "choices": [choice], "usage": usage})

    async def stats(self, _: web.Request) -> web.Response:
        return web.json_response({"total": {"requests": self.requests}})


async def trickle(request: web.Request) -> web.StreamResponse:
    """Send one byte a second for ever."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(1)


async def models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})


async def serve(kind: str, port: int) -> None:
    app = web.Application(client_max_size=1 << 26)
    loop = LoopServer()
    app.router.add_post("/v1/chat/completions", loop.chat if kind == "loop" else trickle)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/stats", loop.stats)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
