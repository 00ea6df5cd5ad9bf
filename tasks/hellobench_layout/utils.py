"""HelloBench with the layout of the answer: the judge sees line ends, lists and headings.

Upstream shows its judge the words of an answer joined by single blanks; all else is `hellobench`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from r2w_eval.tasks.hellobench import utils as hellobench

from r2w_eval.data import SuiteData
from r2w_eval.suites import JudgingJob
from r2w_eval.types import JudgeRequest, Mode, Sample


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The same 647 instructions."""
    for sample in hellobench.load_samples(data):
        yield replace(sample, task="hellobench_layout")


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """The official question with the whole answer, uncut."""
    return [hellobench.ask_helloeval(job, job.answer.text)]


SUITE = replace(
    hellobench.SUITE,
    load_samples=load_samples,
    plan_judging=plan_judging,
    # upstream has no such variant
    parse_verdict={Mode.STRICT: hellobench.parse_strict},
)
