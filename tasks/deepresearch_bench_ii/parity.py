"""DeepResearch Bench II beside what upstream's functions return on invented inputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from r2w_eval.tasks.deepresearch_bench_ii import utils
from r2w_eval.tasks.deepresearch_bench_ii.reading import is_valid, parse_upstream, read_parity
from r2w_eval.tasks.deepresearch_bench_ii.scoring import (
    BATCH_SIZE,
    DIMENSIONS,
    aggregate,
    batch_names,
)

from r2w_eval.data import SuiteData
from r2w_eval.hashing import text_hash
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase, figures, values_of
from r2w_eval.types import Answer, ItemVerdicts, Mode, Sample, Score, WriterStatus

THEIR_NAMES = {"info_recall": "inforecall"}


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """Shares, replies read, batches checked, prompts."""
    vectors = json.loads((folder / "vectors.json").read_bytes())
    for number, vector in enumerate(vectors["aggregate"]["vectors"]):
        yield from _shares(f"shares of record {number}", vector)
    for number, vector in enumerate(vectors["parse"]["vectors"]):
        got = list(parse_upstream(vector["text"]))
        yield ParityCase("reply as upstream reads it", f"text {number}", vector["result"], got)
    for number, vector in enumerate(vectors["validate"]["vectors"]):
        accepted = is_valid(["a", "b"], vector["parsed"])
        yield ParityCase("batch accepted", f"batch {number}", vector["result"], accepted)
    yield from _prompts(vectors["judge_prompt"]["vectors"], data)


def make_item(scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> ItemVerdicts:
    """One record of upstream's form through our parser, as one batch a dimension would not be."""
    names = [f"{name}/{key}" for name in DIMENSIONS for key in scores[name]]
    given = [entry for name in DIMENSIONS for entry in scores[name].values()]
    batches: dict[str, tuple[Score, ...]] = {}
    for number, batch in enumerate(batch_names(len(names))):
        part = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
        rows = zip(names[part], given[part], strict=True)
        results = [{"rubric_item": name, **entry} for name, entry in rows]
        batches[batch] = (read_parity(names[part], json.dumps({"results": results})),)
    meta = {
        "theme": "",
        "sizes": [len(scores[name]) for name in DIMENSIONS],
        "superseded": [],
    }
    return ItemVerdicts("1", "", meta, WriterStatus.OK, batches)


def _shares(case: str, vector: Mapping[str, Any]) -> Iterator[ParityCase]:
    got = values_of(aggregate([make_item(vector["scores"])], Mode.PARITY))
    wanted = {
        ours: vector["result"][THEIR_NAMES.get(ours, ours)]
        for ours in ("total", *DIMENSIONS, "blocked_rate")
    }
    yield from figures(case, wanted, got)


def _prompts(vectors: Iterable[Mapping[str, Any]], data: SuiteData) -> Iterator[ParityCase]:
    samples: dict[str, Sample] = {sample.id: sample for sample in utils.load_samples(data)}
    templates = utils.load_templates(data)
    for vector in vectors:
        answer = Answer(vector["report"], vector["report"], WriterStatus.OK)
        job = JudgingJob(samples[str(vector["idx"])], answer, templates, Mode.PARITY)
        request = utils.plan_judging(job)[vector["batch"]]
        case, figure = "judge prompts", f"task {vector['idx']}, batch {vector['batch']}"
        got = text_hash(request.messages[0].content)
        yield ParityCase(case, figure, vector["sha256"], got)
        n_rubrics = len(request.facts["rubrics"])
        yield ParityCase(case, f"{figure}, rubrics", vector["n_items"], n_rubrics)
