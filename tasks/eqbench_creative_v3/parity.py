"""EQ-Bench Creative Writing v3 beside its published rows and upstream's functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.tasks.eqbench_creative_v3 import scoring, utils

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.hashing import text_hash
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase, paired, values_of
from r2w_eval.text.measures import why_uncounted
from r2w_eval.text.metrics import RELEASE, SlopLists, count_slop, read_slop_lists
from r2w_eval.text.tokenise import nltk_tokens
from r2w_eval.types import Answer, ItemVerdicts, JudgeRequest, Mode, Sample, WriterStatus

ENDING = ".jsonl.gz"
SLOP_COUNTS = {
    "tokens": "tokens",
    "words": "word_hits",
    "bigrams": "bigram_hits",
    "trigrams": "trigram_hits",
}
OTHER_JUDGING = "the published row stems from another judging than the verdicts at hand"
OTHER_TEXTS = "the published row stems from other texts than those at hand"


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """Two cases a model (verdicts, texts), and upstream's functions."""
    samples = {sample.id: sample for sample in utils.load_samples(data)}
    expected = json.loads((folder / "expected.json").read_bytes())["models"]
    lists = read_slop_lists(data)
    files = {p.name.removesuffix(ENDING): p for p in folder.glob(f"items/*{ENDING}")}
    for name, wanted, path in paired(expected, files):
        records = read_jsonl(path)
        yield from _rubric(name, wanted, records, samples)
        yield from _texts(f"{name}, texts", wanted, records, lists)
    vectors = json.loads((folder / "vectors.json").read_bytes())
    for number, vector in enumerate(vectors["parse"]["vectors"]):
        got = scoring.parse_scores(vector["text"])
        yield ParityCase("parser", f"text {number}", vector["result"], got)
    yield from _averages(vectors["aggregate"]["vectors"], samples)
    yield from _prompts(vectors["judge_prompt"]["vectors"], samples, data)


def read_item(record: Mapping[str, Any], samples: Mapping[str, Sample]) -> ItemVerdicts:
    """One piece through our parser."""
    sample = samples[f"{record['prompt_id']}-{record['iteration']}"]
    request = JudgeRequest(utils.VERDICT, (), facts=sample.material["facts"])
    scores = {utils.VERDICT: (utils.parse_parity(request, record["judge_raw"]),)}
    return ItemVerdicts(sample.id, sample.language, sample.meta, WriterStatus.OK, scores)


def _rubric(
    case: str,
    wanted: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    samples: Mapping[str, Sample],
) -> Iterator[ParityCase]:
    got = values_of(utils.aggregate([read_item(r, samples) for r in records], Mode.PARITY))
    pooled, by_item = got["rubric"] or 0.0, got["rubric:item_mean"] or 0.0
    printed = wanted.get("published", {}).get(
        "creative_writing_score", wanted["rubric_pooled_printed"]
    )
    cause = _named(wanted, "rubric_matches_published", OTHER_JUDGING)
    yield ParityCase(case, "rubric printed", printed, scoring.printed(pooled), cause)
    yield ParityCase(case, "rubric", wanted["rubric_pooled_0_20"], pooled)
    yield ParityCase(case, "item mean", wanted["rubric_item_mean_0_20"], by_item)
    hundred = f"{scoring.out_of_hundred(by_item):.2f}"
    yield ParityCase(case, "item mean x5", wanted["rubric_item_mean_0_100_printed"], hundred)
    same = sum(scoring.parse_scores(r["judge_raw"]) == r["scores"] for r in records)
    stored = wanted["items_where_parsing_judge_raw_gives_the_stored_scores"]
    yield ParityCase(case, "verdicts read as stored", stored, same)


def _texts(
    case: str,
    wanted: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    lists: SlopLists,
) -> Iterator[ParityCase]:
    texts = [record["response"] for record in records]
    length = sum(map(len, texts)) / len(texts)
    yield ParityCase(case, "length", wanted["avg_length_chars"], length)
    if "published" not in wanted:
        return
    printed = wanted["published"]["avg_length"]
    cause = _named(wanted, "length_matches_published", OTHER_TEXTS)
    yield ParityCase(case, "length printed", printed, f"{length:.0f}", cause)
    if "slop_recomputed" in wanted and not why_uncounted():
        yield from _slop(case, wanted, records, lists)


def _named(wanted: Mapping[str, Any], flag: str, cause: str) -> str:
    """The cause of a difference that expected.json itself states."""
    return "" if wanted.get(flag, True) else cause


def _slop(
    case: str,
    wanted: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    lists: SlopLists,
) -> Iterator[ParityCase]:
    """Phrases at the seams of two texts count too, so that the order of the texts matters."""
    orders = wanted["slop_recomputed"]
    by_prompt = not orders["file_order"]["equals_published"]
    if by_prompt:
        records = sorted(records, key=lambda record: int(record["prompt_id"]))
    again = orders["by_prompt" if by_prompt else "file_order"]
    cause = _named(again, "equals_published", OTHER_TEXTS)
    joined = "\n\n".join(record["response"] for record in records)
    counts = count_slop(nltk_tokens(joined.lower(), RELEASE), lists)
    for name, upstream in SLOP_COUNTS.items():
        got = getattr(counts, name)
        yield ParityCase(case, f"slop {name}", wanted["published_counts"][upstream], got, cause)
        yield ParityCase(case, f"slop {name}, upstream's code on these texts", again[upstream], got)
    index = counts.index or 0.0
    yield ParityCase(case, "slop", wanted["published_slop_index"], round(index, 4), cause)
    printed = wanted["published"]["slop_score"]
    yield ParityCase(case, "slop printed", printed, f"{index:.2f}", cause)


def _averages(
    vectors: Iterable[Mapping[str, Any]], samples: Mapping[str, Sample]
) -> Iterator[ParityCase]:
    negative = next(iter(samples.values())).material["facts"]["negative"]
    for number, vector in enumerate(vectors):
        items = [
            scoring.good_values(result["judge_scores"], negative)
            for task in vector["tasks"]
            for result in task["results_by_modifier"].values()
        ]
        mean, result = scoring.item_mean(items) or 0.0, vector["result"]
        yield ParityCase("averages", f"run {number}", result["overall_score"], round(mean, 2))
        hundred = scoring.out_of_hundred(mean)
        yield ParityCase("averages", f"run {number} x5", result["eqbench_creative_score"], hundred)


def _prompts(
    vectors: Iterable[Mapping[str, Any]], samples: Mapping[str, Sample], data: SuiteData
) -> Iterator[ParityCase]:
    templates = utils.load_templates(data)
    for vector in vectors:
        answer = Answer(vector["response"], vector["response"], WriterStatus.OK)
        job = JudgingJob(samples[f"{vector['prompt_id']}-1"], answer, templates, Mode.PARITY)
        got = text_hash(utils.plan_judging(job)[0].messages[0].content)
        figure = f"prompt {vector['prompt_id']}"
        yield ParityCase("judge prompts", figure, vector["sha256"], got)
