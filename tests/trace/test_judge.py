"""Segmentation by a scorer, over HTTP against a scripted server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from support import ScriptedServer, completion

from r2w_eval.judge.scorers import ScoreItem, TextJudge, Verdict
from r2w_eval.models.client import HttpModel
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.trace.judge import Labelling, read_labels, segment_by_scorer
from r2w_eval.types import Score

TEXT = "The user wants rain.\n\nRain fell.\nIt stopped.\n\nFlat, that second line."


def ask(*replies: str) -> Labelling:
    async def job(url: str) -> Labelling:
        judge = TextJudge(HttpModel(Endpoint.parse(f"{url}#m"), ClientSettings(4)))
        try:
            return await segment_by_scorer(TEXT, judge)
        finally:
            await judge.close()

    scripted = [(200, {}, completion(reply)) for reply in replies]
    with ScriptedServer(*scripted) as server:
        return asyncio.run(job(server.base_url))


def test_lines_of_one_kind_become_one_segment() -> None:
    trace = ask(json.dumps({"labels": ["p", "d", "d", "r"]})).trace
    assert trace is not None
    assert [(str(s.kind), trace.text_of(s)) for s in trace.segments] == [
        ("plan", "The user wants rain."),
        ("draft", "Rain fell.\nIt stopped."),
        ("reflection", "Flat, that second line."),
    ]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("none", "parse_error"),
        ('{"labels": ["p"]}', "criteria_mismatch"),
        ('{"labels": ["p", "x", "d", "r"]}', "unknown_label"),
        ('{"labels": "pddr"}', "parse_error"),
    ],
)
def test_an_unreadable_reply_gives_no_trace_but_a_status(reply: str, status: str) -> None:
    labelling = ask(reply)
    assert labelling.trace is None and labelling.score.status == status
    assert read_labels(reply, 4).value is None


class Marks:
    """Somebody's scorer, which gives marks and no labels."""

    id = "marks"

    def describe(self) -> dict[str, Any]:
        return {}

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        return [Verdict(Score(7.0)) for _ in items]

    async def close(self) -> None: ...


def test_a_scorer_that_gives_no_labels_segments_nothing() -> None:
    labelling = asyncio.run(segment_by_scorer(TEXT, Marks()))
    assert labelling.trace is None and labelling.score.value is None
    assert "without labels" in labelling.score.reason
