"""`r2w-eval experiment thinking|budget`: the commands. The work is in `comparison.experiments`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from r2w_eval.cli.options import SectionedCommand, given, run_interruptibly, settings_options

# what two runs of an experiment have no use for, or must not share
_NOT_TAKEN = (
    "combine", "min_valid_judges", "exclude_self", "out", "responses", "only_recorded",
    "only_complete", "references", "baseline", "context", "pages", "pages_allow",
    "fixed_concurrency", "min_coverage", "max_unscored", "cache_dir", "replay",
)  # fmt: skip
_OUT = click.option("--out", default="experiment", show_default=True, help="Folder of the runs.")


@click.group()
def experiment() -> None:
    """Does thinking pay? On against off, and score by budget."""


@experiment.command(cls=SectionedCommand)
@click.option("--on", "on_settings", default="", help="Settings of the run that thinks: "
              "'extra_body={\"chat_template_kwargs\": {\"enable_thinking\": true}}'.")  # fmt: skip
@click.option("--off", "off_settings", default="", help="Settings of the run that does not; "
              "several are separated by semicolons.")  # fmt: skip
@click.option("--runs", nargs=2, metavar="ON OFF", help="Compare two finished runs instead.")
@_OUT
@settings_options(without=_NOT_TAKEN)
def thinking(
    on_settings: str, off_settings: str, runs: tuple[str, str] | None, out: str, **flags: Any
) -> None:
    """Thinking on and off, paired on the same prompts.

    Give two judges: a gain under one alone may be that judge's taste.
    """
    from r2w_eval.comparison.experiments import compare_on_off, parse_arm
    from r2w_eval.comparison.experiments_display import print_on_off

    if runs is None:
        if on_settings == off_settings:
            raise click.UsageError("--on and --off are the same. Name the switch of your backend")
        arms = [parse_arm(on_settings, "on"), parse_arm(off_settings, "off")]
        paths = _run(arms, out, flags)
        runs = paths["on"], paths["off"]
    Path(out).mkdir(parents=True, exist_ok=True)
    print_on_off(compare_on_off(*runs), Path(out))


@experiment.command(cls=SectionedCommand)
@click.option("--arm", "arm_texts", multiple=True, metavar="NAME:SETTING=VALUE",
              help="A budget, repeatable: "
              "'low:extra_body={\"reasoning_effort\": \"low\"}'.")  # fmt: skip
@click.option("--run", "run_texts", multiple=True, metavar="NAME=RUN",
              help="A finished run as an arm, repeatable.")  # fmt: skip
@_OUT
@settings_options(without=_NOT_TAKEN)
def budget(arm_texts: tuple[str, ...], run_texts: tuple[str, ...], out: str, **flags: Any) -> None:
    """Score against thinking tokens over several budgets."""
    from r2w_eval.comparison.experiments import arm_results, parse_arm
    from r2w_eval.comparison.experiments_display import print_budget

    paths = {}
    for text in run_texts:
        name, equals, path = text.partition("=")
        if not equals:
            raise click.UsageError(f"--run {text!r}: expected NAME=RUN")
        if name in paths:
            raise click.UsageError(f"--run {text!r}: another run is named {name!r}. Rename one")
        paths[name] = path
    arms = [parse_arm(text) for text in arm_texts]
    if both := paths.keys() & {arm.name for arm in arms}:
        raise click.UsageError(f"--arm and --run both name {', '.join(sorted(both))}. Rename one")
    if arms:
        paths |= _run(arms, out, flags)
    if len(paths) < 2:
        raise click.UsageError("A budget needs two arms or more: --arm NAME:SETTING=VALUE")
    Path(out).mkdir(parents=True, exist_ok=True)
    print_budget([r for name, path in paths.items() for r in arm_results(name, path)], Path(out))


def _run(arms: list[Any], out: str, flags: dict[str, Any]) -> dict[str, str]:
    from r2w_eval.comparison.experiments import run_arms
    from r2w_eval.config import merge_config
    from r2w_eval.run.watching import show_progress

    config = merge_config(None, given(flags))
    job = show_progress(
        lambda watch: run_arms(config, arms, Path(out), watch), False, config.progress_file
    )
    return run_interruptibly(job)
