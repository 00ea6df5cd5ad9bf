"""RACE and its variants as suites: prompts, references, and the reading of replies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from r2w_eval.tasks.deepresearch_bench.cleaning import (
    STAGE,
    cleaned_text,
    plan_cleaning,
    read_cleaned,
)
from r2w_eval.tasks.deepresearch_bench.reading import DIMENSIONS, PAIR, read_parity, read_strict
from r2w_eval.tasks.deepresearch_bench.scoring import (
    SINGLE,
    Weighted,
    aggregate,
    compare_score,
    single_score,
    weigh,
)

from r2w_eval.data import PromptSource, SuiteData, read_jsonl
from r2w_eval.errors import DataError
from r2w_eval.judge.parsing import read_number_verdict
from r2w_eval.suites import JudgingJob, ParityRules, Suite
from r2w_eval.suites.context import put_in_context
from r2w_eval.template import Template
from r2w_eval.types import JudgeRequest, Message, Mode, Sample, Score

MAX_TRIES = 10
LANGUAGES = ("en", "zh")
WHERE = (
    "Get data/test_data/cleaned_data/reference.jsonl of github.com/Ayanami0730/deep_research_bench "
    "(100 reports; git blob 2b0f0902 in June 2025, 69dad110 since July 2025). Its hash enters the "
    "score key. To run the tasks of a smaller file alone: --only-complete"
)
CLEAN_SHA256 = {
    "en": "0984d1ba1ec3fb81e50c9a64abb6e12e68a99b37cf8417c61fbc20a0848f5acd",
    "zh": "c3700b865a6dcdb37d92dd0e5ba874d2138341554013e4e0c3a830ce9c5f3650",
}
_CRITERIA_LIST = re.compile(r"<criteria_list>(.*?)</criteria_list>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of asking for scores; `symbol` is the prompt's name upstream, hashes by language."""

    task: str
    symbol: str
    sha256: Mapping[str, str]
    keys: Sequence[str]
    compares: bool = True
    has_criteria: bool = True
    is_static: bool = False


def make_suite(variant: Variant) -> Suite:
    """The suite of a variant."""
    return Suite(
        load_samples=partial(load_samples, variant),
        load_templates=partial(load_templates, variant),
        criteria=lambda sample: (STAGE, "score"),
        plan_judging=partial(plan_judging, variant),
        parse_verdict={
            Mode.STRICT: partial(parse_strict, variant),
            Mode.PARITY: partial(parse_parity, variant),
        },
        aggregate=aggregate,
        parity=ParityRules(ask_again=lambda texts: len(texts) < MAX_TRIES),
        stages=(STAGE,),
    )


def load_samples(variant: Variant, data: SuiteData) -> Iterable[Sample]:
    """The 100 tasks in file order; criteria and references are joined by the prompt's text."""
    criteria = {record["prompt"]: record for record in read_jsonl(data.path("criteria.jsonl"))}
    references = read_references(data) if variant.compares else {}
    for record in read_jsonl(data.path("query.jsonl")):
        prompt = record["prompt"]
        reference = references.get(prompt)
        sample = Sample(
            task=variant.task,
            id=str(record["id"]),
            messages=(Message("user", prompt),),
            language=record["language"],
            meta={"topic": record["topic"]},
            material={
                "prompt": prompt,
                "reference": reference,
                "weights": criteria[prompt]["dimension_weight"],
                "criteria": criteria[prompt]["criterions"],
            },
            lacks="references" if variant.compares and reference is None else "",
        )
        yield put_in_context(data, sample)


def read_references(data: SuiteData) -> dict[str, str]:
    """The reference reports by prompt. Raises DataError."""
    path = data.input("references", WHERE)
    found: dict[str, str] = {}
    for number, record in enumerate(read_jsonl(path), 1):
        own = record if isinstance(record, dict) else {}
        prompt, article = own.get("prompt"), own.get("article")
        if not (isinstance(prompt, str) and isinstance(article, str) and article.strip()):
            raise DataError(f"{path}, record {number}: expected prompt and article. {WHERE}")
        if found.setdefault(prompt, article) != article:
            raise DataError(
                f"{path}, record {number}: another reference for the prompt {prompt[:60]!r}, which "
                f"has one already. Leave one of them in the file"
            )
    return found


def load_templates(variant: Variant, data: SuiteData) -> Mapping[str, Template]:
    """Cleaning and scoring prompts in both languages, named `clean_en`, `score_zh`, …"""
    found = {}
    for language in LANGUAGES:
        clean, symbol = f"clean_article_prompt_{language}", variant.symbol
        file = f"score_prompt_{language}"
        sources = (
            _source(f"clean_{language}", "clean_prompt", clean, CLEAN_SHA256[language]),
            _source(f"score_{language}", file, symbol, variant.sha256[language]),
        )
        found.update({source.name: data.template(source) for source in sources})
    return found


def _source(name: str, module: str, symbol: str, sha256: str) -> PromptSource:
    return PromptSource(name, sha256, (f"{module}.{symbol}", "text"), f"{module}.py", symbol)


