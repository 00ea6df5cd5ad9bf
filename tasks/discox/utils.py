"""DiscoX: 200 long expert translations, Chinese and English; ten judge calls an answer.

Follows ByteDance-Seed/DiscoX@fab1798 (eval/eval_res.py, eval/prompts.py): a gate (is it a
translation at all), four assessments, a critique that finds what was deducted twice, and the four
assessments rewritten. Points are deducted by label. `discox_detailed` shares all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from r2w_eval.tasks.discox.aspects import ASPECTS, CRITIQUE, FIRST, GATE, PROMPT_HASHES
from r2w_eval.tasks.discox.points import aggregate
from r2w_eval.tasks.discox.reading import (
    ask_again,
    decode_as_upstream,
    parse_parity,
    parse_strict,
    settle,
    unfence,
)

from r2w_eval.data import PromptSource, SuiteData
from r2w_eval.judge.extraction import last_list
from r2w_eval.suites import JudgingJob, ParityRules, Suite
from r2w_eval.template import Template
from r2w_eval.types import JudgeRequest, Message, Mode, Sample

CHINESE = re.compile(r"[\u4e00-\u9fff]")


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 200 texts in file order."""
    return read_samples("discox", data.path("DISCOX-filtered.json"))


def read_samples(suite: str, path: Path) -> Iterable[Sample]:
    """One sample a text; the language is that of the translation."""
    for record in json.loads(path.read_bytes()):
        from_chinese = len(CHINESE.findall(record["ori_text"])) > len(record["ori_text"]) / 4
        yield Sample(
            task=suite,
            id=record["prompt_id"],
            messages=(Message("user", record["prompt"]),),
            language="en" if from_chinese else "zh",
            meta={
                "direction": "zh-en" if from_chinese else "en-zh",
                "domain": record["Primary_Domain"],
            },
            material={"source": record["ori_text"], "checkpoints": record["reference_list"]},
        )


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The official prompts, by upstream's names."""
    return {
        name: data.template(PromptSource(name, sha256, (name, "text"), "prompts.py", name))
        for name, sha256 in PROMPT_HASHES.items()
    }


def criteria(sample: Sample) -> Sequence[str]:
    """The gate; all else depends on it."""
    return (GATE,)


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """The next stage that earlier replies allow; a lost reply ends the pipeline."""
    done = job.done
    if any(score.value is None for score, _ in done.values()):
        return []
    stages = (_gate, _assess, _criticise, _rewrite)
    for stage in stages:
        requests = stage(job)
        if any(request.criterion not in done for request in requests):
            return requests
        if stage is _gate and done[GATE][0].value == 0:
            return []
    return []


def _gate(job: JudgingJob) -> list[JudgeRequest]:
    fields = {"prompt": job.sample.material["source"], "response": job.answer.text}
    return [_request(job, GATE, "instruct_sp", "instruct_up", fields)]


def _assess(job: JudgingJob) -> list[JudgeRequest]:
    fields = {
        "ori_text": job.sample.material["source"],
        "response": job.answer.text,
        "checkpoints": job.sample.material["checkpoints"],
    }
    return [
        _request(job, f"{FIRST}:{name}", aspect.first, aspect.first_user, fields)
        for name, aspect in ASPECTS.items()
    ]


def _criticise(job: JudgingJob) -> list[JudgeRequest]:
    fields = {aspect.field: _assessment(job, name) for name, aspect in ASPECTS.items()}
    return [_request(job, CRITIQUE, "self_critique_sp", "self_critique_up", fields)]


def _rewrite(job: JudgingJob) -> list[JudgeRequest]:
    adjustment = unfence(job.done[CRITIQUE][1])
    return [
        _request(
            job,
            name,
            aspect.final,
            aspect.final_user,
            {aspect.field: _assessment(job, name), "adjustment": adjustment},
        )
        for name, aspect in ASPECTS.items()
    ]


def _request(
    job: JudgingJob, criterion: str, system: str, user: str, fields: Mapping[str, str]
) -> JudgeRequest:
    messages = (
        Message("system", job.templates[system].text),
        Message("user", job.templates[user].fill(**fields)),
    )
    return JudgeRequest(criterion, messages)


def _assessment(job: JudgingJob, name: str) -> str:
    """The first list as upstream puts it into a prompt: Python's repr of what was decoded."""
    text = job.done[f"{FIRST}:{name}"][1]
    if job.mode is Mode.STRICT:
        return str(last_list(text) or [])
    try:
        return str(decode_as_upstream(text))
    except ValueError:
        return "[]"


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    parity=ParityRules(ask_again=ask_again, settle=settle),
    stages=(GATE, FIRST, CRITIQUE),
)
