"""`r2w-eval score` and `serve`: scores of reflections and texts, in a file or over HTTP."""

from __future__ import annotations

from pathlib import Path

import click

SCORER_HELP = "r2w-reward (shipped), r2w-rules, an exported folder, or MODULE:ATTR."


@click.command()
@click.option("--scorer", default="r2w-reward", show_default=True, help=SCORER_HELP)
@click.option("--input", "source", help="JSON lines: reflection or writing items.")
@click.option("--output", "target", help="JSON lines of scores, in input order.")
@click.option("--batch", default=256, show_default=True, type=click.IntRange(1), help="Items read.")
@click.option("--validity", is_flag=True, help="Test the scorer's validity; needs no --input.")
@click.option("--baselines", is_flag=True, help="Trivial readings beside each score.")
def score(  # noqa: PLR0913
    scorer: str, source: str | None, target: str | None, batch: int, validity: bool, baselines: bool
) -> None:
    """Score items; one that cannot be scored gets a status and no value.

    r2w-eval score --scorer r2w-reward --input items.jsonl --output scores.jsonl
    """
    from r2w_eval.reward_models.baselines import WithBaselines, correlations
    from r2w_eval.reward_models.files import score_file
    from r2w_eval.reward_models.scorer import open_scorer
    from r2w_eval.store import iter_jsonl

    if validity:
        from r2w_eval.reward_models.validity import print_validity

        print_validity(open_scorer(scorer), target)
        return
    if source is None or target is None:
        raise click.UsageError("Name --input and --output, or use --validity")
    chosen = open_scorer(scorer)
    counts = score_file(WithBaselines(chosen) if baselines else chosen, source, target, batch)
    click.echo(", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    for line in correlations(iter_jsonl(Path(target))) if baselines else ():
        click.echo(line)


@click.command()
@click.option("--scorer", default="r2w-reward", show_default=True, help=SCORER_HELP)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8747, show_default=True, type=click.IntRange(0, 65535))
@click.option("--max-body-mb", default=16, show_default=True, type=click.IntRange(1))
@click.option("--timeout", default=60.0, show_default=True, help="Seconds for one request.")
@click.option("--max-waiting", default=4096, show_default=True, help="Items queued, then 503.")
def serve(  # noqa: PLR0913
    scorer: str, host: str, port: int, max_body_mb: int, timeout: float, max_waiting: int
) -> None:
    """Serve a scorer over HTTP: /score, /classify, /get_reward, /health, /metrics.

    r2w-eval serve --scorer r2w-reward --port 8747
    """
    from r2w_eval.reward_models.scorer import open_scorer
    from r2w_eval.reward_models.server import ServeSettings, run_server

    settings = ServeSettings(host, port, max_body_mb << 20, timeout, max_waiting)
    run_server(open_scorer(scorer), settings)
