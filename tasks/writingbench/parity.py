"""WritingBench beside what upstream's own code printed, accepted and asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from r2w_eval.tasks.writingbench import utils

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.hashing import text_hash
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase, figures, paired, replay, values_of
from r2w_eval.types import (
    Answer,
    ItemVerdicts,
    JudgeRequest,
    Mode,
    Sample,
    Score,
    WriterStatus,
)

ENDING = ".jsonl.gz"
REQUEST = JudgeRequest("criterion", ())


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """Averages of score files, verdict texts with the calls they cost, answers, prompts."""
    samples = {sample.id: sample for sample in utils.load_samples(data)}
    averages = json.loads((folder / "expected.json").read_bytes())["aggregation"]
    files = {p.name.removesuffix(ENDING): p for p in folder.glob(f"synthetic_scores/*{ENDING}")}
    for name, want, path in paired(averages, files):
        yield from _averages(name, read_items(path, samples), want)
    vectors = json.loads((folder / "judge_parse_vectors.json").read_bytes())
    for vector in vectors["parser"]:
        yield from _verdict_texts(vector)
    for number, vector in enumerate(vectors["think_stripping"]):
        got = utils.strip_thinking(vector["response"])
        yield ParityCase("end of thinking", str(number), vector["official"], got)
    prompts = json.loads((folder / "prompt_vectors.json").read_bytes())
    yield from _prompts(prompts, data, samples)


def read_items(path: Path, samples: Mapping[str, Sample]) -> list[ItemVerdicts]:
    """The scores of one upstream score file."""
    return [
        ItemVerdicts(
            sample_id=str(record["index"]),
            language=samples[str(record["index"])].language,
            meta=samples[str(record["index"])].meta,
            status=WriterStatus.OK,
            scores={
                name: tuple(Score(float(entry["score"])) for entry in entries)
                for name, entries in record["scores"].items()
            },
        )
        for record in read_jsonl(path)
    ]


def _averages(
    name: str, items: list[ItemVerdicts], want: Mapping[str, Any]
) -> Iterator[ParityCase]:
    got = values_of(utils.aggregate(items, Mode.PARITY))
    case = f"averages of {name}"
    yield ParityCase(case, "overall", want["overall"], got["overall"])
    yield ParityCase(case, "count", want["count"], len(items))
    means = {"overall:query_mean": want["mean_of_query_means"]}
    yield from figures(case, means, got)
    for group in ("domain1", "domain2", "by_language"):
        yield from figures(case, want[group], got, f"{group.removeprefix('by_')}/")
    for letter in ("R", "C"):
        named = {f"{key}/{letter}": v for key, v in want[f"requirement_{letter}"].items()}
        yield from figures(case, named, got)


def _verdict_texts(vector: Mapping[str, Any]) -> Iterator[ParityCase]:
    case = f"judge says: {vector['case']}"
    score, calls = replay(utils.SUITE, REQUEST, vector["outputs"])
    wanted = vector["result"]["score"] if vector["ok"] else None
    yield ParityCase(case, "score", wanted, score.value)
    yield ParityCase(case, "calls", vector["calls_used"], calls)
    accepted = [utils.parse_parity(REQUEST, t).value is not None for t in vector["outputs"]]
    yield ParityCase(case, "texts accepted", vector["each_accepted"], accepted)


def _prompts(
    vectors: Mapping[str, Any], data: SuiteData, samples: Mapping[str, Sample]
) -> Iterator[ParityCase]:
    templates = utils.load_templates(data)
    for vector in vectors["vectors"]:
        answer = Answer(vector["response"], vector["response"], WriterStatus.OK)
        job = JudgingJob(samples[str(vector["index"])], answer, templates, Mode.PARITY)
        system, user = utils.plan_judging(job)[vector["criterion"]].messages
        figure = f"query {vector['index']}, criterion {vector['criterion']}"
        yield ParityCase("judge prompts", figure, vector["prompt_sha256"], text_hash(user.content))
        yield ParityCase("judge prompts", f"{figure}, system", vectors["system"], system.content)
