"""Two experiments on thinking: on against off, paired on the same prompts, and score by budget.

An arm is a run with some settings of its own: a chat-template argument (`model_args`), an API
parameter (`extra_body`), a system prompt, or another model. Runs resume; finished ones are only
read. Forms: specification r2write, section 8 (the paper's Table 1; tokens per point).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from r2w_eval.comparison.scores import StoredResult, check_identities, item_values, load_results
from r2w_eval.config import RunConfig, check_setting
from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.estimates import mean_of
from r2w_eval.models.thinking_tokens import count_tokens
from r2w_eval.reflection.analysis import TraceInput
from r2w_eval.reflection.sources import read_run
from r2w_eval.run.job import Watch, evaluate
from r2w_eval.run.spending import check_budget, open_budget
from r2w_eval.stats.inference import PairedComparison, compare, measure, on_common
from r2w_eval.stats.inference import evaluate as evaluate_estimate
from r2w_eval.store import RunFolder
from r2w_eval.suites.suite import load_info, suite_folders
from r2w_eval.types import Estimate, Metric


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

    `relative` is `relative_change` over the common prompts. `tokens_per_point` has no
    value where the interval of the difference holds 0; its tokens are of the same prompts. Prompts
    with one side only are counted in `difference` and left out.
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
    # a value may hold a semicolon; one that parts settings has a name and "=" behind it
    for part in filter(None, map(str.strip, re.split(r";(?=\s*[A-Za-z][\w-]*\s*=|\s*$)", body))):
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
    """Run every arm into a folder of its own, all under one cap; returns the run folders by arm.

    Raises BudgetReached where the cap ends an arm: no other one begins.
    """
    if len({arm.name for arm in arms}) < len(arms) or len(arms) < 2:
        raise UsageError("an experiment needs two arms or more, each with a name of its own")
    paths = {}
    budget = open_budget(config)
    for arm in arms:
        settings: dict[str, Any] = {"out": str(folder / arm.name), **arm.settings}
        outcome = await evaluate(replace(config, **settings), watch, budget)
        check_budget(budget)
        paths[arm.name] = str(outcome.folder.path)
    return paths


@dataclass(frozen=True, slots=True)
class Side:
    """One arm with what it is made of: scores and thinking tokens by prompt."""

    arm: ArmResult
    result: StoredResult
    thinking: Estimate


def arm_results(name: str, path: str) -> list[ArmResult]:
    """Scores and tokens of one finished run, per task and judge."""
    return [side.arm for side in _sides(name, path)]


def _sides(name: str, path: str) -> list[Side]:
    inputs = read_run(RunFolder.existing(path))
    spent = {task: spent_tokens(own) for task, own in inputs.items()}
    sides = []
    for result in load_results(path):
        thinking, answers = spent.get(result.task) or spent_tokens([])
        tokens = measure(thinking), measure(answers)
        arm = ArmResult(name, result.task, result.judge, result.headline, *tokens)
        sides.append(Side(arm, result, thinking))
    return sides


def spent_tokens(inputs: Sequence[TraceInput]) -> tuple[Estimate, Estimate]:
    """Mean thinking and answer tokens of an answer: of all its turns, which have one score."""
    prompts: dict[str, str] = {}
    thinking: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for own in inputs:
        more, less, _ = count_tokens(own.thinking or "", own.answer, own.usage)
        prompts[own.answer_id] = own.cluster
        thinking[own.answer_id] += more
        answers[own.answer_id] += less
    n_prompts = len(set(prompts.values()))
    thought, written = (
        replace(
            mean_of(name, [(prompts[one], float(tokens[one])) for one in prompts], n_prompts),
            bounded=False,
        )
        for name, tokens in (("thinking_tokens", thinking), ("answer_tokens", answers))
    )
    return thought, written


def compare_on_off(on: str, off: str) -> list[OnOff]:
    """Every task and judge that both runs have. Raises IdentityMismatch, UsageError."""
    others = {(side.arm.task, side.arm.judge): side for side in _sides("off", off)}
    pairs = [
        (side, other)
        for side in _sides("on", on)
        if (other := others.get((side.arm.task, side.arm.judge))) is not None
    ]
    if not pairs:
        raise UsageError(f"{on} and {off} share no task with the same judge")
    return [on_minus_off(first, second) for first, second in pairs]


def on_minus_off(on: Side, off: Side) -> OnOff:
    """One task under one judge. Raises IdentityMismatch."""
    check_identities([on.result, off.result], force_common=False)
    first, second = on.result.estimate, off.result.estimate
    common = item_values(first).keys() & item_values(second).keys()
    difference = compare(first, second)
    spent = [mean_over(side.thinking, common) for side in (on, off)]
    return OnOff(
        on.result.task,
        on.result.judge,
        on.arm,
        off.arm,
        difference,
        measure(relative_change(first, second, lowest_score(on.result))),
        tokens_per_point(difference, *spent),
    )


def mean_over(tokens: Estimate, prompts: Collection[str]) -> float | None:
    """Mean over the named prompts; over all where a suite groups its verdicts by something else."""
    own = item_values(tokens)
    kept = [value for name, value in own.items() if name in prompts] or list(own.values())
    return sum(kept) / len(kept) if kept else None


def lowest_score(result: StoredResult) -> float:
    """The end of the suite's scale where that is below 0, else 0: what a ratio may count from."""
    if result.task not in suite_folders():
        return 0.0
    low, _ = load_info(result.task).score_range
    estimate = result.estimate
    weight = sum(stratum.weight for stratum in estimate.strata)
    return min(0.0, estimate.offset + estimate.scale * weight * low)


def relative_change(on: Estimate, off: Estimate, lowest: float = 0.0) -> Estimate:
    """((on - lowest) / (off - lowest) - 1) * 100 over the common prompts, in percent.

    A scale that goes below 0 is counted from its lowest value (HelloBench, from -300 on, as if it
    were 0 to 100); without a mean above that there is no value. The ratio is stated as what it is
    near the two means, on - ratio * off, which can be resampled (delta method).
    """
    left, right, counts = on_common(on, off)
    ours, theirs = evaluate_estimate(left), evaluate_estimate(right)
    name, n = "relative_change_percent", sum(counts)
    if ours is None or theirs is None or min(ours, theirs) <= lowest:
        return Estimate(name, (), n, note="no ratio: a mean is not above 0", bounded=False)
    ratio = (ours - lowest) / (theirs - lowest)
    unit = left.scale / (theirs - lowest)
    strata = (
        *(replace(s, weight=s.weight * unit) for s in left.strata),
        *(replace(s, weight=-s.weight * unit * ratio) for s in right.strata),
    )
    near = Estimate(name, strata, n, 100.0, bounded=False)
    return replace(near, offset=100 * (ratio - 1) - (evaluate_estimate(near) or 0.0))


def tokens_per_point(
    difference: PairedComparison, tokens_on: float | None, tokens_off: float | None
) -> float | None:
    """(tokens_on - tokens_off) / (score_on - score_off); None where that says nothing."""
    known = (difference.difference, difference.low, difference.high, tokens_on, tokens_off)
    if any(value is None for value in known):
        return None
    points, low, high, more, less = (float(value or 0.0) for value in known)
    return None if low <= 0 <= high else (more - less) / points
