"""WritingBench v2: 1,000 queries, five criteria each, one judge call a criterion, scores 1 to 10.

Follows X-PLUG/WritingBench@ae2d517 (evaluate_benchmark.py, prompt.py, calculate_scores.py): same
prompt bytes, same averages. The strict mode replaces the upstream reading of verdicts, which strips
characters and falls back to `eval`, and leaves an item unscored unless all five verdicts are there.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from r2w_eval.data import PromptSource, SuiteData, read_jsonl
from r2w_eval.estimates import as_headline, group_means, mean_of, pooled
from r2w_eval.judge.parsing import read_number_verdict
from r2w_eval.suites import JudgingJob, ParityRules, Suite
from r2w_eval.template import Template
from r2w_eval.types import (
    NO_QUERY,
    Estimate,
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Message,
    Mode,
    Sample,
    Scale,
    Score,
    Stratum,
)

REQUIREMENTS = ("style", "format", "length")
EMPTY_SUBSET = "no scored query: upstream prints 0"
SCALE = Scale(lead='{"score": ', labels={str(k): float(k) for k in range(1, 11)}, end=",")
PROMPTS = (
    PromptSource(
        "v2.system",
        "27ba80325caaf209ad169b616fc7ef203445f93649a85cda9328133489f46cc1",
        ("v2", "system"),
        "prompt.py",
        "evaluate_system",
    ),
    PromptSource(
        "v2.user_template",
        "db50de309a38e922c29bdaf9dae753a84f6141b0d60f35bd5001bf5e17d6f7ef",
        ("v2", "user_template"),
        "prompt.py",
        "evaluate_prompt",
    ),
)


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 1,000 queries in file order; `meta` has the requirement subsets with their criteria."""
    subsets = load_requirement_subsets(data)
    for record in read_jsonl(data.path("benchmark_all.jsonl")):
        index = record["index"]
        yield Sample(
            task="writingbench",
            id=str(index),
            messages=(Message("user", record["query"]),),
            language=record["lang"],
            meta={
                "domain1": record["domain1"],
                "domain2": record["domain2"],
                "criteria": [entry["name"] for entry in record["checklist"]],
                "requirements": {r: subsets[r][index] for r in REQUIREMENTS if index in subsets[r]},
            },
            material={"query": record["query"], "checklist": record["checklist"]},
        )


def load_requirement_subsets(data: SuiteData) -> dict[str, dict[int, list[str]]]:
    """Per requirement: query index -> names of the criteria that count for its C score."""
    if data.find("requirement_subsets.json"):
        index = json.loads(data.path("requirement_subsets.json").read_bytes())["subsets"]
        return {r: {entry["index"]: entry["names"] for entry in index[r]} for r in REQUIREMENTS}
    return {
        r: {
            record["index"]: [entry["name"] for entry in record["checklist"]]
            for record in read_jsonl(data.path(f"{r}_subset_C.jsonl"))
        }
        for r in REQUIREMENTS
    }


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The official v2 prompts."""
    return {source.name: data.template(source) for source in PROMPTS}


def criteria(sample: Sample) -> Sequence[str]:
    """The five criterion names of the query's checklist."""
    names: list[str] = sample.meta["criteria"]
    return names


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """One request per checklist entry; the entry goes in as Python's repr, as upstream's does."""
    system = Message("system", job.templates["v2.system"].text)
    template = job.templates["v2.user_template"]
    return [
        JudgeRequest(
            criterion=entry["name"],
            messages=(
                system,
                Message(
                    "user",
                    template.fill(
                        criteria=repr(entry),
                        query=job.sample.material["query"],
                        response=job.answer.text,
                    ),
                ),
            ),
            scale=SCALE,
        )
        for entry in job.sample.material["checklist"]
    ]


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """Integer 1 to 10 under `score`; prose and fences around the object are allowed."""
    return read_number_verdict(text, "score", 1, 10)


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """Upstream's reading: strip the characters of a json fence from both ends, then `json.loads`.

    >>> parse_parity(None, 'json{"score": 7, "reason": "x"}').value
    7.0
    """
    try:
        verdict = json.loads(text.strip("json|`"))
    except (ValueError, RecursionError):
        return Score(None, JudgeStatus.PARSE_ERROR, "not JSON after upstream's cleaning")
    if not isinstance(verdict, dict) or not {"score", "reason"} <= verdict.keys():
        return Score(None, JudgeStatus.PARSE_ERROR, "no score and reason")
    if verdict["score"] not in range(1, 11) or not isinstance(verdict["reason"], str):
        return Score(None, JudgeStatus.OUT_OF_RANGE, f"score {str(verdict['score'])[:40]!r}")
    return Score(float(verdict["score"]), parts={"reason": verdict["reason"]})


