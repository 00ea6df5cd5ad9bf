"""Plans the stages of a recipe, each with a key of everything that it depends on. Runs nothing.

A stage's key is the hash of its settings, of the external files and models that it reads, and of
the keys of its input stages. The key is part of the folder's name: a changed setting gets new
folders for the stage and all that depends on it, and the old setting finds the old folders again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.data.synthesis import FILE as REFLECTIONS
from r2w_eval.reward_models.scorer import JUDGE
from r2w_eval.training.pipeline.grid import BASE, SHUFFLED, rl_arms, sft_name, variants
from r2w_eval.training.pipeline.recipe import LOOP, Recipe, plain_difference
from r2w_eval.training.rl.effects import EffectSettings
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.trainer.stage import EMBEDDED

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.hashing import content_hash, file_hash, path_hash, to_plain
from r2w_eval.models.embedded import GGUF_SHA256
from r2w_eval.models.fingerprint import fingerprint

STAGES_FOLDER = "stages"


@dataclass(frozen=True)
class Stage:
    """One node of the lineage graph. `settings` are JSON values, all of which enter the key."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    settings: Mapping[str, Any]
    key: str

    def folder(self, out: Path) -> Path:
        """The stage's folder, below the pipeline's folder."""
        return out / STAGES_FOLDER / f"{self.name}-{self.key[:8]}"


def model_identity(model: str) -> str:
    """An identity of the weights of a checkpoint folder, a hub id or the embedded model.

    Raises UsageError for a folder without config.json.
    """
    if model == EMBEDDED:
        return GGUF_SHA256
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise UsageError(f"sft.model {model!r}: no config.json there. Expected a checkpoint folder")
    return fingerprint(model)


def outside(*names: str | None) -> dict[str, dict[str, str]]:
    """Content hashes of the folders and files among `names`, as the setting `content`; empty if
    there are none. Endpoints, hub ids and names of this package identify themselves.
    """
    places = {name: Path(name.removeprefix(JUDGE)) for name in names if name}
    found = {name: _identity(place) for name, place in places.items() if place.exists()}
    return {"content": found} if found else {}


def _identity(path: Path) -> str:
    is_checkpoint = (path / "config.json").is_file()
    return fingerprint(str(path)) if is_checkpoint else path_hash(path)


def labelled_sets(given: str | None) -> dict[str, dict[str, str]]:
    """The labelled sets on disk, each by the hash of its SOURCE.json, which lists file hashes."""
    root = given or os.environ.get("R2W_REWARD_DATA")
    records = sorted(Path(root).glob("*/SOURCE.json")) if root else []
    return {"sets": {path.parent.name: file_hash(path) for path in records}} if records else {}


class _Planner:
    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    def add(self, name: str, kind: str, inputs: Sequence[str], **settings: Any) -> str:
        plain = to_plain(settings)
        keys = {other: self.stages[other].key for other in inputs}
        key = content_hash({"kind": kind, "settings": plain, "inputs": keys})
        self.stages[name] = Stage(name, kind, tuple(inputs), plain, key)
        return name


def plan_pipeline(recipe: Recipe) -> list[Stage]:
    """All stages in an order in which each follows its inputs. Raises UsageError."""
    planner = _Planner()
    _plan_data(planner, recipe)
    base = {"model": recipe.sft.model, "weights": model_identity(recipe.sft.model)}
    how = {"run": plain_difference(recipe.evaluate), **outside(*recipe.evaluate.judge)}
    found = [planner.add(f"evaluate-{BASE}", "evaluate", [], **base, **how)]
    for seed in recipe.grid.seeds:
        for sft in _plan_sft(planner, recipe, seed, base):
            found.append(planner.add(f"evaluate-{sft}", "evaluate", [sft], **how))
    if recipe.rollouts.samples:
        _plan_signal(planner, recipe, base)
    checks = _plan_checks(planner, recipe)
    for name, arm in rl_arms(recipe.rl, recipe.grid).items():
        inputs = [sft_name(arm.seed), "prompts", "reward", *checks.get(arm.process, ())]
        planner.add(name, "rl", inputs, settings=arm.work(), **_rewards(arm))
        found.append(planner.add(f"evaluate-{name}", "evaluate", [name], **how))
        if recipe.rollouts.samples:
            _plan_rollouts(planner, recipe, name)
    planner.add("leaderboard", "leaderboard", found, title=f"Pipeline {recipe.name}")
    return list(planner.stages.values())


def _plan_sft(
    planner: _Planner, recipe: Recipe, seed: int, base: Mapping[str, Any]
) -> Iterator[str]:
    """Add the SFT stages of a seed; their names, the one without reflections first."""
    work = recipe.sft_of(seed).work()
    if recipe.grid.without_reflections:
        name = sft_name(seed, reflects=False)
        yield planner.add(name, "sft", ["traces"], settings=work, without_reflections=True, **base)
    yield planner.add(sft_name(seed), "sft", ["traces"], settings=work, **base)


