"""The models that a grid trains: their stage names, descriptions, settings and controls.

A grid has the base, an SFT model per seed and an RL model per seed and lambda. For an ablation a
recipe may add SFT without reflections, other mappings, other process scorers and shuffled scores
(specification: r2write.md section 7); each differs from the usual model in one respect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from r2w_eval.reward_models.checks.report import WAIVED
from r2w_eval.training.rl.advantages import Form
from r2w_eval.training.rl.settings import RLSettings

from r2w_eval.errors import UsageError

BASE = "base"
SHUFFLED = "shuffled"


@dataclass(frozen=True)
class GridSettings:
    """What is trained: for each seed an SFT model, and from it one RL model per lambda. The later
    settings add models for an ablation (r2write.md section 7), each different in one respect.

    seeds: replace sft.seed and rl.seed
    lambdas: replace rl.process_mapping.weight; 0 trains on the outcome reward alone
    without_reflections: for each seed a second SFT model on the same prompts and answers, whose
        thinking is the plan and the answer as draft (synthesis/controls.py)
    mappings: other values of rl.process_mapping.form, for each seed and lambda above 0
    scorers: other values of rl.process, likewise; each needs its own validity report, unless waived
    shuffled: a control, likewise: the scores of reflections are permuted (rl/controls.py)
    """

    seeds: tuple[int, ...] = (0,)
    lambdas: tuple[float, ...] = (0.0, 0.3)
    without_reflections: bool = False
    mappings: tuple[Form, ...] = ()
    scorers: tuple[str, ...] = ()
    shuffled: bool = False


@dataclass(frozen=True)
class Variant:
    """The `rl` section with one thing changed; `scorer` is set if that is the process scorer."""

    settings: RLSettings
    scorer: str = ""


def sft_name(seed: int, *, reflects: bool = True) -> str:
    """The name of a fine-tuning stage.

    >>> sft_name(0), sft_name(0, reflects=False)
    ('sft-seed0', 'sft-without-reflections-seed0')
    """
    return f"sft-seed{seed}" if reflects else f"sft-without-reflections-seed{seed}"


def arm_name(weight: float, seed: int, variant: str = "") -> str:
    """The name of an RL stage.

    >>> arm_name(0.0, 1), arm_name(0.3, 0), arm_name(0.3, 0, "sum")
    ('rl-lambda0-seed1', 'rl-lambda0.3-seed0', 'rl-sum-lambda0.3-seed0')
    """
    return "-".join(filter(None, ("rl", variant, f"lambda{weight:g}", f"seed{seed}")))


def scorer_label(spec: str) -> str:
    """A scorer as part of a stage's name: the last component of its specification.

    >>> scorer_label("r2w-rules"), scorer_label("own.module:Scorer"), scorer_label("runs/rm/")
    ('r2w-rules', 'own.module-Scorer', 'rm')
    >>> scorer_label("judge:http://localhost:8001/v1#Qwen/Qwen3-32B")
    'Qwen3-32B'
    """
    tail = spec.rstrip("/").rpartition("/")[2].rpartition("#")[2]
    return re.sub(r"[^A-Za-z0-9._]+", "-", tail).strip("-.")


def variants(rl: RLSettings, grid: GridSettings) -> dict[str, Variant]:
    """The variants that the grid adds at every lambda above 0, by the word in their stages' names.

    The usual mapping and scorer are left out. Raises UsageError if two would get the same word.
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
    """The settings of every RL stage by name, ordered by seed, then lambda, the usual arm first."""
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
    """Check what the types do not express. Raises UsageError."""
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
    """A description of the model that a stage of this kind and these settings makes.

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
    """The stage of the control model, which differs in what is under test: for an RL arm the one
    with lambda 0, for lambda 0 its SFT model, for SFT the one without reflections; else None.
    """
    if kind == "sft" and not settings.get("without_reflections"):
        return sft_name(settings["settings"]["seed"], reflects=False)
    if kind == "rl":
        own = settings["settings"]
        is_paid = bool(own["process_mapping"]["weight"])
        return arm_name(0.0, own["seed"]) if is_paid else sft_name(own["seed"])
    return None
