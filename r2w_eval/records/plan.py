"""What a run is asked to do, as the engine and the aggregation see it, and its live counters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r2w_eval.judge.scorers import Scorer
from r2w_eval.models.chat import ChatRequest, Reply
from r2w_eval.models.cost import Budget
from r2w_eval.models.thinking import SplitText, ThinkTags
from r2w_eval.suites.suite import Suite, SuiteInfo
from r2w_eval.template import Template
from r2w_eval.types import Decoding, Judgement, Mode, Response, Sample
from r2w_eval.web.pages import PageSource, PageStatus

# stands where a judge's name would, in a run that measures texts and asks nobody
NO_JUDGE = "none"

# the reply, and how it was read
Generate = Callable[[Sample, ChatRequest], Awaitable[tuple[Reply, SplitText]]]


@dataclass(frozen=True)
class Writing:
    """The writer's side of a run. `identity` is everything that changes its answers.

    `is_recorded`: the answers exist already, and nothing is asked for a second time.
    """

    model: str
    identity: Mapping[str, Any]
    generate: Generate
    concurrency: int
    seed: int | None = 0
    n_repeats: int = 1
    system_prompt: str | None = None
    tags: ThinkTags = ThinkTags()
    is_recorded: bool = False


@dataclass(frozen=True)
class Judging:
    """The judges of a run, and how often each is asked.

    `reparse` reads the stored texts again and asks nobody. `pages` is where suites that follow
    citations read the web; None without `--pages`.
    """

    scorers: Sequence[Scorer]
    concurrency: int
    n_repeats: int = 1
    reparse: bool = False
    pages: PageSource | None = None


@dataclass(frozen=True)
class TaskPlan:
    """One suite in one run. `samples` may be iterated many times and is never held in memory.

    `inputs` are the hashes of the files that the user supplied to the suite, and where its reports
    came from. `notes` say what was left out of the run; they stand among its warnings.
    """

    info: SuiteInfo
    suite: Suite
    mode: Mode
    templates: Mapping[str, Template]
    samples: Callable[[], Iterable[Sample]]
    decoding: Decoding
    inputs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def asks_alike(self) -> bool:
        """Whether some verdict is known before any reply, and so is the same for all judges. Other
        suites follow a judge's own replies: what it claims to have read, what it let pass.
        """
        first = next(iter(self.samples()), None)
        return first is None or any(map(self.suite.is_verdict, self.suite.criteria(first)))


@dataclass
class Progress:
    """Counters that the display reads twice a second; the engine is their only writer."""

    responses_expected: int = 0
    responses_done: int = 0
    judgements_expected: int = 0
    judgements_done: int = 0
    sent: int = 0
    cached: int = 0
    reused: int = 0
    losses: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    pages: dict[tuple[str, str], dict[str, PageStatus]] = field(default_factory=dict)
    """What became of each address, by task and judge."""
    budget: Budget | None = None

    def counters(self) -> dict[str, Any]:
        """What `--progress-file` holds: the pages only results tell; dollars are None without a
        cap.
        """
        apart = ("pages", "budget")
        return {
            **{name: value for name, value in vars(self).items() if name not in apart},
            "spent_usd": self.budget.spent_usd if self.budget else None,
            "cap_usd": self.budget.cap_usd if self.budget else None,
        }

    def count(self, record: Response | Judgement, *, is_new: bool) -> None:
        """Count one finished record, new or found in the folder."""
        if isinstance(record, Response):
            self.responses_done += 1
            status = str(record.status)
        else:
            self.judgements_done += 1
            status = str(record.score.status)
        if status != "ok":
            self.losses[status] = self.losses.get(status, 0) + 1
        if not is_new:
            self.reused += 1
            return
        self.cached += record.cached
        self.sent += status != "not_sent" and not record.cached
        self.prompt_tokens += record.usage.prompt_tokens or 0
        self.completion_tokens += record.usage.completion_tokens or 0
