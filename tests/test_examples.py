"""The examples do what they say: suite, scorer, trainer, reward function, action."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

from r2w_eval.config import RunConfig
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.run import evaluate
from r2w_eval.suites.suite import load_info

EXAMPLES = ROOT / "examples"


def test_a_suite_of_under_115_lines_runs_from_its_folder(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = EXAMPLES / "new_suite"
    lines = sum(len(p.read_text("utf-8").splitlines()) for p in source.iterdir() if p.is_file())
    assert lines < 115
    shutil.copytree(
        source, tmp_path / "tasks" / "haiku", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr("r2w_eval.suites.suite.tasks_dir", lambda: tmp_path / "tasks")
    assert load_info("haiku").n_samples == 3
    with FakeServer() as server:
        config = RunConfig(
            model=f"{server.base_url}#gen",
            judge=(f"{server.base_url}#judge",),
            tasks="haiku",
            out=str(tmp_path / "run"),
        )
        (result,) = asyncio.run(evaluate(config)).results
    (headline,) = [metric for metric in result.metrics if metric.name == "overall"]
    assert (headline.n_scored, headline.n_expected) == (3, 3)
    assert headline.value is not None and 1 <= headline.value <= 10


def test_a_scorer_of_ones_own_is_a_judge(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with FakeServer() as server:
        config = RunConfig(
            model=f"{server.base_url}#gen",
            judge=("rhythm_scorer:judge",),
            tasks="quickstart",
            limit=2,
            out=str(tmp_path / "run"),
        )
        (result,) = asyncio.run(evaluate(config)).results
    assert all(metric.n_scored == metric.n_expected for metric in result.metrics)


def test_best_of_n_keeps_what_the_reward_puts_first(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from best_of_n import keep_best

    with FakeServer() as server:
        config = RunConfig(
            model=f"{server.base_url}#gen",
            judge=("none",),
            limit=3,
            samples=3,
            gen_kwargs="temperature=1",
            out=str(tmp_path / "run"),
        )
        folder = asyncio.run(evaluate(config)).folder
        keep_best(str(folder.path), tmp_path / "best.jsonl")
        kept = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
        texts = {sample: set[str]() for sample in ("story-en-1", "story-zh-1", "story-en-2")}
        for response in folder.responses():
            texts[response.sample_id].add(response.answer)
        assert [line["id"] for line in kept] == list(texts)
        assert all(line["response"] in texts[line["id"]] for line in kept)
        assert len(texts["story-en-1"]) == 3
        judged = replace(
            config,
            model="best-of-3",
            judge=(f"{server.base_url}#judge",),
            samples=1,
            responses=str(tmp_path / "best.jsonl"),
            out=str(tmp_path / "best"),
        )
        (result,) = asyncio.run(evaluate(judged)).results
    assert result.headline.n_scored == 3


@pytest.mark.slow
def test_the_trl_example_trains(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="needs the train extra: pip install 'r2w-eval[train]'")
    from toy_policy import make_policy, make_tokenizer

    make_policy().save_pretrained(tmp_path / "model")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(tmp_path / "model")
    words = ["--model", str(tmp_path / "model"), "--steps=1", "--tokens=8", "--group=2"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "trl_grpo.py"), *words, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_reward_function_of_verl_scores_and_refuses() -> None:
    from r2w_eval.reward_models.adapters import Unscorable, compute_score

    assert "name=compute_score" in (EXAMPLES / "verl_grpo.sh").read_text("utf-8")
    scored = compute_score("x", "The horn came first.", extra_info={"prompt": "A ferry."})
    assert set(scored) == {"score", "r2w_reward"} and -1 <= scored["score"] <= 1
    with pytest.raises(Unscorable):
        compute_score("x", "  ")


def test_the_action_uses_commands_and_options_that_exist() -> None:
    from r2w_eval.cli import cli

    action: Any = yaml.safe_load((EXAMPLES / "github" / "evaluate.yml").read_text("utf-8"))
    steps = {step.get("name"): step for step in action["jobs"]["evaluate"]["steps"]}
    assert steps["Check"]["run"] == "r2w-eval doctor" and "doctor" in cli.commands
    options = {option for p in cli.commands["run"].params for option in p.opts}
    used = {w for w in steps["Evaluate"]["run"].split() if w.startswith("--")}
    assert used <= options


def run_cells(notebook: Path) -> list[tuple[str, str]]:
    """What each code cell printed when it was kept, and what it prints now."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    own: dict[str, Any] = {}
    found = []
    with asyncio.Runner() as runner:
        for cell in cells:
            if cell["cell_type"] != "code":
                continue
            kept = "".join("".join(output["text"]) for output in cell["outputs"])
            code = compile(
                "".join(cell["source"]), notebook.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            )
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(eval(code, own))
                else:
                    exec(code, own)
            found.append((kept, printed.getvalue()))
        runner.run(own["server"].stop())
    return found


def test_the_notebook_prints_what_it_shows(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run_cells(EXAMPLES / "tour.ipynb")
    assert [now for _, now in found] == [kept for kept, _ in found]
    assert sum(bool(now) for _, now in found) >= 3
