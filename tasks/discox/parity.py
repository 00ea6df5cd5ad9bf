"""DiscoX beside upstream's functions: formula, decoding, gate, prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from r2w_eval.tasks.discox import utils
from r2w_eval.tasks.discox.aspects import ASPECTS, FIRST, GATE
from r2w_eval.tasks.discox.points import read_item
from r2w_eval.tasks.discox.reading import parse_parity, unfence

from r2w_eval.data import SuiteData
from r2w_eval.hashing import text_hash
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase
from r2w_eval.types import Answer, ItemVerdicts, JudgeRequest, Mode, Score, WriterStatus


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """One case a function."""
    vectors = json.loads((folder / "vectors.json").read_bytes())
    for number, vector in enumerate(vectors["score"]["vectors"]):
        got = _points(vector)
        yield ParityCase("points", f"lists {number}", vector["result"], got)
    for number, vector in enumerate(vectors["extract_json"]["vectors"]):
        got_text = unfence(vector["text"])
        yield ParityCase("text to decode", f"reply {number}", vector["result"], got_text)
    for number, vector in enumerate(vectors["gate"]["vectors"]):
        score = parse_parity(JudgeRequest(GATE, ()), vector["text"])
        yield ParityCase("gate", f"reply {number}, no points", vector["zero"], score.value == 0)
    yield from _prompts(vectors["user_prompt"]["vectors"], data)


def _points(vector: Mapping[str, Any]) -> list[float] | None:
    """From the judge's lists, as texts, through parser and aggregation."""
    scores = {GATE: (Score(1.0),)}
    for name in ASPECTS:
        text = json.dumps(vector[name], ensure_ascii=False)
        scores[name] = (parse_parity(JudgeRequest(name, ()), text),)
    points = read_item(ItemVerdicts("1", "zh", {}, WriterStatus.OK, scores))
    return None if points is None else [points.accuracy, points.fluency, points.appropriateness]


def _prompts(vectors: Iterable[Mapping[str, Any]], data: SuiteData) -> Iterator[ParityCase]:
    samples = {sample.id: sample for sample in utils.load_samples(data)}
    templates = utils.load_templates(data)
    for vector in vectors:
        answer = Answer(vector["response"], vector["response"], WriterStatus.OK)
        done = {GATE: (Score(1.0), "")}
        job = JudgingJob(samples[vector["prompt_id"]], answer, templates, Mode.PARITY, done)
        found = {r.criterion: text_hash(r.messages[1].content) for r in utils.plan_judging(job)}
        case, name = "judge prompts", f"text {vector['prompt_id']}"
        for aspect in ("accuracy", "fluency", "appropriateness"):
            got = found[f"{FIRST}:{aspect}"]
            yield ParityCase(case, f"{name}, {aspect}", vector["sha256_up"], got)
        got = found[f"{FIRST}:checkpoints"]
        yield ParityCase(case, f"{name}, check points", vector["sha256_checkpoints_up"], got)
