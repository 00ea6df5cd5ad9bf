"""Pure functions between requests and records: seeds, content keys, and the rows of a run
folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from r2w_eval.hashing import content_hash, text_hash
from r2w_eval.judge.scorers import Scorer, Verdict
from r2w_eval.models.chat import CallStatus, Reply
from r2w_eval.models.thinking import SplitText, writer_status
from r2w_eval.records.plan import TaskPlan
from r2w_eval.store import read_judgement, read_response
from r2w_eval.types import (
    Answer,
    Cause,
    Decoding,
    Judgement,
    JudgeRequest,
    Message,
    Mode,
    Response,
    Sample,
    WriterStatus,
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One request to the writer: the `attempt`-th try at the `turn`-th answer of a sample."""

    plan: TaskPlan
    sample: Sample
    messages: tuple[Message, ...]
    repeat: int = 0
    turn: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One answer on its way through the judges."""

    plan: TaskPlan
    sample: Sample
    response: Response
    answer: Answer
    echoes: dict[str, bool] = field(default_factory=dict, hash=False)
    """Found once for all judges and repeats, by question: see `holds_verdict`."""


def derive_seed(run_seed: int | None, sample: Sample, repeat: int, attempt: int = 0) -> int | None:
    """A 31-bit seed of its own for every (run seed, item, repeat) and every further try at it;
    None sends no seed.
    """
    if run_seed is None:
        return None
    tried = [attempt] if attempt else []
    place = [run_seed, sample.task, sample.id, repeat, *tried]
    return int(content_hash(place, 8), 16) & 0x7FFFFFFF


def response_key(
    turn: Turn, prompt_hash: str, writer: Mapping[str, Any], decoding: Decoding
) -> str:
    """Everything that changes an answer."""
    facts: dict[str, Any] = {
        "suite": [turn.plan.info.name, turn.plan.info.version],
        "sample": turn.sample.id,
        "prompt": prompt_hash,
        "writer": writer,
        "decoding": decoding.sent(),
        "repeat": turn.repeat,
        "turn": turn.turn,
    }
    if turn.attempt:
        facts["attempt"] = turn.attempt
    return content_hash(facts)


def apply_turn_rule(turn: Turn, response: Response) -> tuple[Response, bool]:
    """The response, `too_short` where the suite's rule says so, and whether it asks once more."""
    plan, rule = turn.plan, turn.plan.suite.turn_rule
    lost_elsewhere = response.status.cause is Cause.INFRASTRUCTURE
    if lost_elsewhere or response.status is WriterStatus.TOO_LONG:
        return response, False
    parity = plan.mode is Mode.PARITY
    text = plan.suite.parity.read_answer(response.raw) if parity else response.answer
    if not rule.is_short(text.strip(), turn.attempt):
        return response, False
    if response.status.cause is None:
        reason = (
            f"{len(text.strip())} characters in try {turn.attempt + 1} of {rule.tries}; "
            f"{rule.wanted_chars} are wanted"
        )
        response = replace(response, status=WriterStatus.TOO_SHORT, reason=reason)
    return response, turn.attempt + 1 < rule.tries


def verdict_name(request: JudgeRequest | Judgement) -> str:
    """What tells the verdicts about one answer apart."""
    return f"{request.criterion}|{request.order}" if request.order else request.criterion


def holds_verdict(case: Case, request: JudgeRequest) -> bool:
    """The judged text itself holds a whole verdict in the form that is asked for (harness S3).

    By the strict reading in both modes: what upstream's scripts take for a verdict, a line such as
    "Chapter One: 3", is no sign of a planted one.
    """
    name = verdict_name(request)
    if name not in case.echoes:
        suite = case.plan.suite
        read = suite.parse_verdict[Mode.STRICT] if suite.is_verdict(request.criterion) else None
        found = read is not None and read(request, case.answer.text).value is not None
        case.echoes[name] = found
    return case.echoes[name]


# what a suite keeps beside its question for its own parser changes no verdict
_ASKED = tuple(field.name for field in fields(JudgeRequest) if field.name != "facts")


def judgement_key(
    case: Case, scorer: Scorer, decoding: Decoding, request: JudgeRequest, repeat: int
) -> str:
    """Everything that changes a verdict."""
    return content_hash(
        {
            "response": case.response.key,
            "answer": text_hash(case.answer.text),
            "judge": [scorer.id, scorer.describe()],
            "decoding": decoding.sent(),
            "request": {name: getattr(request, name) for name in _ASKED},
            "mode": case.plan.mode,
            "repeat": repeat,
        }
    )


def answer_to_judge(plan: TaskPlan, response: Response, turns: tuple[str, ...]) -> Answer | None:
    """What goes to the judge; None when there is nothing to judge.

    Strict judges only answers; parity judges whatever text upstream would have judged. A
    conversation that broke off, or a text that the suite's rule refuses, nobody judges.
    """
    failed = response.status.cause is not None
    if failed and (plan.suite.next_turn or response.status is WriterStatus.TOO_SHORT):
        return None
    if plan.mode is Mode.PARITY:
        if response.status.cause is Cause.INFRASTRUCTURE or not response.raw:
            return None
        text = plan.suite.parity.read_answer(response.raw)
    elif failed:
        return None
    else:
        text = response.answer
    return Answer(text, response.raw, response.status, turns, response.sample_id)


def settled_response(record: Mapping[str, Any] | None, retry_failed: bool) -> Response | None:
    """The answer on disk; None where there is none, or one that is to be asked for again."""
    if record is None:
        return None
    response = read_response(record)
    # what the endpoint refused for good it would refuse again
    refused = response.reason.startswith(CallStatus.BAD_REQUEST)
    if response.status is WriterStatus.ERROR and not refused:
        return None
    failed = response.status.cause is not None
    return None if failed and retry_failed else response


def settled_judgement(record: Mapping[str, Any] | None, retry_failed: bool) -> Judgement | None:
    """The judgement on disk; None where there is none, or one that is to be asked again."""
    if record is None:
        return None
    judgement = read_judgement(record)
    again = judgement.score.status.is_transient or (retry_failed and judgement.score.value is None)
    return None if again else judgement


def make_response(reply: Reply, split: SplitText, facts: Mapping[str, Any]) -> Response:
    """A `Response` from what the writer returned."""
    return Response(
        raw=reply.text,
        answer=split.answer,
        thinking=split.thinking,
        status=writer_status(reply, split),
        reason=reply.refusal or "",
        finish_reason=reply.finish_reason,
        model_returned=reply.model,
        fingerprint=reply.fingerprint,
        usage=reply.usage,
        latency_s=round(reply.latency_s, 4),
        multi_block=split.multi_block,
        cached=reply.cached,
        **facts,
    )


def make_judgement(
    key: str, response: Response, judge: str, asked: tuple[JudgeRequest, int], verdict: Verdict
) -> Judgement:
    """A `Judgement` from what the judge returned; `asked` is the request and its repeat."""
    request, repeat = asked
    return Judgement(
        key=key,
        response_key=response.key,
        task=response.task,
        sample_id=response.sample_id,
        judge=judge,
        criterion=request.criterion,
        repeat=repeat,
        order=request.order,
        sample_repeat=response.repeat,
        **verdict_facts(verdict),
    )


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """The fields of a `Judgement` that say what the judge returned and how."""
    return {
        "score": verdict.score,
        "asks": verdict.asks,
        "model_returned": verdict.model_returned,
        "usage": verdict.usage,
        "latency_s": round(verdict.latency_s, 4),
        "cached": verdict.cached,
    }
