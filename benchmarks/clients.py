"""The clients that throughput.py compares, each as a function from a job to a command.

In: a `Job` (workload, connections, addresses, a folder to write in). Out: a `Command`, or None
where a client has no such workload. The peers' command lines are those of the harness
specification, section 16; their inputs are written from the WritingBench file that the user
already has.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bare_client import FIXED_ANSWER, read_queries
from measure import Command

HERE = Path(__file__).resolve().parent
CRITERIA = 5
WRITER = "gen-200"
JUDGE = "judge-200"
LM_EVAL_TASK = """\
task: throughput
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{query}}}}"
doc_to_target: ""
generation_kwargs: {{until: [], max_gen_toks: 2048, do_sample: true, temperature: 0.7}}
process_results: !function utils.{function}
metric_list: [{{metric: value, aggregation: mean, higher_is_better: true}}]
"""
TASK_FUNCTIONS = """\
import json
import os

import requests


def length(doc, results):
    return {"value": len(results[0])}


def judged(doc, results):
    scores = []
    for criterion in doc["criteria"]:
        prompt = f"{criterion}\\n\\n{doc['query']}\\n\\n{results[0]}"
        body = {"model": os.environ["JUDGE"], "messages": [{"role": "user", "content": prompt}]}
        reply = requests.post(os.environ["JUDGE_URL"], json=body).json()
        scores.append(json.loads(reply["choices"][0]["message"]["content"])["score"])
    return {"value": sum(scores) / len(scores)}
"""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run, and where. `queries` counts prompts to answer (or answers to judge)."""

    workload: str
    connections: int
    queries: int
    writer_url: str
    judge_url: str
    data: Path
    work: Path
    writer: str = WRITER
    judge: str = JUDGE

    @property
    def requests(self) -> int:
        """How many requests the workload consists of."""
        return (
            self.queries * {"generate": 1, "judge": CRITERIA, "judged": 1 + CRITERIA}[self.workload]
        )


