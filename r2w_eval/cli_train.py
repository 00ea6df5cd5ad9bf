"""`r2w-eval train`: the stages of the training pipeline; each is imported when it is called."""

from __future__ import annotations

import click


@click.group()
def train() -> None:
    """Train: reward model and, with the training extra, the other stages."""


@train.command()
@click.option("--reward-data", help="Folder of labelled sets. Default: $R2W_REWARD_DATA.")
@click.option("--out", default="reward-model", show_default=True, help="Folder for what is made.")
@click.option("--data-only", is_flag=True, help="Write the rows and the data card, then stop.")
@click.option("--without", multiple=True, metavar="SET", help="Leave a set out; repeatable.")
@click.option("--allow-restricted", is_flag=True, help="Also research-only sets (not released).")
@click.option("--transformer", is_flag=True, help="Train the transformer artefact instead.")
@click.option("--max-seconds", default=3000.0, show_default=True, help="With --transformer.")
@click.option("--export", "folder", help="Write the exchange artefact to this folder, then stop.")
@click.option("--weights", help="With --export: adapter weights of --transformer.")
@click.option("--validate", is_flag=True, help="Run the validity suite on --scorer, then stop.")
@click.option("--scorer", default="r2w-reward", show_default=True, help="With --validate.")
def rm(  # noqa: PLR0913
    reward_data: str | None,
    out: str,
    data_only: bool,
    without: tuple[str, ...],
    allow_restricted: bool,
    transformer: bool,
    max_seconds: float,
    folder: str | None,
    weights: str | None,
    validate: bool,
    scorer: str,
) -> None:
    """Train, export or validate the reflection-quality reward model.

    r2w-eval train rm --reward-data DIR --out reward-model
    """
    from r2w_eval.reward_models import commands

    if validate:
        commands.validate(scorer, out)
    elif folder is not None:
        commands.export(folder, weights)
    else:
        chosen = commands.DataChoice(reward_data, without, allow_restricted)
        commands.train(chosen, out, data_only, max_seconds if transformer else None)
