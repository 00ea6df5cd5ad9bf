"""EQ-Bench Longform: 12 stories in 13 turns (five of planning, eight chapters), nine verdicts each.

Follows EQ-bench/longform-writing-bench@d1c6255 (core/conversation.py, core/scoring.py): same
turns, prompt bytes, lengths and averages. The strict mode wants the official criteria, all of them
and within the scale, where upstream clamps values and takes any name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r2w_eval.tasks.eqbench_longform.scoring import (
    MAX_SCORE,
    N_CHAPTERS,
    N_PLANNING,
    Signs,
    judgement,
    parse_scores,
    plain_mean,
    task_score,
)

from r2w_eval.data import SuiteData
from r2w_eval.estimates import as_headline, criterion_means, mean_of
from r2w_eval.judge.scorelines import Rubric, read_score_lines
from r2w_eval.suites import JudgingJob, Suite, TurnRule
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

CHAPTERS = tuple(f"chapter_{number}" for number in range(1, N_CHAPTERS + 1))
FINAL = "final"
PLAN, PROFILES, FIRST_CHAPTER = 3, 4, N_PLANNING
MIN_PROMPTS = 2
# upstream goes on from 501 characters, and at the last try from 500
TURN_RULE = TurnRule(tries=5, wanted_chars=501, accepted_chars=500)
PROMPT_FILES = (
    *(f"prompt{number}.txt" for number in range(1, N_PLANNING + 1)),
    "prompt_chapter_first.txt",
    *["prompt_chapter_intermediate.txt"] * (N_CHAPTERS - 2),
    "prompt_chapter_last.txt",
)
JUDGE_FILES = {
    part: f"longform_creative_writing_judging_prompt_{part}.txt" for part in ("chapter", FINAL)
}


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 12 writing prompts; `material` has all user turns and what the judge is asked for."""
    prompts = json.loads(
        data.path("longform_creative_writing_prompts_minimalist.json").read_bytes()
    )
    templates = [read_text(data, name) for name in PROMPT_FILES]
    facts = {part: load_facts(data, part) for part in JUDGE_FILES}
    for sample_id, prompt in prompts.items():
        turns = [
            fill_turn(template, prompt["writing_prompt"], index - N_PLANNING + 1)
            for index, template in enumerate(templates)
        ]
        yield Sample(
            task="eqbench_longform",
            id=str(sample_id),
            messages=(Message("user", turns[0]),),
            language="en",
            meta={
                "category": prompt["category"],
                "title": prompt["title"],
                "criteria": {part: own["criteria"] for part, own in facts.items()},
            },
            material={"writing_prompt": prompt["writing_prompt"], "turns": turns, "facts": facts},
        )


def read_text(data: SuiteData, name: str) -> str:
    """A checked data file as text; other encodings are refused by its hash."""
    return data.path(name).read_text("utf-8")


def fill_turn(template: str, writing_prompt: str, chapter: int) -> str:
    """One user turn, filled as upstream fills it."""
    filled = template.replace("{writing_prompt}", writing_prompt)
    return filled.replace("{n_chapters}", str(N_CHAPTERS)).replace("{chapter_number}", str(chapter))


def load_facts(data: SuiteData, part: str) -> dict[str, Any]:
    """Names, signs and weights of the criteria that one kind of verdict is about."""
    names = read_text(data, f"longform_creative_writing_criteria_{part}.txt").split("\n")
    negative = read_text(data, f"longform_negative_criteria_{part}.txt").split("\n")
    return {
        "criteria": [name.strip() for name in names if name.strip()],
        "negative": [name.strip() for name in negative if name.strip()],
        "weights": json.loads(data.path("criteria_weights.json").read_bytes()),
    }


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The two judge prompts."""
    return {part: Template(name, read_text(data, name)) for part, name in JUDGE_FILES.items()}


def criteria(sample: Sample) -> Sequence[str]:
    """Eight chapters and the whole."""
    return (*CHAPTERS, FINAL)


def next_turn(sample: Sample, answers: Sequence[str]) -> str | None:
    """Plans, then chapters; None after the last one."""
    turns: Sequence[str] = sample.material["turns"]
    return turns[len(answers)] if len(answers) < len(turns) else None


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """A request per chapter with plan and profiles, and one on the whole story."""
    turns = job.answer.turns
    chapters = turns[FIRST_CHAPTER:]
    shared = {"writing_prompt": job.sample.material["writing_prompt"]}
    planned = {"final_plan": turns[PLAN], "character_profiles": turns[PROFILES]}
    asked = [
        (
            name,
            "chapter",
            {**shared, **planned, "chapter_text": text, "chapter_number": str(number)},
        )
        for number, (name, text) in enumerate(zip(CHAPTERS, chapters, strict=True), 1)
    ]
    asked.append((FINAL, FINAL, {**shared, "full_story": join_chapters(chapters)}))
    return [
        JudgeRequest(
            name,
            (Message("user", fill_prompt(job.templates[part].text, fields, facts)),),
            facts=facts,
        )
        for name, part, fields in asked
        for facts in [job.sample.material["facts"][part]]
    ]


def join_chapters(chapters: Sequence[str]) -> str:
    """The story as the final call shows it."""
    return "\n\n---\n\n".join(
        f"# Chapter {number}\n\n{text}" for number, text in enumerate(chapters, 1)
    )


def fill_prompt(template: str, fields: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    """Plain replacement in upstream's order: placeholders inside a plan are filled too."""
    lists = {
        "creative_writing_criteria": "\n".join(f"- {name}" for name in facts["criteria"]),
        "lower_is_better_criteria": ", ".join(facts["negative"]),
    }
    for name, text in {**fields, **lists}.items():
        template = template.replace(f"{{{name}}}", text)
    return template


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """All official criteria, 0 to 20 or out of 20; what the judge invented does not count."""
    read = read_score_lines(text, Rubric(tuple(request.facts["criteria"])), 0, MAX_SCORE)
    return read if isinstance(read, Score) else make_score(read, request.facts)


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """Upstream's reading; a text without any score is left out."""
    scores = parse_scores(text)
    if not scores:
        return Score(None, JudgeStatus.PARSE_ERROR, "no line of `name: number`")
    return make_score(scores, request.facts)


