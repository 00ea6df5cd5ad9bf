"""What a grid of RL arms wrote for prompts held apart: measures, paired differences, plots.

    python benchmarks/small_results.py FOLDER --scorer transformer=DIR --judge smollm2 \\
        --out benchmarks/results/small.json --plots docs/images

FOLDER is that of a pipeline with rollouts. The reward is `r2w-reward`; what it says of models that
were trained on it is marked so. Intervals of a group resample prompts, all seeds together; beside
each difference stand those of the single seeds, with the t interval over seeds. "Seen" is the
difference of two groups that a paired test finds in four of five cases.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from r2w_eval.training.synthesis.traces import repetition
from r2w_eval.training.trainer.stage import HISTORY
from scipy.stats import t as student
from small_plots import plot_curves, plot_groups
from small_scores import Question, Scores, read_specs

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
from r2w_eval.stats.inference import compare, measure
from r2w_eval.stats.power import minimum_detectable_effect
from r2w_eval.store import iter_jsonl, write_json
from r2w_eval.trace.types import TagSchema
from r2w_eval.trace.units import units
from r2w_eval.types import Estimate, JudgeStatus, Score, Usage

REWARD = "r2w-reward"
# a step counts from this share of a standard deviation of all answers' scores
DEAD_BAND_SD = 0.1

Measure = Callable[[Sequence[Analysis]], Estimate]
Average = Callable[[str, Iterable[tuple[str, float]], int], Estimate]


@dataclass(frozen=True)
class Arm:
    """One model: its group, its seed, its texts."""

    group: str
    seed: int | None
    texts: tuple[Analysis, ...]


def group_names(arms: Iterable[Arm]) -> list[str]:
    """In the order of training: base, SFT, then lambda rising, at each the usual arm first."""

    def place(name: str) -> tuple[int, float, str]:
        variant, found, weight = name.rpartition("lambda")
        if found:
            return 2, float(weight), variant
        return int(name != "base"), 0.0, "" if name != "sft" else "~"

    return sorted({arm.group for arm in arms}, key=place)


def compared(groups: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of groups, the later first: those of RL before what they began from."""
    return [(b, a) for a, b in itertools.combinations(groups, 2)][::-1]


def read_arms(folder: Path, n_samples: int | None = None) -> list[Arm]:
    """The rollouts of every model of a pipeline, or the first few texts a prompt."""
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
    """A rollout, analysed; its tokens are those that the model wrote."""
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
    """The question how good the answer is."""
    return Question(text.source.prompt, text.source.answer)


def reflection_questions(text: Analysis) -> list[Question]:
    """The questions how good each reflection with a draft is."""
    found = []
    for own in units(text.trace, text.source.prompt) if text.trace else ():
        if own.draft is not None:
            found.append(
                Question(text.source.prompt, own.draft, own.reflection, own.revision, own.earlier)
            )
    return found


def step_questions(text: Analysis) -> dict[int, tuple[Question, Question]]:
    """The questions how good the text is before and after each step."""
    prompt = text.source.prompt
    return {
        index: (Question(prompt, link.base or ""), Question(prompt, link.outcome or ""))
        for index, link in own_outcomes(text)
    }


def per_text(
    name: str, value: Callable[[Analysis], float | None], average: Average = mean_of
) -> Measure:
    """Mean of a value over the texts that have one; `share_of` for what is 0 or 1."""

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
    """Share of different words among the first 50, so that length does not matter."""
    own = text.lower().split()[:50]
    return len(set(own)) / max(1, len(own))


def scored_measures(name: str, scores: Scores, dead_band: float) -> dict[str, Measure]:
    """The measures by one scorer: of answers, reflections and steps."""

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


def ask(scores: Scores, arms: Sequence[Arm], scorers: Mapping[str, str]) -> None:
    """Fill the file of scores: answers first, then reflections, then steps."""
    texts = [text for arm in arms for text in arm.texts]
    answers = [answer_question(text) for text in texts if text.source.answer]
    reflections = [question for text in texts for question in reflection_questions(text)]
    steps = [q for text in texts for pair in step_questions(text).values() for q in pair]
    for name, spec in scorers.items():
        scores.fill(name, spec, answers)
        if not spec.startswith("judge:"):
            scores.fill(name, spec, [*reflections, *steps])


