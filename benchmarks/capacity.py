"""What a leaderboard of 100 models and the paper's RL run take: calls, tokens, GPUs, money, disk.

`python benchmarks/capacity.py --data-dir DATA [--limit 50]` renders prompts of each suite, drawn
over its categories, as `--dry-run` does, scales them to the whole suite, and writes
results/capacity.json and the tables between the marks in docs/scale.md (capacity_check.py compares
them with small runs). Every assumption is a field of `Assumptions`, changed by `--set
judge_input_usd=0.1`. Suites that need files of yours, web pages, or data that is not here, are
named and not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.config import RunConfig
from r2w_eval.errors import R2WError
from r2w_eval.run.dryrun import WRITE, forecast
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import write_json
from r2w_eval.suites.catalogue import read_catalogue

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "capacity.json"
DOC = ROOT.parent / "docs" / "scale.md"
# prompts rendered of each suite
LIMIT = 50
MARKS = ("<!-- capacity: benchmarks/capacity.py -->", "<!-- end of capacity -->")


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Assumed rates and prices, to be replaced by your own; only the bytes were measured here."""

    models: int = 100
    thinking_tokens: int = 3000
    """Before each answer, beside the forecast's own answer length."""
    writer_tokens_per_gpu_s: float = 2000.0
    judge_input_usd: float = 0.25
    judge_output_usd: float = 2.0
    """Dollars per million tokens."""
    bytes_per_token: float = 8.0
    """In record files: 4 characters, kept as the reply came and as it was read."""
    bytes_per_record: int = 500
    """All else of an answer or a verdict."""
    rl_steps: int = 405
    rl_prompts_per_step: int = 32
    rl_group: int = 1
    rl_response_tokens: int = 10_000
    """Upper bound: the cap of a response."""
    rl_reflections: int = 3
    rl_gpu_hours: float = 580.0
    """As a digest of the paper reports it."""
    outcome_prompt_tokens: int = 2500
    verdict_tokens: int = 150


@dataclass(frozen=True, slots=True)
class Load:
    """Calls and tokens of one model on one suite, or of one training."""

    name: str
    writer_calls: float
    writer_prompt_tokens: float
    writer_tokens: float
    judge_calls: float
    judge_prompt_tokens: float
    judge_tokens: float


def suite_load(name: str, n_samples: int, data_dir: str, limit: int, own: Assumptions) -> Load:
    """The load of one model on a suite, scaled up from `limit` random samples. Raises R2WError."""
    config = RunConfig(
        tasks=name,
        model="writer",
        judge=("judge",),
        limit=limit,
        shuffle=True,
        data_dir=data_dir,
    )
    (plan,) = plan_tasks(config)
    factor = n_samples / sum(1 for _ in plan.samples())
    stages = forecast(plan, config)
    writing = [stage for stage in stages if stage.stage == WRITE]
    judging = [stage for stage in stages if stage.stage != WRITE]
    calls = sum(stage.calls for stage in writing)
    return Load(
        name,
        factor * calls,
        factor * sum(stage.prompt_tokens for stage in writing),
        factor * (sum(s.completion_tokens for s in writing) + calls * own.thinking_tokens),
        factor * sum(stage.calls for stage in judging),
        factor * sum(stage.prompt_tokens for stage in judging),
        factor * sum(stage.completion_tokens for stage in judging),
    )


def rl_load(own: Assumptions) -> Load:
    """The load of the RL run: a verdict per response, and one per reflection."""
    samples = own.rl_steps * own.rl_prompts_per_step * own.rl_group
    calls = samples * (1 + own.rl_reflections)
    return Load(
        "RL run",
        samples,
        samples * 500,
        samples * own.rl_response_tokens,
        calls,
        calls * own.outcome_prompt_tokens,
        calls * own.verdict_tokens,
    )


def total(loads: list[Load], models: int) -> Load:
    """The load of all suites and models together."""
    sums = [
        models * sum(getattr(load, field.name) for load in loads)
        for field in dataclasses.fields(Load)[1:]
    ]
    return Load(f"all, {models} models", *sums)


def record_bytes(load: Load, own: Assumptions) -> float:
    """Bytes of the answers and verdicts that a run keeps on disk."""
    tokens, records = load.writer_tokens + load.judge_tokens, load.writer_calls + load.judge_calls
    return own.bytes_per_token * tokens + own.bytes_per_record * records


def row(load: Load, own: Assumptions, gpu_hours: float | None = None) -> str:
    """One line of the table."""
    usd = load.judge_prompt_tokens * own.judge_input_usd + load.judge_tokens * own.judge_output_usd
    hours = load.writer_tokens / own.writer_tokens_per_gpu_s / 3600
    cells = (
        load.name,
        f"{load.writer_calls:,.0f}",
        f"{load.writer_tokens / 1e6:,.2f} M",
        f"{load.judge_calls:,.0f}",
        f"{load.judge_prompt_tokens / 1e6:,.2f} M",
        f"{load.judge_tokens / 1e6:,.2f} M",
        f"{hours if gpu_hours is None else gpu_hours:,.2f}",
        f"{usd / 1e6:,.2f}",
        f"{record_bytes(load, own) / 1e9:,.3f} GB",
    )
    return f"| {' | '.join(cells)} |"


def tables(found: dict[str, Any]) -> str:
    """The Markdown tables of docs/scale.md, from the results."""
    own = Assumptions(**found["assumptions"])
    loads = [Load(**load) for load in found["suites"]]
    heads = ("one model", "answers", "tokens written", "judge calls", "judge tokens in", "out",
             "GPU-hours", "judge $", "record files")  # fmt: skip
    suites = [row(load, own) for load in loads]
    whole, rl = total(loads, own.models), rl_load(own)
    lines = [
        f"| {' | '.join(heads)} |",
        "|---|" + "---:|" * (len(heads) - 1),
        *suites,
        row(whole, own),
        row(rl, own, own.rl_gpu_hours),
        "",
        "Assumed: " + ", ".join(f"`{k}` {v:,}" for k, v in found["assumptions"].items()) + ".",
    ]
    if found["left_out"]:
        names = ", ".join(f"`{name}`" for name in found["left_out"])
        lines += ["", f"Not counted, since they need references, a baseline or web pages: {names}."]
    return "\n".join(lines)


def write_doc(text: str) -> None:
    """Replace the text between the marks in docs/scale.md."""
    before, _, rest = DOC.read_text("utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    DOC.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("R2W_DATA", "../shared/benchmarks"))
    parser.add_argument("--limit", type=int, default=LIMIT)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER")
    flags = parser.parse_args()
    changed = {name: json.loads(value) for name, _, value in (s.partition("=") for s in flags.set)}
    own = Assumptions(**changed)
    loads, left_out = [], {}
    for entry in read_catalogue():
        name, n = entry.info.name, entry.info.n_samples
        try:
            loads.append(suite_load(name, n, flags.data_dir, flags.limit, own))
        except R2WError as error:
            left_out[name] = str(error)[:200]
            print(f"{name}: not counted: {left_out[name]}")
    found = {
        "assumptions": dataclasses.asdict(own),
        "suites": [dataclasses.asdict(load) for load in loads],
        "left_out": left_out,
    }
    write_json(RESULTS, found)
    write_doc(tables(json.loads(RESULTS.read_text())))
    print(tables(found))


if __name__ == "__main__":
    main()
