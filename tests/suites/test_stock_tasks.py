"""Tasks of lm-eval through our runs: its prompts, filters and metrics, our losses and pairs."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from r2w_eval.leaderboards.submit import SubmissionRefused, submit
from support import ScriptedServer, completion

from r2w_eval.cli import cli
from r2w_eval.config import RunConfig
from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.run import evaluate
from r2w_eval.suites.stock_tasks import load_stock

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs pip install 'r2w-eval[hf]'"
)
SUMS = ((1, 2), (3, 4), (5, 6), (7, 8))
TASK = {
    "task": "sums",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": [], "max_gen_toks": 64, "do_sample": False},
    "filter_list": [
        {
            "name": "last-number",
            "filter": [
                {"function": "regex", "regex_pattern": "(-?[0-9]+)", "group_select": -1},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}
SWITCH = {"chat_template_kwargs": {"enable_thinking": True}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    own = tmp_path / "tasks"
    own.mkdir()
    rows = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]
    (own / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"data_files": {"test": str(own / "sums.jsonl")}}
    (own / "sums.yaml").write_text(json.dumps({**TASK, "dataset_kwargs": files}))
    return own


def calculator() -> ScriptedServer:
    """Adds correctly when it may think; else it says 3 whatever is asked, and once nothing."""
    asked: list[dict[str, Any]] = []

    def reply(_: dict[str, str]) -> bytes:
        question = asked[-1]["messages"][-1]["content"]
        if question.startswith("What is 7") and "chat_template_kwargs" not in asked[-1]:
            return completion("")
        numbers = [int(word.strip("?")) for word in question.split() if word.strip("?").isdigit()]
        right = "chat_template_kwargs" in asked[-1] and len(numbers) == 2
        return completion(f"<think>4, no.</think>It is {sum(numbers)}." if right else "It is 3.")

    server = ScriptedServer((200, {}, reply))
    server.on_body = asked.append
    return server


def test_a_task_of_ones_own_has_its_own_metric(
    folder: Path, tmp_path: Path, own_cache: Path
) -> None:
    with calculator() as server:
        config = RunConfig(
            model=f"{server.base_url}#w",
            tasks="lm_eval:sums",
            include_path=str(folder),
            judge=("none",),
            out=str(tmp_path / "run"),
            max_connections=1,
        )
        (result,) = asyncio.run(evaluate(config)).results
        n = len(server.seen)
        again = asyncio.run(evaluate(config)).results[0]
    assert len(server.seen) == n == 4 and again == result
    # an empty answer is a wrong one, as in lm-eval
    assert result.headline.name == "exact_match,last-number"
    assert (result.headline.value, result.headline.n_scored) == (0.25, 4)
    assert result.headline.low is not None and result.headline.low > 0
    assert result.writer.statuses == {"empty": 1, "ok": 3}
    sampled = (tmp_path / "run").rglob("samples_*.jsonl")
    assert "What is 1 + 2?" in next(sampled).read_text()
    with pytest.raises(UnknownName, match="lm_eval:"):
        asyncio.run(evaluate(replace(config, tasks="lm_eval")))


def test_thinking_on_and_off_takes_such_a_task_beside_a_writing_suite(
    folder: Path, tmp_path: Path, own_cache: Path
) -> None:
    with calculator() as writer, FakeServer() as judges:
        command = [
            "experiment", "thinking", "--model", f"{writer.base_url}#w",
            "--judge", f"{judges.base_url}#judge-0", "--tasks", "quickstart,lm_eval:sums",
            "--include-path", str(folder), "--limit", "4", "--max-connections", "1",
            "--on", f"extra_body={json.dumps(SWITCH)}", "--off", "extra_body=",
            "--out", str(tmp_path / "x"),
        ]  # fmt: skip
        shown = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    rows = {row["task"]: row for row in json.loads((tmp_path / "x/thinking.json").read_text())}
    assert rows.keys() == {"quickstart", "lm_eval:sums"}
    sums = rows["lm_eval:sums"]
    assert (sums["on"]["score"]["value"], sums["off"]["score"]["value"]) == (1.0, 0.25)
    assert sums["difference"]["n_common"] == 4 and sums["on"]["thinking"]["value"] > 0


def test_beside_judged_suites_its_own_metric_is_one_row_and_alone_it_opens_no_judge(
    folder: Path, tmp_path: Path, own_cache: Path
) -> None:
    with calculator() as writer, FakeServer() as judges:
        config = RunConfig(
            model=f"{writer.base_url}#w",
            tasks="quickstart,lm_eval:sums",
            include_path=str(folder),
            judge=tuple(f"{judges.base_url}#judge-0+seed={seed}" for seed in (1, 2)),
            limit=2,
            out=str(tmp_path / "run"),
        )
        both = asyncio.run(evaluate(config)).results
        alone = replace(config, tasks="lm_eval:sums", judge=("nowhere",), out=str(tmp_path / "b"))
        (single,) = asyncio.run(evaluate(alone)).results
    assert [(r.task, r.judge) for r in both[3:]] == [("lm_eval:sums", "none")] and len(both) == 4
    assert single.score_key == both[3].score_key and single.headline == both[3].headline
    # no merge would run the task's program, so its row is not sent
    rows = submit(tmp_path / "run", tmp_path / "sent").rows
    assert [row.judge for row in rows] == [r.judge for r in both[:3]]
    with pytest.raises(SubmissionRefused, match="a task of lm-eval is a program"):
        submit(tmp_path / "b", tmp_path / "sent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_type": "loglikelihood", "metric_list": []}, "kind loglikelihood"),
        ({"generation_kwargs": {"until": [], "num_beams": 4}}, "num_beams"),
        ({"repeats": 3}, "3 repeat"),
        ({"dataset_path": "/nowhere/at/all"}, "cannot load the task"),
    ],
)
def test_tasks_that_cannot_run_here_say_what_to_do(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    path = folder / "sums.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError, match=message):
        load_stock("lm_eval:sums", str(folder))


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(UsageError, match="--include-path 'nowhere'"):
        load_stock("lm_eval:sums", "nowhere")


PROGRAM = """
def hit(predictions, references, **_):
    return float(predictions[0] == references[0])


