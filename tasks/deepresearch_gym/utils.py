"""DeepResearchGym: key point recall, quality and citations of reports on 1,000 research questions.

Follows cxcscmu/deepresearch_benchmarking@d5fa708 (eval_kpr_async.py, eval_quality_async.py): one
call a key point and one a quality criterion. Upstream relies on structured output; here labels and
ranges are checked in any case.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from r2w_eval.tasks.deepresearch_gym import questions
from r2w_eval.tasks.deepresearch_gym.citations import STAGES, names_a_source
from r2w_eval.tasks.deepresearch_gym.schemas import reply_schema
from r2w_eval.tasks.deepresearch_gym.scoring import CRITERIA, aggregate

from r2w_eval.data import PromptSource, SuiteData, read_jsonl, read_python_value
from r2w_eval.errors import DataError
from r2w_eval.hashing import text_hash
from r2w_eval.judge.extraction import parse_json
from r2w_eval.judge.parsing import last_object, read_number_verdict
from r2w_eval.suites import JudgingJob, ParityRules, Suite
from r2w_eval.suites.context import put_in_context
from r2w_eval.template import Template
from r2w_eval.types import (
    Answer,
    JudgeRequest,
    JudgeStatus,
    Message,
    Mode,
    Sample,
    Scale,
    Score,
)

SYSTEM = Message("system", "You are a helpful assistant.")
LABELS = {"Supported": 1.0, "Omitted": 0.0, "Contradicted": 0.0}
POINT_SCALE = Scale(lead='{"label": "', labels=LABELS, end='"')
RATING_SCALE = Scale(lead='{"rating": ', labels={str(k): k / 10 for k in range(11)}, end=",")
CRITERIA_SHA256 = "759fa2d879945d393494183f531a68ea0d889511d1eac46d0f3feaddf87df1a5"
PROMPTS = (
    PromptSource(
        "eval_kpr",
        "ac68f7dc8a591cd3025734316c565196b9bc15bfe4088faf5c7389b5baa23854",
        ("eval_kpr_async.create_prompt", "text"),
        "eval_kpr_async.py",
        "create_prompt",
    ),
    PromptSource(
        "eval_quality",
        "4a57bb2cec843256aca2df00534b81cdeaac1543407c5717f17fc926bcab0fe2",
        ("eval_quality_async.create_prompt", "text"),
        "eval_quality_async.py",
        "create_prompt",
    ),
)


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 1,000 queries in file order with their key points (24 have none)."""
    points = {
        record["id"]: {p["point_number"]: p["point_content"] for p in record["key_points"]}
        for record in read_jsonl(data.path("key_points_aggregated.jsonl"))
    }
    for record in read_jsonl(data.path("queries.jsonl")):
        query, own = record["query"].strip(), points[record["id"]]
        sample = Sample(
            task="deepresearch_gym",
            id=record["id"],
            messages=(Message("user", query),),
            language="en",
            meta={"points": list(own), "quality": list(CRITERIA)},
            material={"query": query, "points": own},
        )
        yield put_in_context(data, sample)


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The official prompts, and under its name what each quality criterion asks for."""
    found = _read_criteria(data)
    if text_hash(json.dumps(found, ensure_ascii=False)) != CRITERIA_SHA256:
        raise DataError(
            "EVAL_CRITERIA of deepresearch_gym is not the pinned list. "
            "Try: r2w-eval data verify deepresearch_gym"
        )
    return {
        **{source.name: data.template(source) for source in PROMPTS + questions.PROMPTS},
        **{entry["name"]: Template(entry["name"], entry["description"]) for entry in found},
    }


def _read_criteria(data: SuiteData) -> list[dict[str, str]]:
    if data.find("prompts.json"):
        prompts = json.loads(data.path("prompts.json").read_bytes())
        prepared: list[dict[str, str]] = prompts["eval_quality_async.EVAL_CRITERIA"]["criteria"]
        return prepared
    expression = read_python_value(data.path("eval_quality_async.py"), "EVAL_CRITERIA")
    found: list[dict[str, str]] = [] if expression is None else ast.literal_eval(expression)
    return found


def criteria(sample: Sample) -> Sequence[str]:
    """One verdict a key point, one a quality criterion."""
    return [
        *(f"point:{number}" for number in sample.meta["points"]),
        *(f"quality:{name}" for name in sample.meta["quality"]),
    ]


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """Points and criteria at once; citations step by step, where the run may read pages."""
    report = job.answer.text.strip()
    material = job.sample.material
    return [
        *(
            _point_request(job.templates["eval_kpr"], number, content, report)
            for number, content in material["points"].items()
        ),
        *(
            _quality_request(job.templates, name, material["query"], report)
            for name in job.sample.meta["quality"]
        ),
        *questions.plan_citations(job, SYSTEM),
    ]


def _point_request(template: Template, number: int, content: str, report: str) -> JudgeRequest:
    text = template.replace(**{"<<key_point>>": content, "<<answer>>": report})
    return JudgeRequest(f"point:{number}", (SYSTEM, Message("user", text)), POINT_SCALE)


def _quality_request(
    templates: Mapping[str, Template], name: str, query: str, report: str
) -> JudgeRequest:
    fields = {
        "<<criterion['name']>>": name,
        "<<criterion['description']>>": templates[name].text,
        "<<question>>": query,
        "<<answer>>": report,
    }
    text = templates["eval_quality"].replace(**fields)
    return JudgeRequest(f"quality:{name}", (SYSTEM, Message("user", text)), RATING_SCALE)


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """The last JSON object with a label or a rating; prose and fences around it are allowed."""
    if is_about_citations(request):
        return questions.read_verdict(request, text, Mode.STRICT)
    if request.criterion.startswith("quality:"):
        score = read_number_verdict(text, "rating", 0, 10)
        return score if score.value is None else replace(score, value=score.value / 10)
    found = last_object(text, "label")
    if found is None:
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object with the key 'label'")
    return _read_label(found["label"])


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """The whole text as one JSON object of the schema that upstream's endpoint enforces."""
    if is_about_citations(request):
        return questions.read_verdict(request, text, Mode.PARITY)
    found = parse_json(text)
    if not isinstance(found, dict) or not isinstance(found.get("justification"), str):
        return Score(None, JudgeStatus.PARSE_ERROR, "not an object with a justification")
    if request.criterion.startswith("point:"):
        return _read_label(found.get("label"))
    rating = found.get("rating")
    if isinstance(rating, bool) or not isinstance(rating, int) or not 0 <= rating <= 10:
        return Score(None, JudgeStatus.OUT_OF_RANGE, f"rating {str(rating)[:40]!r}")
    return Score(rating / 10)


def is_about_citations(request: JudgeRequest) -> bool:
    """Whether a question is one of `questions`."""
    return not request.criterion.startswith(("point:", "quality:"))


def measure(answer: Answer) -> Mapping[str, bool]:
    """Whether there is any citation to judge."""
    return {"names_a_source": names_a_source(answer.text)}


def _read_label(label: object) -> Score:
    if not isinstance(label, str) or label not in LABELS:
        wanted = ", ".join(LABELS)
        reason = f"label {str(label)[:40]!r}, not one of {wanted}"
        return Score(None, JudgeStatus.UNKNOWN_LABEL, reason)
    contradicted = float(label == "Contradicted")
    return Score(LABELS[label], parts={"label": label, "contradicted": contradicted})


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    parity=ParityRules(read_answer=str.strip, settle=questions.settle),
    stages=STAGES,
    measure=measure,
    pages=questions.pages,
    reply_schema=reply_schema,
)