def ask_again(texts: Sequence[str]) -> bool:
    """Upstream asks in up to three rounds of five.

    After a round it calls `eval` on the last text: a Python literal is not accepted and asking
    goes on, anything else ends the script.
    """
    if len(texts) % 5:
        return True
    return len(texts) < 15 and _is_python_literal(texts[-1].strip("json|`"))


def _is_python_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def strip_thinking(raw: str) -> str:
    """Upstream's only spelling of the end of thinking: the first `</think>` and two newlines."""
    return raw.split("</think>\n\n", 1)[-1]


@dataclass(frozen=True, slots=True)
class ScoredQuery:
    """One answer with all the verdicts that count: criterion -> values (one per judge repeat)."""

    item: ItemVerdicts
    values: Mapping[str, Sequence[float]]

    @property
    def pool(self) -> list[float]:
        """All single scores."""
        return [value for own in self.values.values() for value in own]

    @property
    def mean(self) -> float:
        """q(i): mean of the single scores."""
        pool = self.pool
        return sum(pool) / len(pool)


def read_scores(item: ItemVerdicts, mode: Mode) -> ScoredQuery | None:
    """The item's verdicts, or None: strict wants all criteria, parity takes what is there."""
    found = {name: [value for _, value in item.valued(name)] for name in item.scores}
    values = {name: own for name, own in found.items() if own}
    complete = set(item.meta["criteria"]) <= values.keys()
    return ScoredQuery(item, values) if values and (complete or mode is Mode.PARITY) else None


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Averages of calculate_scores.py: pooled overall, domains over query means, R and C a subset.

    A query that occurs twice in a score file counts twice overall and once, the last, elsewhere.
    """
    scored = [query for item in items if (query := read_scores(item, mode))]
    latest = {(query.item.sample_id, query.item.repeat): query for query in scored}
    queries = list(latest.values())
    means = [(query.item, query.mean) for query in queries]
    overall = pooled("overall", [(q.item.sample_id, q.pool) for q in scored], len(items))
    return [
        as_headline(overall),
        replace(overall, name="overall_x10", scale=10.0, note="leaderboard scale"),
        mean_of("overall:query_mean", _means(queries), len(items), note="not upstream"),
        *group_means("language", lambda item: item.language, items, means),
        *group_means("domain1", lambda item: str(item.meta["domain1"]), items, means),
        *group_means("domain2", lambda item: str(item.meta["domain2"]), items, means),
        *(estimate for r in REQUIREMENTS for estimate in _requirement(r, items, queries, mode)),
    ]


def _means(queries: Iterable[ScoredQuery]) -> list[tuple[str, float]]:
    return [(query.item.sample_id, query.mean) for query in queries]


def _requirement(
    name: str, items: Sequence[ItemVerdicts], queries: Sequence[ScoredQuery], mode: Mode
) -> list[Estimate]:
    """R: mean of q over the subset. C: mean over its (query, counted criterion) pairs."""
    subset = [query for query in queries if name in query.item.meta["requirements"]]
    n_expected = sum(name in item.meta["requirements"] for item in items)
    estimates = [
        mean_of(f"{name}/R", _means(subset), n_expected),
        pooled(f"{name}/C", [(q.item.sample_id, _counted(q, name)) for q in subset], n_expected),
    ]
    if not subset and mode is Mode.PARITY:
        zero = Stratum((NO_QUERY,), (0.0,), (1.0,))
        return [replace(estimate, strata=(zero,), note=EMPTY_SUBSET) for estimate in estimates]
    return estimates


def _counted(query: ScoredQuery, requirement: str) -> list[float]:
    """Means of the criteria that count; parity leaves a missing one out (upstream raises
    KeyError).
    """
    names = query.item.meta["requirements"][requirement]
    return [sum(own) / len(own) for name in names if (own := query.values.get(name))]


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    parity=ParityRules(read_answer=strip_thinking, ask_again=ask_again),
)
