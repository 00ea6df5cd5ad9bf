"""Suites judge answers that were recorded elsewhere, without a writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import run_with_fake_server

ANSWERS = {
    "discox": {"185": "前文各节考察了若干理论。", "141": "A text."},
    "hellobench": {"chat_002": "Ten templates.", "open_ended_qa_000": "Yes."},
    "longbench_write": {"0": "A cactus.", "60": "一篇。"},
}


@pytest.mark.parametrize("suite", ANSWERS)
def test_recorded_answers_are_judged_without_a_writer(
    suite: str, benchmarks: Path, tmp_path: Path, own_cache: Path
) -> None:
    if suite == "hellobench":
        pytest.importorskip("nltk", reason="HelloBench needs pip install 'r2w-eval[text]'")
    path = tmp_path / "answers.jsonl"
    rows = [{"id": name, "response": text} for name, text in ANSWERS[suite].items()]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    result = run_with_fake_server(
        suite,
        benchmarks,
        tmp_path / "run",
        model="mine",
        responses=str(path),
        only_recorded=True,
        limit=None,
    )
    assert (result.headline.n_scored, result.headline.n_expected) == (2, 2)
    assert result.writer.completion_tokens == 0 and result.judging.failures == {}
