"""quickstart: 24 prompts of our own in English and Chinese, five criteria each, scores 1 to 10.

A smoke test and a tutorial, shipped with the package; see README.md for what it can and cannot
tell. The score of an answer is the mean of its five verdicts, the score of a run the mean over
answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.estimates import as_headline, group_means, mean_of
from r2w_eval.judge.parsing import read_number_verdict
from r2w_eval.suites import JudgingJob, Suite
from r2w_eval.template import Template
from r2w_eval.types import Estimate, ItemVerdicts, JudgeRequest, Message, Mode, Sample, Scale, Score

SCALE = Scale(lead='{"score": ', labels={str(k): float(k) for k in range(1, 11)}, end=",")
PROMPT_FILES = ("judge_system.txt", "judge_user.txt")


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 24 prompts in file order."""
    for record in read_jsonl(data.path("samples.jsonl")):
        yield Sample(
            task="quickstart",
            id=record["id"],
            messages=(Message("user", record["prompt"]),),
            language=record["language"],
            meta={"genre": record["genre"], "criteria": [c["name"] for c in record["criteria"]]},
            material={"prompt": record["prompt"], "criteria": record["criteria"]},
        )


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """Our judge prompt: two text files beside this one."""
    return {
        name: Template(name, data.path(name).read_text("utf-8").strip()) for name in PROMPT_FILES
    }


def criteria(sample: Sample) -> Sequence[str]:
    """The five criterion names of the prompt."""
    names: list[str] = sample.meta["criteria"]
    return names


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """One request per criterion."""
    system = Message("system", job.templates["judge_system.txt"].fill())
    template = job.templates["judge_user.txt"]
    return [
        JudgeRequest(
            criterion=criterion["name"],
            messages=(
                system,
                Message(
                    "user",
                    template.fill(
                        prompt=job.sample.material["prompt"], answer=job.answer.text, **criterion
                    ),
                ),
            ),
            scale=SCALE,
        )
        for criterion in job.sample.material["criteria"]
    ]


def parse_verdict(request: JudgeRequest, text: str) -> Score:
    """Integer 1 to 10 under `score`."""
    return read_number_verdict(text, "score", 1, 10)


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Mean over answers of the mean over criteria; an answer counts when all criteria have a
    verdict.
    """
    means = {id(item): mean for item in items if (mean := _mean_verdict(item)) is not None}
    scored = [(item, means[id(item)]) for item in items if id(item) in means]
    pairs = [(item.sample_id, mean) for item, mean in scored]
    return [
        as_headline(mean_of("overall", pairs, len(items))),
        *group_means("language", lambda item: item.language, items, scored),
        *group_means("genre", lambda item: str(item.meta["genre"]), items, scored),
    ]


def _mean_verdict(item: ItemVerdicts) -> float | None:
    per_criterion = [[value for _, value in item.valued(name)] for name in item.meta["criteria"]]
    if not all(per_criterion):
        return None
    return sum(sum(values) / len(values) for values in per_criterion) / len(per_criterion)


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_verdict, Mode.PARITY: parse_verdict},
    aggregate=aggregate,
)
