"""Suites: what a task folder holds, and how it is found and loaded. No lm-eval needed.

A folder `tasks/<name>/` has `<name>.yaml` (an lm-eval task, with our facts under `metadata`) and
`utils.py`, whose `SUITE` names the suite's pure functions. Adding a folder adds a suite; nothing is
registered anywhere else.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import yaml

from r2w_eval.data import DataFile, SuiteData
from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.paths import tasks_dir
from r2w_eval.template import Template
from r2w_eval.types import (
    Answer,
    Decoding,
    Estimate,
    ItemVerdicts,
    JudgeRequest,
    Mode,
    Sample,
    Score,
)
from r2w_eval.web.pages import Page


@dataclass(frozen=True)
class JudgingJob:
    """What a suite needs to say which verdicts one answer still owes.

    `done` holds the verdicts that exist, with the judge's last text (without its thinking), by
    criterion: a suite whose later questions depend on earlier verdicts plans them step by step.
    `pages` holds the web pages that `Suite.pages` asked for, readable or not; None when the run has
    no access to pages.
    """

    sample: Sample
    answer: Answer
    templates: Mapping[str, Template]
    mode: Mode
    done: Mapping[str, tuple[Score, str]] = field(default_factory=dict)
    pages: Mapping[str, Page] | None = None


def _ask_once(texts: Sequence[str]) -> bool:
    return False


def _keep(text: str) -> str:
    return text


@dataclass(frozen=True)
class ParityRules:
    """Upstream habits that differ from ours; they hold in parity mode only.

    `read_answer` takes the raw text to what upstream judges. `ask_again` is told all unreadable
    replies so far and says whether upstream would ask once more. `settle` gives what upstream
    makes of a question whose replies, all of them given, stayed unreadable; where it gives None,
    and without it, the reading of the last one stands. Questions whose criterion, up to a colon, is
    in `asked_once` are never repeated.
    """

    read_answer: Callable[[str], str] = _keep
    ask_again: Callable[[Sequence[str]], bool] = _ask_once
    settle: Callable[[JudgeRequest, Sequence[str]], Score | None] | None = None
    asked_once: Collection[str] = ()

    def asks_again(self, request: JudgeRequest, texts: Sequence[str]) -> bool:
        """Whether upstream would put this question once more after these replies."""
        stage = request.criterion.partition(":")[0]
        return stage not in self.asked_once and self.ask_again(texts)


@dataclass(frozen=True, slots=True)
class TurnRule:
    """How long an answer must be (characters) for the conversation to go on.

    One under `wanted_chars` is asked for again, up to `tries` times in all; the last of them passes
    from `accepted_chars` on, or the item is lost as `too_short`.
    """

    tries: int = 1
    wanted_chars: int = 0
    accepted_chars: int = 0

    def is_short(self, answer: str, attempt: int) -> bool:
        """Whether the answer of this try (counted from 0) is too short.

        >>> rule = TurnRule(tries=2, wanted_chars=3, accepted_chars=2)
        >>> [rule.is_short("ab", attempt) for attempt in (0, 1)]
        [True, False]
        """
        is_last = attempt + 1 >= self.tries
        return len(answer) < (self.accepted_chars if is_last else self.wanted_chars)


def query_of(item: ItemVerdicts) -> str:
    """What an interval draws: the sample."""
    return item.sample_id


def show_last_turn(sample: Sample) -> str | None:
    """The request that two answers are compared under: the last user turn."""
    return sample.messages[-1].content


@dataclass(frozen=True)
class PairwiseForm:
    """How a judge compares two answers: the prompts' ids, sampling, question and reading.

    `build(prompt, shown_first, shown_second)` makes the question; `parse` gives the margin of the
    answer shown first, positive when it is better. `prompt_of(sample)` is None for a sample that is
    left out of comparisons.
    """

    prompt_ids: tuple[str, ...]
    decoding: Decoding
    build: Callable[[str, str, str], JudgeRequest]
    parse: Callable[[JudgeRequest, str], Score]
    prompt_of: Callable[[Sample], str | None] = show_last_turn


@dataclass(frozen=True)
class Suite:
    """The pure functions of one suite.

    `criteria(sample)` lists the verdicts that an item needs; `plan_judging` may ask for more on the
    way. `aggregate` gets one entry per answer (all of them, whatever became of it) and marks one
    estimate as the headline; its clusters are those that `query_of(item)` names. `next_turn(sample,
    answers)` gives the next user turn of a conversation, or None at its end; without it a suite has
    one turn. `n_turns` is the length of a whole conversation where it is the same for all: one with
    fewer turns is not finished. A conversation that broke off is judged in no mode. `turn_rule`
    holds for every turn. `measure(answer)` gives what the texts tell without a judge (lengths,
    counts: JSON-serialisable, no texts), for `aggregate`; `load_measure(data)` makes it where it
    needs data files (word lists). `load_pairwise(data)` makes the suite's own form of comparing two
    answers; without it ours is used.
    `stages` names the criteria, up to a colon, whose replies are material for later questions and
    no verdicts: `extract:2` belongs to the stage `extract`. A suite without stages whose first
    questions cover all of `criteria` is asked for no more.
    `reply_schema(request)` gives the JSON schema that upstream sends for a reply, as the value of
    `response_format.json_schema` of a request; sent unless the user leaves `response_format` out.
    `orders` gives criteria that ask one question in different orders of showing the name of that
    question, so that verdicts which turn with the order are counted.
    """

    load_samples: Callable[[SuiteData], Iterable[Sample]]
    load_templates: Callable[[SuiteData], Mapping[str, Template]]
    criteria: Callable[[Sample], Sequence[str]]
    plan_judging: Callable[[JudgingJob], Sequence[JudgeRequest]]
    parse_verdict: Mapping[Mode, Callable[[JudgeRequest, str], Score]]
    aggregate: Callable[[Sequence[ItemVerdicts], Mode], Sequence[Estimate]]
    parity: ParityRules = ParityRules()
    next_turn: Callable[[Sample, Sequence[str]], str | None] | None = None
    n_turns: int = 1
    turn_rule: TurnRule = TurnRule()
    measure: Callable[[Answer], Mapping[str, Any]] | None = None
    pages: Callable[[JudgingJob], Iterable[str]] | None = None
    load_measure: Callable[[SuiteData], Callable[[Answer], Mapping[str, Any]]] | None = None
    load_pairwise: Callable[[SuiteData], PairwiseForm] | None = None
    pairwise: PairwiseForm | None = None
    stages: Collection[str] = ()
    orders: Mapping[str, str] = field(default_factory=dict)
    reply_schema: Callable[[JudgeRequest], Mapping[str, Any]] | None = None
    query_of: Callable[[ItemVerdicts], str] = query_of

    def bind(self, data: SuiteData) -> Suite:
        """The suite with what its data files add to it. Raises DataError."""
        measure = self.load_measure(data) if self.load_measure else self.measure
        pairwise = self.load_pairwise(data) if self.load_pairwise else self.pairwise
        return replace(self, measure=measure, pairwise=pairwise)

    @property
    def asks_again(self) -> bool:
        """Whether one answer may take several requests to the writer: turns, or further tries."""
        return self.next_turn is not None or self.turn_rule.tries > 1

    def decoding_for(self, request: JudgeRequest, usual: Decoding) -> Decoding:
        """The judge's sampling for one question: the usual one with the question's own schema."""
        if self.reply_schema is None or not usual.response_format:
            return usual
        schema = json.dumps(self.reply_schema(request), sort_keys=True)
        return replace(usual, response_format=schema)

    def is_verdict(self, criterion: str) -> bool:
        """Whether the value of this question is on the suite's scale."""
        return criterion.partition(":")[0] not in self.stages