def make_score(scores: Mapping[str, float], facts: Mapping[str, Any]) -> Score:
    """The judgement (0 to 20) with its parts: the plain mean, and the values as the judge wrote."""
    signs = Signs.of(facts["negative"], facts["weights"])
    return Score(
        judgement(scores, signs),
        parts={"plain": plain_mean(scores, signs), "criteria": dict(scores)},
    )


@dataclass(frozen=True, slots=True)
class JudgedStory:
    """The judgements of one story that exist, by chapter: weighted and plain, 0 to 20."""

    item: ItemVerdicts
    weighted: Mapping[str, float]
    plain: Mapping[str, float]

    def score(self, values: Mapping[str, float], final_weight: float = 1.0) -> float | None:
        """The task score of either kind of judgement."""
        chapters = [values[name] for name in CHAPTERS if name in values]
        return task_score(chapters, values.get(FINAL), final_weight)


def read_story(item: ItemVerdicts, mode: Mode) -> JudgedStory | None:
    """The item's judgements, or None: strict wants all nine, parity takes what is there."""
    weighted, plain = {}, {}
    for name in (*CHAPTERS, FINAL):
        if valued := item.valued(name):
            weighted[name] = _mean([value for _, value in valued])
            # a story at the floor has values, but no criteria
            plain[name] = _mean([float(s.parts.get("plain", value)) for s, value in valued])
    complete = len(weighted) == len(CHAPTERS) + 1
    return (
        JudgedStory(item, weighted, plain)
        if weighted and (complete or mode is Mode.PARITY)
        else None
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Score and its variants (0 to 100), the columns of the table (0 to 20), text metrics."""
    stories = [story for item in items if (story := read_story(item, mode))]

    def scores(name: str, read: Callable[[JudgedStory], float | None], note: str = "") -> Estimate:
        pairs = [
            (story.item.sample_id, value) for story in stories if (value := read(story)) is not None
        ]
        return replace(mean_of(name, pairs, len(items), note=note), scale=100 / MAX_SCORE)

    return [
        as_headline(scores("score", lambda story: story.score(story.weighted))),
        scores("score:final4", lambda story: story.score(story.weighted, 4.0), "final weighs 4"),
        scores("score:unweighted", lambda story: story.score(story.plain), "all criteria weigh 1"),
        *(replace(column(name, stories, len(items)), scale=1.0) for name in (*CHAPTERS, FINAL)),
        *_criteria("chapter", CHAPTERS, items),
        *_criteria(FINAL, (FINAL,), items),
        *text_estimates(items, lambda item: item.sample_id, MIN_PROMPTS),
    ]


def _criteria(part: str, verdicts: Sequence[str], items: Sequence[ItemVerdicts]) -> list[Estimate]:
    """The official criteria of one kind of verdict; of negative ones low values are good."""
    names = dict.fromkeys(n for item in items for n in item.meta.get("criteria", {}).get(part, ()))
    found = [
        (item.sample_id, score.parts["criteria"])
        for item in items
        for verdict in verdicts
        for score in item.scores.get(verdict, ())
        if "criteria" in score.parts
    ]
    return criterion_means(f"{part} criterion", names, found, len(items))


def column(name: str, stories: Sequence[JudgedStory], n_expected: int) -> Estimate:
    """One column of the published table: the plain mean of a chapter over the stories."""
    pairs = [(s.item.sample_id, s.plain[name]) for s in stories if name in s.plain]
    return mean_of(name, pairs, n_expected)


def load_measure(data: SuiteData) -> Callable[[Answer], Mapping[str, Any]]:
    """Text metrics over the chapters, with upstream's word lists."""
    lists = read_slop_lists(data)
    return lambda answer: measure_texts(answer.turns[FIRST_CHAPTER:], lists)


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    next_turn=next_turn,
    n_turns=len(PROMPT_FILES),
    turn_rule=TURN_RULE,
    load_measure=load_measure,
)
