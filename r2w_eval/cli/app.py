"""The command line: flags to functions. Everything heavy is imported inside the commands."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

import r2w_eval
from r2w_eval.cli.doctor import doctor
from r2w_eval.cli.examples import add_examples
from r2w_eval.cli.experiment import experiment
from r2w_eval.cli.judge_check import judge_check
from r2w_eval.cli.leaderboard import leaderboard
from r2w_eval.cli.options import SectionedCommand, given, run_interruptibly, settings_options
from r2w_eval.cli.parquet import aggregate, export
from r2w_eval.cli.reflect import reflect
from r2w_eval.cli.score import score, serve
from r2w_eval.cli.train import train
from r2w_eval.cli.watch import watch
from r2w_eval.config import merge_config
from r2w_eval.errors import R2WError, UnknownName
from r2w_eval.installed import extra_of
from r2w_eval.terminal import visible

EXIT_INTERRUPTED = 130


class DefaultToRun(click.Group):
    """`r2w-eval --model X` is `r2w-eval run --model X`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "-h", "--version"}
        if args and args[0].startswith("-") and args[0] not in own:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise UnknownName("r2w-eval", args[0], "command", self.commands, "r2w-eval --help")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = super().shell_complete(ctx, incomplete)
        return found + (run.shell_complete(ctx, incomplete) if incomplete.startswith("-") else [])


@click.group(cls=DefaultToRun, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    r2w_eval.__version__,
    message="r2w-eval %(version)s\n" + (r2w_eval.__doc__ or "").partition("\n\n")[2].strip(),
)
def cli() -> None:
    """Evaluate open-ended writing of language models."""


@cli.command(cls=SectionedCommand)
@settings_options()
@click.option("--config", help="YAML file of settings; flags override it.")
@click.option("--dry-run", is_flag=True, help="Print calls and tokens; send nothing.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON on standard output.")
def run(config: str | None, dry_run: bool, quiet: bool, as_json: bool, **flags: Any) -> None:
    """Generate, judge and aggregate (the default command)."""
    settings = merge_config(config, given(flags))
    if dry_run:
        from r2w_eval.run.dryrun import print_forecast

        print_forecast(settings)
        return
    from r2w_eval.run.display import print_outcome
    from r2w_eval.run.job import check_outcome, evaluate
    from r2w_eval.run.outputs import strip_performance
    from r2w_eval.run.watching import show_progress

    job = show_progress(lambda watch: evaluate(settings, watch), quiet, settings.progress_file)
    outcome = run_interruptibly(job)
    if as_json:
        print(json.dumps([strip_performance(result) for result in outcome.results]))
    else:
        print_outcome(outcome)
    check_outcome(outcome, settings.min_coverage, settings.max_unscored)


@cli.command()
@click.argument("folder", metavar="RUN")
@settings_options(
    "judge",
    "combine",
    "min_valid_judges",
    "exclude_self",
    "score_mode",
    "max_connections",
    "timeout",
    "retry_failed",
    "data_dir",
    "cache_dir",
    "replay",
    "prices",
    "max_cost",
    "min_coverage",
    "progress_file",
    "include_path",
    "model_args",
    "pages_allow",
    helps={
        "judge": "Judge to ask, repeatable: http://HOST:PORT/v1#NAME, hf:PATH, vllm:PATH, "
        "module:attr, r2w-quality, or local.",
        "retry_failed": "Ask again, past the cache, where these judges gave no usable verdict.",
    },
)
@click.option("--reparse", is_flag=True, help="Read the stored judge texts again; ask nobody.")
@click.option("--quiet", is_flag=True, help="No progress.")
def judge(folder: str, reparse: bool, quiet: bool, **flags: Any) -> None:
    """Judge the answers of RUN with other judges.

    --reparse reads the stored verdicts again, after a mended parser, and asks nobody.

    --combine makes one verdict of all judges that RUN then holds; without --judge it asks nobody.
    """
    from r2w_eval.config import change, stored_config
    from r2w_eval.run.display import print_outcome
    from r2w_eval.run.job import check_outcome, judge_again
    from r2w_eval.run.watching import show_progress
    from r2w_eval.store import RunFolder

    run_folder = RunFolder.existing(folder)
    settings = stored_config(run_folder.manifest(), folder, flags["include_path"])
    # what belongs to one call is not taken from the run's own
    fresh = {
        "judge": (),
        "combine": None,
        "min_valid_judges": None,
        "exclude_self": False,
        "replay": None,
        "retry_failed": False,
        "progress_file": None,
    }
    settings = change(settings, {**fresh, **given(flags)})
    if not reparse and not settings.judge and not settings.combine:
        raise click.UsageError("Name a judge with --judge, or use --combine or --reparse")
    job = show_progress(
        lambda watch: judge_again(run_folder, settings, reparse, watch=watch),
        quiet,
        settings.progress_file,
    )
    outcome = run_interruptibly(job)
    print_outcome(outcome)
    check_outcome(outcome, settings.min_coverage, settings.max_unscored)


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--force-common", is_flag=True, help="Compare the items that all runs have.")
@click.option("--effect", type=click.FloatRange(min=0, min_open=True), metavar="POINTS",
              help="Print how many items a difference of this size needs.")  # fmt: skip
