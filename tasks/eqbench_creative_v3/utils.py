"""EQ-Bench Creative Writing v3: 32 prompts under three seeds, one rubric of 22 criteria, 0 to 20.

Follows EQ-bench/creative-writing-bench@e7ab009 (core/conversation.py, core/scoring.py): same
prompts, lengths and averages. The strict mode wants the official criteria within the scale, where
upstream takes every `name: number` in the judge's prose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r2w_eval.tasks.eqbench_creative_v3.pairwise import make_form
from r2w_eval.tasks.eqbench_creative_v3.scoring import (
    MAX_SCORE,
    good_values,
    parse_scores,
    strip_thinking,
)

from r2w_eval.data import SuiteData
from r2w_eval.estimates import as_headline, criterion_means, mean_of, pooled
from r2w_eval.judge.scorelines import Rubric, read_score_lines
from r2w_eval.suites import JudgingJob, PairwiseForm, ParityRules, Suite, TurnRule
from r2w_eval.template import Template
from r2w_eval.text.measures import measure_texts, text_estimates
from r2w_eval.text.metrics import read_slop_lists
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

N_SEEDS = 3
VERDICT = "rubric"
# a piece without dialogue has no score for it: the prompt tells the judge to leave it out
OPTIONAL = ("Weak Dialogue",)
TURN_RULE = TurnRule(tries=3, wanted_chars=500, accepted_chars=500)
MIN_PROMPTS = 3
PROMPT_FILE = "creative_writing_judging_prompt.txt"
PAIRWISE_FILE = "pairwise_prompt.txt"
NOT_VERIFIED = "not verified"
NO_PROFILE = f"{NOT_VERIFIED}: published values leave out what a human profile has as well"


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """Every prompt under its first three seeds; the judge sees it with `<SEED>` still in place."""
    prompts = json.loads(data.path("creative_writing_prompts_v3.json").read_bytes())
    facts = {
        "criteria": read_lines(data, "creative_writing_criteria.txt"),
        "negative": read_lines(data, "negative_criteria.txt"),
    }
    for prompt_id, prompt in prompts.items():
        for number, seed in enumerate(prompt["seed_modifiers"][:N_SEEDS], 1):
            content = prompt["writing_prompt"].replace("<SEED>", seed)
            yield Sample(
                task="eqbench_creative_v3",
                id=f"{prompt_id}-{number}",
                messages=(Message("user", content),),
                language="en",
                meta={
                    "prompt_id": str(prompt_id),
                    "iteration": number,
                    "category": prompt["category"],
                    "criteria": facts["criteria"],
                },
                material={"writing_prompt": prompt["writing_prompt"], "facts": facts},
            )


def read_lines(data: SuiteData, name: str) -> list[str]:
    """The names in a checked file, one a line."""
    lines = data.path(name).read_text("utf-8").split("\n")
    return [line.strip() for line in lines if line.strip()]


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The rubric's prompt."""
    return {VERDICT: Template(PROMPT_FILE, data.path(PROMPT_FILE).read_text("utf-8"))}


def criteria(sample: Sample) -> Sequence[str]:
    """One verdict holds all criteria."""
    return (VERDICT,)


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """One request with prompt, text and the lists of criteria."""
    facts = job.sample.material["facts"]
    content = job.templates[VERDICT].replace(
        **{
            "{writing_prompt}": job.sample.material["writing_prompt"],
            "{test_model_response}": job.answer.text,
            "{creative_writing_criteria}": "\n".join(f"- {name}" for name in facts["criteria"]),
            "{lower_is_better_criteria}": ", ".join(facts["negative"]),
        }
    )
    return [JudgeRequest(VERDICT, (Message("user", content),), facts=facts)]


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """The 22 names, 0 to 20 or out of 20; only the criterion about dialogue may be absent."""
    rubric = Rubric(tuple(request.facts["criteria"]), OPTIONAL)
    read = read_score_lines(text, rubric, 0, MAX_SCORE)
    return read if isinstance(read, Score) else make_score(read, request.facts)


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """Upstream's reading; a text without any score leaves the item out."""
    scores = parse_scores(text)
    if not good_values(scores, request.facts["negative"]):
        return Score(None, JudgeStatus.PARSE_ERROR, "no `name: number` up to 20")
    return make_score(scores, request.facts)


