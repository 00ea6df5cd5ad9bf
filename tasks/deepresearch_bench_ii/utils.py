"""DeepResearch Bench II: 9,415 binary rubrics on 132 research tasks, 50 to a judge call.

Follows imlrz/DeepResearch-Bench-II@9d365ed (run_evaluation.py, aggregate_scores.py). A rubric is
satisfied (1), not mentioned (0), or supported by a blocked source alone (-1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from r2w_eval.tasks.deepresearch_bench_ii.reading import read_parity, read_strict
from r2w_eval.tasks.deepresearch_bench_ii.scoring import (
    BATCH_SIZE,
    DIMENSIONS,
    aggregate,
    batch_names,
    superseded,
)

from r2w_eval.data import PromptSource, SuiteData, read_jsonl
from r2w_eval.suites import JudgingJob, ParityRules, Suite
from r2w_eval.suites.context import put_in_context
from r2w_eval.template import Template
from r2w_eval.types import JudgeRequest, Message, Mode, Sample, Score

MAX_REPORT_CHARS = 150_000
MAX_TRIES = 10
PROMPT = PromptSource(
    "run_evaluation",
    "2b40577e219d87294e49f9e4ce8e1038556e56d120b871bd1bfd3c327c609a50",
    ("PROMPT_TEMPLATE", "text"),
    "run_evaluation.py",
    "PROMPT_TEMPLATE",
)


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 132 tasks in file order, named by their `idx`, as upstream names report files."""
    for record in read_jsonl(data.path("tasks_and_rubrics.jsonl")):
        content = record["content"]
        lists = [content["rubric"][name] for name in DIMENSIONS]
        rubrics = [text for own in lists for text in own]
        sample = Sample(
            task="deepresearch_bench_ii",
            id=str(record["idx"]),
            messages=(Message("user", record["prompt"]),),
            language=record["language"],
            meta={
                "theme": record["theme"],
                "sizes": list(map(len, lists)),
                "superseded": superseded(rubrics),
            },
            material={
                "prompt": record["prompt"],
                "task": content["task"],
                "rubrics": rubrics,
                "blocked": content.get("blocked", {}),
            },
        )
        yield put_in_context(data, sample)


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The one judge prompt."""
    return {PROMPT.name: data.template(PROMPT)}


def criteria(sample: Sample) -> Sequence[str]:
    """One verdict a batch."""
    return batch_names(sum(sample.meta["sizes"]))


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """All batches at once; the report is cut at 150,000 characters."""
    material, report = job.sample.material, job.answer.text[:MAX_REPORT_CHARS]
    requests = []
    for number, name in enumerate(criteria(job.sample)):
        rubrics = material["rubrics"][number * BATCH_SIZE : (number + 1) * BATCH_SIZE]
        asked = {
            "task": material["task"],
            "rubric_items": rubrics,
            "blocked": material["blocked"],
        }
        text = job.templates[PROMPT.name].fill(
            paper=report, rubric=json.dumps(asked, ensure_ascii=False, indent=2)
        )
        requests.append(JudgeRequest(name, (Message("user", text),), facts={"rubrics": rubrics}))
    return requests


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """Share of satisfied rubrics of a batch; every rubric once, scores 1, 0 or -1."""
    return read_strict(request.facts["rubrics"], text)


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """The same with upstream's checks; scores that are not numbers do not count."""
    return read_parity(request.facts["rubrics"], text)


def ask_again(texts: Sequence[str]) -> bool:
    """Upstream asks up to ten times."""
    return len(texts) < MAX_TRIES


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    parity=ParityRules(ask_again=ask_again),
)
