"""The functions that a task YAML names, so that stock `lm_eval` runs our suites.

`lm_eval --include_path tasks --tasks <suite>` writes the texts and, when `R2W_JUDGE` names a judge
(as `--judge` does; of several, between blanks, their combination), gives the suite's headline by
the same engine, parser and aggregator as `r2w-eval`. All answers are judged together in the
aggregation, because lm-eval hands `process_results` one document at a time. Without
`R2W_JUDGE` the score is NaN and the deterministic metrics stand (harness M1-M4). `R2W_MODE` is
`--mode`, `R2W_BASELINE` is `--baseline` and so on, `R2W_ONLY_COMPLETE=1` is `--only-complete`;
`R2W_OUT` keeps the runs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from r2w_eval.config import INPUT_OPTIONS, RunConfig, merge_config
from r2w_eval.data import data_roots
from r2w_eval.errors import R2WError, UsageError
from r2w_eval.hashing import content_hash
from r2w_eval.models.thinking import split_thinking
from r2w_eval.records.selection import Selection, check_complete
from r2w_eval.results.lmeval_io import make_document, measure_answer
from r2w_eval.run.job import Outcome, evaluate
from r2w_eval.run.watching import show_progress
from r2w_eval.suites.suite import load_info, load_suite
from r2w_eval.types import Mode

logger = logging.getLogger(__name__)


def load_dataset(*, suite: str, **_: object) -> dict[str, Any]:
    """All samples as a `datasets.Dataset` in a split named test; lm-eval passes the metadata.

    Raises UsageError: a wrong setting is told before anything is generated.
    """
    from datasets import Dataset

    read_mode()
    info = load_info(suite)
    if (n_turns := load_suite(info.folder).n_turns) > 1:
        logger.warning(
            "%s: a conversation of %d turns. lm-eval writes the first one only, so there is no "
            "score. Try: r2w-eval --tasks %s",
            suite,
            n_turns,
            suite,
        )
    data = info.data(data_roots(None), read_inputs())
    chosen = Selection(only_complete=bool(os.environ.get("R2W_ONLY_COMPLETE")))
    samples = list(chosen.take(load_suite(info.folder).load_samples(data)))
    check_complete(suite, samples)
    return {"test": Dataset.from_list([make_document(sample) for sample in samples])}


def read_inputs() -> dict[str, Path]:
    """The user's own files: `R2W_BASELINE` is `--baseline`, and so on."""
    named = {name: os.environ.get(f"R2W_{name.upper()}") for name in INPUT_OPTIONS}
    return {name: Path(value) for name, value in named.items() if value}


def read_mode() -> Mode:
    """`R2W_MODE`, else strict. Raises UsageError."""
    name = os.environ.get("R2W_MODE") or Mode.STRICT
    try:
        return Mode(name)
    except ValueError as error:
        raise UsageError(f"R2W_MODE={name!r}: expected {' or '.join(Mode)}") from error


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """The user turn; lm-eval applies the chat template."""
    return str(doc["prompt"])


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Deterministic metrics, and the text for the judge. Thinking is no part of the answer."""
    text = results[0]
    measures = measure_answer(len(split_thinking(text).answer))
    return {"score": (doc["suite"], doc["id"], text), **measures}


def aggregate_score(items: Sequence[tuple[str, str, str]]) -> float:
    """The suite's headline for (suite, sample id, text); NaN without a judge or a verdict.

    A judge that fails must not end lm-eval, which has written nothing yet: the texts would be lost.
    """
    judge = os.environ.get("R2W_JUDGE")
    if not judge:
        logger.warning("R2W_JUDGE is not set: no judge, so the score is NaN. Try R2W_JUDGE=local")
        return math.nan
    suite = items[0][0]
    try:
        with tempfile.TemporaryDirectory() as folder:
            outcome = _judge_all(_make_config(items, tuple(judge.split()), Path(folder)))
    except (R2WError, OSError) as error:
        logger.error(
            "%s: not judged, so the score is NaN: %s. The texts are in lm-eval's samples file "
            "(--log_samples). Try: r2w-eval --responses FILE --only-recorded --tasks %s --judge J",
            suite,
            error,
            suite,
        )
        return math.nan
    # of several judges their combination, which stands last
    result = outcome.results[-1]
    for warning in result.warnings:
        logger.warning("%s: %s", suite, warning.text)
    headline = result.headline
    n, of = headline.n_scored, headline.n_expected
    logger.info("%s by %s: %d of %d answers scored", suite, result.judge, n, of)
    return math.nan if headline.value is None else headline.value


def _make_config(
    items: Sequence[tuple[str, str, str]], judges: tuple[str, ...], folder: Path
) -> RunConfig:
    """A run over these texts; below `R2W_OUT` every set of texts, judges and mode has its own."""
    suite, mode = items[0][0], str(read_mode())
    kept = os.environ.get("R2W_OUT")
    name = f"{suite}-{content_hash([items, judges, mode], 8)}"
    settings = {
        "model": "lm-eval",
        "tasks": suite,
        "judge": judges,
        "responses": str(_write_texts(items, folder / "responses.jsonl")),
        "out": str(Path(kept) / name if kept else folder / "run"),
        "mode": mode,
        "only_recorded": True,
        **{name: str(path) for name, path in read_inputs().items()},
    }
    return merge_config(None, settings)


def _write_texts(items: Sequence[tuple[str, str, str]], path: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for _, sample_id, text in items:
            file.write(json.dumps({"id": sample_id, "response": text}) + "\n")
    return path


def _judge_all(config: RunConfig) -> Outcome:
    """Run the engine, showing its progress; in a thread, since a notebook has a loop already."""
    job = show_progress(lambda watch: evaluate(config, watch), False, None)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, job).result()