@dataclass(frozen=True)
class SuiteInfo:
    """What the YAML says: enough to list, plan and identify a suite without loading its code.

    `pages` says whether it reads the web: "", "optional" (some metrics do) or "required".
    `measures` says what is scored, in half a line.
    `category` names the entry of `Sample.meta` that --shuffle draws in proportion over.
    """

    name: str
    folder: Path
    version: str
    title: str
    measures: str
    source: str
    licence: str
    languages: tuple[str, ...]
    n_samples: int
    judge_calls_per_sample: float
    published_judge: str
    score_range: tuple[float, float]
    decoding: Decoding
    judge_decoding: Decoding
    data_folder: str
    files: Mapping[str, DataFile]
    inputs: tuple[str, ...] = ()
    required_inputs: tuple[str, ...] = ()
    pages: str = ""
    category: str = ""

    @property
    def asks_judges(self) -> bool:
        """Whether any judge is asked; tasks of lm-eval are scored by their own metrics."""
        return self.judge_calls_per_sample > 0

    def data(
        self, roots: tuple[Path, ...], inputs: Mapping[str, Path] = MappingProxyType({})
    ) -> SuiteData:
        """The suite's data files; a suite that ships its own data reads it from its folder.

        `inputs` are files that the user supplies; the suite sees those that its YAML names.
        """
        own = {name: path for name, path in inputs.items() if name in self.inputs}
        return SuiteData(self.data_folder, self.files, (self.folder.parent, *roots), own)


