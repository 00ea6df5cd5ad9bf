"""The commands `r2w-eval train synth|choose|sft|rl`: settings in, a folder out, restartable.

A stage's folder holds `manifest.json` (settings, inputs by hash, versions), so that a row of a
leaderboard can be traced back to its prompts.
"""

from __future__ import annotations

import itertools
import json
import platform
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.data.synthesis import FILE as REFLECTIONS
from r2w_eval.training.contamination import BenchmarkIndex, benchmark_texts
from r2w_eval.training.journal import Costs, Journal, Role, Tally, read_costs
from r2w_eval.training.pipeline.recipe import SECTIONS, TraceSettings
from r2w_eval.training.prompts import LANGUAGES, Prompt, read_prompts, starter_prompts
from r2w_eval.training.recipe import read_recipe, recipe_path
from r2w_eval.training.rl.difficulty import DifficultySettings, Trial, choose
from r2w_eval.training.rl.reference_file import read_reference_file
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.rl.train import train_rl
from r2w_eval.training.synthesis.loop import Roles, SynthSettings, synthesise
from r2w_eval.training.synthesis.steps import loop_reflections
from r2w_eval.training.synthesis.teaching import check_rows
from r2w_eval.training.synthesis.traces import (
    Census,
    TrainingTrace,
    near_duplicates,
    stitch,
    take_census,
)
from r2w_eval.training.trainer.sft import SFTSettings, read_rows, train_sft
from r2w_eval.training.trainer.stage import Trained, load_tokenizer

import r2w_eval
from r2w_eval.config import RunConfig
from r2w_eval.errors import DataError, IdentityMismatch, UsageError
from r2w_eval.hashing import content_hash, path_hash, to_plain
from r2w_eval.ranks import is_first, on_first, only_training
from r2w_eval.run.manifest import diff_fields
from r2w_eval.run.opening import ModelPool, OpenModel
from r2w_eval.run.roles import model_options
from r2w_eval.store import iter_jsonl, write_json, write_jsonl
from r2w_eval.trace.types import Form
from r2w_eval.types import Decoding

TRACES, TRAINED = "traces.jsonl", "trained.json"
# choices of this project: varied writing, a deterministic judge
WRITER = Decoding(temperature=0.8, top_p=0.95)
JUDGE = Decoding(temperature=0.0)
# when a single call that meets silence is given up, in units of the client's patience (journal.py)
GIVE_UP = 3.0


def settings_of(recipe: str) -> dict[str, Any]:
    """The settings of all stages. Raises UsageError, UnknownName."""
    return read_recipe(recipe_path(recipe), SECTIONS)


def claim(out: Path, stage: str, identity: dict[str, Any]) -> None:
    """Write the stage's manifest, or check that the existing one is of the same work.

    Raises IdentityMismatch naming every setting that differs.
    """
    path = out / "manifest.json"
    plain = to_plain({"stage": stage, **identity})
    if path.exists():
        before = _read_identity(path)
        if differing := list(diff_fields(before, plain)):
            raise IdentityMismatch(
                f"{out} holds another {stage}:\n  " + "\n  ".join(differing) + "\nUse another --out"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            "identity": plain,
            "r2w_eval": r2w_eval.__version__,
            "python": platform.python_version(),
            "statement": "Independent reconstruction after the abstract of arXiv 2604.03004.",
        },
    )


def _read_identity(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())["identity"]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}: not a manifest ({error}). Use another --out") from error


def choose_prompts(
    prompts_file: str | None,
    n: int,
    seed: int,
    data_dir: str | None,
    tasks: Sequence[str] = (),
    languages: Sequence[str] = LANGUAGES,
) -> tuple[list[Prompt], list[str]]:
    """Prompts to train on, and notes on what was left out or could not be checked.

    Prompts of the suites in `tasks`, which will be evaluated, are refused even if they are this
    project's own. Raises UsageError for a prompt that occurs in a benchmark.
    """
    prompts = (
        read_prompts(Path(prompts_file)) if prompts_file else starter_prompts(n, seed, languages)
    )
    benchmark = benchmark_texts(data_dir, tasks)
    index = BenchmarkIndex(benchmark.texts)
    for prompt in prompts:
        if hit := index.check(prompt.prompt):
            raise UsageError(
                f"prompt {prompt.id!r}: {hit}. Training on benchmark prompts makes every score "
                f"worthless; remove it and run the same command again"
            )
    twins = near_duplicates([prompt.prompt for prompt in prompts])
    notes = [f"{prompts[i].id}: nearly an earlier prompt, left out" for i in sorted(twins)]
    if benchmark.unchecked:
        notes.append(f"not compared with {', '.join(benchmark.unchecked)}: their data is not here")
    return [prompt for i, prompt in enumerate(prompts) if i not in twins], notes


