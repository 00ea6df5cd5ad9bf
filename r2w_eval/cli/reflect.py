"""`r2w-eval reflect`: the command. The work is in `r2w_eval.reflection`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from r2w_eval.cli.options import given, run_interruptibly, settings_options


@click.command("reflect")
@click.argument("source", metavar="RUN|FILE")
@click.option("--out", help="Folder for the results. Default: RUN/reflect, or FILE's name + "
              ".reflect.")  # fmt: skip
@click.option("--judge", help="Score the text before and after each step: "
              "http://HOST:PORT/v1#NAME, hf:PATH, module:attr, local (a smoke test).")  # fmt: skip
@click.option("--trace-tags", help="Tags of the trace: 'draft=<d>,</d>;reflection=<r>,</r>'. "
              "Default: <plan> <draft> <reflection> <revision>.")  # fmt: skip
@click.option("--dead-band", type=click.FloatRange(min=0), default=0.25, show_default=True,
              help="Smallest gain that counts, in points of the judge.")  # fmt: skip
@settings_options("limit", "think_tags", "think_opened", "score_mode", "max_connections", "timeout",
                  "backend", "model_args", "cache",
                  helps={"limit": "Only the first N traces of each suite."})  # fmt: skip
def reflect(source: str, out: str | None, judge: str | None, **flags: Any) -> None:
    """What do models think, and what does each reflection bring?

    Segments the thinking, links reflections to drafts and revisions, and writes measures (JSON,
    JSON lines, Parquet) and an HTML viewer.
    """
    from r2w_eval.config import merge_config
    from r2w_eval.reflection.display import print_summaries
    from r2w_eval.reflection.job import ReflectOptions, read_source
    from r2w_eval.run.roles import think_tags
    from r2w_eval.trace.types import TagSchema

    tags, dead_band = flags.pop("trace_tags"), flags.pop("dead_band")
    config = merge_config(None, given(flags))
    schema = TagSchema.parse(tags) if tags else TagSchema()
    options = ReflectOptions(schema, think_tags(config), config.limit, dead_band)
    inputs = read_source(source, options)
    folder = Path(out) if out else default_folder(source)

    async def job() -> Any:
        from r2w_eval.reflection.job import reflect as run_reflect
        from r2w_eval.run.opening import ModelPool
        from r2w_eval.run.roles import model_options, open_cache

        if judge is None:
            return await run_reflect(inputs, options, None)
        with open_cache(config) as cache:
            async with ModelPool(model_options(config, cache)) as pool:
                scorer, _ = await pool.scorer(judge, config.score_mode)
                return await run_reflect(inputs, options, scorer)

    analyses, summaries = run_interruptibly(job())
    print_summaries(summaries, write_all(folder, Path(source).name, analyses, summaries))


def default_folder(source: str) -> Path:
    """Where results go when nothing else was said."""
    path = Path(source)
    return path / "reflect" if path.is_dir() else path.with_suffix(".reflect")


def write_all(folder: Path, title: str, analyses: Any, summaries: Any) -> list[Path]:
    """Data files and the viewer; returns their paths."""
    from r2w_eval.reflection.export import write_files
    from r2w_eval.reflection.report import write_viewer

    files = write_files(folder, analyses, summaries)
    page = folder / "traces.html"
    write_viewer(page, title, analyses, summaries)
    return [*files, page]
