"""lm-eval in both directions: it reads our files, runs our tasks, and gets the same score."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from r2w_eval.config import RunConfig
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.paths import tasks_dir
from r2w_eval.run import evaluate
from r2w_eval.suites.suite import suite_folders

pytest.importorskip("lm_eval", reason="needs pip install 'r2w-eval[hf]'")
# lm-eval and datasets warn at import; not ours to mend
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def config(server: FakeServer, tmp_path: Path, own_cache: Path) -> RunConfig:
    return RunConfig(
        model=f"{server.base_url}#gen-0",
        tasks="quickstart",
        judge=(f"{server.base_url}#judge-0",),
        out=str(tmp_path / "run"),
    )


def load_tasks() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(tasks_dir()), include_defaults=False)


def test_every_suite_loads_in_stock_lm_eval() -> None:
    manager = load_tasks()
    assert set(manager.all_tasks) >= set(suite_folders())


def test_stock_lm_eval_gives_the_same_score_for_the_same_texts(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM

    ours = asyncio.run(evaluate(config))
    texts = {response.prompt_hash: response.raw for response in ours.folder.responses()}
    by_prompt = {
        sample["doc"]["prompt"]: sample["resps"][0][0]
        for path in (ours.folder.path / "lm_eval").rglob("samples_*.jsonl")
        for sample in (json.loads(line) for line in path.read_text("utf-8").split("\n") if line)
    }
    assert len(by_prompt) == len(texts) == 24

    class Recorded(LM):
        """Says what the first run's writer said."""

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [by_prompt[request.args[0]] for request in requests]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            return []

        def loglikelihood_rolling(self, requests: list[Any]) -> list[Any]:
            return []

    monkeypatch.setenv("R2W_JUDGE", config.judge[0])
    monkeypatch.setenv("R2W_OUT", str(tmp_path / "judged"))
    found = simple_evaluate(model=Recorded(), tasks=["quickstart"], task_manager=load_tasks())
    row = found["results"]["quickstart"]
    assert row["score,none"] == ours.results[0].headline.value
    assert row["empty_share,none"] == 0


def test_lm_eval_prints_our_file(config: RunConfig) -> None:
    from lm_eval.utils import make_table

    outcome = asyncio.run(evaluate(config))
    (path,) = (outcome.folder.path / "lm_eval").rglob("results_*.json")
    table = make_table(json.loads(path.read_bytes()))
    assert "quickstart" in table and f"{outcome.results[0].headline.value:.4f}" in table


def test_our_samples_file_can_be_judged_again(config: RunConfig, tmp_path: Path) -> None:
    first = asyncio.run(evaluate(config))
    (path,) = (first.folder.path / "lm_eval").rglob("samples_*.jsonl")
    again = RunConfig(
        model="gen-0",
        tasks="quickstart",
        judge=config.judge,
        responses=str(path),
        out=str(tmp_path / "again"),
    )
    second = asyncio.run(evaluate(again))
    assert second.results[0].headline == first.results[0].headline
