"""LongBench-Write beside upstream's functions: length, words, prompts, judge loop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from r2w_eval.tasks.longbench_write import utils

from r2w_eval.data import SuiteData
from r2w_eval.hashing import text_hash
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase, replay
from r2w_eval.types import Answer, JudgeRequest, Mode, WriterStatus

DIVISION = "an empty answer: upstream divides by zero, here it has 0"


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """One case a function; one figure an input."""
    vectors = json.loads((folder / "vectors.json").read_bytes())
    for vector in vectors["length_score"]["vectors"]:
        x, y = vector["x"], vector["y"]
        wanted = vector["result"] if vector["ok"] else vector["exception"]
        cause = "" if vector["ok"] else DIVISION
        got = utils.length_score(x, y)
        yield ParityCase("length score", f"{y} of {x} words", wanted, got, cause)
    for number, vector in enumerate(vectors["count_words"]["vectors"]):
        got_words = utils.count_words(vector["text"])
        yield ParityCase("words", f"text {number}", vector["result"], got_words)
    yield from _prompts(vectors["judge_prompt"]["vectors"], data)
    for number, vector in enumerate(vectors["judge_parse"]["vectors"]):
        yield from _judge_says(f"judge script {number}", vector)


def _prompts(vectors: Iterable[Mapping[str, Any]], data: SuiteData) -> Iterator[ParityCase]:
    samples = list(utils.load_samples(data))
    templates = utils.load_templates(data)
    for vector in vectors:
        answer = Answer(vector["response"], vector["response"], WriterStatus.OK)
        job = JudgingJob(samples[vector["row"]], answer, templates, Mode.PARITY)
        got = text_hash(utils.plan_judging(job)[0].messages[0].content)
        yield ParityCase("judge prompts", f"row {vector['row']}", vector["sha256"], got)


def _judge_says(case: str, vector: Mapping[str, Any]) -> Iterator[ParityCase]:
    score, calls = replay(utils.SUITE, JudgeRequest(utils.QUALITY, ()), vector["outputs"])
    wanted = vector["result"]
    yield ParityCase(case, "calls", wanted["calls_used"], calls)
    stored = wanted["scores"] and [float(wanted["scores"][name]) for name in utils.DIMENSIONS]
    yield ParityCase(case, "scores stored", stored, score.parts.get("dimensions"))
