"""Coverage-guided fuzzing of everything that reads untrusted input.

    pip install atheris==3.0.0     # Python 3.11 or newer on Linux
    python fuzz/harness.py TARGET fuzz/corpus/TARGET -max_total_time=60

A target ignores the documented errors of its reader. Any other exception, a score outside its
scale, or an input that takes more than ten seconds (`-timeout=10`) is a finding.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["r2w_eval"]):
    from r2w_eval.reward_models.items import ItemScore, read_item
    from r2w_eval.reward_models.scorer import load_reward
    from r2w_eval.reward_models.serving.server import ServeSettings, make_app
    from r2w_eval.reward_models.serving.shapes import BadRequest, read_classify, read_get_reward
    from r2w_eval.training.judging.assess import Unreadable, read_assessment, read_rubric
    from r2w_eval.training.pipeline.recipe import SECTIONS
    from r2w_eval.training.prompts import Criterion
    from r2w_eval.training.recipe import read_recipe

    from r2w_eval.comparison.pairwise import parse_label
    from r2w_eval.config import read_config_file
    from r2w_eval.data import data_roots
    from r2w_eval.errors import R2WError
    from r2w_eval.judge.extraction import balanced_braces, last_list, parse_json
    from r2w_eval.judge.parsing import last_object, read_number_verdict
    from r2w_eval.models.chat import CallFailed
    from r2w_eval.models.completions import Retry, read_reply
    from r2w_eval.models.thinking import split_thinking
    from r2w_eval.store import RecordIndex, RunFolder, iter_jsonl
    from r2w_eval.suites.suite import JudgingJob, load_info, load_suite, suite_folders
    from r2w_eval.trace.prose import parse_prose
    from r2w_eval.trace.tags import parse_tagged
    from r2w_eval.trace.types import TagSchema
    from r2w_eval.types import Answer, JudgeRequest, WriterStatus

FOLDER = Path(tempfile.mkdtemp())
RUBRIC = (Criterion("Clarity", "It is clear."),)
LOW, HIGH = 1, 10


def verdict(data: bytes) -> None:
    """Judge text: a number on the scale, or none."""
    text = data.decode("utf-8", "surrogateescape")
    score = read_number_verdict(text, "score", LOW, HIGH)
    assert score.value is None or LOW <= score.value <= HIGH
    margin = parse_label(None, text).value  # type: ignore[arg-type]
    assert margin is None or math.isfinite(margin)
    last_object(text, "score")
    balanced_braces(text)
    for read in (parse_json, last_list):
        read(text)
    for read_marks in (lambda: read_assessment(text, "It was late.", RUBRIC),
                       lambda: read_rubric(text)):  # fmt: skip
        with contextlib.suppress(Unreadable):
            read_marks()


def trace(data: bytes) -> None:
    """Thinking and tags: segments in order, inside the text."""
    text = data.decode("utf-8", "surrogateescape")
    split_thinking(text)
    parsed = parse_tagged(text, TagSchema())
    for segment in parsed.segments:
        assert 0 <= segment.span.start <= segment.span.end <= len(text)


@cache
def judge_requests() -> list[tuple[object, JudgeRequest]]:
    """The first questions about one sample of every suite with data in R2W_DATA."""
    found = []
    for name, folder in suite_folders().items():
        info, suite = load_info(name), load_suite(folder)
        with contextlib.suppress(R2WError):
            files = info.data(data_roots(None))
            sample, templates = next(iter(suite.load_samples(files))), suite.load_templates(files)
            answer = Answer("a", "a", WriterStatus.OK, ("a",) * suite.n_turns)
            for mode in suite.parse_verdict:
                job = JudgingJob(sample, answer, templates, mode)
                own = {request.criterion: request for request in suite.plan_judging(job)}
                found += [(suite.parse_verdict[mode], request) for request in own.values()]
    return found


def suites(data: bytes) -> None:
    """Judge text as every suite reads it: a finite value, or a status."""
    text = data.decode("utf-8", "surrogateescape")
    for parse, request in judge_requests():
        score = parse(request, text)  # type: ignore[operator]
        assert score.value is None or math.isfinite(score.value)


def prose(data: bytes) -> None:
    """Thinking without tags: segments inside the text; a scored remark has a finite value."""
    text = data.decode("utf-8", "replace")
    trace = parse_prose(text, text[: len(text) // 2])
    for segment in trace.segments:
        assert 0 <= segment.span.start <= segment.span.end <= len(text)
    half = len(text) // 2
    item = read_item({"id": "1", "draft": text[:half], "reflection": text[half:]}, 1)
    if not isinstance(item, ItemScore):
        load_reward().score([item])


def records(data: bytes) -> None:
    """Record files and manifests, through all their readers."""
    run = RunFolder(FOLDER)
    for path in (run.responses_path, run.judgements_path, run.manifest_path):
        path.write_bytes(data)
    for read in (lambda: list(iter_jsonl(run.responses_path)),
                 lambda: RecordIndex(run.responses_path), lambda: list(run.responses()),
                 lambda: list(run.judgements()), lambda: RunFolder.existing(str(FOLDER)),
                 ):  # fmt: skip
        with contextlib.suppress(R2WError):
            read()


def recipe(data: bytes) -> None:
    """Recipes, settings files and task files."""
    path = FOLDER / "task" / "task.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    for read in (lambda: read_recipe(path, SECTIONS), lambda: read_config_file(str(path)),
                 lambda: load_info("task", FOLDER)):  # fmt: skip
        with contextlib.suppress(R2WError):
            read()


def reply(data: bytes) -> None:
    """Response bodies of an endpoint."""
    with contextlib.suppress(CallFailed, Retry):
        read_reply(data)


def request(data: bytes) -> None:
    """Request bodies of `serve`."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return
    read_item(body, 1)
    if isinstance(body, dict):
        for read in (read_classify, read_get_reward):
            with contextlib.suppress(BadRequest):
                read(body)


ROUTES = ("/score", "/classify", "/get_reward", "/health", "/metrics", "/openapi.json", "/none")


@cache
def client() -> tuple[asyncio.AbstractEventLoop, Any]:
    """The server in this process, and a client of it."""
    from aiohttp.test_utils import TestClient, TestServer

    async def start() -> Any:
        found = TestClient(TestServer(make_app(load_reward(), ServeSettings())))
        await found.start_server()
        return found

    loop = asyncio.new_event_loop()
    return loop, loop.run_until_complete(start())


def handlers(data: bytes) -> None:
    """Requests to `serve` (first byte: route, rest: body) never give a 5xx status."""
    loop, ask = client()

    async def send() -> tuple[int, bytes]:
        path = ROUTES[data[0] % len(ROUTES)]
        async with ask.post(path, data=data[1:]) as reply:
            return reply.status, await reply.read()

    if data:
        status, body = loop.run_until_complete(send())
        assert status < 500
        assert isinstance(json.loads(body), dict)


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f
    for f in (verdict, suites, trace, prose, records, recipe, reply, request, handlers)
}

if __name__ == "__main__":
    name = sys.argv.pop(1)
    target = TARGETS[name]
    # to merge, libFuzzer runs argv[0] with its own options
    sys.argv[0] = f"{sys.executable} {sys.argv[0]} {name}"
    if not sys.argv[1].startswith("-"):
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    if ready := {suites: judge_requests, handlers: client}.get(target):
        ready()  # not within the time limit of the first input
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
