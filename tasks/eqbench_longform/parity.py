"""EQ-Bench Longform beside its published rows and upstream's functions: score, columns, texts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from r2w_eval.tasks.eqbench_longform import scoring, utils

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.hashing import text_hash
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase, paired, stated, values_of
from r2w_eval.text.measures import why_uncounted
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
OTHER_TEXTS = "the published figure stems from other texts than those at hand (expected.json)"


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """One case a model, one a model with published stories, and upstream's functions."""
    samples = {sample.id: sample for sample in utils.load_samples(data)}
    expected = json.loads((folder / "expected.json").read_bytes())["models"]
    with (folder / "leaderboard_published.csv").open(encoding="utf-8") as file:
        rows = {row["model_name"]: row for row in csv.DictReader(file)}
    files = {p.name.removesuffix(ENDING): p for p in folder.glob(f"items/*{ENDING}")}
    for name, wanted, path in paired(expected, files):
        records = read_jsonl(path)
        items = [read_item(record, samples[record["prompt_id"]]) for record in records]
        row = rows.get(wanted.get("model", name)) or unpublished_row(wanted)
        yield from _scores(name, wanted, row, items)
        if "published" in wanted and not why_uncounted():
            yield from _texts(name, wanted, records, data)
    vectors = json.loads((folder / "vectors.json").read_bytes())
    yield from _parses(vectors["parse"]["vectors"])
    yield from _task_scores(vectors["task_score"]["vectors"], samples)
    yield from _prompts(vectors["prompt"]["vectors"], samples, data)


def unpublished_row(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """What upstream's code makes of a model without a published row, in the form of one."""
    columns = {f"chapter{n}_avg": v for n, v in wanted["chapter_columns_unweighted"].items()}
    if "final_column_unweighted" in wanted:
        columns["final_judgement_avg"] = wanted["final_column_unweighted"]
    printed = {name: f"{value:.2f}" for name, value in columns.items()}
    row: Mapping[str, Any] = stated({"overall_score_100": wanted["score_printed"], **printed})
    return row


def read_item(record: Mapping[str, Any], sample: Sample) -> ItemVerdicts:
    """One story through our parser; a story that was lost has no verdicts."""
    texts = {f"chapter_{number}": text for number, text in record["chapter_judge_raw"].items()}
    texts[utils.FINAL] = record["final_judge_raw_first"]
    scores: dict[str, tuple[Score, ...]] = {}
    for name, text in texts.items():
        if text is not None:
            facts = sample.material["facts"][utils.FINAL if name == utils.FINAL else "chapter"]
            scores[name] = (utils.parse_parity(JudgeRequest(name, (), facts=facts), text),)
    return ItemVerdicts(sample.id, sample.language, sample.meta, WriterStatus.OK, scores)


def _scores(
    case: str,
    wanted: Mapping[str, Any],
    row: Mapping[str, Any],
    items: list[ItemVerdicts],
) -> Iterator[ParityCase]:
    got = values_of(utils.aggregate(items, Mode.PARITY))
    score = (got["score"] or 0.0) / 5
    yield ParityCase(case, "score printed", row["overall_score_100"], scoring.printed(score))
    yield ParityCase(case, "score 0-20", wanted["score_0_20"], score)
    two = scoring.two_decimals(score)
    yield ParityCase(case, "score, 2 decimals", wanted["score_0_100_2dp"], two)
    stories = sum(bool(item.scores) for item in items)
    yield ParityCase(case, "stories", wanted["tasks"], stories)
    for number in range(1, scoring.N_CHAPTERS + 1):
        column = f"{got[f'chapter_{number}']:.2f}"
        yield ParityCase(case, f"chapter {number}", row[f"chapter{number}_avg"], column)
    yield ParityCase(case, "final", row["final_judgement_avg"], f"{got['final']:.2f}")
    for item in items:
        if story := utils.read_story(item, Mode.PARITY):
            task = wanted["per_task_0_20"][item.sample_id]
            yield ParityCase(case, f"story {item.sample_id}", task, story.score(story.weighted))


def _texts(
    case: str, wanted: Mapping[str, Any], records: Iterable[Mapping[str, Any]], data: SuiteData
) -> Iterator[ParityCase]:
    measure = utils.load_measure(data)
    items = []
    for record in records:
        turns = ("",) * utils.FIRST_CHAPTER + tuple(record["chapter_text"].values())
        answer = Answer(turns[-1], turns[-1], WriterStatus.OK, turns)
        measures = measure(answer)
        sample_id = record["prompt_id"]
        items.append(ItemVerdicts(sample_id, "en", {}, WriterStatus.OK, {}, measures=measures))
    got, row = values_of(utils.aggregate(items, Mode.PARITY)), wanted["published"]
    case = f"{case}, texts"
    cause = "" if wanted.get("slop_matches_published", True) else OTHER_TEXTS
    yield ParityCase(case, "slop printed", row["slop_score"], f"{got['slop']:.2f}", cause)
    yield ParityCase(case, "slop", wanted["slop_recomputed"]["slop"], got["slop"])
    yield ParityCase(case, "length printed", row["avg_chapter_length"], f"{got['length']:.0f}")
    cause = "" if wanted.get("repetition_equals_a_published_4dp_value", True) else OTHER_TEXTS
    printed = f"{got['repetition']:.1f}"
    yield ParityCase(case, "repetition printed", row["repetition_score"], printed, cause)
    four, published = f"{got['repetition']:.4f}", wanted.get("published_repetition_4dp")
    yield ParityCase(case, "repetition, 4 decimals", published, four, cause)
    yield ParityCase(case, "repetition", wanted["repetition_recomputed"], got["repetition"])


def _parses(vectors: Iterable[Mapping[str, Any]]) -> Iterator[ParityCase]:
    for number, vector in enumerate(vectors):
        wanted = {name: float(value) for name, value in vector["result"].items()}
        got = scoring.parse_scores(vector["text"])
        yield ParityCase("parser", f"text {number}", wanted, got)


def _task_scores(
    vectors: Iterable[Mapping[str, Any]], samples: Mapping[str, Sample]
) -> Iterator[ParityCase]:
    facts = next(iter(samples.values())).material["facts"]
    chapter, final = (
        scoring.Signs.of(facts[part]["negative"], facts[part]["weights"])
        for part in ("chapter", utils.FINAL)
    )
    for number, vector in enumerate(vectors):
        judged = [scoring.judgement(own, chapter) for own in vector["chapter_scores"].values()]
        chapters = [value for value in judged if value is not None]
        got = scoring.task_score(chapters, scoring.judgement(vector["final_scores"], final))
        yield ParityCase("task score", f"input {number}", vector["task_score_0_20"], got)


def _prompts(
    vectors: Iterable[Mapping[str, Any]], samples: Mapping[str, Sample], data: SuiteData
) -> Iterator[ParityCase]:
    templates = utils.load_templates(data)
    for vector in vectors:
        number = vector["chapter_number"]
        turns = [""] * len(utils.PROMPT_FILES)
        turns[utils.PLAN], turns[utils.PROFILES] = (
            vector["final_plan"],
            vector["character_profiles"],
        )
        turns[utils.FIRST_CHAPTER + number - 1] = vector["chapter_text"]
        answer = Answer("", "", WriterStatus.OK, tuple(turns))
        job = JudgingJob(samples[vector["prompt_id"]], answer, templates, Mode.PARITY)
        content = utils.plan_judging(job)[number - 1].messages[0].content
        figure = f"prompt {vector['prompt_id']}, chapter {number}"
        yield ParityCase("judge prompts", figure, vector["sha256"], text_hash(content))
