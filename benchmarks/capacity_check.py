"""The capacity model against small runs: judge calls, tokens shown to the judge, bytes on disk.

`python benchmarks/capacity_check.py --data-dir DATA [--samples 40]`: the forecast of capacity.py
for each suite is scaled to so many samples, drawn by another seed. These are then really judged, by
the fake server and over HTTP, on answers of the length that the forecast assumes; what is sent and
replied is counted in the client, in the forecast's own unit (a token is about 4 Latin or 1.5 CJK
characters). Writes results/capacity_check.json and prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from capacity import LIMIT, Assumptions, Load, record_bytes, suite_load

from r2w_eval.config import RunConfig
from r2w_eval.errors import R2WError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.chat import ChatRequest, Reply
from r2w_eval.models.client import HttpModel
from r2w_eval.models.cost import FIRST_GUESS_TOKENS, LATIN_CHARS_PER_TOKEN, estimate_tokens
from r2w_eval.run import evaluate
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import write_json
from r2w_eval.suites.catalogue import read_catalogue

RESULTS = Path(__file__).parent / "results" / "capacity_check.json"


@dataclass(frozen=True, slots=True)
class Checked:
    """Forecast and measured figures of one suite, for the same number of samples."""

    suite: str
    samples: int
    calls_forecast: float
    calls: int
    tokens_forecast: float
    tokens: int
    bytes_forecast: float
    record_bytes: int


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count calls of all HTTP models, and estimated tokens sent (in) and received (out)."""
    sent: Counter[str] = Counter()
    plain = HttpModel.complete

    async def complete(model: HttpModel, request: ChatRequest) -> Reply:
        sent["calls"] += 1
        sent["in"] += sum(estimate_tokens(message.content) for message in request.messages)
        reply = await plain(model, request)
        sent["out"] += estimate_tokens(reply.text)
        return reply

    with mock.patch.object(HttpModel, "complete", complete):
        yield sent


def write_answers(config: RunConfig, path: Path) -> tuple[int, int, int]:
    """Write an answer of the assumed length to each sample; numbers of samples, answers, tokens."""
    (plan,) = plan_tasks(config)
    n_tokens = min(plan.decoding.max_tokens or FIRST_GUESS_TOKENS, FIRST_GUESS_TOKENS)
    n_chars = round(n_tokens * LATIN_CHARS_PER_TOKEN)
    text, n_turns = ("word " * n_chars)[:n_chars], plan.suite.n_turns
    answer = {"response": text} if n_turns == 1 else {"turns": [text] * n_turns}
    lines = [json.dumps({"id": sample.id, **answer}) + "\n" for sample in plan.samples()]
    path.write_text("".join(lines), "utf-8")
    n_answers = len(lines) * n_turns
    return len(lines), n_answers, n_answers * n_tokens


def check(suite: str, forecast: Load, n_all: int, config: RunConfig, folder: Path) -> Checked:
    """Judge some samples, and compare what was counted with the forecast."""
    answers, out = folder / f"{suite}.jsonl", folder / suite
    n, n_answers, n_tokens = write_answers(config, answers)
    with counting() as sent:
        asyncio.run(evaluate(replace(config, responses=str(answers), out=str(out))))
    made = Load(suite, n_answers, 0, n_tokens, sent["calls"], sent["in"], sent["out"])
    return Checked(
        suite,
        n,
        round(n / n_all * forecast.judge_calls, 1),
        sent["calls"],
        round(n / n_all * forecast.judge_prompt_tokens),
        sent["in"],
        round(record_bytes(made, Assumptions())),
        sum(path.stat().st_size for path in out.glob("*.jsonl")),
    )


def row(one: Checked) -> str:
    """One line of the table."""
    cells = (
        one.suite,
        str(one.samples),
        f"{one.calls_forecast:,.0f}",
        f"{one.calls:,}",
        f"{one.tokens_forecast / 1e3:,.0f}",
        f"{one.tokens / 1e3:,.0f}",
        f"{one.tokens_forecast / one.tokens:.2f}",
        f"{one.record_bytes / 1e3:,.0f}",
        f"{one.bytes_forecast / one.record_bytes:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def run(suite: str, n_all: int, config: RunConfig, folder: Path) -> Checked | None:
    """Check one suite; None if it needs files that are not here, as in capacity.py."""
    try:
        forecast = suite_load(suite, n_all, config.data_dir or "", LIMIT, Assumptions())
    except R2WError:
        return None
    return check(suite, forecast, n_all, replace(config, tasks=suite), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("R2W_DATA", "../shared/benchmarks"))
    parser.add_argument("--samples", type=int, default=40)
    flags = parser.parse_args()
    found: list[dict[str, Any]] = []
    with FakeServer() as server, tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            model="given",
            judge=(f"{server.base_url}#judge-0",),
            data_dir=flags.data_dir,
            limit=flags.samples,
            shuffle=True,
            seed=1,
            cache=False,
        )
        for entry in read_catalogue():
            info = entry.info
            if done := run(info.name, info.n_samples, config, Path(folder)):
                found.append({name: getattr(done, name) for name in done.__slots__})
                print(row(done), flush=True)
    write_json(RESULTS, found)


if __name__ == "__main__":
    main()
