"""RACE beside upstream's result files, its functions on damaged verdicts, and one whole chain."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from r2w_eval.tasks.deepresearch_bench.cleaning import STAGE
from r2w_eval.tasks.deepresearch_bench.race import (
    RACE,
    load_samples,
    load_templates,
    parse_parity,
    plan_judging,
    score_request,
)
from r2w_eval.tasks.deepresearch_bench.reading import DIMENSIONS, extract_json
from r2w_eval.tasks.deepresearch_bench.scoring import aggregate

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.hashing import text_hash
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase, figures, paired, values_of
from r2w_eval.template import Template
from r2w_eval.types import Answer, ItemVerdicts, JudgeStatus, Mode, Sample, Score, WriterStatus

WITHOUT_REFERENCE = replace(RACE, compares=False)
RESULTS = "raw_results.jsonl"
NAMES = {"overall": "overall_score", **{name: name for name in DIMENSIONS}}


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """Means of result files, verdicts read and weighted, the chain, prompts, reports."""
    expected = json.loads((folder / "expected.json").read_bytes())
    samples = {sample.id: sample for sample in load_samples(WITHOUT_REFERENCE, data)}
    race = folder / "race"
    runs = {str(p.parent.relative_to(race)): p.parent for p in race.rglob(RESULTS)}
    for _, want, place in paired(expected["race_aggregation"], runs):
        yield from _result_file(place, want, samples)
    vectors = json.loads((folder / "vectors.json").read_bytes())
    for number, vector in enumerate(vectors["extract_json"]["vectors"]):
        got = extract_json(vector["text"])
        yield ParityCase("JSON in a reply", f"text {number}", vector["result"], got)
    templates = load_templates(RACE, data)
    for vector in vectors["weighted_score"]["vectors"]:
        yield from _weighted(vector, samples[str(vector["task_id"])], templates)
    for path in sorted((folder / "race_chain").glob("*.json")):
        chain = json.loads(path.read_bytes())
        yield from _chain(chain, samples[str(chain["id"])], templates)
    for vector in vectors["race_prompt"]["vectors"]:
        yield from _prompt(vector, samples[str(vector["task_id"])], templates)
    for kind in ("raw", "cleaned"):
        yield from _reports(folder / "articles" / f"{kind}.jsonl.gz", expected["articles"][kind])


def read_items(path: Path, samples: Mapping[str, Sample]) -> list[ItemVerdicts]:
    """The records of one upstream result file; those with an error are lost verdicts."""
    items = []
    for record in read_jsonl(path):
        sample = samples[str(record["id"])]
        score = Score(None, JudgeStatus.PARSE_ERROR, "error upstream")
        if "error" not in record:
            parts = {name: record[name] for name in DIMENSIONS}
            score = Score(record["overall_score"], parts=parts)
        ok, scores = WriterStatus.OK, {"score": (score,)}
        items.append(ItemVerdicts(sample.id, sample.language, sample.meta, ok, scores))
    return items


def _result_file(
    folder: Path, want: Mapping[str, Any], samples: Mapping[str, Sample]
) -> Iterator[ParityCase]:
    case = f"results of {folder.parent.name}/{folder.name}".replace("race/", "")
    items = read_items(folder / RESULTS, samples)
    estimates = aggregate(items, Mode.PARITY)
    got = values_of(estimates)
    yield from figures(case, {ours: want[theirs] for ours, theirs in NAMES.items()}, got)
    for ours, theirs in NAMES.items():
        printed = f"{got[ours]:.4f}"
        yield ParityCase(case, f"{ours}, printed", want["printed"][theirs], printed)
    yield ParityCase(case, "records", want["records"], len(items))
    n_scored = sum(map(len, (stratum.clusters for stratum in estimates[0].strata)))
    yield ParityCase(case, "scored", want["scored"], n_scored)


def _job(sample: Sample, templates: Mapping[str, Template], cleaned: str = "") -> JudgingJob:
    """A job whose cleaning is done."""
    answer = Answer("report", "report", WriterStatus.OK)
    return JudgingJob(sample, answer, templates, Mode.PARITY, {STAGE: (Score(1.0), cleaned)})


def _weighted(
    vector: Mapping[str, Any], sample: Sample, templates: Mapping[str, Template]
) -> Iterator[ParityCase]:
    request = score_request(RACE, _job(sample, templates), "")
    score = parse_parity(RACE, request, json.dumps(vector["judge_json"], ensure_ascii=False))
    got = {**score.parts, "overall_score": score.value}
    case = f"damaged verdict: {vector['mutation']}"
    wanted = {"overall_score": vector["result"]["overall_score"], **vector["result"]}
    for figure, value in wanted.items():
        # a ratio of nothing is upstream's integer 0
        yield ParityCase(case, figure, float(value), got[figure])


def _chain(
    chain: Mapping[str, Any], sample: Sample, templates: Mapping[str, Template]
) -> Iterator[ParityCase]:
    case = f"task {chain['id']} from the raw reply"
    request = score_request(RACE, _job(sample, templates), "")
    score = parse_parity(RACE, request, chain["raw_llm_response"])
    item = ItemVerdicts(sample.id, "", sample.meta, WriterStatus.OK, {"score": (score,)})
    got = values_of(aggregate([item], Mode.PARITY))
    yield from figures(case, {ours: chain[theirs] for ours, theirs in NAMES.items()}, got)
    for ours, theirs in (("target_total", "target"), ("reference_total", "reference")):
        yield ParityCase(case, ours, chain["detailed_scores"][theirs]["total"], score.parts[ours])


def _prompt(
    vector: Mapping[str, Any], sample: Sample, templates: Mapping[str, Template]
) -> Iterator[ParityCase]:
    material = {**sample.material, "reference": vector["article_2"]}
    job = _job(replace(sample, material=material), templates, vector["article_1"])
    (request,) = (r for r in plan_judging(RACE, job) if r.criterion == "score")
    (message,) = request.messages
    figure = f"task {vector['task_id']}"
    yield ParityCase("judge prompts", figure, vector["sha256"], text_hash(message.content))


def _reports(path: Path, want: Mapping[str, int]) -> Iterator[ParityCase]:
    got = {str(record["id"]): len(record["article"]) for record in read_jsonl(path)}
    yield from figures(f"characters of {path.name}", want, got)
