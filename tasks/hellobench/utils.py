"""HelloBench: 647 long-form tasks, one judge call for a whole checklist, five levels 0 to 1.

Follows Quehry/HelloBench@d403282 (llm_judge.py, results/scripts/compute.py): same prompt bytes,
same weights, same averages. Upstream judges the words of the answer joined by single blanks.
`hellobench_length` shares all of it.
"""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2w_eval.data import PromptSource, SuiteData, read_jsonl
from r2w_eval.errors import DataError
from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.judge.extraction import last_list, parse_json
from r2w_eval.suites import JudgingJob, ParityRules, Suite
from r2w_eval.template import Template
from r2w_eval.text.tokenise import Release, nltk_tokens
from r2w_eval.types import (
    Answer,
    Estimate,
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Message,
    Mode,
    Sample,
    Score,
)

TASKS = ("open_ended_qa", "summarization", "chat", "text_completion", "heuristic_text_generation")
NLTK_RELEASE: Release = "3.10.4"
CHECKLIST = "checklist"
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
# An answer of more than `LONG` tokens is judged by its first `KEPT`
LONG, KEPT = 15_000, 16_000
TRIES = 3
PROMPTS = (
    PromptSource(
        "helloeval.system",
        "1905e07d0db5cd3b67d67e6967e0395dc66c9c670f1321afcf2e1690bfd23f83",
        ("helloeval", "system"),
        "llm_judge.py",
        "SYS_PROMPT",
    ),
    PromptSource(
        "helloeval.user_template",
        "e1757540e417aedcf9bac5dba584d713104d71fac9b41584187b608250ce3177",
        ("helloeval", "user_template"),
        "llm_judge.py",
        "USER_PROMPT",
    ),
)


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 647 instructions, task by task in upstream's order."""
    weights = load_weights(data)
    for task in TASKS:
        yield from read_task("hellobench", task, data.path(f"main_data/{task}.jsonl"), weights)


def read_task(
    suite: str, group: str, path: Path, weights: Mapping[str, Sequence[float]]
) -> Iterator[Sample]:
    """The samples of one file; `group` is the task that they are averaged in."""
    # a run without NLTK must end before anything is generated
    nltk_tokens("", NLTK_RELEASE)
    for record in read_jsonl(path):
        yield Sample(
            task=suite,
            id=record["id"] if suite == "hellobench" else f"{group}/{record['id']}",
            messages=(Message("user", record["instruction"]),),
            language="en",
            meta={"task": group, "category": record["category"]},
            material={"checklists": record["checklists"], "weights": weights[record["category"]]},
        )


def load_weights(data: SuiteData) -> Mapping[str, Sequence[float]]:
    """Per category: one weight a checklist item; each list sums to 100."""
    if data.find("weights.json"):
        prepared: Mapping[str, Any] = json.loads(data.path("weights.json").read_bytes())
        return dict(prepared["weights"])
    return read_weights(data.path("weighted_scores.txt"))


def read_weights(path: Path) -> Mapping[str, Sequence[float]]:
    """The dict that upstream's file assigns, read as a literal. Raises DataError."""
    _, _, literal = path.read_text(encoding="utf-8").partition("=")
    try:
        return dict(ast.literal_eval(literal.strip()))
    except (ValueError, SyntaxError, TypeError) as error:
        raise DataError(f"{path}: no Python dict ({error}). Try: r2w-eval data verify") from error


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The official prompts of HelloEval."""
    return {source.name: data.template(source) for source in PROMPTS}


def criteria(sample: Sample) -> Sequence[str]:
    """One verdict: the whole checklist."""
    return (CHECKLIST,)


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """One request; the answer goes in as NLTK's words joined by blanks, cut when very long."""
    tokens = nltk_tokens(job.answer.text, NLTK_RELEASE)
    return [ask_helloeval(job, " ".join(tokens[:KEPT] if len(tokens) > LONG else tokens))]


