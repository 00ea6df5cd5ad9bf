"""`r2w-eval watch`: evaluate every checkpoint of a training. The work is in `training.watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from r2w_eval.cli.options import SectionedCommand, given, settings_options

# what the checkpoint itself says: the writer, its run folder, and no answers of somebody else's
OF_A_CHECKPOINT = ("model", "out", "responses", "only_recorded", "progress_file")


@click.command(cls=SectionedCommand)
@click.argument("folder", metavar="DIR")
@settings_options(without=OF_A_CHECKPOINT)
@click.option("--config", help="YAML file of settings; flags override it.")
@click.option("--once", is_flag=True, help="Evaluate what is there and stop.")
@click.option(
    "--interval", default=30.0, show_default=True, help="Seconds between looks at the folder."
)
def watch(folder: str, config: str | None, once: bool, interval: float, **flags: Any) -> None:
    """Evaluate each checkpoint-N in DIR as it appears.

    Each as `r2w-eval --model DIR/checkpoint-N` with the same settings would.
    """
    from r2w_eval.config import merge_config
    from r2w_eval.training.checkpoints.watch import watch as keep_watching
    from r2w_eval.training.checkpoints.watch import watch_once

    settings = merge_config(config, given(flags))
    place = Path(folder)
    if not once:
        told = f"Looking for checkpoint-N in {folder} every {interval:g} s; Ctrl-C ends it"
        click.echo(told, err=True)
        keep_watching(place, settings, interval, _show)
        return
    rows = watch_once(place, settings)
    for row in rows:
        _show(row)
    if not rows:
        click.echo(f"{folder}: no checkpoint-N that is not evaluated yet", err=True)


def _show(row: Any) -> None:
    interval = "" if row.low is None else f" ({row.low:.2f} to {row.high:.2f})"
    score = "no score" if row.score is None else f"{row.score:.2f}{interval}"
    facts = row.error or f"{row.task}, {row.judge}: {score}, {row.n_scored} of {row.n_expected}"
    click.echo(f"step {row.step}: {facts}")