def make_score(scores: Mapping[str, float], facts: Mapping[str, Any]) -> Score:
    """The item's mean, with the number of its values, and what the judge wrote."""
    values = good_values(scores, facts["negative"])
    return Score(sum(values) / len(values), parts={"n": len(values), "criteria": dict(scores)})


@dataclass(frozen=True, slots=True)
class JudgedPiece:
    """One answer with a verdict: its values (all judge repeats), as a sum and a number."""

    prompt_id: str
    total: float
    n: int


def read_piece(item: ItemVerdicts) -> JudgedPiece | None:
    """None without a verdict. A bare number (the floor, a user's own scorer) stands for every
    criterion.
    """
    valued = item.valued(VERDICT)
    if not valued:
        return None
    counts = [int(score.parts.get("n", len(item.meta["criteria"]))) for score, _ in valued]
    totals = [value * n for (_, value), n in zip(valued, counts, strict=True)]
    return JudgedPiece(prompt_of(item), sum(totals), sum(counts))


def prompt_of(item: ItemVerdicts) -> str:
    """What the bootstrap draws: the three seeds of a prompt are no independent items."""
    return str(item.meta["prompt_id"])


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """The table's pooled mean, the script's mean over items, and text metrics; n counts prompts."""
    pieces = [piece for item in items if (piece := read_piece(item))]
    n_expected = len({prompt_of(item) for item in items})
    means = [(piece.prompt_id, piece.total / piece.n) for piece in pieces]
    item_mean = mean_of("rubric:item_mean", means, n_expected, note="the script's figure")
    return [
        as_headline(pool(pieces, n_expected)),
        item_mean,
        replace(item_mean, name="rubric:item_mean_x5", scale=5.0),
        *_criteria(items, n_expected),
        *map(mark_unverified, text_estimates(items, prompt_of, MIN_PROMPTS)),
    ]


def _criteria(items: Sequence[ItemVerdicts], n_expected: int) -> list[Estimate]:
    """The official criteria one by one; of negative ones low values are good."""
    names = dict.fromkeys(name for item in items for name in item.meta.get("criteria", ()))
    verdicts = [
        (prompt_of(item), score.parts["criteria"])
        for item in items
        for score in item.scores.get(VERDICT, ())
        if "criteria" in score.parts
    ]
    return criterion_means("criterion", names, verdicts, n_expected)


def pool(pieces: Sequence[JudgedPiece], n_expected: int) -> Estimate:
    """All values of all items in one pot: what the published table shows."""
    empty = pooled("rubric", [(piece.prompt_id, ()) for piece in pieces], n_expected)
    stratum = replace(
        empty.strata[0],
        numerators=tuple(piece.total for piece in pieces),
        denominators=tuple(float(piece.n) for piece in pieces),
    )
    return replace(empty, strata=(stratum,))


def mark_unverified(estimate: Estimate) -> Estimate:
    """Labels the two text metrics whose published values do not come out to the digit."""
    notes = {"repetition": NO_PROFILE, "vocabulary": f"{NOT_VERIFIED}: within .02"}
    if estimate.name not in notes:
        return estimate
    joined = f"{notes[estimate.name]}; {estimate.note}" if estimate.note else notes[estimate.name]
    return replace(estimate, note=joined)


def load_measure(data: SuiteData) -> Callable[[Answer], Mapping[str, Any]]:
    """Text metrics of an answer, with upstream's word lists."""
    lists = read_slop_lists(data)
    return lambda answer: measure_texts([answer.text], lists)


def load_pairwise(data: SuiteData) -> PairwiseForm:
    """How `compare --judge` shows two answers to the judge."""
    return make_form(Template(PAIRWISE_FILE, data.path(PAIRWISE_FILE).read_text("utf-8")))


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    parity=ParityRules(read_answer=strip_thinking),
    turn_rule=TURN_RULE,
    load_measure=load_measure,
    load_pairwise=load_pairwise,
    query_of=prompt_of,
)
