"""Scores of a pipeline's rollouts, kept in a file so that nothing is scored twice.

Three kinds of questions: the quality of an answer, of a reflection, and of the text before and
after a step. This project's scorers answer all of them, a judge the first and the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.items import ReflectionItem, WritingItem
from r2w_eval.reward_models.scorer import open_scorer

from r2w_eval.config import RunConfig
from r2w_eval.hashing import content_hash
from r2w_eval.reflection.effects import score_items
from r2w_eval.run.opening import ModelPool
from r2w_eval.run.roles import model_options
from r2w_eval.store import JsonlWriter, iter_jsonl

# questions per batch; scores are stored after each batch
CHUNK = 64


@dataclass(frozen=True, slots=True)
class Question:
    """A text to score for its prompt or, if given, a reflection on it."""

    prompt: str
    text: str
    reflection: str = ""
    revision: str | None = None
    earlier: tuple[str, ...] = ()

    def item(self) -> WritingItem | ReflectionItem:
        """The question as an item of this package's scorers."""
        if not self.reflection:
            return WritingItem("", self.prompt, self.text)
        own = (self.prompt, self.text, self.reflection, self.revision, self.earlier)
        return ReflectionItem("", *own)


class Scores:
    """Values by scorer and question, stored in a file; None: the scorer gave none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, float | None] = {
            row["key"]: row["value"] for row in iter_jsonl(path)
        }

    def get(self, scorer: str, question: Question) -> float | None:
        """The value, or None."""
        return self._known.get(_key(scorer, question))

    def fill(self, scorer: str, spec: str, questions: Iterable[Question]) -> None:
        """Score what has no stored value; `spec` is a scorer, or `judge:` and a judge."""
        asked = dict.fromkeys(questions)
        missing = [q for q in asked if _key(scorer, q) not in self._known]
        if not missing:
            return
        ask = _judge(spec.removeprefix("judge:")) if spec.startswith("judge:") else _scorer(spec)
        writer = JsonlWriter(self._path)
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            for question, value in zip(chunk, ask(chunk), strict=True):
                key = _key(scorer, question)
                writer.append({"key": key, "scorer": scorer, "value": value})
                self._known[key] = value
            print(f"{scorer}: {start + len(chunk)} of {len(missing)}", flush=True)
        writer.close()


def _key(scorer: str, question: Question) -> str:
    return content_hash([scorer, question])


def _scorer(spec: str) -> Any:
    opened = open_scorer(spec)
    return lambda chunk: [score.value for score in opened.score([q.item() for q in chunk])]


def _judge(spec: str) -> Any:
    def ask(chunk: Sequence[Question]) -> list[float | None]:
        return asyncio.run(_ask_judge(spec, chunk))

    return ask


async def _ask_judge(spec: str, chunk: Sequence[Question]) -> list[float | None]:
    async with ModelPool(model_options(RunConfig(cache=False), None)) as pool:
        judge, _ = await pool.scorer(spec, "expected")
        verdicts = await judge.score(score_items([(q.prompt, q.text) for q in chunk]))
    return [verdict.score.value for verdict in verdicts]


def read_specs(specs: Sequence[str]) -> Mapping[str, str]:
    """NAME=SPEC pairs of the command line."""
    return dict(spec.partition("=")[::2] for spec in specs)
