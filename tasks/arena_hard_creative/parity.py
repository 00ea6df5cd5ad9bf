"""Arena-Hard, creative, beside upstream's functions: labels, expanded outcomes, prompts.

No raw verdict with a published score is at hand: formula only.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from r2w_eval.tasks.arena_hard_creative import utils

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.hashing import text_hash
from r2w_eval.stats.inference import evaluate
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase
from r2w_eval.types import Answer, ItemVerdicts, JudgeRequest, Mode, Sample, WriterStatus

QUESTIONS = "question_creative_writing.jsonl"


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """One case a function."""
    vectors = json.loads((folder / "vectors.json").read_bytes())
    for number, vector in enumerate(vectors["verdict"]["vectors"]):
        score = utils.parse_parity(JudgeRequest(utils.MODEL_FIRST, ()), vector["text"])
        # where upstream raises, ours is a status without a label
        wanted = vector["result"] if vector["ok"] else None
        yield ParityCase("labels", f"reply {number}", wanted, score.parts.get("label"))
    for number, vector in enumerate(vectors["score"]["vectors"]):
        yield from _outcomes(f"games {number}", vector)
    yield from _prompts(vectors["judge_prompt"]["vectors"], data)


def _outcomes(name: str, vector: Mapping[str, Any]) -> Iterator[ParityCase]:
    items = [_judged(str(i), games) for i, games in enumerate(vector["games"])]
    rows = [row for item in items for row in utils.expand(utils.read_games(item))]
    found = {e.name: evaluate(e) for e in utils.aggregate(items, Mode.PARITY)}
    yield ParityCase("win rate", f"{name}, mean", vector["mean"], found["winrate"])
    yield ParityCase("win rate", f"{name}, copied rows", vector["expanded"], rows)


def _judged(uid: str, labels: Iterable[str]) -> ItemVerdicts:
    scores = {
        game: (utils.parse_parity(JudgeRequest(game, ()), f"[[{label}]]"),)
        for game, label in zip(utils.GAMES, labels, strict=True)
    }
    return ItemVerdicts(uid, "", {}, WriterStatus.OK, scores)


def _prompts(vectors: Iterable[Mapping[str, Any]], data: SuiteData) -> Iterator[ParityCase]:
    templates = utils.load_templates(data)
    samples = _questions(data)
    for vector in vectors:
        own = samples[vector["uid"]]
        sample = Sample("t", own.id, own.messages, material={"baseline": vector["answer_b"]})
        answer = Answer(vector["answer_a"], "", WriterStatus.OK)
        job = JudgingJob(sample, answer, templates, Mode.PARITY)
        user = {r.criterion: r.messages[1].content for r in utils.plan_judging(job)}
        got = text_hash(user[utils.MODEL_FIRST])
        yield ParityCase("judge prompts", f"question {vector['uid'][:8]}", vector["sha256"], got)


def _questions(data: SuiteData) -> dict[str, Sample]:
    """All questions; each needs some baseline answer, which the vectors bring themselves."""
    with tempfile.TemporaryDirectory() as folder:
        baseline = Path(folder) / "baseline.jsonl"
        uids = [record["uid"] for record in read_jsonl(data.path(QUESTIONS))]
        lines = [json.dumps({"id": uid, "response": "none"}) for uid in uids]
        baseline.write_text("\n".join(lines) + "\n", "utf-8")
        given = replace(data, inputs={"baseline": baseline})
        return {sample.id: sample for sample in utils.load_samples(given)}
