"""The functions behind the task YAMLs, alone and under the stock `lm_eval` command."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import save_tiny_llama

from r2w_eval.config import RunConfig
from r2w_eval.errors import UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.lmeval_tasks import aggregate_score, load_dataset, process_results, read_mode
from r2w_eval.paths import tasks_dir
from r2w_eval.run import Outcome, evaluate

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="needs pip install 'r2w-eval[hf]'",
)


@pytest.fixture
def items() -> list[tuple[str, str, str]]:
    from r2w_eval.data import data_roots
    from r2w_eval.suites.suite import load_info, load_suite

    info = load_info("quickstart")
    samples = list(load_suite(info.folder).load_samples(info.data(data_roots(None))))[:2]
    return [("quickstart", sample.id, f"Text number {sample.id}.") for sample in samples]


def judge_spec(server: FakeServer) -> str:
    return f"{server.base_url}#judge-0"


def test_thinking_counts_neither_as_an_answer_nor_in_its_length() -> None:
    doc = {"suite": "s", "id": "1", "prompt": "p"}
    texts = {
        "<think>plan</think>\n\nOnce.": (0.0, 5.0),
        "<think>never closed": (1.0, 0.0),
        " ": (1, 0),
    }
    for text, (empty, length) in texts.items():
        found = process_results(doc, [text])
        assert (found["empty_share"], found["answer_chars"]) == (empty, length)
        assert found["score"] == ("s", "1", text), "the judge's side gets the raw text"


def test_without_a_judge_the_score_is_nan_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("R2W_JUDGE", raising=False)
    assert math.isnan(aggregate_score([("quickstart", "1", "x")]))
    assert "R2W_JUDGE" in caplog.text


def test_a_wrong_mode_is_refused_before_anything_is_generated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("R2W_MODE", "lenient")
    with pytest.raises(UsageError, match="R2W_MODE='lenient': expected parity or strict"):
        read_mode()
    pytest.importorskip("datasets")
    with pytest.raises(UsageError, match="R2W_MODE"):
        load_dataset(suite="quickstart")


def test_a_dead_judge_costs_the_score_and_not_the_texts(
    items: list[tuple[str, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    own_cache: Path,
) -> None:
    monkeypatch.setenv("R2W_JUDGE", "http://127.0.0.1:9/v1#judge")
    assert math.isnan(aggregate_score(items))
    assert "r2w-eval --responses FILE" in caplog.text


def test_lost_verdicts_are_reported(
    server: FakeServer,
    items: list[tuple[str, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    own_cache: Path,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("R2W_JUDGE", f"{server.base_url}#judge-0+malformed=1")
    assert math.isnan(aggregate_score(items))
    assert "10 of 10 verdicts lost" in caplog.text and "0 of 2 answers scored" in caplog.text


def test_kept_runs_go_on_and_never_meet(
    server: FakeServer,
    items: list[tuple[str, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    own_cache: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("R2W_JUDGE", judge_spec(server))
    monkeypatch.setenv("R2W_OUT", str(tmp_path / "runs"))
    first = aggregate_score(items)
    server.reset()
    assert aggregate_score(items) == first
    assert server.stats().total.requests == 0
    aggregate_score(items[:1])
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_several_judges_give_the_score_of_their_combination(
    server: FakeServer,
    items: list[tuple[str, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    own_cache: Path,
) -> None:
    lossy = f"{server.base_url}#judge-0+malformed=1+sticky"
    monkeypatch.setenv("R2W_JUDGE", f"{judge_spec(server)} {lossy}")
    assert math.isnan(aggregate_score(items)), "both verdicts are needed"


def test_a_notebook_with_its_own_loop_can_judge(
    server: FakeServer,
    items: list[tuple[str, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    own_cache: Path,
) -> None:
    monkeypatch.setenv("R2W_JUDGE", judge_spec(server))

    async def cell() -> float:
        return aggregate_score(items)

    assert 1 <= asyncio.run(cell()) <= 10


def run_stock(out: Path, cache: Path, *arguments: str, **settings: str) -> dict[str, Any]:
    """`lm_eval run` as a user types it; returns its results file."""
    command = [
        sys.executable, "-m", "lm_eval", "run", "--include_path", str(tasks_dir()),
        "--limit", "3", "--log_samples", "--output_path", str(out), *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "R2W_CACHE": str(cache), "OMP_NUM_THREADS": "1", **settings}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return read_results(out)


def judge_same_texts(out: Path, folder: Path, suite: str, judge: str, mode: str) -> Outcome:
    config = RunConfig(
        model="same", tasks=suite, judge=(judge,), responses=str(out), out=str(folder),
        mode=mode, only_recorded=True, cache=False,
    )  # fmt: skip
    return asyncio.run(evaluate(config))


@needs_lm_eval
@pytest.mark.filterwarnings("ignore")
def test_stock_writingbench_in_parity_mode_scores_like_ours_to_the_last_digit(
    server: FakeServer,
    benchmarks: Path,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    judge = judge_spec(server)
    for name, value in {"DATA": str(benchmarks), "JUDGE": judge, "MODE": "parity"}.items():
        monkeypatch.setenv(f"R2W_{name}", value)
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False)
    stock = simple_evaluate(model="dummy", tasks=["writingbench"], limit=3, task_manager=manager)
    samples = stock.pop("samples")
    tracker = EvaluationTracker(output_path=str(tmp_path / "stock"))
    tracker.save_results_aggregated(stock, samples)
    tracker.save_results_samples("writingbench", samples["writingbench"])
    ours = judge_same_texts(tmp_path / "stock", tmp_path / "ours", "writingbench", judge, "parity")
    assert ours.results[0].headline.n_scored == 3
    stock, row = read_results(tmp_path / "stock"), stock["results"]["writingbench"]
    assert row["score,none"] == ours.results[0].headline.value
    written = read_results(ours.folder.path / "lm_eval")
    for key in ("empty_share,none", "answer_chars,none", "answer_chars_stderr,none", "sample_len"):
        assert written["results"]["writingbench"][key] == row[key]
    assert written["task_hashes"] == stock["task_hashes"], "documents, prompts and their order"
    assert stock.keys() & {"date", "config", "versions"} <= written.keys()
    assert type(written["date"]) is type(stock["date"])


def read_results(folder: Path) -> dict[str, Any]:
    """The one results file of lm-eval in a folder."""
    (path,) = folder.rglob("results_*.json")
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama over bytes, so that any language passes."""
    pytest.importorskip("torch")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": 0} | {letter: i + 1 for i, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return save_tiny_llama(tmp_path_factory.mktemp("checkpoint"), tokenizer, 1024)


@needs_lm_eval
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_stock_command_with_a_checkpoint_scores_like_ours_to_the_last_digit(
    checkpoint: Path,
    server: FakeServer,
    with_data: Path,
    tmp_path: Path,
) -> None:
    out, judge = tmp_path / "stock", judge_spec(server)
    stock = run_stock(
        out, tmp_path / "cache", "--model", "hf", "--model_args", f"pretrained={checkpoint}",
        "--device", "cpu", "--apply_chat_template", "--gen_kwargs", "max_gen_toks=40",
        "--tasks", "quickstart,writingbench", R2W_JUDGE=judge,
    )  # fmt: skip
    for suite in ("quickstart", "writingbench"):
        (texts,) = out.rglob(f"samples_{suite}_*.jsonl")
        ours = judge_same_texts(texts, tmp_path / suite, suite, judge, "strict")
        row = stock["results"][suite]
        assert row["answer_chars,none"] > 0
        assert row["score,none"] == ours.results[0].headline.value
        identity = ours.manifest["identity"]["writer"]
        assert identity["reasoning"] == "not recorded", "lm-eval may have stripped it"
