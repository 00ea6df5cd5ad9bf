"""`r2w-eval train pipeline`: all stages of a recipe. The work is in `training.pipeline`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("--out", help="Folder of the pipeline. Default: pipeline-<recipe>.")
@click.option("--dry-run", is_flag=True, help="Memory, tokens, calls, hours; runs nothing.")
@click.option("--prices", help="With --dry-run: YAML price file, as for r2w-eval run.")
@click.option("--only", metavar="STAGE", help="Stages or kinds, with commas: sft,rl, …")
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(1), help="Stages at a time."
)
def pipeline(  # noqa: PLR0913
    recipe: str, out: str | None, dry_run: bool, prices: str | None, only: str | None, jobs: int
) -> None:
    """From prompts to a leaderboard, stage by stage.

    Traces, SFT, reward model, RL, evaluation of each model.

    Run the same command again after a kill, or after a change of the recipe: what is finished is
    not done twice. With --jobs stages that need nothing of each other run side by side."""
    from r2w_eval.ranks import refuse_several
    from r2w_eval.training.pipeline import runner as work
    from r2w_eval.training.pipeline.plan import plan_pipeline, select
    from r2w_eval.training.pipeline.recipe import load_recipe

    refuse_several("train pipeline", "accelerate launch -m r2w_eval train sft (or rl)")
    chosen = load_recipe(recipe)
    stages = plan_pipeline(chosen)
    folder = Path(out or f"pipeline-{chosen.name}")
    wanted = select(stages, only) if only else stages
    if dry_run:
        from r2w_eval.training.pipeline.dryrun import print_forecast

        print_forecast(chosen, stages, folder, prices)
        return
    if work.is_stage_process():
        work.end_with_parent()
        _run_here(chosen, stages, wanted[0], work.Subprocesses(recipe, folder))
        return
    from r2w_eval.training.pipeline.report import write_pipeline_report
    from r2w_eval.training.pipeline.stages import check_finished_prompts
    from r2w_eval.training.trainer.trackers import require_trackers

    # before hours of traces, and not after them
    require_trackers((*chosen.sft.report_to, *chosen.rl.report_to))
    check_finished_prompts(chosen, stages, folder)
    planned = work.Pipeline(chosen.name, stages, folder)
    try:
        launch = work.Subprocesses(recipe, folder, jobs)
        records = work.run_pipeline(planned, wanted, launch, click.echo, jobs)
    finally:
        report = write_pipeline_report(planned)
    click.echo(work.tell_total(records.values()))
    click.echo(f"Report: {report}")


def _run_here(recipe: Any, stages: Any, stage: Any, launch: Any) -> None:
    """One stage in this process."""
    from r2w_eval.training.pipeline.job import job_of, run_stage
    from r2w_eval.training.pipeline.stages import RUNNERS

    job = job_of(recipe, stages, stage, launch.out)
    command = f"r2w-eval {shlex.join(launch.command(stage))}"
    run_stage(job, {**RUNNERS, "leaderboard": make_leaderboard}, command)


def make_leaderboard(job: Any) -> Any:
    """The boards of all evaluated models. Here, since boards are no part of training."""
    from r2w_eval.leaderboards.boards import BoardOptions
    from r2w_eval.leaderboards.collect import collect
    from r2w_eval.leaderboards.site import SiteOptions, write_site
    from r2w_eval.training.pipeline.job import Made

    runs = {str(job.input(name, "run")): name for name in job.stage.inputs}
    collection = collect(list(runs))
    site = job.folder / "site"
    options = SiteOptions(job.stage.settings["title"], BoardOptions(), references=False)
    write_site(collection, site, options)
    rows = [
        {
            "model": runs[str(entry.runs[0].path)].removeprefix("evaluate-"),
            "task": entry.row.task,
            "judge": entry.row.judge,
            "hash": entry.row.signature,
            "run": runs[str(entry.runs[0].path)],
        }
        for entry in collection.entries
    ]
    return Made((site,), {"n": len(rows), "rows": rows, "left_out": collection.left_out})
