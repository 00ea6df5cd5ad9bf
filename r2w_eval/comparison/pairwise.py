"""Pairwise judging of two or more runs: every common answer in both orders, resumable.

A label for each order becomes a margin; the two orders are averaged, so that a verdict that flips
with the order is a tie; a pair with one order lost is unscored. Prompts are our own, or those of a
suite that has a form of its own (specification: harness W1-W4).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

from r2w_eval.config import RunConfig, stored_config
from r2w_eval.errors import UsageError
from r2w_eval.hashing import content_hash
from r2w_eval.judge.parsing import last_object
from r2w_eval.judge.scorers import ScoreItem, Scorer, Verdict
from r2w_eval.run.opening import ModelPool
from r2w_eval.run.planning import plan_tasks
from r2w_eval.run.roles import model_options
from r2w_eval.stats.orders import LABEL_MARGINS, OrderPair
from r2w_eval.store import JsonlWriter, RunFolder, iter_jsonl
from r2w_eval.suites.suite import PairwiseForm
from r2w_eval.template import fence_mark, load_prompt
from r2w_eval.types import Decoding, JudgeRequest, JudgeStatus, Message, Response, Scale, Score
from r2w_eval.waiting import first_leaf

# in which the two answers are shown: as A and B, and as B and A
ORDERS = ("ab", "ba")
JUDGE_DECODING = Decoding(max_tokens=512, temperature=0.0)
# for judges that read probabilities: the expected margin over the five labels
LABELS = Scale(
    lead='{"verdict": "', labels={k: float(v) for k, v in LABEL_MARGINS.items()}, end='"'
)


@dataclass(frozen=True, slots=True)
class Contest:
    """Two answers to one request. `key` identifies texts and models, whatever the run is called."""

    item: str
    first: str
    second: str
    prompt: str
    first_answer: str
    second_answer: str

    @property
    def key(self) -> str:
        """Content hash of everything that is compared."""
        return content_hash(self)

    @property
    def task(self) -> str:
        """The suite of the item."""
        return self.item.partition("/")[0]


@dataclass(frozen=True, slots=True)
class OrderVerdict:
    """One row of pairs.jsonl: one order of one contest."""

    key: str
    item: str
    first: str
    second: str
    order: str
    margin: float | None
    status: str
    reason: str
    asks: tuple[str, ...]


async def judge_runs(
    runs: Sequence[str], judge: str, path: Path, config: RunConfig
) -> tuple[str, list[OrderPair]]:
    """The judge's name and its verdicts on all pairs of answers of two runs or more.

    `config` says how the judge is asked, and what a run folder does not. Raises UsageError.
    """
    folders = _folders_by_model(runs)
    plans = [p for folder in folders.values() for p in plan_tasks(_config_of(folder, config))]
    forms = {plan.info.name: plan.suite.pairwise for plan in plans if plan.suite.pairwise}
    prompts = {
        (plan.info.name, sample.id): prompt
        for plan in plans
        for sample in plan.samples()
        if (prompt := forms.get(plan.info.name, own_form()).prompt_of(sample)) is not None
    }
    n_turns = {plan.info.name: plan.suite.n_turns for plan in plans}
    async with ModelPool(model_options(config, None)) as pool:
        scorer, opened = await pool.scorer(judge, "text")
        concurrency = opened.concurrency if opened else config.max_connections
        contests = find_contests(folders, prompts, n_turns)
        return scorer.id, await judge_contests(contests, scorer, path, concurrency, forms)


def _folders_by_model(runs: Sequence[str]) -> dict[str, RunFolder]:
    folders = [RunFolder.existing(run) for run in runs]
    models = [folder.manifest()["model"] for folder in folders]
    names = [
        m if models.count(m) == 1 else str(f.path) for m, f in zip(models, folders, strict=True)
    ]
    if len(set(names)) < 2:
        raise UsageError("compare needs two different runs or more. Try: r2w-eval compare RUN RUN")
    return dict(zip(names, folders, strict=True))


def _config_of(folder: RunFolder, config: RunConfig) -> RunConfig:
    stored = stored_config(folder.manifest(), str(folder.path), config.include_path)
    return replace(stored, data_dir=config.data_dir or stored.data_dir)


@cache
def own_form() -> PairwiseForm:
    """Our own prompts, for suites without a form of theirs."""
    system, user = load_prompt("pairwise_system"), load_prompt("pairwise_user")

    def build(prompt: str, shown_first: str, shown_second: str) -> JudgeRequest:
        # a mark of its own for each text: questions that show the same text first begin alike
        content = user.fill(
            prompt=prompt,
            first=shown_first,
            second=shown_second,
            mark_first=fence_mark(shown_first),
            mark_second=fence_mark(shown_second),
        )
        messages = (Message("system", system.fill()), Message("user", content))
        return JudgeRequest("preference", messages, scale=LABELS)

    return PairwiseForm((system.id, user.id), JUDGE_DECODING, build, parse_label)


def find_contests(
    runs: Mapping[str, RunFolder],
    prompts: Mapping[tuple[str, str], str],
    n_turns: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[Contest]:
    """Every pair of models on every item that both have answered; `prompts` by (task, sample).

    `n_turns` is the length of a conversation by task, where it is not 1: one that did not come to
    its end has no answer yet.

    Item by item: the questions about one begin alike, for servers that cache prefixes.
    """
    answers = {model: _answers(folder, n_turns) for model, folder in runs.items()}
    common: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for first, second in combinations(sorted(runs), 2):
        places = answers[first].keys() & answers[second].keys() & prompts.keys()
        if not places:
            raise UsageError(f"{first} and {second} have no answered sample in common")
        for place in places:
            common[place].append((first, second))
    for place in sorted(common):
        for first, second in common[place]:
            yield Contest(
                "/".join(place),
                first,
                second,
                prompts[place],
                answers[first][place].answer,
                answers[second][place].answer,
            )


def _answers(folder: RunFolder, n_turns: Mapping[str, int]) -> dict[tuple[str, str], Response]:
    """The first answer (repeat 0) to each sample that has one; the last turn of a conversation."""
    found: dict[tuple[str, str], Response] = {}
    for response in folder.responses():
        is_last = response.turn + 1 >= n_turns.get(response.task, 1)
        if is_last and response.repeat == 0 and response.status.cause is None:
            found[response.task, response.sample_id] = response
    return found


def build_request(contest: Contest, order: str, form: PairwiseForm | None = None) -> JudgeRequest:
    """The judge's prompt; `order` "ab" shows the first model as A, "ba" as B."""
    texts = (contest.first_answer, contest.second_answer)
    shown = texts if order == "ab" else texts[::-1]
    return replace((form or own_form()).build(contest.prompt, *shown), order=order)


