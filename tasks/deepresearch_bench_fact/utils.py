"""DeepResearch Bench, FACT: do the pages that a report cites support what it says?

Follows Ayanami0730/deep_research_bench@214741e (utils/: extract, deduplicate, scrape, validate,
stat): facts with their addresses, duplicates of an address removed, its page read, all its facts
judged in one call. Pages come from `--pages`; the judge is told of one that cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from r2w_eval.tasks.deepresearch_bench_fact.verdicts import (
    ask_again,
    parse_parity,
    parse_strict,
    settle,
)

from r2w_eval.data import PromptSource, SuiteData, read_jsonl
from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.suites import JudgingJob, ParityRules, Suite
from r2w_eval.suites.context import put_in_context
from r2w_eval.template import Template
from r2w_eval.types import (
    Estimate,
    ItemVerdicts,
    JudgeRequest,
    Message,
    Mode,
    Sample,
    Score,
    Stratum,
)
from r2w_eval.web.pages import Page, PageStatus

STAGES = ("extract", "deduplicate")
HASHES = {
    "extract.prompt_template": "2b3ce39d315d8f0637601bbe0262887a0f0e2909bd39b7b5e8fb4b3222f56bcd",
    "extract.prompt_template_en": (
        "3f78bbd60b6a78147bed7c51b5f056e2ba990d299c1064318ef63349009e6e8e"
    ),
    "deduplicate.prompt_template": (
        "e12080068b5fe54893ee896cdf3d9efe8a0fb221a725d3551f8c8c6b3ed4509c"
    ),
    "deduplicate.prompt_template_en": (
        "7c7965e51c48189f49267b6681efce5dcd6f4638cb331a2e63b937d317c2e93b"
    ),
    "validate.prompt_template": "81358173e19cdee1f560e1445048d800d6d455616782f14574eb4dc0920307d4",
    "validate.prompt_template_en": (
        "3d8f531bbad26b004faf2284ccd58ce561bf827d117cae3d2475c9a61e5cb71c"
    ),
}


@dataclass(frozen=True, slots=True)
class Citation:
    """An address and the statements of the report that cite it, in order."""

    number: int
    url: str
    facts: tuple[str, ...]


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 100 tasks in file order; `--context` puts a text into the prompt."""
    for record in read_jsonl(data.path("query.jsonl")):
        sample = Sample(
            task="deepresearch_bench_fact",
            id=str(record["id"]),
            messages=(Message("user", record["prompt"]),),
            language=record["language"],
            meta={"topic": record["topic"]},
        )
        yield put_in_context(data, sample)


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The three official prompts in both languages."""
    return {name: data.template(_source(name, sha256)) for name, sha256 in HASHES.items()}


def _source(name: str, sha256: str) -> PromptSource:
    module, _, symbol = name.partition(".")
    return PromptSource(name, sha256, (name, "text"), f"{module}.py", symbol)


def criteria(sample: Sample) -> Sequence[str]:
    """What is known before the report is read: its facts must be extracted."""
    return ("extract",)


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """Extract; then one deduplication for each address with several facts; then the validations."""
    cited = read_citations(job)
    requests = [_question(job, "extract", {}, report_text=job.answer.text)]
    for citation in cited:
        numbered = _number(citation.facts)
        if len(citation.facts) > 1:
            name = f"deduplicate:{citation.number}"
            facts = {"n": len(citation.facts)}
            requests.append(_question(job, name, facts, statements=numbered))
        kept = _kept(job, citation)
        page = (job.pages or {}).get(citation.url)
        if kept and page is not None:
            name, facts = f"validate:{citation.number}", {"n": len(kept)}
            fields = {"reference": show_page(page), "statements": _number(kept)}
            requests.append(_question(job, name, facts, **fields))
    return requests


def pages(job: JudgingJob) -> list[str]:
    """The cited addresses, once they are known."""
    return [citation.url for citation in read_citations(job)]


def read_citations(job: JudgingJob) -> list[Citation]:
    """The extracted facts by exact address, in order of first appearance; [] before extraction."""
    score = job.done["extract"][0] if "extract" in job.done else None
    if score is None or score.value is None:
        return []
    groups: dict[str, list[str]] = {}
    for fact, url in json.loads(score.parts["facts"]):
        groups.setdefault(url, []).append(fact)
    return [Citation(n, url, tuple(facts)) for n, (url, facts) in enumerate(groups.items())]


def _kept(job: JudgingJob, citation: Citation) -> tuple[str, ...]:
    """The facts to validate; none as long as the duplicates are unknown."""
    if len(citation.facts) == 1:
        return citation.facts
    score = job.done.get(f"deduplicate:{citation.number}", (None, ""))[0]
    if score is None or score.value is None:
        return ()
    return tuple(citation.facts[index - 1] for index in score.parts["kept"])


def _number(facts: Sequence[str]) -> str:
    return "\n".join(f"{n}. {fact}" for n, fact in enumerate(facts, 1))


def show_page(page: Page) -> str:
    """What upstream shows the judge of a page, or of one that could not be read."""
    if page.status is PageStatus.OK:
        return f"{page.title}\n\n{page.description}\n\n{page.text}"
    return f"scrape failed: {page.status}"


def _question(job: JudgingJob, name: str, facts: Mapping[str, int], **fields: str) -> JudgeRequest:
    suffix = "" if job.sample.language == "zh" else "_en"
    template = job.templates[f"{name.partition(':')[0]}.prompt_template{suffix}"]
    return JudgeRequest(name, (Message("user", template.fill(**fields)),), facts=facts)


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """Counts of one report; `judged` citations have a result other than unknown."""

    item: ItemVerdicts
    has_citations: bool
    judged: int
    supported: int
    unknown: int
    at_floor: bool = False


def read_report(item: ItemVerdicts, mode: Mode) -> CheckedReport | None:
    """The counts of a report by the judge's last repeat; None when it is not scored.

    Upstream leaves an address without a readable validation out; strict leaves the report out.
    """
    if item.at_floor:
        return CheckedReport(item, False, 0, 0, 0, at_floor=True)
    last = len(item.scores.get("extract", ())) - 1
    extracted = _at(item, "extract", last)
    if extracted is None or extracted.value is None:
        return None
    sizes = extracted.parts.get("groups", [])
    found = [_at(item, f"validate:{n}", last) for n in range(len(sizes))]
    kept = [_at(item, f"deduplicate:{n}", last) for n, size in enumerate(sizes) if size > 1]
    if any(score is None or score.value is None for score in kept):
        return None
    valid = [score for score in found if score is not None and score.value is not None]
    if len(valid) < len(found) and mode is Mode.STRICT:
        return None
    sums = (
        sum(score.parts[name] for score in valid) for name in ("judged", "supported", "unknown")
    )
    return CheckedReport(item, bool(sizes), *sums)


def _at(item: ItemVerdicts, name: str, repeat: int) -> Score | None:
    """The score of one repeat; each repeat numbers its own citations."""
    scores = item.scores.get(name, ())
    return scores[repeat] if 0 <= repeat < len(scores) else None


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Citation accuracy (micro, as upstream's code has it) and citations per report."""
    reports = [found for item in items if (found := read_report(item, mode))]
    citing = [report for report in reports if report.has_citations]
    rated = [r for r in citing if r.judged]
    rates = [(r.item.sample_id, r.supported / r.judged) for r in rated]
    note = "mean of the reports' own rates, as the paper words it"
    failed = [report for report in reports if report.at_floor]
    accuracy = Estimate("valid_rate", (_ratio(rated, failed),), len(items))
    return [
        as_headline(accuracy),
        mean_of("valid_rate:macro", rates, len(items), note=note),
        *_per_report(citing, len(items), "", "over reports with citations"),
        *_per_report(reports, len(items), ":all_reports", "over all reports"),
        *_by_language(rated, items),
        _unreadable_share(citing, len(items)),
    ]