@click.option(
    "--judge", "judge_spec", help="Judge pairs of answers in both orders with this model."
)
@click.option("--out", default="comparison", show_default=True, help="Folder for pair verdicts.")
@settings_options("data_dir", "include_path", "max_connections", "timeout", "min_coverage")
def compare(
    runs: tuple[str, ...],
    force_common: bool,
    effect: float | None,
    judge_spec: str | None,
    out: str,
    **flags: Any,
) -> None:
    """Is the difference between two runs or more real?

    Paired tests on the scores that RUNs have; with --judge, verdicts on pairs of answers.
    """
    from r2w_eval.comparison.display import print_comparisons, print_preferences

    if judge_spec is None:
        print_comparisons(runs, force_common, effect)
    else:
        settings = merge_config(None, given(flags))
        run_interruptibly(print_preferences(runs, judge_spec, out, settings))


@cli.command("list")
@click.option("--path", is_flag=True, help="Print the folder for lm_eval --include_path.")
@click.option("--suites", is_flag=True, help="Only suites: source, licence, size, calls, data.")
@click.option("--markdown", is_flag=True, help="With --suites: what docs/suites.md holds.")
@click.option("--ids", "suite", metavar="SUITE", help="Only the samples of SUITE, one a line: id, "
              "language, category. --ids @FILE of a run reads such lines.")  # fmt: skip
@settings_options("include_path", "data_dir", "references", "baseline")
def list_(path: bool, suites: bool, markdown: bool, suite: str | None, **flags: Any) -> None:
    """Suites, models and judges; whether their data is here."""
    from r2w_eval.cli.listing import print_ids, print_listing
    from r2w_eval.paths import tasks_dir
    from r2w_eval.suites.catalogue import print_catalogue, read_catalogue, write_markdown

    if path:
        print(tasks_dir())
    elif suite:
        print_ids(merge_config(None, {**given(flags), "tasks": suite}))
    elif suites and markdown:
        print(write_markdown(read_catalogue()), end="")
    elif suites:
        print_catalogue(flags["data_dir"])
    else:
        print_listing(flags["data_dir"])


@cli.group()
def data() -> None:
    """Benchmark data: download ahead of time, or check."""


@data.command("fetch")
@click.argument("suites", nargs=-1, required=True)
def data_fetch(suites: tuple[str, ...]) -> None:
    """Download the pinned files of SUITES into the cache and check them."""
    from r2w_eval.cli.listing import fetch_data

    fetch_data(suites)


@data.command("verify")
@click.argument("suites", nargs=-1)
@click.option("--parity", is_flag=True, help="Instead: compute upstream's published figures from "
              "its raw verdicts in $R2W_VERIFICATION.")  # fmt: skip
@click.option("--every-figure", is_flag=True, help="With --parity: all figures of every case.")
@settings_options("data_dir")
def data_verify(
    suites: tuple[str, ...], parity: bool, every_figure: bool, data_dir: str | None
) -> None:
    """Compare every data file that is here with its recorded SHA-256."""
    if parity:
        from r2w_eval.suites.parity import verify_parity

        verify_parity(suites, data_dir, every_figure)
    else:
        from r2w_eval.cli.listing import verify_data

        verify_data(suites, data_dir)


@cli.group()
def cache() -> None:
    """The reply cache shared between runs."""


@cache.command("stats")
def cache_stats() -> None:
    """Entries, size and age."""
    from r2w_eval.cli.listing import print_cache_stats

    print_cache_stats()


@cache.command("prune")
@click.option("--older-than-days", type=float, default=30.0, show_default=True,
              help="Replies stored longer ago than this.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Remove the whole cache file.")
def cache_prune(older_than_days: float, everything: bool) -> None:
    """Remove old replies."""
    from r2w_eval.cli.listing import prune_cache

    prune_cache(older_than_days, everything)


for command in (aggregate, doctor, experiment, export, judge_check, leaderboard, reflect, score,
                serve, train, watch):  # fmt: skip
    cli.add_command(command)
add_examples(cli)


def main() -> None:
    """Entry point: errors become one message and an exit code, never a traceback."""
    try:
        code = cli.main(prog_name="r2w-eval", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except R2WError as error:
        print(f"r2w-eval: {visible(str(error))}", file=sys.stderr)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print(
            "r2w-eval: interrupted. What was finished, if anything was, is on disk; the same "
            "command goes on from there",
            file=sys.stderr,
        )
        code = EXIT_INTERRUPTED
    except (ImportError, MemoryError, OSError) as error:
        print(f"r2w-eval: {_tell_trouble(error)}", file=sys.stderr)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _tell_trouble(error: ImportError | MemoryError | OSError) -> str:
    """What the machine could not do, and how to go on."""
    if isinstance(error, ImportError):
        if isinstance(error, ModuleNotFoundError) and (extra := extra_of(error.name or "")):
            return f"{error.name} is not installed. Try: pip install 'r2w-eval[{extra}]'"
        return (
            f"a library could not be loaded ({error}). Try: r2w-eval doctor, which names broken "
            f"and missing packages; short memory is another cause"
        )
    if isinstance(error, MemoryError):
        return (
            "out of memory. What was finished before is on disk; the same command goes on from "
            "there, with less at a time: --max-connections, --limit or a smaller recipe"
        )
    return f"{error}. What was finished before is on disk; mend this and run the same command again"