@asynccontextmanager
async def open_models(names: Sequence[str], patience_s: float) -> AsyncIterator[list[OpenModel]]:
    """The models of these names (as in --model), in order. A model that answers no call for
    `patience_s` ends the stage. The reply cache is off, since a stage's journal keeps every reply.
    Raises UsageError.
    """
    usual = model_options(RunConfig(cache=False), None)
    client = replace(
        usual.client, timeout_s=patience_s, patience_s=patience_s, strict_patience=True
    )
    async with ModelPool(replace(usual, client=client)) as pool:
        yield [await pool.model(name) for name in names]


def role_of(opened: OpenModel, decoding: Decoding) -> Role:
    """An opened model with its sampling."""
    return Role(opened.chat, decoding, opened.tags)


@dataclass(frozen=True)
class Synthesis:
    """The result of a synthesis; `path` is its trace file, `costs` include earlier runs."""

    census: Census
    tally: Tally
    path: Path
    costs: Costs


async def run_synthesis(
    chosen: TraceSettings, prompts: Sequence[Prompt], settings: SynthSettings, out: Path
) -> Synthesis:
    """Run the writer-judge loop over all prompts with the models of `chosen`; write its files."""
    async with open_models(chosen.names, settings.patience_s) as (
        writer,
        judge,
        internaliser,
        *more,
    ):
        writes = replace(WRITER, max_tokens=settings.writer_tokens)
        judges = replace(JUDGE, max_tokens=settings.judge_tokens)
        second = role_of(more[0], judges) if more else None
        roles = Roles(
            role_of(writer, writes), role_of(judge, judges), role_of(internaliser, writes), second
        )
        # the model's identity, not its address: a server may come back elsewhere
        asked = (roles.writer, roles.judge, roles.internaliser, second)
        identities = [role.identity() for role in asked if role]
        identity = {"settings": settings.work(), "models": identities, **chosen.form_if_prose}
        claim(out, "synth", identity)
        with Journal(out / "steps.jsonl", GIVE_UP * settings.patience_s) as journal:
            episodes = await synthesise(prompts, roles, journal, settings)
    results = [stitch(episode, Form(chosen.form)) for episode in episodes]
    kept = [result for result in results if isinstance(result, TrainingTrace)]
    write_traces(out / TRACES, kept)
    gain_judge = f"second judge {second.model.id}" if second else f"judge {judge.chat.id}"
    census = take_census(episodes, results, gain_judge)
    write_jsonl(out / REFLECTIONS, loop_reflections(episodes))
    write_json(out / "census.json", census)
    costs = read_costs(out / "steps.jsonl")
    write_json(out / "costs.json", costs)
    return Synthesis(census, journal.tally, out / TRACES, costs)


@dataclass(frozen=True)
class Choice:
    """The result of choosing prompts by difficulty; `costs` include earlier runs."""

    path: Path
    n_tried: int
    n_kept: int
    left_out: Mapping[str, int]
    costs: Costs
    tally: Tally


async def run_choice(
    models: tuple[str, str],
    prompts: Sequence[Prompt],
    rules: tuple[DifficultySettings, Mapping[str, float]],
    out: Path,
) -> Choice:
    """Try prompts with `models` (policy, judge) and write those of suitable difficulty, each with
    its rubric.

    `rules` are the settings, and the mark of the best known text by prompt id.
    """
    settings, references = rules
    patience_s = SynthSettings().patience_s
    async with open_models(models, patience_s) as (policy, judge):
        roles = role_of(policy, WRITER), role_of(judge, JUDGE)
        identities = [role.identity() for role in roles]
        claim(out, "choice", {"settings": settings, "models": identities})
        with Journal(out / "steps.jsonl", GIVE_UP * patience_s) as journal:
            tried = await Trial(*roles, journal, settings).run(prompts, references)
    kept, left_out = choose(tried, settings)
    path = out / "prompts.jsonl"
    write_jsonl(path, (one.prompt for one in kept))
    write_jsonl(out / "tried.jsonl", tried)
    costs = read_costs(out / "steps.jsonl")
    choice = Choice(path, len(tried), len(kept), left_out, costs, journal.tally)
    facts = {"n_tried": len(tried), "n_kept": len(kept), "left_out": left_out}
    write_json(out / "choice.json", {**facts, **asdict(costs)})
    return choice


