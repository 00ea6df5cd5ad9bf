"""`r2w-eval leaderboard`: boards from runs, their verification, and submissions."""

from __future__ import annotations

from pathlib import Path

import click

from r2w_eval.cli.options import settings_options

# what rows may be computed from, beside the records of a run
_USER_FILES = ("data_dir", "references", "baseline", "context", "pages")


class DefaultToBuild(click.Group):
    """`leaderboard RUNS…` is `leaderboard build RUNS…`; a run called verify is `./verify`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "--help", "-h"}:
            args = ["build", *args]
        return super().parse_args(ctx, args)


@click.group(cls=DefaultToBuild)
def leaderboard() -> None:
    """Boards as a site, Markdown and CSV that can be verified."""


@leaderboard.command()
@click.argument("sources", nargs=-1, metavar="RUN|ROW...")
@click.option("--out", required=True, help="Folder of the site; an earlier site is replaced.")
@click.option("--published", is_flag=True, help="Add the rows that come with the package.")
@click.option("--title", default="Writing boards", show_default=True, help="Name of the site.")
@click.option("--allow-mixed", is_flag=True, help="Rank rows of unequal coverage together.")
@click.option("--pool", is_flag=True, help="Several runs of one system as one row.")
@click.option("--prices", help="YAML price file, as for r2w-eval run.")
@click.option("--references/--no-references", default=True, help="Show quoted figures.")
def build(
    sources: tuple[str, ...],
    out: str,
    published: bool,
    title: str,
    prices: str | None,
    **flags: bool,
) -> None:
    """Make the site (the default command)."""
    from r2w_eval.leaderboards.boards import BoardOptions
    from r2w_eval.leaderboards.collect import collect
    from r2w_eval.leaderboards.site import SiteOptions, write_site
    from r2w_eval.leaderboards.submit import published_data
    from r2w_eval.models.cost import load_prices

    chosen = [*sources, *([str(published_data())] if published else [])]
    collection = collect(chosen)
    boards = BoardOptions(flags["allow_mixed"], flags["pool"], load_prices(prices))
    site = write_site(collection, Path(out), SiteOptions(title, boards, flags["references"]))
    for board in site.boards:
        what = "of a smoke test, which ranks nobody" if board.is_smoke_test else "ranked"
        apart = f", {len(board.apart)} not ranked" if board.apart else ""
        click.echo(
            f"{board.task} {board.version} by {board.judge}: {len(board.standings)} {what}{apart}, "
            f"score key {board.score_key}"
        )
        if board.is_mixed:
            click.echo(f"{board.task}: --allow-mixed ranks rows of unequal coverage", err=True)
    for one in collection.left_out:
        click.echo(f"left out: {one.source}: {one.reason}", err=True)
    click.echo(f"{site.n_files} files, {site.n_bytes / 1e6:.1f} MB in {site.path}")
    click.echo(f"Tables (LaTeX, CSV, Markdown) and figures (SVG): {site.path / 'exports'}")
    click.echo(f"Look at it: python -m http.server --bind 127.0.0.1 --directory {site.path}")


@leaderboard.command()
@click.argument("path", metavar="SITE|ROW")
@settings_options(*_USER_FILES)
def verify(path: str, **files: str | None) -> None:
    """Compute every number again from the raw verdicts.

    What differs is named, with exit code 1.

    Runs no program and opens no file that a run names: files that a run was made with are named
    here.
    """
    from r2w_eval.errors import R2WError
    from r2w_eval.leaderboards.recompute import UserFiles
    from r2w_eval.leaderboards.verify import MAX_DIFFERENCES
    from r2w_eval.leaderboards.verify import verify as check_path

    check = check_path(Path(path), UserFiles(**files))
    for note in check.notes:
        click.echo(f"note: {note}", err=True)
    if not check.is_sound:
        told = "\n  ".join(check.differences[:MAX_DIFFERENCES])
        raise R2WError(
            f"{path}: {len(check.differences)} difference(s):\n  {told}\n"
            f"Try: r2w-eval leaderboard RUNS --out SITE, which makes it anew"
        )
    click.echo(f"{path}: {check.computed} of {check.rows} row(s) computed again; nothing differs")


@leaderboard.command()
@click.argument("run", metavar="RUN")
@click.option("--out", default="submission", show_default=True, help="Folder of the submission.")
def submit(run: str, out: str) -> None:
    """Write RUN's rows with raw verdicts, for a pull request."""
    from r2w_eval.leaderboards.submit import describe
    from r2w_eval.leaderboards.submit import submit as write_submission

    submission = write_submission(Path(run), Path(out))
    for row in submission.rows:
        click.echo(describe(row))
    click.echo(f"Check and add it: r2w-eval leaderboard merge {submission.folder}")


@leaderboard.command()
@click.argument("sources", nargs=-1, required=True, metavar="ROW|SUBMISSION...")
@click.option("--into", help="Folder of published data. Default: the package's own.")
@settings_options(*_USER_FILES)
def merge(sources: tuple[str, ...], into: str | None, **files: str | None) -> None:
    """Check submissions and add them to the published rows.

    Every number of a submission is computed again.
    """
    from r2w_eval.leaderboards.recompute import UserFiles
    from r2w_eval.leaderboards.submit import describe, published_data
    from r2w_eval.leaderboards.submit import merge as add_rows

    target = Path(into) if into else published_data()
    for row in add_rows([Path(source) for source in sources], target, UserFiles(**files)):
        click.echo(f"added {describe(row)}")