def spread(name: str, scores: Scores, arms: Sequence[Arm]) -> float:
    """Standard deviation of a scorer over all answers of all models."""
    texts = [text for arm in arms for text in arm.texts if text.source.answer]
    values = [v for text in texts if (v := scores.get(name, answer_question(text))) is not None]
    return float(np.std(values)) if values else 0.0


def summarise(arms: Sequence[Arm], chosen: Mapping[str, Measure]) -> dict[str, Any]:
    """Every measure of every group and arm, and the differences of groups."""
    names = group_names(arms)
    groups = {name: [arm for arm in arms if arm.group == name] for name in names}
    table: dict[str, Any] = {}
    for name, own in chosen.items():
        estimates = {g: own(pooled(members)) for g, members in groups.items() if members}
        table[name] = {
            "groups": {group: as_row(measure(one)) for group, one in estimates.items()},
            "seeds": {
                group: [as_row(measure(own(arm.texts))) for arm in by_seed(members)]
                for group, members in groups.items()
            },
            "differences": {
                f"{first} - {second}": difference(own, groups[first], groups[second])
                for first, second in compared(names)
            },
            "seen": {group: seen(own, members) for group, members in groups.items()},
        }
    return table


def pooled(arms: Iterable[Arm]) -> list[Analysis]:
    """All texts of all seeds; intervals resample prompts, which they share."""
    return [text for arm in arms for text in arm.texts]


def by_seed(arms: Iterable[Arm]) -> list[Arm]:
    """In the order of the seeds."""
    return sorted(arms, key=lambda arm: arm.seed or 0)


def as_row(metric: Any) -> dict[str, Any]:
    """Value, interval and number of prompts."""
    return {name: getattr(metric, name) for name in ("value", "low", "high", "n_scored")}


def difference(own: Measure, first: Sequence[Arm], second: Sequence[Arm]) -> dict[str, Any]:
    """First minus second, paired by prompt; by seed too, where both have seeds."""
    paired = compare(own(pooled(first)), own(pooled(second)))
    found = {
        "difference": paired.difference,
        "low": paired.low,
        "high": paired.high,
        "p": paired.p_value,
        "n_common": paired.n_common,
    }
    others = {arm.seed: arm for arm in second}
    seeds = [
        compare(own(arm.texts), own(others.get(arm.seed, second[0]).texts)).difference
        for arm in by_seed(first)
    ]
    known = [value for value in seeds if value is not None]
    return {**found, "by_seed": seeds, "over_seeds": seed_interval(known)}


def seen(own: Measure, arms: Sequence[Arm]) -> float | None:
    """What a comparison with as many seeds would find, by how the seeds of this group differ: their
    models are alike, so that the differences are what chance does. None for a single model.
    """
    pairs = itertools.combinations(arms, 2)
    errors = [compare(own(a.texts), own(b.texts)).standard_error for a, b in pairs]
    known = [error for error in errors if error is not None]
    if not known:
        return None
    return minimum_detectable_effect(float(np.sqrt(np.mean(np.square(known)) / len(arms))))


def seed_interval(values: Sequence[float]) -> list[float] | None:
    """t interval of the mean over seeds; None for fewer than two."""
    if len(values) < 2:
        return None
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return [float(np.mean(values) - half), float(np.mean(values) + half)]