def read_references(traces: Path | None) -> dict[str, float]:
    """The judge's mark of the best text per prompt id, from a trace file of the loop."""
    if traces is None:
        return {}
    rows = ((row["id"], row["facts"].get("mean_best")) for row in iter_jsonl(traces))
    return {prompt_id: mark for prompt_id, mark in rows if mark is not None}


def write_traces(path: Path, traces: Sequence[TrainingTrace | Mapping[str, Any]]) -> None:
    """Write a trace file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, traces)


def write_expert_traces(chosen: TraceSettings, out: Path, limit: int | None = None) -> int:
    """Write at most `limit` traces made of professional edits (LAMP); how many were written."""
    from r2w_eval.reward_models.data.sources import find_sets, reward_data_root
    from r2w_eval.training.synthesis.expert import expert_traces

    sets = find_sets(reward_data_root(chosen.reward_data))
    if "lamp_train" not in sets:
        raise UsageError("no set lamp_train among the labelled sets. Try: --reward-data DIR")
    form, max_chars = Form(chosen.form), chosen.max_chars
    made = expert_traces(sets["lamp_train"], max_chars=max_chars, form=form)
    traces = list(itertools.islice(made, limit))
    source = {"set": "lamp_train", "licence": sets["lamp_train"].licence, "seed": 0}
    how = {"limit": limit, "max_chars": max_chars, **chosen.form_if_prose}
    claim(out, "expert", {**source, **how})
    write_traces(out / TRACES, traces)
    return len(traces)


def run_sft(settings: SFTSettings, traces: Path, out: Path) -> Trained:
    """Fine-tune on a trace file."""
    rows = read_rows(traces)
    with only_training(out):
        identity = {"settings": settings.work(), "traces": path_hash(traces)}
        on_first(lambda: claim(out, "sft", identity))
        teaching = check_rows(settings.model, rows, load_tokenizer(settings.model))
        trained = train_sft(settings, rows, out)
        notes = (*trained.notes, *teaching.notes())
        return _finish(out, replace(trained, notes=notes), n_prose=teaching.n_prose)


def run_rl(
    settings: RLSettings, prompts: Sequence[Prompt], out: Path, last_step: Path | None = None
) -> Trained:
    """Reinforcement learning on prompts; `last_step` as in `train_rl`."""
    require_tags(settings)
    with only_training(out):
        identity = {"settings": settings.work(), "prompts": content_hash(prompts)}
        if file := settings.references:
            identity["references"] = content_hash(read_reference_file(Path(file)))
        on_first(lambda: claim(out, "rl", identity))
        return _finish(out, train_rl(settings, prompts, out, last_step))


def require_tags(settings: RLSettings) -> None:
    """Raise UsageError if the settings reward reflections and the model was fine-tuned on traces
    without tags: reflections found in prose by rules are too often wrong to be rewarded.
    """
    path = Path(settings.model).parent / TRAINED
    taught = json.loads(path.read_bytes()) if path.is_file() else {}
    if settings.reads_reflections and taught.get("n_prose"):
        raise UsageError(
            f"rl.model {settings.model!r}: {taught['n_prose']} of {taught['n_rows']} rows of its "
            f"fine-tuning are in prose, and rewards of reflections need tags. Set "
            f"process_mapping.weight and penalties of redundancy and form to 0, or fine-tune on "
            f"traces with tags"
        )


def _finish(out: Path, trained: Trained, **facts: Any) -> Trained:
    if is_first():
        plain = {**asdict(trained), "model": str(trained.model), **facts}
        write_json(out / TRAINED, plain)
    return trained


def with_model(settings: Any, model: str | None) -> Any:
    """The settings with `model` in place of theirs, unless it is None."""
    return settings if model is None else replace(settings, model=model)
