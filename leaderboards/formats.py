"""One row in the formats of others: lm-eval's results file, Hugging Face's model card.

The results file has the keys of lm-eval 0.4.13, so that lm-eval can print it; the card's
`model-index` holds score, interval and score key.
"""

from __future__ import annotations

import datetime
import json
from typing import Any

import yaml
from r2w_eval.leaderboards.boards import Board
from r2w_eval.leaderboards.export import markdown, to_markdown
from r2w_eval.leaderboards.rows import Row

from r2w_eval.hashing import to_plain
from r2w_eval.paths import safe_name
from r2w_eval.results.lmeval_io import metric_columns

PAPER = "https://arxiv.org/abs/2604.03004"


def to_lm_eval(row: Row) -> bytes:
    """A results_*.json with this row as its only task."""
    task = row.task
    content = {
        "results": {
            task: {
                "name": task,
                "alias": task,
                "sample_len": row.n_answers,
                **metric_columns((row.headline, *row.metrics)),
            }
        },
        "group_subtasks": {task: []},
        "configs": {task: {"task": task, "output_type": "generate_until"}},
        "versions": {task: row.version},
        "n-shot": {task: 0},
        "higher_is_better": {task: {"score": True}},
        "n-samples": {
            task: {"original": row.headline.n_expected, "effective": row.headline.n_scored}
        },
        "config": {
            "model": row.system.get("backend", "http"),
            "model_args": {"pretrained": row.model},
            "gen_kwargs": row.system.get("decoding"),
            "random_seed": row.seed,
        },
        "git_hash": None,
        "date": datetime.datetime.fromisoformat(row.created).timestamp(),
        "model_source": row.system.get("backend", "http"),
        "model_name": row.model,
        "model_name_sanitized": safe_name(row.model),
        "system_instruction": row.system.get("system_prompt"),
        "r2w": {
            "judge": row.judge,
            "score_key": row.score_key,
            "identity": row.identity,
            "smoke_test_judge": row.is_smoke_test,
            "losses": row.losses,
            "signature": row.signature,
        },
    }
    return (json.dumps(to_plain(content), indent=2) + "\n").encode()


def to_model_card(row: Row) -> bytes:
    """README front matter with a `model-index`; the YAML writer quotes everything."""
    head = row.headline
    metric: dict[str, Any] = {
        "type": head.name,
        "name": f"{head.name} (judge {row.judge}, score key {row.score_key})",
        "value": head.value,
        "verified": False,
        "args": {
            "low_95": head.low,
            "high_95": head.high,
            "n_scored": head.n_scored,
            "n_expected": head.n_expected,
            "smoke_test_judge": row.is_smoke_test,
        },
    }
    entry = {
        "name": row.model,
        "results": [
            {
                "task": {"type": "text-generation", "name": "open-ended writing"},
                "dataset": {"name": row.task, "type": row.task, "revision": row.version},
                "metrics": [metric],
                "source": {"name": "r2w-eval", "url": PAPER},
            }
        ],
    }
    front = yaml.safe_dump({"model-index": [entry]}, allow_unicode=True, sort_keys=False)
    note = f"Row {row.id} of r2w-eval {row.software}, {row.created[:10]}."
    return f"---\n{front}---\n\n{note}\n".encode("utf-8", "replace")


def to_dataset_card(board: Board) -> bytes:
    """README of a dataset repository that holds a board's files."""
    front = yaml.safe_dump(
        {
            "pretty_name": f"{board.task} {board.version}, judged by {board.judge}",
            "tags": ["leaderboard", "creative-writing", "llm-as-judge"],
            "configs": [{"config_name": "board", "data_files": f"{board.slug}.parquet"}],
        },
        allow_unicode=True,
        sort_keys=False,
    )
    text = (
        f"---\n{front}---\n\n# {markdown(board.task)}\n\n{to_markdown(board)}\n"
        "Made by r2w-eval from run folders; every number can be recomputed with "
        "`r2w-eval leaderboard verify`.\n"
    )
    return text.encode("utf-8", "replace")