def ask_helloeval(job: JudgingJob, response: str) -> JudgeRequest:
    """The official question, with the answer in the given form."""
    user = job.templates["helloeval.user_template"].fill(
        instruction=job.sample.messages[0].content,
        response=response,
        checklists=show_checklist(job.sample),
        num_checklist=str(len(job.sample.material["checklists"])),
    )
    return ask_checklist(job, "helloeval.system", user)


def show_checklist(sample: Sample) -> str:
    """The checklist as the judge reads it: JSON with numbers from 0."""
    items = enumerate(sample.material["checklists"])
    entries = [{"checklist_id": i, "checklist_content": content} for i, content in items]
    return json.dumps(entries, ensure_ascii=False)


def ask_checklist(job: JudgingJob, system: str, user: str) -> JudgeRequest:
    """One question about a whole checklist, under the system prompt of that name."""
    messages = (Message("system", job.templates[system].text), Message("user", user))
    return JudgeRequest(CHECKLIST, messages, facts={"weights": job.sample.material["weights"]})


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """The last JSON list: each item of the checklist once, in any order, on one of five levels."""
    weights = request.facts["weights"]
    found = last_list(text)
    if found is None:
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON list of objects")
    try:
        scores = {as_number(e["checklist_id"]): as_number(e["evaluation_score"]) for e in found}
    except (TypeError, KeyError, ValueError, OverflowError):
        return Score(None, JudgeStatus.PARSE_ERROR, "an entry without id or score")
    if len(found) != len(weights) or scores.keys() != set(range(len(weights))):
        ids = ", ".join(f"{place:g}" for place in sorted(scores)[:10])
        why = f"{len(found)} entries with ids {ids}, expected {len(weights)} from 0"
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, why)
    if beyond := [score for score in scores.values() if score not in LEVELS]:
        return Score(None, JudgeStatus.OUT_OF_RANGE, f"{beyond[0]:g} is none of the five levels")
    return weigh([scores[place] for place in range(len(weights))], weights)


def as_number(value: Any) -> float:
    """A number, possibly in quotes, but not a bool. Raises TypeError, ValueError, OverflowError."""
    if isinstance(value, bool):
        raise TypeError("a bool is not a number")
    return float(value)


def weigh(scores: Sequence[float], weights: Sequence[float]) -> Score:
    """0 to 100: each level times the weight of its item."""
    total = sum(score * weight for score, weight in zip(scores, weights, strict=True))
    return Score(total, parts={"scores": list(scores)})


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """Upstream's reading: fences, line ends and backslashes removed; ids ignored, order trusted.

    A list of the right length ends the asking in any case. Upstream's script crashes on an entry
    that is not a number, and its averages leave out a score outside 0 to 1.
    """
    weights = request.facts["weights"]
    found = parse_json(clean_as_upstream(text))
    if not isinstance(found, (list, dict, str)):
        return Score(None, JudgeStatus.PARSE_ERROR, "not JSON after upstream's cleaning")
    scores = _cast_all(found)
    parts = {} if scores is None else {"scores": scores}
    if len(found) != len(weights):
        why = f"{len(found)} entries, expected {len(weights)}"
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, why, parts)
    if scores is None:
        return Score(None, JudgeStatus.UPSTREAM_LOST, "upstream's script ends on such an entry")
    if not all(0 <= score <= 1 for score in scores):
        return Score(None, JudgeStatus.UPSTREAM_LOST, "a score outside 0 to 1", parts)
    return weigh(scores, weights)


def clean_as_upstream(text: str) -> str:
    r"""Line ends and backslashes go too, so that an escaped quote in a reason breaks the list.

    >>> clean_as_upstream('```json\n[{"reason": "a \\"b\\""}]\n```')
    '[{"reason": "a "b""}]'
    """
    for gone in ("```json", "```python", "```", "\n", "\\"):
        text = text.replace(gone, "")
    return text


def _cast_all(found: Any) -> list[float] | None:
    try:
        for entry in found:
            int(entry["checklist_id"])
        return [float(entry["evaluation_score"]) for entry in found]
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


