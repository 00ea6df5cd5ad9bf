"""ReportBench: do the references of a survey exist in the expert's, and do its citations hold?

Follows ByteDance-BandAI/ReportBench@1826140 (related_work_evaluator.py, statement/). The prompt
that asks whether a page is a paper is ours, because upstream's is part of its code. Statements
without a citation are left out: they need judges that search the web.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from r2w_eval.tasks.reportbench.scoring import aggregate
from r2w_eval.tasks.reportbench.texts import find_references, split_blocks, strip_query, title_key
from r2w_eval.tasks.reportbench.verdicts import parse

from r2w_eval.data import PromptSource, SuiteData, read_jsonl
from r2w_eval.suites import JudgingJob, ParityRules, Suite
from r2w_eval.suites.context import put_in_context
from r2w_eval.template import Template
from r2w_eval.types import JudgeRequest, Message, Mode, Sample
from r2w_eval.web.pages import Page, PageStatus

STAGES = ("cited", "passage")
PAGE_CHARS = 8_000
SOURCE_CHARS = 262_144
HASHES = {
    "PROMPT_EXTRACT_CITATIONS": "6f876693f1308fa73300cca54c96d1ee338ea260811faa8b346616430ea34f99",
    "PROMPT_MATCH_SENTENCE": "9a6041775e59678441eea52b9f58693f343a6b1894b77e294f849ff4168ee59b",
    "PROMPT_VERIFY_ALIGNMENT": "b566939982e282a09d074f66227e727f2a2d0ba418570962f7f55fb198a288bb",
}


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 100 surveys to write; `meta` holds the titles of the expert's references as numbers."""
    wrapper = Template("eval", data.path("eval.txt").read_text("utf-8"))
    titles: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for record in read_jsonl(data.path("ground_truth_titles.jsonl")):
        if (key := title_key(record["title"] or "")) is not None:
            titles[record["arxiv_id"]][key] = None
    for record in read_jsonl(data.path("ReportBench_v1.1.jsonl")):
        prompt = wrapper.fill(prompt=record["prompt"], title=record["title"])
        sample = Sample(
            task="reportbench",
            id=record["arxiv_id"],
            messages=(Message("user", prompt),),
            language="en",
            meta={"references": list(titles[record["arxiv_id"]])},
        )
        yield put_in_context(data, sample)


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """Three official prompts, and our own for pages that may be papers."""
    own = Path(__file__).with_name("reference_user.txt").read_text("utf-8")
    official = (
        PromptSource(name, sha256, (name, "text"), "prompts.py", name)
        for name, sha256 in HASHES.items()
    )
    return {
        **{source.name: data.template(source) for source in official},
        "reference_user": Template("reference_user", own),
    }


def criteria(sample: Sample) -> Sequence[str]:
    """Every report has a first block."""
    return ("cited:0",)


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """Pages that may be papers, cited statements by block, each statement's passage and match."""
    pages = job.pages or {}
    requests = []
    for number, url in enumerate(find_references(job.answer.text)):
        if (page := pages.get(url)) is not None and page.status is PageStatus.OK:
            fields = {"url": url, "page": show_page(page)[:PAGE_CHARS]}
            requests.append(_question(job, f"reference:{number}", "reference_user", **fields))
    for number, block in enumerate(split_blocks(job.answer.text)):
        name = "PROMPT_EXTRACT_CITATIONS"
        requests.append(_question(job, f"cited:{number}", name, report=block))
    for place, (statement, url) in read_statements(job).items():
        if (page := pages.get(url)) is not None and page.status is PageStatus.OK:
            requests += _check_statement(job, place, statement, page)
    return requests


def _check_statement(
    job: JudgingJob, place: str, statement: str, page: Page
) -> Iterable[JudgeRequest]:
    text = show_page(page)[:SOURCE_CHARS]
    fields = {"statement": statement, "source_text": text}
    yield _question(job, f"passage:{place}", "PROMPT_MATCH_SENTENCE", **fields)
    score = job.done.get(f"passage:{place}", (None, ""))[0]
    if score is not None and score.value is not None:
        fields = {"statement": statement, "source_sentence": score.parts["passage"]}
        yield _question(job, f"match:{place}", "PROMPT_VERIFY_ALIGNMENT", **fields)


def read_statements(job: JudgingJob) -> dict[str, tuple[str, str]]:
    """The cited statements known so far, by place (block.number), with their address."""
    found = {}
    for number in range(len(split_blocks(job.answer.text))):
        score = job.done.get(f"cited:{number}", (None, ""))[0]
        if score is not None and score.value is not None:
            for n, (statement, url) in enumerate(json.loads(score.parts["statements"])):
                found[f"{number}.{n}"] = (statement, url)
    return found


def pages(job: JudgingJob) -> list[str]:
    """The addresses of references and statements, each page once."""
    urls = [*find_references(job.answer.text), *(url for _, url in read_statements(job).values())]
    return list({strip_query(url) + url: url for url in urls}.values())


def show_page(page: Page) -> str:
    """Title and text."""
    return f"{page.title}\n\n{page.text}".strip()


def _question(job: JudgingJob, name: str, template: str, **fields: str) -> JudgeRequest:
    return JudgeRequest(name, (Message("user", job.templates[template].fill(**fields)),))


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={mode: partial(parse, mode=mode) for mode in Mode},
    aggregate=aggregate,
    parity=ParityRules(),
    stages=STAGES,
    pages=pages,
)