def read(doc, results):
    return {"hit": float(int(results[0]) == int(doc["answer"]))}
"""
OWN = [{"metric": "!function utils.hit", "aggregation": "mean", "higher_is_better": True}]


def write_program(folder: Path, program: str, **changes: Any) -> str:
    """A task of this name with functions of its own; its version."""
    files = {"data_files": {"test": str(folder / "sums.jsonl")}}
    task = {**TASK, "dataset_kwargs": files, "filter_list": None, **changes}
    text = json.dumps({k: v for k, v in task.items() if v is not None})
    # a tag of YAML, which JSON has no word for
    (folder / "sums.yaml").write_text(re.sub('"(!function [a-z.]+)"', r"\1", text))
    (folder / "utils.py").write_text(program)
    info, _ = load_stock.__wrapped__("lm_eval:sums", str(folder))
    return info.version


def test_a_task_with_functions_of_its_own_is_the_same_in_every_process(folder: Path) -> None:
    first = write_program(folder, PROGRAM, metric_list=OWN)
    assert write_program(folder, PROGRAM, metric_list=OWN) == first
    assert write_program(folder, PROGRAM.replace("==", ">="), metric_list=OWN) != first
    reads = {
        "process_results": "!function utils.read",
        "metric_list": [{**OWN[0], "metric": "hit"}],
    }
    second = write_program(folder, PROGRAM, **reads)
    assert write_program(folder, PROGRAM, **reads) == second
    assert write_program(folder, PROGRAM.replace("==", ">="), **reads) != second


def test_an_answer_that_breaks_a_task_s_program_has_no_value_and_ends_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = [{**OWN[0], "metric": "hit"}]
    write_program(folder, PROGRAM, process_results="!function utils.read", metric_list=metrics)
    texts = ["3", "seven", "", "15"]
    rows = [{"id": str(n), "response": text} for n, text in enumerate(texts)]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RunConfig(
        model="w",
        responses=str(answers),
        tasks="lm_eval:sums",
        include_path=str(folder),
        out=str(tmp_path / "run"),
    )
    (result,) = asyncio.run(evaluate(config)).results
    head = result.headline
    assert (head.value, head.n_scored, head.n_expected) == (1.0, 2, 4)
    told = capsys.readouterr().err
    assert "breaks on sample 1, ValueError: invalid literal" in told
