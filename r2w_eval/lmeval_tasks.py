"""The functions that a task YAML names, so that stock `lm_eval` runs our suites.

`lm_eval --include_path tasks --tasks <suite>` writes the texts and, when `R2W_JUDGE` names a judge
(as `--judge` does), gives the suite's headline by the same engine, parser and aggregator as
`r2w-eval`. All answers are judged together in the aggregation, because lm-eval hands
`process_results` one document at a time. Without `R2W_JUDGE` the score is NaN and the
deterministic metrics stand (harness M1-M4).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.data import data_roots
from r2w_eval.suites import load_info, load_suite

logger = logging.getLogger(__name__)


def load_dataset(*, suite: str, **_: object) -> dict[str, Any]:
    """All samples as a `datasets.Dataset` in a split named test; lm-eval passes the metadata."""
    from datasets import Dataset

    info = load_info(suite)
    samples = load_suite(info.folder).load_samples(info.data(data_roots(None)))
    rows = [{"suite": suite, "id": s.id, "prompt": s.messages[-1].content} for s in samples]
    return {"test": Dataset.from_list(rows)}


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """The user turn; lm-eval applies the chat template."""
    return str(doc["prompt"])


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Deterministic metrics, and the text for the judge."""
    text = results[0]
    return {
        "score": (doc["suite"], doc["id"], text),
        "empty_share": float(not text.strip()),
        "answer_chars": float(len(text.strip())),
    }


def aggregate_score(items: Sequence[tuple[str, str, str]]) -> float:
    """The suite's headline for (suite, sample id, text); NaN without a judge or a verdict."""
    judge = os.environ.get("R2W_JUDGE")
    if not judge:
        logger.warning("R2W_JUDGE is not set: no judge, so the score is NaN. Try R2W_JUDGE=local")
        return math.nan
    from r2w_eval.config import RunConfig
    from r2w_eval.run import evaluate

    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder) / "responses.jsonl"
        rows = (json.dumps({"id": sample_id, "response": text}) for _, sample_id, text in items)
        recorded.write_text("\n".join(rows) + "\n", encoding="utf-8")
        config = RunConfig(
            model="lm-eval",
            tasks=items[0][0],
            judge=tuple(judge.split()),
            responses=str(recorded),
            out=os.environ.get("R2W_OUT") or str(Path(folder) / "run"),
            mode=os.environ.get("R2W_MODE", "strict"),
            only_recorded=True,
        )
        outcome = asyncio.run(evaluate(config))
    value = outcome.results[0].headline.value
    return math.nan if value is None else value