def _plan_checks(planner: _Planner, recipe: Recipe) -> dict[str, list[str]]:
    """Add a validity stage for each of the grid's other process scorers; their names by scorer."""
    found = {}
    for label, own in variants(recipe.rl, recipe.grid).items():
        if own.scorer:
            asked = {"process": own.scorer, "validity": own.settings.validity}
            name = f"validity-{label}"
            planner.add(name, "validity", ["reward"], **asked, **outside(own.scorer))
            found[own.scorer] = [name]
    return found


def _plan_rollouts(planner: _Planner, recipe: Recipe, model: str) -> str:
    """Add the stage that samples texts of a trained model on the held-out prompts; its name."""
    inputs = [model, "prompts"]
    return planner.add(f"rollouts-{model}", "rollouts", inputs, settings=recipe.rollouts)


def _plan_signal(planner: _Planner, recipe: Recipe, base: Mapping[str, Any]) -> None:
    """Add rollouts of the base and of every SFT model, and the signal that RL would see in them."""
    planner.add(f"rollouts-{BASE}", "rollouts", ["prompts"], settings=recipe.rollouts, **base)
    grid, rl = recipe.grid, recipe.rl
    texts = [_plan_rollouts(planner, recipe, sft_name(seed)) for seed in grid.seeds]
    if grid.without_reflections:
        for seed in grid.seeds:
            _plan_rollouts(planner, recipe, sft_name(seed, reflects=False))
    names = ("outcome", "process", "effect", "process_mapping", "unanswered")
    how = {name: getattr(rl, name) for name in names}
    if rl.effect == EffectSettings():
        del how["effect"]
    how |= _rewards(rl, *grid.scorers)
    # only those that there are: without any the stage is that of a plain grid
    others = {name: getattr(grid, name) for name in ("mappings", "scorers", SHUFFLED)}
    others = {name: own for name, own in others.items() if own}
    if rl.outcome_form == "scorer":
        planner.add("signal", "signal", [*texts, "reward"], lambdas=grid.lambdas, **how, **others)


def _rewards(rl: RLSettings, *others: str) -> dict[str, dict[str, str]]:
    """Content hashes of the files and folders that rewards are read from, and of `others`."""
    own = (rl.outcome, rl.process, rl.effect.scorer, rl.validity, rl.references)
    return outside(*own, *others)


def _plan_data(planner: _Planner, recipe: Recipe) -> None:
    tasks, traces, limit = recipe.tasks, recipe.traces, recipe.traces.limit
    content = _prompt_file(recipe.prompts.file)
    planner.add("prompts", "prompts", [], settings=recipe.prompts, content=content, tasks=tasks)
    own: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]] = {
        "loop": (["prompts"], {"models": traces.names, "settings": recipe.synth.work(),
                               **outside(*traces.names)}),
        "expert": ([], {"limit": limit, "data": traces.reward_data, "chars": traces.max_chars,
                        **labelled_sets(traces.reward_data)}),
        "planted": ([], {"limit": limit, "languages": traces.languages}),
    }  # fmt: skip
    sources = [
        planner.add(
            f"traces-{name}", f"traces-{name}", own[name][0], **own[name][1], **traces.form_if_prose
        )
        for name in recipe.traces.sources
    ]
    planner.add("traces", "traces", sources, tasks=tasks, data_dir=recipe.prompts.data_dir)
    lambdas = [weight > 0 for weight in recipe.grid.lambdas]
    asked: dict[str, Any] = {}
    if any(lambdas):
        asked = {"process": recipe.rl.process, "validity": recipe.rl.validity}
    synth = recipe.rm.synth
    steps = str(Path(synth) / REFLECTIONS) if synth and synth != LOOP else None
    asked |= outside(*asked.values(), steps)
    read: dict[str, Any] = {}
    if recipe.rm.source == "trained":
        read |= labelled_sets(recipe.rm.reward_data)
    inputs = ["traces-loop"] if synth == LOOP else []
    if synth:
        # steps of what a benchmark holds are left out
        read |= {"tasks": tasks, "data_dir": recipe.prompts.data_dir}
    planner.add("reward", "reward", inputs, settings=recipe.rm.identity, **asked, **read)


def _prompt_file(name: str | None) -> str | None:
    if name is None:
        return None
    if not Path(name).is_file():
        raise UsageError(
            f"prompts.file {name!r}: no such file. Expected JSON lines of prompts, or leave the "
            f"line out for the starter prompts"
        )
    return file_hash(Path(name))


def select(stages: Sequence[Stage], only: str) -> list[Stage]:
    """The stages whose names or kinds are in `only`, separated by commas. Raises UnknownName."""
    wanted = [word.strip() for word in only.split(",")]
    known = {name for stage in stages for name in (stage.name, stage.kind)}
    for word in wanted:
        if word not in known:
            raise UnknownName("--only", word, "stage", known, "--dry-run lists them")
    return [stage for stage in stages if {stage.name, stage.kind} & set(wanted)]


def dependants(stages: Sequence[Stage], changed: set[str]) -> list[str]:
    """Names of the stages that depend on one of `changed`, directly or not."""
    reached = set(changed)
    for stage in stages:
        if reached & set(stage.inputs):
            reached.add(stage.name)
    return [stage.name for stage in stages if stage.name in reached - changed]
