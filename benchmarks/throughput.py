"""Throughput of r2w-eval beside a bare asyncio client and other harnesses, in one sitting.

In: the WritingBench files and, optionally, the interpreters of environments with the peers (see
benchmarks/README.md). Out: a table, and results/throughput.json. Every client runs alone against a
loopback server that answers after 200 ms; clients alternate, and only ratios within one sitting
mean anything (harness specification, section 16, targets P1, P2, P3, P6).
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from clients import PEER_NAMES, SLOW, Client, Job, Peers, all_clients, ours
from measure import LATENCY_MS, Measurement, Server, measure
from rich.console import Console
from rich.table import Table

from r2w_eval.store import write_json

BARE = "bare aiohttp"
OURS = "r2w-eval"
WORKLOADS = ("generate", "judge", "judged")
console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asked for."""

    data: Path
    connections: tuple[int, ...]
    workloads: tuple[str, ...]
    clients: tuple[str, ...]
    rounds: int
    slow_queries: int
    work: Path


@dataclass(frozen=True, slots=True)
class Comparison:
    """The medians of one workload at one number of connections, as ratios to our own rate."""

    workload: str
    connections: int
    rate: float
    to_bare: float | None
    to_best_peer: float | None
    best_peer: str | None


def queries_for(client: str, workload: str, connections: int, slow_queries: int) -> int:
    """Some 40 requests per connection, at least 1,200; `judged` is 200 queries, as specified."""
    if (client, workload) in SLOW:
        return slow_queries
    if workload == "judged":
        return 200
    if workload == "judge":
        return min(1000, 8 * connections)
    return 1280 if client == "bare httpx" else 40 * connections


def plan(settings: Settings, url: str) -> Iterator[tuple[str, Job]]:
    """All clients in turn for each workload; every second round in reverse order."""
    cases = itertools.product(range(settings.rounds), settings.connections, settings.workloads)
    for round_, connections, workload in cases:
        for name in settings.clients[:: -1 if round_ % 2 else 1]:
            folder = f"{round_}-{connections}-{workload}-{name.replace(' ', '-')}"
            yield (
                name,
                Job(
                    workload=workload,
                    connections=connections,
                    queries=queries_for(name, workload, connections, settings.slow_queries),
                    writer_url=url,
                    judge_url=url,
                    data=settings.data,
                    work=settings.work / folder,
                ),
            )


def run_job(name: str, client: Client, job: Job, servers: list[Server]) -> Measurement | None:
    """Measure one job and print the result; None if the client lacks the workload."""
    job.work.mkdir(parents=True)
    command = client(job)
    if command is None:
        return None
    log = job.work / "log.txt"
    done = measure((name, job.workload, job.connections), command, servers, log)
    console.print(
        f"{job.workload:9} {job.connections:4} {name:20} {done.rate:7.1f} req/s "
        f"{done.wall_s:6.1f} s {done.problem}"
    )
    return done


def compare(rows: list[Measurement]) -> list[Comparison]:
    """Our rate beside the bare client's and the fastest peer's, medians over rounds."""
    rates: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in rows:
        if not row.problem:
            per_client = rates.setdefault((row.workload, row.connections), {})
            per_client.setdefault(row.client, []).append(row.rate)
    found = []
    for (workload, connections), per_client in rates.items():
        medians = {name: statistics.median(values) for name, values in per_client.items()}
        if (own := medians.get(OURS)) is None:
            continue
        peers = {name: rate for name, rate in medians.items() if name in PEER_NAMES}
        best = max(peers, key=lambda name: peers[name], default=None)
        found.append(
            Comparison(
                workload=workload,
                connections=connections,
                rate=own,
                to_bare=own / medians[BARE] if BARE in medians else None,
                to_best_peer=own / peers[best] if best else None,
                best_peer=best,
            )
        )
    return found


def measure_overlap(settings: Settings, connections: int) -> dict[str, Any]:
    """P3: wall time of generation with judging relative to the longer of the two alone.

    The writer takes 500 ms, so that doing one after the other would take half as long again.
    """
    walls: dict[str, float] = {}
    with Server() as writer, Server() as judge:
        for workload in ("generate", "judge", "judged"):
            job = Job(
                workload=workload,
                connections=connections,
                queries=min(1000, 8 * connections),
                writer_url=writer.base_url,
                judge_url=judge.base_url,
                data=settings.data,
                work=settings.work / f"overlap-{connections}-{workload}",
                writer="gen-500",
            )
            done = run_job(OURS, ours, job, [writer, judge])
            assert done is not None, "r2w-eval has every workload"
            walls[workload] = done.wall_s
    longer = max(walls["generate"], walls["judge"])
    return {"connections": connections, "wall_s": walls, "ratio": walls["judged"] / longer}


