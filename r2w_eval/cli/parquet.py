"""`r2w-eval export` and `aggregate`: many runs as one Parquet dataset, and its mean verdicts."""

from __future__ import annotations

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--parquet", "target", required=True, metavar="DIR", help="Folder or s3://…, gs://….")
def export(runs: tuple[str, ...], target: str) -> None:
    """Put RUNs into a Parquet dataset, by suite and judge.

    A run that is there already is replaced.
    """
    from r2w_eval.records.parquet import ParquetFolder
    from r2w_eval.store import RunFolder

    dataset = ParquetFolder(target)
    for folder in [RunFolder.existing(run) for run in runs]:
        done = dataset.export(folder)
        state = "" if done.is_new else " (unchanged)"
        click.echo(
            f"{done.run}: {done.n_responses:,} responses, {done.n_judgements:,} judgements{state}"
        )


@click.command()
@click.argument("dataset", metavar="DIR")
@click.option("--by", default="run,task,judge", show_default=True, help="A row for each of "
              "these; also criterion, order, repeat, model_returned.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Rows as JSON on standard output.")
def aggregate(dataset: str, by: str, as_json: bool) -> None:
    """Mean verdicts of an exported dataset, with intervals.

    However many verdicts it holds: they are read piece by piece.
    """
    from r2w_eval.records.parquet import ParquetFolder
    from r2w_eval.results.verdict_means import verdict_means

    names = [name.strip() for name in by.split(",") if name.strip()]
    means = verdict_means(ParquetFolder(dataset), names)
    if as_json:
        from r2w_eval.hashing import dump_line

        click.echo(dump_line(means).decode(), nl=False)
        return
    from r2w_eval.results.verdict_means_display import print_means

    print_means(means)