def plan_judging(variant: Variant, job: JudgingJob) -> list[JudgeRequest]:
    """Cleaning first; the score of what it returned as soon as there is something."""
    cleaned = cleaned_text(job)
    scoring = [] if cleaned is None else [score_request(variant, job, cleaned)]
    return [*plan_cleaning(job), *scoring]


def score_request(variant: Variant, job: JudgingJob, article: str) -> JudgeRequest:
    """The report as article 1, the reference as article 2, the criteria without their weights."""
    material = job.sample.material
    template = job.templates[f"score_{job.sample.language}"]
    official = static_criteria(template) if variant.is_static else material["criteria"]
    text = template.fill(
        task_prompt=material["prompt"],
        article=article,
        article_1=article,
        article_2=material["reference"] or "",
        criteria_list=format_criteria(official),
    )
    criteria = {
        dimension: {entry["criterion"]: entry["weight"] for entry in entries}
        for dimension, entries in official.items()
    }
    facts = {"weights": material["weights"], "criteria": criteria}
    return JudgeRequest("score", (Message("user", text),), facts=facts)


def format_criteria(criteria: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What the judge sees of them."""
    shown = {
        dimension: [{key: entry[key] for key in ("criterion", "explanation")} for entry in entries]
        for dimension, entries in criteria.items()
    }
    return json.dumps(shown, ensure_ascii=False, indent=2)


def static_criteria(template: Template) -> dict[str, Any]:
    """The fixed criteria with their weights, as they stand in the static prompt."""
    listed = _CRITERIA_LIST.search(template.fill(task_prompt="", article_1="", article_2=""))
    if listed is None:
        raise DataError(f"{template.id}: no criteria list. Try: r2w-eval data verify")
    blocks = re.findall(r"\[.*?\n\]", listed[1], re.DOTALL)
    return dict(zip(DIMENSIONS, map(json.loads, blocks), strict=True))


def parse_strict(variant: Variant, request: JudgeRequest, text: str) -> Score:
    """Every official criterion once, scores 0 to 10; prose and fences around it are allowed."""
    if request.criterion != "score":
        return read_cleaned(request, text, Mode.STRICT)
    if not variant.has_criteria:
        return read_overall(text, variant.keys[0])
    found = read_strict(text, request.facts["criteria"], variant.keys)
    return found if isinstance(found, Score) else _score(variant, found, request.facts)


def parse_parity(variant: Variant, request: JudgeRequest, text: str) -> Score:
    """Upstream's searches; any verdict with the four dimensions counts as far as it goes."""
    if request.criterion != "score":
        return read_cleaned(request, text, Mode.PARITY)
    if not variant.has_criteria:
        return read_overall(text, variant.keys[0])
    found = read_parity(text)
    return found if isinstance(found, Score) else _score(variant, found, request.facts)


def read_overall(text: str, key: str) -> Score:
    """One number for the whole report; upstream ships the prompt and no code that reads replies."""
    score = read_number_verdict(text, key, 0, 10, integer=False)
    return score if score.value is None else Score(score.value / 10)


def _score(variant: Variant, verdict: Mapping[str, Any], facts: Mapping[str, Any]) -> Score:
    weighted = weigh(verdict, facts["weights"], facts["criteria"])
    as_score: Callable[[Weighted], Score] = compare_score if variant.compares else single_score
    return as_score(weighted)


RACE = Variant(
    "deepresearch_bench",
    "generate_merged_score_prompt",
    {
        "en": "29c0dc8365d047b293c6e6dce80c840402003aa5171c47e2a6f19a064ca77a1f",
        "zh": "d324077bbe7218ad1df5c49cf3d0207f66416526c73063be883203d7e80610c4",
    },
    PAIR,
)
STATIC = Variant(
    "deepresearch_bench_static",
    "generate_static_score_prompt",
    {
        "en": "7cba2a36a941de30c020ddf77ec7669d0e7214f559beef1b977c8a4079952581",
        "zh": "c2c4960e079c4ef354624bb87b58bdd06124a282713aa8a03a44bb3a653c7e9b",
    },
    PAIR,
    is_static=True,
)
POINTWISE = Variant(
    "deepresearch_bench_pointwise",
    "point_wise_score_prompt",
    {
        "en": "8087ba60ca7ce30c3f632a4f10309db4a9edeab581b580d46266562f408f9908",
        "zh": "59298761a740bf01df652e2ed2c916ee2726ea8e1209bf2887eb27489e9a4719",
    },
    (SINGLE,),
    compares=False,
)
VANILLA = Variant(
    "deepresearch_bench_vanilla",
    "vanilla_prompt",
    {
        "en": "2793e1d4a475f594ba130690b9b4d951edb81fc1eb9790d409a733fc486188fe",
        "zh": "f7e4cf89ab7e8bb1c1f7666ae5e81d36ebd3a9d9582652524b62a391956958fd",
    },
    ("overall_score",),
    compares=False,
    has_criteria=False,
)