def parse_label(request: JudgeRequest, text: str) -> Score:
    """The margin of the side shown as A, from the last JSON object with a verdict.

    >>> parse_label(None, '{"verdict": "B>A"}').value
    -1.0
    """
    found = last_object(text, "verdict")
    if found is None:
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object with the key 'verdict'")
    label = str(found["verdict"]).strip().upper()
    mirrored = {"B=A": "A=B", "A<B": "B>A", "A<<B": "B>>A", "B<A": "A>B", "B<<A": "A>>B"}
    margin = LABEL_MARGINS.get(mirrored.get(label, label))
    if margin is None:
        return Score(None, JudgeStatus.UNKNOWN_LABEL, f"label {label[:40]!r}")
    return Score(float(margin))


async def judge_contests(
    contests: Iterator[Contest],
    judge: Scorer,
    path: Path,
    concurrency: int,
    forms: Mapping[str, PairwiseForm] = MappingProxyType({}),
) -> list[OrderPair]:
    """Ask about every contest in both orders that `path` does not hold yet; append as they come.

    `forms` are those of the suites that have their own, by task. Raises EndpointDown, OSError;
    whatever was answered stays on disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = asyncio.Semaphore(concurrency)
    margins: dict[tuple[str, str, str], dict[str, float | None]] = defaultdict(dict)
    with closing(JsonlWriter(path)) as writer:
        again = {status for status in JudgeStatus if status.is_transient}
        known = {r["key"]: r["margin"] for r in iter_jsonl(path) if r["status"] not in again}

        async def ask(contest: Contest, order: str) -> None:
            form = forms.get(contest.task, own_form())
            facts = [judge.id, judge.describe(), form.prompt_ids, form.decoding.sent()]
            key = content_hash([facts, contest.key, order])
            if key not in known:
                item = ScoreItem(build_request(contest, order, form), form.decoding, form.parse)
                async with limit:
                    (verdict,) = await judge.score([item])
                writer.append(_row(key, contest, order, verdict))
                known[key] = verdict.score.value
            margins[contest.item, contest.first, contest.second][order] = known[key]

        try:
            async with asyncio.TaskGroup() as group:
                for contest in contests:
                    for order in ORDERS:
                        group.create_task(ask(contest, order))
        except ExceptionGroup as errors:
            raise first_leaf(errors) from errors
    return [OrderPair.by_order(*place, found) for place, found in sorted(margins.items())]


def _row(key: str, contest: Contest, order: str, verdict: Verdict) -> OrderVerdict:
    return OrderVerdict(
        key,
        contest.item,
        contest.first,
        contest.second,
        order,
        verdict.score.value,
        str(verdict.score.status),
        verdict.score.reason,
        verdict.asks,
    )
