"""A writer, a judge and an internaliser on a script: for the loop's rules and its faults."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any

from r2w_eval.training.journal import Role
from support import ScriptedServer, completion

from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.types import Decoding, Usage

DRAFT = "The night was dark and stormy.\n\nNothing much happened for a while."


class ScriptedModel:
    """Answers by what the request asks for; counts the requests.

    `marks` gives the judge's mark for a text; revisions append a sentence, so texts differ.
    """

    id = "scripted"

    def __init__(self, marks: Callable[[str], float] = lambda text: 5.0) -> None:
        self.marks = marks
        self.severity = "major"
        self.thoughts: Callable[[int], str] = lambda n: (
            f'I stumble over "dark and stormy" ({"x" * n}): it is worn, I will change it.'
        )
        self.fail: Callable[[str], bool] = lambda step: False
        self.requests: list[str] = []
        self.seen: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"weights": "none"}

    async def close(self) -> None: ...

    async def complete(self, request: ChatRequest) -> Reply:
        text = request.messages[-1].content
        step = step_of(text)
        if self.fail(step):
            raise CallFailed(CallStatus.TRANSPORT, "reset")
        return Reply(self.answer(text), "stop", usage=Usage(10, 5), model="scripted")

    def answer(self, text: str) -> str:
        """What is said to a request, which is counted."""
        step = step_of(text)
        self.requests.append(step)
        self.seen.append(text)
        return self._answer(step, text)

    def _answer(self, step: str, text: str) -> str:
        if step == "judge":
            return self._judge(text)
        if step == "rubric":
            return json.dumps({"criteria": [{"name": "Clarity", "description": "It is clear."}]})
        if step == "reflect":
            return self.thoughts(self.requests.count("reflect"))
        if step == "revise":
            return f"{cut(text, 'draft')} Better {self.requests.count('revise')}."
        return "I open in the dark." if step == "plan" else DRAFT

    def _judge(self, text: str) -> str:
        names = re.findall(r"^- ([^:]+):", text, re.MULTILINE)
        issue = {
            "criterion": names[0],
            "level": "wording",
            "severity": self.severity,
            "quote": "dark and stormy",
            "problem": "worn",
            "suggestion": "another image",
        }
        mark = self.marks(fenced(text))
        return json.dumps({"scores": {name: mark for name in names}, "issues": [issue]})

    def role(self) -> Role:
        return Role(self, Decoding(temperature=0.7, max_tokens=500))


def endpoint(model: ScriptedModel) -> ScriptedServer:
    """The model behind HTTP."""
    heard = threading.local()

    def hear(body: dict[str, Any]) -> None:
        heard.text = body["messages"][-1]["content"]

    def answer(headers: dict[str, str]) -> bytes:
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        return completion(model.answer(heard.text), usage=usage)

    server = ScriptedServer((200, {}, answer))
    server.on_body = hear
    return server


def mixed(text: str) -> float:
    """Marks of three rounds: a gain, nothing, a loss; the first draft has 5."""
    last = re.findall(r"Better (\d+)", text)
    return [4.0, 6.0, 6.1][int(last[-1]) % 3] if last else 5.0


def step_of(text: str) -> str:
    for step, cue in {
        "judge": "You assess one piece",
        "rubric": "Name the five qualities",
        "reflect": "You notice the problems listed",
        "revise": "On reading it over you thought",
        "draft": "This is your own plan",
    }.items():
        if cue in text:
            return step
    return "plan"


def fenced(text: str) -> str:
    """The piece that a judge is to assess, between its marks."""
    found = re.search(r"<<<PIECE (\w+)\n(.*?)\nPIECE \1>>>", text, re.DOTALL)
    assert found, text
    return found[2]


def cut(text: str, tag: str) -> str:
    found = re.search(rf"<{tag}>\n(.*?)\n</{tag}>", text, re.DOTALL)
    assert found, text
    return found[1]
