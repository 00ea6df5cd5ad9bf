"""The rollouts of a grid of RL arms and the measures of them, for small_results.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.training.synthesis.traces import repetition
from small_scores import Question, Scores

from r2w_eval.estimates import mean_of, share_of
from r2w_eval.reflection import measures
from r2w_eval.reflection.analysis import (
    Analysis,
    Effect,
    TraceInput,
    analyse,
    own_outcomes,
    with_effects,
)
from r2w_eval.store import iter_jsonl
from r2w_eval.trace.types import TagSchema
from r2w_eval.trace.units import units
from r2w_eval.types import Estimate, JudgeStatus, Score, Usage

Measure = Callable[[Sequence[Analysis]], Estimate]
Average = Callable[[str, Iterable[tuple[str, float]], int], Estimate]


@dataclass(frozen=True)
class Arm:
    """One model: its group, seed and texts."""

    group: str
    seed: int | None
    texts: tuple[Analysis, ...]


def read_arms(folder: Path, n_samples: int | None = None) -> list[Arm]:
    """The rollouts of every model of a pipeline; `n_samples` limits the texts per prompt."""
    found = []
    for path in sorted(folder.glob("stages/rollouts-*/rollouts.jsonl")):
        name = path.parent.name.removeprefix("rollouts-").rpartition("-")[0]
        model, _, seed = name.partition("-seed")
        group = model.removeprefix("rl-")
        rows = (r for r in iter_jsonl(path) if n_samples is None or r["sample"] < n_samples)
        texts = tuple(read_text(row) for row in rows)
        found.append(Arm(group, int(seed) if seed else None, texts))
    return found


def read_text(row: Mapping[str, Any]) -> Analysis:
    """Analyse one rollout."""
    tokens = row["thinking_tokens"] + row["answer_tokens"]
    return analyse(
        TraceInput(
            id=f"{row['prompt_id']}#{row['sample']}",
            thinking=row["thinking"],
            answer=row["answer"] or "",
            prompt=row["prompt"],
            cluster=row["prompt_id"],
            usage=Usage(completion_tokens=tokens, reasoning_tokens=row["thinking_tokens"]),
            is_unclosed=row["thinking"] is not None and row["answer"] is None,
        ),
        TagSchema(),
    )


def answer_question(text: Analysis) -> Question:
    """Asks for the quality of the answer."""
    return Question(text.source.prompt, text.source.answer)


def reflection_questions(text: Analysis) -> list[Question]:
    """Asks for the quality of each reflection on a draft."""
    found = []
    for own in units(text.trace, text.source.prompt) if text.trace else ():
        if own.draft is not None:
            found.append(
                Question(text.source.prompt, own.draft, own.reflection, own.revision, own.earlier)
            )
    return found


def step_questions(text: Analysis) -> dict[int, tuple[Question, Question]]:
    """Asks for the quality of the text before and after each step."""
    prompt = text.source.prompt
    return {
        index: (Question(prompt, link.base or ""), Question(prompt, link.outcome or ""))
        for index, link in own_outcomes(text)
    }


def per_text(
    name: str, value: Callable[[Analysis], float | None], average: Average = mean_of
) -> Measure:
    """Mean of a value over the texts that have one; pass `share_of` for shares."""

    def estimate(texts: Sequence[Analysis]) -> Estimate:
        rows = [(t.source.cluster, own) for t in texts if (own := value(t)) is not None]
        return average(name, rows, len({text.source.cluster for text in texts}))

    return estimate


def text_measures() -> dict[str, Measure]:
    """The measures that need no scorer."""

    def answer(count: Callable[[str], float]) -> Callable[[Analysis], float | None]:
        return lambda text: count(text.source.answer) if text.source.answer else None

    return {
        "answered": per_text("answered", lambda text: float(bool(text.source.answer)), share_of),
        "thinking_share": measures.thinking_share,
        "thinking_tokens": measures.thinking_tokens,
        "answer_tokens": measures.answer_tokens,
        "reflections_per_trace": measures.reflections_per_trace,
        "without_reflection": measures.without_reflection,
        "reflections_per_1000_tokens": measures.density,
        "redundancy": measures.redundancy,
        "similarity": measures.mean_similarity,
        "targeted": measures.targeted,
        "not_taken_up": measures.not_taken_up,
        "repetition in the answer": per_text("repetition", answer(repetition)),
        "distinct words": per_text("distinct words", answer(distinct_words)),
    }


def distinct_words(text: str) -> float:
    """Share of distinct words among the first 50, so that length does not matter."""
    own = text.lower().split()[:50]
    return len(set(own)) / max(1, len(own))


def scored_measures(name: str, scores: Scores, dead_band: float) -> dict[str, Measure]:
    """The measures by one scorer."""

    def quality(text: Analysis) -> float | None:
        return scores.get(name, answer_question(text)) if text.source.answer else None

    def reflections(texts: Sequence[Analysis]) -> Estimate:
        rows = [
            (text.source.cluster, value)
            for text in texts
            for question in reflection_questions(text)
            if (value := scores.get(name, question)) is not None
        ]
        return mean_of("reflections", rows, len({text.source.cluster for text in texts}))

    def effective(texts: Sequence[Analysis]) -> Estimate:
        return measures.outcome_share(
            [with_steps(text, name, scores, dead_band) for text in texts],
            measures.Outcome.IMPROVED,
        )

    return {
        f"quality by {name}": per_text("quality", quality),
        f"reflections by {name}": reflections,
        f"effective steps by {name}": effective,
    }


def with_steps(text: Analysis, name: str, scores: Scores, dead_band: float) -> Analysis:
    """The text with the effect of each step."""

    def score(question: Question) -> Score:
        value = scores.get(name, question)
        return Score(value, JudgeStatus.OK if value is not None else JudgeStatus.PARSE_ERROR)

    pairs = step_questions(text)
    effects = {i: Effect(score(a), score(b), dead_band) for i, (a, b) in pairs.items()}
    return with_effects(text, effects)
