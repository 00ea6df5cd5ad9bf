"""A writer, a judge and an internaliser on a script: for the loop's rules and its faults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from r2w_eval.training.journal import Role

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
        self.requests.append(step)
        self.seen.append(text)
        return Reply(self._answer(step, text), "stop", usage=Usage(10, 5), model="scripted")

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
        mark = self.marks(cut(text, "piece"))
        return json.dumps({"scores": {name: mark for name in names}, "issues": [issue]})

    def role(self) -> Role:
        return Role(self, Decoding(temperature=0.7, max_tokens=500))


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


def cut(text: str, tag: str) -> str:
    found = re.search(rf"<{tag}>\n(.*?)\n</{tag}>", text, re.DOTALL)
    assert found, text
    return found[1]
