"""`r2w-eval judge-check`: the command. The work is in `r2w_eval.judge_check`."""

from __future__ import annotations

from typing import Any

import click

from r2w_eval.cli.options import SectionedCommand, given, run_interruptibly, settings_options
from r2w_eval.config import merge_config


@click.command("judge-check", cls=SectionedCommand)
@settings_options(
    "judge",
    "combine",
    "min_valid_judges",
    "limit",
    "repeats",
    "out",
    "data_dir",
    "score_mode",
    "judge_kwargs",
    "omit",
    "max_connections",
    "fixed_concurrency",
    "timeout",
    "backend",
    "model_args",
    "cache",
    "cache_dir",
    "replay",
    "prices",
    "retry_failed",
    "progress_file",
    helps={
        "limit": "Only N prompts of each labelled set, evenly spaced.",
        "out": "Folder for verdicts and card. Default: judge-checks/<judge>-<hash>.",
    },
)
@click.option("--labels", help="Folder of the labelled sets. Default: $R2W_REWARD_DATA, else "
              "reward_data beside the benchmark data.")  # fmt: skip
@click.option("--sets", default="", help="Labelled sets, separated by commas. Default: all.")
@click.option("--max-texts", type=click.IntRange(min=2), help="At most this many answers a prompt.")
@click.option("--max-chars", type=click.IntRange(min=1), help="Leave out answers that are longer "
              "together with their prompt: for judges of short context.")  # fmt: skip
@click.option("--probes", type=click.IntRange(min=0), default=30, show_default=True,
              help="Prompts a set with null answers and --repeats.")  # fmt: skip
@click.option("--pairs", type=click.IntRange(min=0), default=100, show_default=True,
              help="Pairs a set that chat judges see in both orders.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the number of questions; ask nobody.")
@click.option("--quiet", is_flag=True, help="No progress.")
def judge_check(dry_run: bool, quiet: bool, **flags: Any) -> None:
    """How far can a judge be trusted?

    Agreement with people, biases, null answers.

    Judges labelled texts and writes an evaluator card (JSON and Markdown) for each --judge, and
    one for the combination of several.
    """
    from r2w_eval.judge_check.check import check_judges
    from r2w_eval.judge_check.display import print_check, print_plan
    from r2w_eval.judge_check.plan import CheckOptions

    names = ("labels", "sets", "max_texts", "max_chars", "probes", "pairs")
    options = CheckOptions(**{name: flags.pop(name) for name in names})
    config = merge_config(None, given(flags))
    if dry_run:
        print_plan(config, options)
        return
    from r2w_eval.run.watching import show_progress

    job = show_progress(
        lambda watch: check_judges(config, options, watch), quiet, config.progress_file
    )
    print_check(run_interruptibly(job))
