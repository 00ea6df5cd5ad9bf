"""`r2w-eval train`: the stages of the training pipeline; each is imported when it is called."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from r2w_eval.cli.options import run_interruptibly
from r2w_eval.cli.pipeline import pipeline


@click.group()
def train() -> None:
    """Train: traces, SFT, RL, reward model, or all in a pipeline.

    All but the small reward model need the extra: pip install 'r2w-eval[train]'
    """


@train.command()
@click.option("--reward-data", help="Folder of labelled sets. Default: $R2W_REWARD_DATA.")
@click.option("--out", default="reward-model", show_default=True, help="Folder for what is made.")
@click.option("--data-only", is_flag=True, help="Write the rows and the data card, then stop.")
@click.option("--without", multiple=True, metavar="SET", help="Leave a set out; repeatable.")
@click.option("--allow-restricted", is_flag=True, help="Also research-only sets (not released).")
@click.option("--fillings", default=40, show_default=True, type=click.IntRange(1, 40),
              help="Of each text with planted flaws; fewer for a quick run.")  # fmt: skip
@click.option("--synth", multiple=True, metavar="DIR",
              help="Also the reflections of a folder of train synth; repeatable.")  # fmt: skip
@click.option("--transformer", is_flag=True, help="Train the transformer artefact instead.")
@click.option("--recipe", default="", help="With --transformer: smollm2-135m, qwen3-…, or a file.")
@click.option("--max-seconds", type=float, show_default="the recipe's, without one 3000",
              help="With --transformer.")  # fmt: skip
@click.option("--export", "folder", help="Write the exchange artefact to this folder, then stop.")
@click.option("--weights", metavar="DIR",
              help="Adapters of --transformer: to export, or to begin from.")  # fmt: skip
@click.option("--truncation", type=click.Choice(["error", "unit", "middle"]), default="error",
              show_default=True, help="With --export: what becomes of long items.")  # fmt: skip
@click.option("--validate", is_flag=True, help="Run the validity suite on --scorer, then stop.")
@click.option("--scorer", default="r2w-reward", show_default=True, help="With --validate.")
def rm(  # noqa: PLR0913
    reward_data: str | None,
    out: str,
    data_only: bool,
    without: tuple[str, ...],
    allow_restricted: bool,
    fillings: int,
    synth: tuple[str, ...],
    transformer: bool,
    recipe: str,
    max_seconds: float | None,
    folder: str | None,
    weights: str | None,
    truncation: str,
    validate: bool,
    scorer: str,
) -> None:
    """Train, export or validate the reflection-quality reward model."""
    from r2w_eval.reward_models import commands

    if validate:
        commands.validate(scorer, out)
    elif folder is not None:
        commands.export(folder, weights, truncation)
    else:
        chosen = commands.DataChoice(reward_data, without, allow_restricted, fillings, synth)
        start = Path(weights) if weights else None
        settings = commands.TransformerChoice(recipe, max_seconds, start) if transformer else None
        commands.train(chosen, out, data_only, settings)


train.add_command(pipeline)

RECIPE = click.option("--recipe", default="smoke", show_default=True, help="Recipe file or name.")


@train.command()
@RECIPE
@click.option("--writer", default="smollm2", show_default=True, help="As --model of run.")
@click.option("--judge", help="Default: the writer.")
@click.option("--internaliser", help="Default: the writer.")
@click.option("--second-judge", help="Tells the gain and chooses nothing. Default: the judge does.")
@click.option("--prompts", help="JSON lines of prompts. Default: our starter prompts.")
@click.option("--n", default=12, show_default=True, help="Starter prompts to take.")
@click.option("--out", default="synth", show_default=True, help="Folder for calls and traces.")
@click.option("--expert", is_flag=True, help="Traces from professional edits instead; no model.")
@click.option("--reward-data", help="With --expert. Default: $R2W_REWARD_DATA.")
@click.option("--form", type=click.Choice(["tagged", "prose"]), default="tagged",
              show_default=True, help="Of the traces: tags, or opening cues only.")  # fmt: skip
def synth(recipe: str, prompts: str | None, n: int, out: str, expert: bool, **chosen: Any) -> None:
    """Make training traces: a writer and a judge take turns.

    They do so until the judge finds the piece good, or the recipe's rounds are used up.
    """
    from r2w_eval.training.pipeline import commands
    from r2w_eval.training.pipeline.display import show_census
    from r2w_eval.training.pipeline.recipe import TraceSettings

    settings = TraceSettings(**chosen)
    if expert:
        n = commands.write_expert_traces(settings, Path(out))
        click.echo(f"{n} traces of professional edits in {out}/{commands.TRACES}")
        return
    found = _choose_prompts(prompts, n)
    rules = commands.settings_of(recipe)["synth"]
    made = run_interruptibly(commands.run_synthesis(settings, found, rules, Path(out)))
    show_census(made, click.echo)


@train.command()
@click.option("--policy", default="smollm2", show_default=True, help="As --model of run.")
@click.option("--judge", required=True, help="Marks the policy's answers; as --judge of run.")
@click.option("--prompts", help="JSON lines of prompts. Default: our starter prompts.")
@click.option("--n", default=12, show_default=True, help="Starter prompts to take.")
@click.option("--traces", type=click.Path(exists=True), help="Traces of synth: best known texts.")
@click.option("--quota", default=0, show_default=True, help="Most per language and domain; 0: all.")
@click.option("--out", default="choice", show_default=True, help="Folder for calls and prompts.")
def choose(policy: str, judge: str, prompts: str | None, n: int, out: str, **chosen: Any) -> None:
    """Choose prompts neither too easy nor too hard for a policy."""
    from r2w_eval.training.pipeline import commands
    from r2w_eval.training.pipeline.display import show_choice
    from r2w_eval.training.rl.difficulty import DifficultySettings

    found = _choose_prompts(prompts, n)
    traces = Path(chosen["traces"]) if chosen["traces"] else None
    rules = DifficultySettings(quota=chosen["quota"]), commands.read_references(traces)
    made = run_interruptibly(commands.run_choice((policy, judge), found, rules, Path(out)))
    show_choice(made, click.echo)


@train.command()
@RECIPE
@click.option("--traces", default="synth/traces.jsonl", show_default=True, help="Trace file.")
@click.option("--model", help="Checkpoint to start from. Default: the recipe's.")
@click.option("--out", default="sft", show_default=True, help="Folder for checkpoints and model.")
def sft(recipe: str, traces: str, model: str | None, out: str) -> None:
    """Fine-tune on traces; the same command goes on after a stop."""
    from r2w_eval.training.pipeline import commands

    settings = commands.with_model(commands.settings_of(recipe)["sft"], model)
    _show_trained(commands.run_sft(settings, Path(traces), Path(out)), "loss")


@train.command()
@RECIPE
@click.option("--prompts", help="JSON lines of prompts. Default: our starter prompts.")
@click.option("--n", default=12, show_default=True, help="Starter prompts to take.")
@click.option("--model", help="Checkpoint to start from. Default: the recipe's.")
@click.option("--out", default="rl", show_default=True, help="Folder for checkpoints and model.")
def rl(recipe: str, prompts: str | None, n: int, model: str | None, out: str) -> None:
    """RL with process rewards on reflections; goes on after a stop."""
    from r2w_eval.training.pipeline import commands

    chosen = _choose_prompts(prompts, n)
    settings = commands.with_model(commands.settings_of(recipe)["rl"], model)
    _show_trained(commands.run_rl(settings, chosen, Path(out)), "reward")


@train.command()
@click.option("--recipe", default="local", show_default=True, help="local (GRPO) or gae (PPO).")
@click.option("--prompts", help="JSON lines of prompts. Default: our starter prompts.")
@click.option("--n", default=432, show_default=True, help="Starter prompts to take.")
@click.option("--val", default=32, show_default=True, help="Prompts held apart for validation.")
@click.option("--model", required=True, help="Checkpoint folder or hub id to start from.")
@click.option("--out", default="cluster", show_default=True, help="Folder for the data files.")
def cluster(recipe: str, prompts: str | None, n: int, val: int, model: str, out: str) -> None:
    """Write data for verl on Ray, and print the command that trains."""
    from r2w_eval.training.cluster import launch as verl

    chosen = _choose_prompts(prompts, n)
    data = verl.write_cluster_data(chosen, val, out)
    click.echo(f"{data.n_train} prompts in {data.train}, {data.n_val} in {data.val}", err=True)
    click.echo(shlex.join(verl.launch_command(recipe, model, data)))


def _choose_prompts(prompts: str | None, n: int) -> Any:
    """The prompts of a file, or starter prompts; what was left out is told on standard error."""
    from r2w_eval.training.pipeline import commands

    found, notes = commands.choose_prompts(prompts, n, 0, None)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return found


def _show_trained(trained: Any, what: str) -> None:
    from r2w_eval.ranks import is_first

    if not is_first():
        return
    for note in trained.notes:
        click.echo(f"note: {note}", err=True)
    last = "n/a" if trained.loss is None else f"{trained.loss:.4f}"
    click.echo(
        f"{trained.steps} steps on {trained.n_rows} rows, {trained.n_too_long} too long for it; "
        f"last {what} {last}; model in {trained.model}"
    )