def ask_again(texts: Sequence[str]) -> bool:
    """Upstream asks three times in all."""
    return len(texts) < TRIES


def measure(answer: Answer) -> Mapping[str, Any]:
    """Length in NLTK's words."""
    return {"tokens": len(nltk_tokens(answer.text, NLTK_RELEASE))}


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """One answer with a verdict: its score, and the plain mean of its levels, both 0 to 100."""

    item: ItemVerdicts
    score: float
    plain: float


def read_item(item: ItemVerdicts) -> ScoredItem | None:
    """Means over the judge's repeats; None without a usable verdict."""
    valued = item.valued(CHECKLIST)
    if not valued:
        return None
    levels = [sum(own) / len(own) for score, _ in valued if (own := score.parts.get("scores"))]
    values = [value for _, value in valued]
    plain = 100 * sum(levels) / len(levels) if levels else values[0]
    return ScoredItem(item, sum(values) / len(values), plain)


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Averages of compute.py: a task is (mean - 75) x 4, `overall` the plain mean of the tasks.

    Upstream drops a repeated id; here an id has one record already. Lengths are those of the scored
    answers, as upstream counts them.
    """
    groups: dict[str, list[ItemVerdicts]] = defaultdict(list)
    for item in items:
        groups[str(item.meta["task"])].append(item)
    scored = {
        task: [read for item in own if (read := read_item(item))] for task, own in groups.items()
    }
    means = [
        _mean(f"task/{task}:0_100", scored[task], lambda item: item.score, len(own))
        for task, own in groups.items()
    ]
    plain = [
        _mean(task, scored[task], lambda item: item.plain, len(own)) for task, own in groups.items()
    ]
    every = [item for own in scored.values() for item in own]
    pool = _mean("overall:sample_pooled", every, lambda item: item.score, len(items))
    return [
        as_headline(rescale(average("overall", means))),
        rescale(pool, note="not upstream"),
        rescale(average("overall:unweighted_items", plain), note="not upstream"),
        *(rescale(replace(mean, name=mean.name.removesuffix(":0_100"))) for mean in means),
        *means,
        *_lengths(groups, scored),
    ]


def _lengths(
    groups: Mapping[str, Sequence[ItemVerdicts]], scored: Mapping[str, Sequence[ScoredItem]]
) -> list[Estimate]:
    """Mean words of the scored answers; of all answers when none is scored (no judge)."""
    counted: Mapping[str, Sequence[ItemVerdicts]] = (
        {task: [read.item for read in own] for task, own in scored.items()}
        if any(scored.values())
        else groups
    )
    lengths = [
        mean_of(
            f"length/{task}",
            [(i.sample_id, float(i.measures["tokens"])) for i in counted[task] if i.measures],
            len(own),
            note="words",
        )
        for task, own in groups.items()
    ]
    overall = replace(average("length", lengths), note="words")
    return [replace(estimate, bounded=False) for estimate in (overall, *lengths)]


def _mean(
    name: str, own: Sequence[ScoredItem], value: Callable[[ScoredItem], float], n_expected: int
) -> Estimate:
    return mean_of(name, [(item.item.sample_id, value(item)) for item in own], n_expected)


def average(name: str, parts: Sequence[Estimate]) -> Estimate:
    """Plain mean of means: every task counts the same, however many samples it has."""
    share = 1 / len(parts) if parts else 1.0
    strata = tuple(replace(s, weight=share) for part in parts for s in part.strata)
    return Estimate(name, strata, sum(part.n_expected for part in parts))


def rescale(estimate: Estimate, note: str = "") -> Estimate:
    """From 0..100 to -300..100: (x - 75) x 4, so that an answer of `.75` throughout has 0."""
    return replace(estimate, scale=4.0, offset=-300.0, note=note or estimate.note)


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    parity=ParityRules(ask_again=ask_again),
    measure=measure,
)
