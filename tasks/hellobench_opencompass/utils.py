"""HelloBench as OpenCompass judges it: a stricter prompt, and the answer with its layout.

Follows open-compass/opencompass@a5acc4b (configs/datasets/subjective/hellobench/hellobench.py,
datasets/subjective/hellobench.py). Data, weights and averages are `hellobench`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from r2w_eval.tasks.hellobench import utils as hellobench

from r2w_eval.data import PromptSource, SuiteData
from r2w_eval.suites import JudgingJob, ParityRules
from r2w_eval.template import Template
from r2w_eval.types import JudgeRequest, Sample

CONFIG = "opencompass_hellobench.py"
PROMPTS = (
    PromptSource(
        "opencompass.system",
        "1905e07d0db5cd3b67d67e6967e0395dc66c9c670f1321afcf2e1690bfd23f83",
        ("opencompass_variant", "system"),
        CONFIG,
        "system_prompt",
    ),
    PromptSource(
        "opencompass.user_template",
        "1e210411581d733d0249a09006be676fb1ddd37e5e83cc1515e91e7eccfaae9a",
        ("opencompass_variant", "user_template"),
        CONFIG,
        "user_prompt",
    ),
)


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The same 647 instructions."""
    for sample in hellobench.load_samples(data):
        yield replace(sample, task="hellobench_opencompass")


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The prompts of OpenCompass' configuration."""
    return {source.name: data.template(source) for source in PROMPTS}


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """One request. OpenCompass replaces fields literally, so doubled braces stay doubled."""
    fields = {
        "{instruction}": job.sample.messages[0].content,
        "{prediction}": job.answer.text,
        "{formatted_checklists}": hellobench.show_checklist(job.sample),
        "{num_checklist}": str(len(job.sample.material["checklists"])),
    }
    user = job.templates["opencompass.user_template"].replace(**fields)
    return [hellobench.ask_checklist(job, "opencompass.system", user)]


SUITE = replace(
    hellobench.SUITE,
    load_samples=load_samples,
    load_templates=load_templates,
    plan_judging=plan_judging,
    # OpenCompass reads replies as upstream does, but never asks again
    parity=ParityRules(),
)
