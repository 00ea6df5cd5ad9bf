"""Where traces come from: a run folder, a file of answers, or responses that are being aggregated.

File rows: `{id, thinking, answer, prompt?, score?}`, or any file that `--responses` takes (our
responses.jsonl, lm-eval samples, `{id, response}`), whose thinking stands between tags.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from r2w_eval.data import read_jsonl
from r2w_eval.errors import DataError, UsageError
from r2w_eval.models.thinking import ThinkTags, split_thinking
from r2w_eval.records.collect import latest_judgements
from r2w_eval.records.recorded import ID_KEYS, TEXT_KEYS, read_responses
from r2w_eval.reflection.analysis import TraceInput
from r2w_eval.store import RunFolder, iter_jsonl, read_response
from r2w_eval.suites.suite import load_info, load_suite
from r2w_eval.types import Response, WriterStatus, is_number

RESPONSE_KEYS = {"key", "task", "sample_id", "status", "usage"}
"""What tells a record of our own responses.jsonl."""


def from_response(response: Response, prompt: str = "", score: float | None = None) -> TraceInput:
    """A stored response as input; its cluster is the sample. Every turn is an input of its own."""
    repeat = f"#{response.repeat}" if response.repeat else ""
    turn = f"-turn{response.turn + 1}" if response.turn else ""
    return TraceInput(
        id=f"{response.sample_id}{repeat}{turn}",
        thinking=response.thinking,
        answer=response.answer,
        prompt=prompt,
        cluster=response.sample_id,
        answer_id=f"{response.sample_id}{repeat}",
        usage=response.usage,
        is_unclosed=response.status is WriterStatus.UNCLOSED_THINK,
        score=score,
    )


def read_run(folder: RunFolder) -> dict[str, list[TraceInput]]:
    """By task: the newest response of every sample, repeat and turn that has a text."""
    prompts = _prompts(folder)
    scores = _mean_scores(folder)
    found: dict[str, list[TraceInput]] = defaultdict(list)
    for (task, sample_id, *_), response in _newest(folder.responses()).items():
        if response.raw or response.thinking:
            prompt = prompts.get((task, sample_id), "")
            found[task].append(from_response(response, prompt, scores.get(response.key)))
    return dict(found)


def _newest(responses: Iterable[Response]) -> dict[tuple[str, str, int, int], Response]:
    """A response that was asked for again takes the place of the one before."""
    return {(r.task, r.sample_id, r.repeat, r.turn): r for r in responses}


def _prompts(folder: RunFolder) -> dict[tuple[str, str], str]:
    """First prompts by task and sample, from the run's own lm-eval samples files."""
    found: dict[tuple[str, str], str] = {}
    for path in sorted(folder.path.glob("lm_eval/*/samples_*.jsonl")):
        task = path.stem.removeprefix("samples_").rpartition("_")[0]
        for row in iter_jsonl(path):
            document: Mapping[str, Any] = row["doc"]
            found[task, str(document.get("id", row["doc_id"]))] = str(document["prompt"])
    return found


def _mean_scores(folder: RunFolder) -> dict[str, float]:
    """Mean newest verdict of each response over criteria, judges and repeats; a suite's stages
    give none.
    """
    suite = cache(lambda task: load_suite(load_info(task).folder))
    values: dict[str, list[float]] = defaultdict(list)
    for (response_key, _), own in latest_judgements(folder.judgements()).items():
        for judgement in own.values():
            value = judgement.score.value
            if value is not None and suite(judgement.task).is_verdict(judgement.criterion):
                values[response_key].append(value)
    return {key: sum(own) / len(own) for key, own in values.items()}


def read_file(path: Path, tags: ThinkTags = ThinkTags()) -> list[TraceInput]:
    """Traces of a file. Raises UsageError, DataError."""
    if not path.is_file():
        raise UsageError(
            f"{str(path)!r}: no such run folder or file. Expected a run folder (with run.json) or "
            f"JSON lines of {{id, thinking, answer}}. Try: r2w-eval reflect runs/NAME"
        )
    rows = [_checked(path, number, row) for number, row in enumerate(read_jsonl(path), 1)]
    if not rows:
        raise UsageError(
            f"{str(path)!r}: no record. Expected JSON lines of {{id, thinking, answer}}"
        )
    if all(row.keys() >= RESPONSE_KEYS for row in rows):
        own = _newest(_read_own(path, number, row) for number, row in enumerate(rows, 1)).values()
        return [from_response(one) for one in own if one.raw or one.thinking]
    if any("thinking" in row for row in rows):
        return [_from_row(path, number, row, tags) for number, row in enumerate(rows, 1)]
    prompts = {str(row.get("id")): row.get("prompt") for row in rows}
    return list(_from_recorded(path, prompts, tags))


def _read_own(path: Path, number: int, row: Mapping[str, Any]) -> Response:
    try:
        return read_response(row)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path}, line {number}: no record of an answer ({error}). Mend that line and run the "
            f"same command again"
        ) from error


def _checked(path: Path, number: int, row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            f"{path}, line {number}: a {type(row).__name__}. Expected an object {{id, thinking, "
            f"answer}}; mend that line and run the same command again"
        )
    return row


def _from_row(path: Path, number: int, row: Mapping[str, Any], tags: ThinkTags) -> TraceInput:
    """One row; without a field `thinking` it may stand between tags in the answer."""
    name = next((str(row[key]) for key in ID_KEYS if key in row), str(number))
    texts = {key: row.get(key) for key in ("thinking", "answer", "prompt")}
    texts["answer"] = next((row[k] for k in ("answer", *TEXT_KEYS) if k in row), "")
    if any(not isinstance(text, str | None) for text in texts.values()):
        raise DataError(
            f"{path}, line {number}: thinking, answer and prompt must be texts. Mend that line and "
            f"run the same command again"
        )
    score = row.get("score")
    thinking, answer, is_unclosed = texts["thinking"], texts["answer"] or "", False
    if "thinking" not in row:
        split = split_thinking(answer, tags)
        thinking, answer, is_unclosed = split.thinking, split.answer, split.unclosed
    return TraceInput(
        id=name,
        thinking=thinking,
        answer=answer,
        prompt=texts["prompt"] or "",
        cluster=str(row.get("prompt_id", name)),
        is_unclosed=is_unclosed,
        score=float(score) if is_number(score) else None,
    )


def _from_recorded(path: Path, prompts: Mapping[str, Any], tags: ThinkTags) -> Iterator[TraceInput]:
    for recorded in read_responses(path):
        split = recorded.split(tags)
        prompt = prompts.get(recorded.sample_id)
        yield TraceInput(
            id=recorded.sample_id,
            thinking=split.thinking,
            answer=split.answer,
            prompt=prompt if isinstance(prompt, str) else "",
            cluster=recorded.sample_id,
            is_unclosed=split.unclosed,
        )