@dataclass(frozen=True, slots=True)
class Peers:
    """Interpreters of the environments that hold the other harnesses; None skips them."""

    lm_eval: str | None = None
    evalscope: str | None = None
    inspect: str | None = None
    writingbench: str | None = None
    writingbench_repo: Path | None = None


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """One record a line."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")


def bare(library: str, job: Job, *extra: str) -> Command:
    """The bare client, the yardstick of all others."""
    arguments = {
        "--base-url": job.writer_url,
        "--workload": job.workload,
        "--library": library,
        "--queries": job.queries,
        "--connections": job.connections,
        "--model": job.writer,
        "--judge": job.judge,
        "--data": job.data,
    }
    argv = [sys.executable, str(HERE / "bare_client.py"), *flatten(arguments), *extra]
    return Command(tuple(argv), job.work, expected_requests=job.requests)


def flatten(arguments: Mapping[str, object]) -> list[str]:
    """Flags and values as a list of arguments."""
    return [str(part) for pair in arguments.items() for part in pair]


def ours(job: Job, extra: tuple[str, ...] = ()) -> Command:
    """r2w-eval; if more prompts are wanted than WritingBench has, each gets several samples."""
    env = ours_env(job)
    if job.workload == "judge":
        folder = job.work / "run"
        shutil.copytree(prepare_answers(job, extra), folder)
        argv = [*R2W_EVAL, "judge", str(folder), "--judge", f"{job.judge_url}#{job.judge}"]
        argv += ["--max-connections", str(job.connections)]
        return Command(tuple(argv), job.work, env, job.requests)
    samples = -(-job.queries // 1000)
    while job.queries % samples:
        samples += 1
    judge = f"{job.judge_url}#{job.judge}" if job.workload == "judged" else "none"
    arguments = {
        "--model": f"{job.writer_url}#{job.writer}",
        "--tasks": "writingbench",
        "--limit": job.queries // samples,
        "--samples": samples,
        "--judge": judge,
        "--max-connections": job.connections,
        "--out": job.work / "run",
    }
    argv = [*R2W_EVAL, *flatten(arguments), "--no-cache", "--quiet", *extra]
    return Command(tuple(argv), job.work, env, job.requests)


R2W_EVAL = (sys.executable, "-m", "r2w_eval")


def ours_env(job: Job) -> dict[str, str]:
    """Environment in which data and `constant_scorer` are found from any working directory."""
    path = f"{HERE}:{HERE.parent}"
    return {"R2W_DATA": str(job.data.parent), "R2W_CACHE": str(job.work), "PYTHONPATH": path}


def prepare_answers(job: Job, extra: tuple[str, ...]) -> Path:
    """A run folder with answers to be judged, made once for all measurements of its size."""
    folder = job.work.parent / f"answers-{job.queries}{''.join(extra)}"
    if not folder.exists():
        arguments = {
            "--model": f"{job.writer_url}#gen-0",
            "--tasks": "writingbench",
            "--limit": job.queries,
            "--judge": "constant_scorer:SCORER",
            "--out": folder,
        }
        argv = [*R2W_EVAL, *flatten(arguments), "--no-cache", "--quiet", *extra]
        subprocess.run(
            argv, env={**os.environ, **ours_env(job)}, stdout=subprocess.DEVNULL, check=True
        )
    return folder


def lm_eval(python: str, job: Job) -> Command | None:
    """Generation by the HTTP backend; `judged` asks the judge in `process_results`."""
    if job.workload == "judge":
        return None
    queries = itertools.islice(read_queries(job.data), job.queries)
    records = [
        {"query": f"{one['query']}\n\n({i})", "criteria": [str(c) for c in one["checklist"]]}
        for i, one in enumerate(queries)
    ]
    write_jsonl(job.work / "docs.jsonl", records)
    function = "judged" if job.workload == "judged" else "length"
    task = LM_EVAL_TASK.format(data=job.work / "docs.jsonl", function=function)
    (job.work / "throughput.yaml").write_text(task, encoding="utf-8")
    (job.work / "utils.py").write_text(TASK_FUNCTIONS, encoding="utf-8")
    model_args = (
        f"model={job.writer},base_url={job.writer_url}/chat/completions,"
        f"num_concurrent={job.connections},max_retries=3,think_end_token=</think>"
    )
    arguments = {
        "--model": "local-chat-completions",
        "--model_args": model_args,
        "--tasks": "throughput",
        "--include_path": job.work,
        "--output_path": job.work / "out",
        "--use_cache": job.work / "cache",
    }
    flags = ["--apply_chat_template", "--log_samples"]
    argv = [python, "-m", "lm_eval", "run", *flatten(arguments), *flags]
    env = {"JUDGE": job.judge, "JUDGE_URL": f"{job.judge_url}/chat/completions"}
    env |= {"HF_HOME": str(job.work / "hf"), "HF_HUB_OFFLINE": "1"}
    return Command(tuple(argv), job.work, env, job.requests)


def evalscope(python: str, job: Job) -> Command | None:
    """Its general_qa with a numeric judge; repeats stand for criteria, scores lie in [0, 1]."""
    if job.workload != "judged":
        return None
    queries = itertools.islice(read_queries(job.data), job.queries)
    folder = job.work / "data"
    folder.mkdir()
    write_jsonl(folder / "wb.jsonl", [{"query": q["query"], "response": ""} for q in queries])
    judge = {
        "strategy": "llm",
        "models": {"model_id": f"{job.judge}+unit", "api_url": job.judge_url, "api_key": "x"},
        "repeats": CRITERIA,
        "contract": {"score_type": "numeric"},
    }
    dataset = {"general_qa": {"dataset_id": str(folder), "subset_list": ["wb"]}}
    arguments = {
        "--model": job.writer,
        "--api-url": job.writer_url,
        "--api-key": "x",
        "--eval-type": "openai_api",
        "--datasets": "general_qa",
        "--eval-batch-size": job.connections,
        "--work-dir": job.work / "out",
        "--dataset-args": json.dumps(dataset),
        "--judge": json.dumps(judge),
    }
    command = str(Path(python).with_name("evalscope"))
    argv = [command, "eval", *flatten(arguments), "--no-timestamp"]
    return Command(tuple(argv), job.work, expected_requests=job.requests)


def inspect(python: str, job: Job) -> Command | None:
    """inspect_evals' WritingBench, whose package holds the queries; displays and logs off."""
    if job.workload != "judged":
        return None
    arguments = {
        "--model": f"openai-api/mock/{job.writer}",
        "-T": f"judge_model=openai-api/mock/{job.judge}",
        "--limit": job.queries,
        "--max-connections": job.connections,
        "--max-samples": job.connections,
        "--display": "none",
        "--log-dir": job.work / "out",
    }
    command = str(Path(python).with_name("inspect"))
    flags = ["--no-log-realtime", "--no-log-model-api"]
    argv = [command, "eval", "inspect_evals/writingbench", *flatten(arguments), *flags]
    env = {"MOCK_API_KEY": "x", "MOCK_BASE_URL": job.writer_url}
    return Command(tuple(argv), job.work, env, job.requests)


