"""haiku: one verdict from 1 to 10 on each text; the score is their mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.judge.parsing import read_number_verdict
from r2w_eval.suites import JudgingJob, Suite
from r2w_eval.template import Template
from r2w_eval.types import Estimate, ItemVerdicts, JudgeRequest, Message, Mode, Sample, Score


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The prompts in file order."""
    for row in read_jsonl(data.path("prompts.jsonl")):
        messages = (Message("user", row["prompt"]),)
        yield Sample("haiku", row["id"], messages, "en", material={"prompt": row["prompt"]})


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The judge prompt beside this file."""
    return {"judge": Template("judge", data.path("judge.txt").read_text("utf-8").strip())}


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """One request."""
    text = job.templates["judge"].fill(prompt=job.sample.material["prompt"], answer=job.answer.text)
    return [JudgeRequest("haiku", (Message("user", text),))]


def parse_verdict(request: JudgeRequest, text: str) -> Score:
    """A whole number from 1 to 10 under `score`."""
    return read_number_verdict(text, "score", 1, 10)


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Mean over the answers that have a verdict; the others are counted, never 0."""
    scored = [
        (item.sample_id, score.value)
        for item in items
        for score in item.scores.get("haiku", ())
        if score.value is not None
    ]
    return [as_headline(mean_of("overall", scored, len(items)))]


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=lambda sample: ["haiku"],
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_verdict, Mode.PARITY: parse_verdict},
    aggregate=aggregate,
)