def render(rows: list[Measurement], comparisons: list[Comparison]) -> list[Table]:
    """All measurements, and the ratios that the targets are about."""
    bare = {(c.workload, c.connections): c.rate / c.to_bare for c in comparisons if c.to_bare}
    table = Table(title=f"Loopback server, {LATENCY_MS} ms; each client alone")
    for header in ("workload", "connections", "client"):
        table.add_column(header)
    numbers = ("requests", "req/s", "x bare", "peak", "first request s", "wall s", "CPU s",
               "CPU s/10k", "RSS MB")  # fmt: skip
    for header in numbers:
        table.add_column(header, justify="right")
    for row in sorted(rows, key=lambda r: (r.workload, r.connections, r.client)):
        yardstick = bare.get((row.workload, row.connections))
        table.add_row(
            row.workload,
            str(row.connections),
            row.client + (f" [{row.problem}]" if row.problem else ""),
            str(row.requests),
            f"{row.rate:.1f}",
            f"{row.rate / yardstick:.2f}" if yardstick else "",
            str(row.peak_in_flight),
            f"{row.start_up_s:.2f}",
            f"{row.wall_s:.1f}",
            f"{row.cpu_s:.1f}",
            f"{row.cpu_s_per_10k:.1f}",
            f"{row.max_rss_mb:.0f}",
        )
    ratios = Table(title=f"{OURS}, medians")
    for header in ("workload", "connections", "req/s", "x bare", "x best peer", "best peer"):
        ratios.add_column(header)
    for one in comparisons:
        ratios.add_row(
            one.workload,
            str(one.connections),
            f"{one.rate:.1f}",
            "" if one.to_bare is None else f"{one.to_bare:.2f}",
            "" if one.to_best_peer is None else f"{one.to_best_peer:.2f}",
            one.best_peer or "",
        )
    return [table, ratios]


def describe_machine(peers: Peers) -> dict[str, Any]:
    """Cores, load and versions of this machine."""
    versions = {name: importlib.metadata.version(name) for name in ("aiohttp", "r2w-eval")}
    packages = {"lm_eval": peers.lm_eval, "evalscope": peers.evalscope, "inspect_ai": peers.inspect}
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    for package, python in packages.items():
        if python is not None:
            asked = [python, "-c", code, package]
            versions[package] = subprocess.check_output(asked, text=True).strip()
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "load_1m_at_start": os.getloadavg()[0],
        "versions": versions,
    }


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True,
              help="Folder with WritingBench's benchmark_all.jsonl and prompts.json.")  # fmt: skip
@click.option("--connections", type=int, multiple=True, default=(32, 128), show_default=True)
@click.option("--workload", "workloads", multiple=True, default=WORKLOADS, show_default=True,
              type=click.Choice(WORKLOADS))  # fmt: skip
@click.option("--client", "only", multiple=True, help="Only these clients; default: all.")
@click.option("--rounds", default=1, show_default=True, help="Repetitions of everything.")
@click.option("--slow-queries", default=40, show_default=True,
              help="Queries for clients with one request in flight.")  # fmt: skip
@click.option("--lm-eval-python", help="Interpreter with lm-eval[api]==0.4.13.")
@click.option("--evalscope-python", help="Interpreter with evalscope==1.14.1.")
@click.option("--inspect-python", help="Interpreter with inspect-evals==0.26.0 and openai.")
@click.option("--writingbench-python", help="Interpreter with jsonlines, requests and tqdm.")
@click.option("--writingbench-repo", type=click.Path(path_type=Path, exists=True),
              help="Clone of X-PLUG/WritingBench.")  # fmt: skip
@click.option("--overlap/--no-overlap", default=True, help="Measure P3.")
@click.option("--out", type=click.Path(path_type=Path),
              default=Path(__file__).parent / "results" / "throughput.json")  # fmt: skip
def main(data: Path, only: tuple[str, ...], overlap: bool, out: Path, **given: Any) -> None:
    """Measure, print, write."""
    peers = Peers(
        **{name: given.pop(f"{name}_python") for name in ("lm_eval", "evalscope", "inspect")},
        writingbench=given.pop("writingbench_python"),
        writingbench_repo=given.pop("writingbench_repo"),
    )
    found = all_clients(peers)
    for name in only:
        if name not in found:
            raise click.UsageError(f"--client {name!r}: known are {', '.join(found)}")
    for name in (name for name, client in found.items() if client is None):
        console.print(f"{name}: skipped, its interpreter was not given (see --help)")
    work = Path(tempfile.mkdtemp(prefix="throughput-"))
    clients = {name: client for name, client in found.items() if client is not None}
    names = tuple(name for name in only or clients if name in clients)
    settings = Settings(data=data.resolve(), clients=names, work=work, **given)
    report: dict[str, Any] = {"machine": describe_machine(peers), "latency_ms": LATENCY_MS}
    try:
        with Server() as server:
            jobs = plan(settings, server.base_url)
            measured = (run_job(name, clients[name], job, [server]) for name, job in jobs)
            rows = [row for row in measured if row is not None]
        if overlap:
            report["overlap"] = [measure_overlap(settings, n) for n in settings.connections]
    finally:
        shutil.rmtree(work)
    comparisons = compare(rows)
    report["comparisons"] = [asdict(one) for one in comparisons]
    report["rows"] = [{**asdict(row), "cpu_s_per_10k": row.cpu_s_per_10k} for row in rows]
    write_json(out, round_floats(report))
    for table in render(rows, comparisons):
        Console(width=160).print(table)
    for one in report.get("overlap", ()):
        Console().print(f"overlap at {one['connections']} connections: {one['ratio']:.2f}")
    sys.exit(any(row.problem for row in rows))


def round_floats(value: Any) -> Any:
    """Round all floats to three decimals; NaN becomes None."""
    if isinstance(value, float):
        return round(value, 3) if value == value else None
    if isinstance(value, dict):
        return {key: round_floats(one) for key, one in value.items()}
    return [round_floats(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