def writingbench_script(python: str, repo: Path, job: Job) -> Command | None:
    """The upstream script, from a checkout or a bare clone: one judge request at a time."""
    if job.workload != "judge":
        return None
    upstream = job.work / "upstream"
    upstream.mkdir()
    names = ("evaluate_benchmark.py", "prompt.py", "evaluator")
    archive = subprocess.run(
        ["git", "-C", str(repo), "archive", "HEAD", *names], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(upstream)], input=archive.stdout, check=True)
    queries = itertools.islice(read_queries(job.data), job.queries)
    answers = [{"index": one["index"], "response": FIXED_ANSWER} for one in queries]
    write_jsonl(job.work / "answers.jsonl", answers)
    arguments = {
        "--upstream": upstream,
        "--queries": job.data / "benchmark_all.jsonl",
        "--answers": job.work / "answers.jsonl",
        "--output": job.work / "scores.jsonl",
        "--base-url": job.judge_url,
        "--judge": job.judge,
    }
    argv = [python, str(HERE / "peer_writingbench.py"), *flatten(arguments)]
    return Command(tuple(argv), job.work, expected_requests=job.requests)


Client = Callable[[Job], Command | None]


def all_clients(peers: Peers) -> dict[str, Client | None]:
    """Every client by name; None for those whose environment was not given."""

    def using(python: str | None, build: Callable[[str, Job], Command | None]) -> Client | None:
        return None if python is None else lambda job: build(python, job)

    repo = peers.writingbench_repo
    script = None
    if peers.writingbench and repo:
        script = using(
            peers.writingbench, lambda python, job: writingbench_script(python, repo, job)
        )
    return {
        "bare aiohttp": lambda job: bare("aiohttp", job),
        "bare shared": lambda job: (
            bare("aiohttp", job, "--shared") if job.workload == "judged" else None
        ),
        "bare httpx": lambda job: bare("httpx", job) if job.workload == "generate" else None,
        "r2w-eval": ours,
        "r2w-eval fixed": lambda job: ours(job, ("--fixed-concurrency",)),
        "lm-eval": using(peers.lm_eval, lm_eval),
        "evalscope": using(peers.evalscope, evalscope),
        "inspect": using(peers.inspect, inspect),
        "WritingBench script": script,
    }


PEER_NAMES = ("lm-eval", "evalscope", "inspect", "WritingBench script")
# One judge request in flight: the rate does not depend on the number of queries, the duration does.
SLOW = {("lm-eval", "judged"), ("WritingBench script", "judge")}
