"""Runs for leaderboard tests: recorded answers of several systems, judged by the fake server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from r2w_eval.leaderboards.rows import Evidence, ItemColumns, Losses, Row, Tokens, sign

from r2w_eval.config import RunConfig
from r2w_eval.data import read_jsonl
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.hashing import content_hash
from r2w_eval.run import evaluate
from r2w_eval.stats.inference import mean_estimate, measure
from r2w_eval.suites.suite import load_info
from r2w_eval.types import Metric

LIMIT = 6
HOSTILE = (
    '</title></script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">'
    "\u202egnp\x00\u2028{{ 7*7 }} \ud800 &amp; $x_1$"
)
HOSTILE_NAMES = ("../../x", "=HYPERLINK(0)", "<b>bold</b> | \\input{x}", "🪶" * 5, "n" * 300)


def sample_ids(limit: int = LIMIT) -> list[str]:
    """The first prompts of quickstart."""
    folder = load_info("quickstart").folder
    return [s["id"] for s in read_jsonl(folder / "samples.jsonl")][:limit]


def answers(text: str, limit: int = LIMIT) -> dict[str, str]:
    """One text a prompt, of growing length."""
    return {key: f"{text} {key} " + "word " * (20 * n) for n, key in enumerate(sample_ids(limit))}


def make_run(
    folder: Path,
    model: str,
    texts: Mapping[str, str],
    *judges: str,
    limit: int = LIMIT,
) -> Path:
    """A finished run of recorded answers under `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f"{folder.name}.jsonl"
    rows = (json.dumps({"id": key, "text": text}) for key, text in texts.items())
    file.write_text("\n".join(rows) + "\n")
    config = RunConfig(
        model=model,
        tasks="quickstart",
        judge=judges,
        responses=str(file),
        out=str(folder),
        limit=limit,
        cache=False,
    )
    asyncio.run(evaluate(config))
    return folder


def make_runs(root: Path) -> dict[str, Path]:
    """Systems of every kind: plain, thinking, hostile, a null, another judge, half-finished."""
    with FakeServer() as server:
        judge, other = f"{server.base_url}#judge-0", f"{server.base_url}#judge-0+seed=5"
        runs = {
            "plain": make_run(root / "plain", "org/plain", answers("A plain tale."), judge),
            "second": make_run(root / "second", "org/plain", answers("Another day."), judge),
            "thinking": make_run(
                root / "thinking",
                "org/thinking",
                answers("<think>Weak start. Cut it.</think>A thought tale."),
                judge,
            ),
            "hostile": make_run(root / "hostile", HOSTILE, answers(HOSTILE), judge),
            "null": make_run(
                root / "null", "null/constant", dict.fromkeys(sample_ids(), "Once."), judge
            ),
            "other": make_run(root / "other", "org/plain", answers("A plain tale."), other),
            "half": make_run(root / "half", "org/half", answers("Half.", 3), judge),
        }
    return runs


def make_row(
    model: str,
    values: Mapping[str, float | None],
    *,
    chars: int = 400,
    n_expected: int | None = None,
    **changes: Any,
) -> Row:
    """A signed row of one value a prompt, without a run behind it."""
    estimate = replace(mean_estimate(values), name="overall", is_headline=True)
    if n_expected is not None:
        estimate = replace(estimate, n_expected=n_expected)
    headline = measure(estimate)
    ids = tuple(values)
    n = len(ids)
    identity = {"suite": "quickstart", "judge": "j", "items": "x"}
    facts: dict[str, Any] = {
        "model": model,
        "system": {"backend": "http", "sampling": "", "decoding": {}, "answers_per_item": 1},
        "is_null": model.startswith("null/"),
        "task": "quickstart",
        "version": "1",
        "mode": "strict",
        "judge": "j",
        "score_key": content_hash(identity, 12),
        "identity": identity,
        "headline": headline,
        "metrics": (Metric("genre/story", 5.0, 4.0, 6.0, n, n),),
        "estimate": estimate,
        "items": ItemColumns(
            ids,
            (0,) * n,
            tuple(values.values()),
            tuple("ok" if v is not None else "empty" for v in values.values()),
            tuple(chars + 10 * i for i in range(n)),
            (None,) * n,
            tuple(f"{model}-{key}" for key in ids),
        ),
        "losses": Losses({}, {}, {}),
        "tokens": Tokens(100, 1000, 0),
        "judging": {
            "n_valid": n,
            "n_total": n,
            "n_parsed_first": n,
            "histogram": {"5": n},
            "failures": {},
            "share_at_floor": 0.0,
            "share_at_ceiling": 0.0,
            "models_returned": [changes.get("judge", "j")],
            "status": "success",
        },
        "noise": None,
        "reflection": None,
        "is_smoke_test": False,
        "changed_settings": (),
        "warnings": (),
        "models_returned": (model,),
        "created": "2026-01-02T03:04:05+00:00",
        "software": "0.1.0",
        "seed": 0,
        "evidence": Evidence({"responses.jsonl": content_hash(model, 64)}),
    }
    return sign(Row(**{**facts, **changes}))
