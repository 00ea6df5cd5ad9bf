"""The models that a grid trains: their names, what each is in words, what each is compared with.

Beside base, SFT and one RL model per lambda, a recipe may ask for what an ablation compares them
with (specification: r2write.md section 7): SFT without reflections, other mappings, other process
scorers, shuffled scores. Each differs from the usual model in one thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from r2w_eval.reward_models.checks.report import WAIVED
from r2w_eval.training.rl.advantages import Form
from r2w_eval.training.rl.train import RLSettings

from r2w_eval.errors import UsageError

BASE = "base"
SHUFFLED = "shuffled"


@dataclass(frozen=True)
class GridSettings:
    """What is trained: for each seed an SFT model, and from it one RL model per lambda. The others
    are for an ablation (r2write.md section 7); each differs from these in one thing.

    seeds: take the place of sft.seed and rl.seed
    lambdas: take the place of rl.process_mapping.weight; 0 is reinforcement by the outcome alone
    without_reflections: for each seed another SFT model, on the same prompts and answers; its
        thinking is the plan and the answer as draft (synthesis/controls.py)
    mappings: besides rl.process_mapping.form, for each seed and lambda above 0
    scorers: besides rl.process, likewise; each has to show its own validity, unless waived
    shuffled: control, likewise: scores of reflections change places (rl/controls.py)
    """

    seeds: tuple[int, ...] = (0,)
    lambdas: tuple[float, ...] = (0.0, 0.3)
    without_reflections: bool = False
    mappings: tuple[Form, ...] = ()
    scorers: tuple[str, ...] = ()
    shuffled: bool = False


@dataclass(frozen=True)
class Variant:
    """The `rl` section with one thing changed; `scorer` where that is who scores reflections."""

    settings: RLSettings
    scorer: str = ""


def sft_name(seed: int, *, reflects: bool = True) -> str:
    """The stage of one fine-tuning.

    >>> sft_name(0), sft_name(0, reflects=False)
    ('sft-seed0', 'sft-without-reflections-seed0')
    """
    return f"sft-seed{seed}" if reflects else f"sft-without-reflections-seed{seed}"


def arm_name(weight: float, seed: int, variant: str = "") -> str:
    """The stage of one RL training.

    >>> arm_name(0.0, 1), arm_name(0.3, 0), arm_name(0.3, 0, "sum")
    ('rl-lambda0-seed1', 'rl-lambda0.3-seed0', 'rl-sum-lambda0.3-seed0')
    """
    return "-".join(filter(None, ("rl", variant, f"lambda{weight:g}", f"seed{seed}")))


def scorer_label(spec: str) -> str:
    """A scorer in the name of a stage: the end of its own name.

    >>> scorer_label("r2w-rules"), scorer_label("own.module:Scorer"), scorer_label("runs/rm/")
    ('r2w-rules', 'own.module-Scorer', 'rm')
    >>> scorer_label("judge:http://localhost:8001/v1#Qwen/Qwen3-32B")
    'Qwen3-32B'
    """
    tail = spec.rstrip("/").rpartition("/")[2].rpartition("#")[2]
    return re.sub(r"[^A-Za-z0-9._]+", "-", tail).strip("-.")


def variants(rl: RLSettings, grid: GridSettings) -> dict[str, Variant]:
    """What the grid adds to the usual arms, each at every lambda above 0, by the word in its name.

    The usual mapping and scorer are no variants. Raises UsageError for one word for two.
    """
    mapping = rl.process_mapping
    found: dict[str, Variant] = {
        form: Variant(replace(rl, process_mapping=replace(mapping, form=form)))
        for form in grid.mappings
        if form != mapping.form
    }
    # a report is of one scorer
    validity = WAIVED if rl.validity == WAIVED else ""
    for spec in (spec for spec in grid.scorers if spec != rl.process):
        label = scorer_label(spec)
        if not label or label in found or label == SHUFFLED:
            raise UsageError(
                f"grid.scorers: {spec!r} would be {label!r} in the names of stages, which is "
                f"empty or taken. Try a link to that folder under another name"
            )
        found[label] = Variant(replace(rl, process=spec, validity=validity), spec)
    if grid.shuffled:
        found[SHUFFLED] = Variant(replace(rl, shuffled=True))
    return found


def rl_arms(rl: RLSettings, grid: GridSettings) -> dict[str, RLSettings]:
    """The settings of every RL training by its stage: by seed, then by lambda, the usual first."""
    ways = {"": rl} | {name: own.settings for name, own in variants(rl, grid).items()}
    return {
        arm_name(weight, seed, name): _at(settings, seed, weight)
        for seed in grid.seeds
        for weight in grid.lambdas
        for name, settings in ways.items()
        if weight or not name
    }


def _at(settings: RLSettings, seed: int, weight: float) -> RLSettings:
    mapping = replace(settings.process_mapping, weight=weight)
    return replace(settings, seed=seed, process_mapping=mapping)


def check_grid(grid: GridSettings, rl: RLSettings, where: str) -> None:
    """What types alone do not say. Raises UsageError."""
    for name, values in (("seeds", grid.seeds), ("lambdas", grid.lambdas)):
        if not values or len(set(values)) < len(values) or min(values) < 0:
            raise UsageError(
                f"{where}: grid.{name}: {list(values)}: expected one or more different numbers "
                f"from 0"
            )
    if rl.shuffled:
        raise UsageError(
            f"{where}: rl.shuffled: in a pipeline the control stands beside the other models. Set "
            f"grid.shuffled: true, and leave this line out"
        )
    if variants(rl, grid) and not any(grid.lambdas):
        raise UsageError(
            f"{where}: grid.lambdas: {list(grid.lambdas)}: mappings, scorers and shuffled are "
            f"trained at lambdas above 0. Expected one, as in lambdas: [0.0, 0.3]"
        )


def about(kind: str, settings: Mapping[str, Any]) -> str:
    """What the model of a stage is, in words; `kind` and `settings` are those of the stage.

    >>> about("evaluate", {}), about("sft", {"without_reflections": True})
    ('the base', 'SFT on the same answers, without reflections')
    """
    if kind == "sft":
        without = " on the same answers, without reflections"
        return f"SFT{without if settings.get('without_reflections') else ''}"
    if kind != "rl":
        return "the base"
    own = settings["settings"]
    mapping = own["process_mapping"]
    if not mapping["weight"]:
        return "RL by the outcome alone"
    shuffled = ", scores shuffled (control)" if own.get(SHUFFLED) else ""
    return f"RL, lambda {mapping['weight']:g}, {own['process']}, {mapping['form']}{shuffled}"


def control_of(kind: str, settings: Mapping[str, Any]) -> str | None:
    """The model that differs from a stage's in what is under test: of an arm lambda 0, of lambda 0
    its SFT model, of that the one without reflections; None of others.
    """
    if kind == "sft" and not settings.get("without_reflections"):
        return sft_name(settings["settings"]["seed"], reflects=False)
    if kind == "rl":
        own = settings["settings"]
        is_paid = bool(own["process_mapping"]["weight"])
        return arm_name(0.0, own["seed"]) if is_paid else sft_name(own["seed"])
    return None