def _ratio(rated: Sequence[CheckedReport], failed: Sequence[CheckedReport] = ()) -> Stratum:
    """Supported over judged citations, pooled over the reports.

    A failed report counts as an average number of citations, none of them supported.
    """
    mean = sum(r.judged for r in rated) / len(rated) if rated else 1.0
    return Stratum(
        tuple(r.item.sample_id for r in (*rated, *failed)),
        (*(float(r.supported) for r in rated), *(0.0 for _ in failed)),
        (*(float(r.judged) for r in rated), *(mean for _ in failed)),
    )


def _per_report(
    reports: Sequence[CheckedReport], n_expected: int, suffix: str, note: str
) -> Iterable[Estimate]:
    for name in ("total_citations", "total_valid_citations"):
        counts = [
            (r.item.sample_id, float(r.judged if name == "total_citations" else r.supported))
            for r in reports
        ]
        estimate = mean_of(f"{name}{suffix}", counts, n_expected, note=note)
        yield replace(estimate, bounded=False)


def _by_language(
    reports: Sequence[CheckedReport], items: Sequence[ItemVerdicts]
) -> Iterable[Estimate]:
    for language in dict.fromkeys(item.language for item in items):
        own = [report for report in reports if report.item.language == language]
        n_expected = sum(item.language == language for item in items)
        yield Estimate(f"valid_rate/{language}", (_ratio(own),), n_expected)


def _unreadable_share(reports: Sequence[CheckedReport], n_expected: int) -> Estimate:
    """Citations that could not be judged, most of them because the page could not be read."""
    stratum = Stratum(
        tuple(r.item.sample_id for r in reports),
        tuple(float(r.unknown) for r in reports),
        tuple(float(r.unknown + r.judged) for r in reports),
    )
    return Estimate("unknown_share", (stratum,), n_expected, note="pages without content")


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    parity=ParityRules(ask_again=ask_again, settle=settle, asked_once=("extract",)),
    stages=STAGES,
    pages=pages,
)
