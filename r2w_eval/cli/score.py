"""`r2w-eval score` and `serve`: scores of reflections and texts, in a file or over HTTP."""

from __future__ import annotations

import os
from pathlib import Path

import click

SCORER_HELP = (
    "r2w-reward, r2w-ensemble (with torch), r2w-rules, an exported folder, judge:MODEL (as "
    "--judge: judge:http://HOST:PORT/v1#NAME), or MODULE:ATTR."
)


@click.command()
@click.option("--scorer", default="r2w-reward", show_default=True, help=SCORER_HELP)
@click.option("--input", "source", help="JSON lines: {id, prompt, draft, reflection} "
              "(and revision, if there is one) or {id, prompt, response}.")  # fmt: skip
@click.option("--output", "target", help="JSON lines of scores, in input order.")
@click.option(
    "--batch", default=256, show_default=True, type=click.IntRange(1), help="Items at a time."
)
@click.option("--validity", is_flag=True, help="Test the scorer's validity; needs no --input.")
@click.option(
    "--baselines",
    is_flag=True,
    help="Trivial readings beside each score; without --input, those of every labelled set.",
)
@click.option("--on", type=click.Choice(["here", "ray"]), default="here", show_default=True,
              help="ray: by Ray Data, here or on the cluster of $RAY_ADDRESS.")  # fmt: skip
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1),
              help="Ray actors, one CPU each.")  # fmt: skip
@click.option("--worker-gpus", default=0.0, show_default=True, type=click.FloatRange(0),
              help="GPUs of each Ray actor.")  # fmt: skip
@click.option("--split-mb", default=8.0, show_default=True,
              type=click.FloatRange(0, min_open=True), help="Input of one Ray task.")  # fmt: skip
def score(  # noqa: PLR0913
    scorer: str,
    source: str | None,
    target: str | None,
    batch: int,
    validity: bool,
    baselines: bool,
    on: str,
    workers: int,
    worker_gpus: float,
    split_mb: float,
) -> None:
    """Score reflections or texts with a reward model or a judge.

    One that cannot be scored gets a status and no value.

    With --on ray, input and output may be Parquet and lie in an object store (s3://…).
    """
    from r2w_eval.errors import CoverageTooLow
    from r2w_eval.reward_models.checks.baselines import WithBaselines, correlations
    from r2w_eval.reward_models.scorer import open_scorer
    from r2w_eval.reward_models.serving.files import score_file
    from r2w_eval.store import iter_jsonl
    from r2w_eval.terminal import visible

    if validity:
        from r2w_eval.reward_models.checks.report import show_validity

        show_validity(open_scorer(scorer), None if target is None else Path(target))
        return
    if baselines and source is None and target is None:
        from r2w_eval.reward_models.commands import show_floors

        show_floors()
        return
    if source is None or target is None:
        raise click.UsageError("Name --input and --output, or use --validity")
    chosen = open_scorer(scorer)
    if on == "ray":
        from r2w_eval.reward_models.serving.ray_scoring import RayJob, score_on_ray

        if baselines:
            raise click.UsageError("--baselines is for --on here")
        split_bytes = max(1, int(split_mb * 2**20))
        job = RayJob(scorer, source, target, workers, worker_gpus, split_bytes, batch)
        counts = score_on_ray(job)
    else:
        counts = score_file(WithBaselines(chosen) if baselines else chosen, source, target, batch)
    click.echo(", ".join(f"{n} {status}" for status, n in sorted(counts.items())) or "no items")
    if on == "here" and sum(counts.values()) > counts["ok"]:
        lost = next(own for own in iter_jsonl(Path(target)) if own["status"] != "ok")
        told = f"First without a score: {lost['id']}: {lost['status']}: {lost.get('reason', '')}"
        click.echo(visible(told), err=True)
    for line in correlations(iter_jsonl(Path(target))) if baselines else ():
        click.echo(line)
    if counts and not counts.get("ok"):
        raise CoverageTooLow(
            f"--input {source!r}: none of its {sum(counts.values()):,} lines has a score. "
            f"{target!r} says of each why; mend what it says and run again"
        )


@click.command()
@click.option("--scorer", default="r2w-reward", show_default=True, help=SCORER_HELP)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8747, show_default=True, type=click.IntRange(0, 65535),
              help="0 takes a free one.")  # fmt: skip
@click.option("--max-body-mb", default=16, show_default=True, type=click.IntRange(1))
@click.option("--timeout", default=60.0, show_default=True,
              type=click.FloatRange(0, min_open=True), help="Seconds for one request.")  # fmt: skip
@click.option("--max-waiting", default=4096, show_default=True, type=click.IntRange(1),
              help="Items queued, then 503.")  # fmt: skip
def serve(  # noqa: PLR0913
    scorer: str, host: str, port: int, max_body_mb: int, timeout: float, max_waiting: int
) -> None:
    """Serve a scorer over HTTP, as trainers ask for rewards.

    Paths: /score, /classify (vLLM), /get_reward (OpenRLHF), /health, /metrics, /openapi.json.

    With $R2W_SERVE_TOKEN set, requests need it as their bearer token."""
    from r2w_eval.reward_models.scorer import open_scorer
    from r2w_eval.reward_models.serving.server import TOKEN_VARIABLE, ServeSettings, run_server

    token = os.environ.get(TOKEN_VARIABLE, "").strip() or None
    settings = ServeSettings(host, port, max_body_mb << 20, timeout, max_waiting, token)
    run_server(open_scorer(scorer), settings)