def read_histories(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What the trainer of each RL arm logged, by step."""
    found = {}
    for path in sorted(folder.glob(f"stages/rl-*/{HISTORY}")):
        name = path.parent.name.rpartition("-")[0]
        found[name] = [entry for entry in json.loads(path.read_bytes()) if "reward" in entry]
    return found


def step_times(histories: Mapping[str, Sequence[Mapping[str, Any]]], rollouts: int) -> Any:
    """Median seconds of the parts of a step, and tokens written a second, by arm; the first step
    warms up and is left out.
    """
    table = {}
    for name, history in histories.items():
        steps = history[1:]
        parts = {part: np.array([e.get(f"time/{part}_s", 0.0) for e in steps])
                 for part in ("generation", "rewards", "process_rewards")}  # fmt: skip
        whole = np.array([entry["step_time"] for entry in steps])
        tokens = np.array([entry["completions/mean_length"] for entry in steps]) * rollouts
        table[name] = {
            "steps": len(history),
            "step_s": float(np.median(whole)),
            **{f"{part}_s": float(np.median(own)) for part, own in parts.items()},
            "rest_s": float(np.median(whole - sum(parts.values()))),
            "tokens_per_s": float(np.median(tokens / parts["generation"])),
        }
    return table


def show(table: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Markdown: groups, then the differences that the claims are about."""
    print("| measure | " + " | ".join(groups) + " |\n|---|" + "---|" * len(groups))
    for name, row in table.items():
        print(f"| {name} | " + " | ".join(cell(row["groups"].get(g)) for g in groups) + " |")
    for name, row in table.items():
        found = {group: value for group, value in row["seen"].items() if value is not None}
        if found:
            print(f"seen, {name}: " + ", ".join(f"{g} {v:.3g}" for g, v in found.items()))
    for first, second in compared(groups):
        print(
            f"\n| {first} - {second} | difference | p | seeds | over seeds |\n|---|---|---|---|---|"
        )
        for name, row in table.items():
            found = row["differences"].get(f"{first} - {second}")
            if found and found["difference"] is not None:
                seeds = ", ".join("–" if s is None else f"{s:+.3g}" for s in found["by_seed"])
                over = found["over_seeds"]
                wide = f"{over[0]:+.3g} to {over[1]:+.3g}" if over else "–"
                value = cell({**found, "value": found["difference"]})
                print(f"| {name} | {value} | {found['p']:.3f} | {seeds} | {wide} |")


def cell(row: Mapping[str, Any] | None) -> str:
    """Value with its interval."""
    if row is None or row["value"] is None:
        return "–"
    if row["low"] is None:
        return f"{row['value']:.3g}"
    return f"{row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})"


def main() -> None:
    """Score, summarise, plot, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scorer", action="append", default=[], metavar="NAME=SPEC")
    parser.add_argument("--judge", help="Also a judge's expected score of the answers.")
    parser.add_argument("--known-only", action="store_true", help="Ask nothing more.")
    parser.add_argument("--samples", type=int, help="Texts a prompt; default: all.")
    parser.add_argument("--rollouts", type=int, default=64, help="Rollouts of a step.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/small.json"))
    parser.add_argument("--plots", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    arms, histories = read_arms(options.folder, options.samples), read_histories(options.folder)
    scorers = {REWARD: REWARD, **read_specs(options.scorer)}
    judges = {options.judge: f"judge:{options.judge}"} if options.judge else {}
    scores = Scores(options.folder / "scores.jsonl")
    if not options.known_only:
        ask(scores, arms, {**scorers, **judges})
    bands = {name: DEAD_BAND_SD * spread(name, scores, arms) for name in scorers}
    chosen = text_measures()
    for name, band in bands.items():
        chosen |= scored_measures(name, scores, band)
    for name in judges:
        quality = f"quality by {name}"
        chosen[quality] = scored_measures(name, scores, 0.0)[quality]
    table = summarise(arms, chosen)
    times = step_times(histories, options.rollouts)
    write_json(
        options.out,
        {"n_texts": {f"{a.group} {a.seed}": len(a.texts) for a in arms}, "dead_bands": bands,
         "measures": table, "step_times": times},
    )  # fmt: skip
    show(table, group_names(arms))
    print(json.dumps(times, indent=1))
    plot_curves(histories, options.plots / "small-training.png")
    plot_groups(table, group_names(arms), options.plots / "small-groups.png")


if __name__ == "__main__":
    main()