_BROKEN = (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError)


class _TaskLoader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML that reads lm-eval's `!function` tags as plain strings."""


_TaskLoader.add_constructor("!function", lambda loader, node: str(node.value))


def suite_folders(root: Path | None = None) -> dict[str, Path]:
    """Folders with a task YAML of their own name, by name."""
    folder = root or tasks_dir()
    return {
        path.parent.name: path.parent
        for path in sorted(folder.glob("*/*.yaml"))
        if path.stem == path.parent.name
    }


def suites_with_cases() -> list[str]:
    """Names of the suites that state parity cases (`parity.py`)."""
    return [name for name, folder in suite_folders().items() if (folder / "parity.py").is_file()]


def load_info(name: str, root: Path | None = None) -> SuiteInfo:
    """Read and validate `<name>.yaml`. Raises UnknownName, UsageError."""
    folders = suite_folders(root)
    if name not in folders:
        raise UnknownName("--tasks", name, "suite", folders, "r2w-eval list")
    path = folders[name] / f"{name}.yaml"
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)
        return _read_info(name, folders[name], config)
    except _BROKEN as error:
        told = f"{type(error).__name__}: {error}"
        if isinstance(error, KeyError):
            told = f"the key {error} is missing"
        raise UsageError(
            f"{path}: broken task file ({told}). Compare it with "
            f"{tasks_dir() / 'quickstart' / 'quickstart.yaml'}, which has every key"
        ) from error


def _read_info(name: str, folder: Path, config: Mapping[str, Any]) -> SuiteInfo:
    meta = config["metadata"]
    judge = meta["judge"]
    generation = config["generation_kwargs"]
    low, high = meta["score_range"]
    return SuiteInfo(
        name=name,
        folder=folder,
        version=str(meta["version"]),
        title=meta["title"],
        measures=str(meta.get("measures", "")),
        source=meta["source"],
        licence=meta["licence"],
        languages=tuple(meta["languages"]),
        n_samples=int(meta["n_samples"]),
        judge_calls_per_sample=float(judge["calls_per_sample"]),
        published_judge=judge["published"],
        score_range=(float(low), float(high)),
        decoding=_read_decoding(generation),
        judge_decoding=_read_decoding(judge["decoding"]),
        data_folder=meta.get("data_folder", name),
        files={file["name"]: DataFile(**file) for file in meta.get("files", ())},
        inputs=tuple(meta.get("inputs", ())),
        required_inputs=tuple(meta.get("required_inputs", ())),
        pages=str(meta.get("pages", "")),
        category=str(meta.get("category", "")),
    )


def _read_decoding(values: Mapping[str, Any]) -> Decoding:
    # lm-eval's own names: max_gen_toks, and do_sample, which a temperature above 0 implies
    names = {"max_gen_toks": "max_tokens"}
    return Decoding(
        **{names.get(k, k): v for k, v in values.items() if k not in ("until", "do_sample")}
    )


@cache
def load_suite(folder: Path) -> Suite:
    """Load `utils.py` of a task folder by path and return its `SUITE`. Raises UsageError."""
    module = load_module(folder / "utils.py", f"r2w_eval.tasks.{folder.name}.utils")
    suite = module.__dict__.get("SUITE")
    if not isinstance(suite, Suite):
        raise UsageError(f"{folder / 'utils.py'}: no SUITE = Suite(...). See tasks/README.md")
    return suite


def load_module(path: Path, name: str) -> ModuleType:
    """Import one Python file under a given name. Raises UsageError when it is not there."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"{path}: no such file. See tasks/README.md for what a suite needs")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
