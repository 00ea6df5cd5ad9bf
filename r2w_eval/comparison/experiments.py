"""Two experiments on thinking: on against off, paired on the same prompts, and score by budget.

An arm is a run with some settings of its own: a chat-template argument (`model_args`), an API
parameter (`extra_body`), a system prompt, or another model. Runs resume; finished ones are only
read. Forms: specification r2write, section 8 (the paper's Table 1; tokens per point).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from r2w_eval.comparison.scores import StoredResult, check_identities, item_values, load_results
from r2w_eval.config import RunConfig, check_setting
from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.reflection.analysis import analyse
from r2w_eval.reflection.measures import answer_tokens, thinking_tokens
from r2w_eval.reflection.sources import read_run
from r2w_eval.run.job import Watch, evaluate
from r2w_eval.stats.inference import PairedComparison, compare, measure
from r2w_eval.store import RunFolder
from r2w_eval.types import Estimate, Metric, Stratum


@dataclass(frozen=True)
class Arm:
    """One side of an experiment: a name and the settings that differ."""

    name: str
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm under one judge: score and tokens with intervals."""

    arm: str
    task: str
    judge: str
    score: Metric
    thinking: Metric
    answer: Metric


@dataclass(frozen=True, slots=True)
class OnOff:
    """Thinking on minus off, on the prompts that both have scored.

    `relative` = (mean_on / mean_off - 1) * 100 over the common prompts. `tokens_per_point` has no
    value where the interval of the difference holds 0. Prompts with one side only are counted in
    `difference` and left out.
    """

    task: str
    judge: str
    on: ArmResult
    off: ArmResult
    difference: PairedComparison
    relative: Metric
    tokens_per_point: float | None


def parse_arm(text: str, name: str = "") -> Arm:
    """`NAME:key=value;key=value`, or without the name. Raises UsageError, UnknownName.

    >>> parse_arm("low:model_args=enable_thinking=false").settings
    {'model_args': 'enable_thinking=false'}
    """
    body = text
    if not name:
        name, colon, body = text.partition(":")
        if not colon or not name:
            raise UsageError(f"--arm {text!r:.200}: expected NAME:SETTING=VALUE;SETTING=VALUE")
    known = {f.name: f for f in fields(RunConfig) if "str" in str(f.type) and f.name != "judge"}
    settings = {}
    for part in filter(None, (piece.strip() for piece in body.split(";"))):
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or key not in known:
            raise UnknownName("arm", key, "setting", known, "r2w-eval run --help")
        check_setting(known[key], value)
        settings[key] = value
    return Arm(name, settings)


async def run_arms(
    config: RunConfig, arms: Sequence[Arm], folder: Path, watch: Watch | None = None
) -> dict[str, str]:
    """Run every arm into a folder of its own; returns the run folders by arm."""
    if len({arm.name for arm in arms}) < len(arms) or len(arms) < 2:
        raise UsageError("an experiment needs two arms or more, each with a name of its own")
    paths = {}
    for arm in arms:
        settings: dict[str, Any] = {"out": str(folder / arm.name), **arm.settings}
        outcome = await evaluate(replace(config, **settings), watch)
        paths[arm.name] = str(outcome.folder.path)
    return paths


def arm_results(name: str, path: str) -> list[ArmResult]:
    """Scores and tokens of one finished run, per task and judge."""
    inputs = read_run(RunFolder.existing(path))
    analyses = {task: [analyse(source) for source in own] for task, own in inputs.items()}
    return [
        ArmResult(
            name,
            result.task,
            result.judge,
            result.headline,
            measure(thinking_tokens(analyses.get(result.task, []))),
            measure(answer_tokens(analyses.get(result.task, []))),
        )
        for result in load_results(path)
    ]


def compare_on_off(on: str, off: str) -> list[OnOff]:
    """Every task and judge that both runs have. Raises IdentityMismatch, UsageError."""
    results = {name: load_results(path) for name, path in (("on", on), ("off", off))}
    arms = {
        name: {(a.task, a.judge): a for a in arm_results(name, path)}
        for name, path in (("on", on), ("off", off))
    }
    by_place = {(r.task, r.judge): r for r in results["off"]}
    pairs = [(r, by_place[r.task, r.judge]) for r in results["on"] if (r.task, r.judge) in by_place]
    if not pairs:
        raise UsageError(f"{on} and {off} share no task with the same judge")
    return [_on_off(first, second, arms) for first, second in pairs]


def _on_off(
    first: StoredResult,
    second: StoredResult,
    arms: Mapping[str, Mapping[tuple[str, str], ArmResult]],
) -> OnOff:
    check_identities([first, second], force_common=False)
    place = first.task, first.judge
    on, off = arms["on"][place], arms["off"][place]
    difference = compare(first.estimate, second.estimate)
    return OnOff(
        first.task,
        first.judge,
        on,
        off,
        difference,
        measure(relative_change(first.estimate, second.estimate)),
        tokens_per_point(difference, on.thinking.value, off.thinking.value),
    )


def relative_change(on: Estimate, off: Estimate) -> Estimate:
    """(sum on / sum off - 1) * 100 over the common prompts, as a ratio that can be resampled."""
    ours, theirs = item_values(on), item_values(off)
    common = sorted(ours.keys() & theirs.keys())
    stratum = Stratum(
        tuple(common), tuple(ours[name] for name in common), tuple(theirs[name] for name in common)
    )
    n = len(ours.keys() | theirs.keys())
    return Estimate("relative_change_percent", (stratum,), n, 100.0, -100.0, bounded=False)


def tokens_per_point(
    difference: PairedComparison, tokens_on: float | None, tokens_off: float | None
) -> float | None:
    """(tokens_on - tokens_off) / (score_on - score_off); None where that says nothing."""
    known = (difference.difference, difference.low, difference.high, tokens_on, tokens_off)
    if any(value is None for value in known):
        return None
    points, low, high, more, less = (float(value or 0.0) for value in known)
    return None if low <= 0 <= high else (more - less) / points
