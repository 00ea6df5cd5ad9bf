"""Compares the models of a grid of RL arms on held-out prompts: measures, differences, plots.

    python benchmarks/small_results.py FOLDER --scorer transformer=DIR --judge smollm2 \\
        --out benchmarks/results/small.json --plots docs/images

FOLDER is a pipeline's, with rollouts. Figures "by r2w-reward" are those of the scorer that the arms
were trained on. Intervals of a group resample prompts, all seeds together. Each difference is also
given by seed, with a t interval over seeds. "seen" is the difference that a paired test of two such
groups detects with power 0.8.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from r2w_eval.training.trainer.stage import HISTORY
from scipy.stats import t as student
from small_measures import (
    Arm,
    Measure,
    answer_question,
    read_arms,
    reflection_questions,
    scored_measures,
    step_questions,
    text_measures,
)
from small_plots import plot_curves, plot_groups
from small_scores import Scores, read_specs

from r2w_eval.reflection.analysis import Analysis
from r2w_eval.stats.inference import compare, measure
from r2w_eval.stats.power import minimum_detectable_effect
from r2w_eval.store import write_json

REWARD = "r2w-reward"
# dead band of a step, in standard deviations of all answers' scores
DEAD_BAND_SD = 0.1


def group_names(arms: Iterable[Arm]) -> list[str]:
    """Base, SFT, then by rising lambda, at each lambda the plain arm first."""

    def place(name: str) -> tuple[int, float, str]:
        variant, found, weight = name.rpartition("lambda")
        if found:
            return 2, float(weight), variant
        return int(name != "base"), 0.0, "" if name != "sft" else "~"

    return sorted({arm.group for arm in arms}, key=place)


def compared(groups: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of groups, the later one first."""
    return [(b, a) for a, b in itertools.combinations(groups, 2)][::-1]


def ask(scores: Scores, arms: Sequence[Arm], scorers: Mapping[str, str]) -> None:
    """Score answers, then reflections and steps; a judge is asked about answers only."""
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
    """The difference that a comparison of two such groups would detect (power 0.8).

    Estimated from the differences between the group's own seeds, which are due to chance. None for
    a single model.
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
    """Median seconds of the parts of a step, and tokens per second, by arm; without the first step,
    which warms up.
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
    """Print Markdown tables: the groups, then their differences."""
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
    """Score, summarise, plot and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scorer", action="append", default=[], metavar="NAME=SPEC")
    parser.add_argument("--judge", help="Also a judge's expected score of the answers.")
    parser.add_argument("--known-only", action="store_true", help="Use stored scores only.")
    parser.add_argument("--samples", type=int, help="Texts per prompt; default: all.")
    parser.add_argument("--rollouts", type=int, default=64, help="Rollouts per step.")
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
