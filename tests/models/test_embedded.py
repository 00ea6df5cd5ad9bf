"""The embedded model, for real: weights, server, contexts, and exact label probabilities."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from r2w_eval.errors import UsageError
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest
from r2w_eval.models.embedded import EmbeddedModel, count_threads, ensure_gguf
from r2w_eval.types import Decoding, Message, Scale

pytest.importorskip("xllamacpp", reason="the embedded model needs pip install 'r2w-eval[local]'")

SCALE = Scale(lead='{"score": ', labels={str(k): float(k) for k in range(1, 11)}, end=",")
MESSAGES = (Message("user", "Rate this story: the cat sat. Answer in JSON."),)
T = TypeVar("T")


def with_model(job: Callable[[EmbeddedModel], Awaitable[T]]) -> T:
    async def run() -> T:
        model = EmbeddedModel()
        try:
            return await job(model)
        finally:
            await model.close()

    return asyncio.run(run())


def test_label_probabilities_equal_a_brute_force_walk() -> None:
    async def job(model: EmbeddedModel) -> tuple[dict[str, float], dict[str, float]]:
        read = await model.read_labels(MESSAGES, SCALE)
        rendered = await model._post(
            "/apply-template", {"messages": [{"role": "user", "content": MESSAGES[0].content}]}
        )
        prompt = rendered["prompt"] + SCALE.lead
        brute = {}
        for label in ("1", "7", "10"):
            tokens = await model._tokenize(prompt + label + SCALE.end)
            start = len(await model._tokenize(prompt))
            steps = [
                (await model._next_tokens(tokens[:i]))[tokens[i]] for i in range(start, len(tokens))
            ]
            brute[label] = math.prod(steps)
        return dict(read.probabilities), brute

    read, brute = with_model(job)
    assert set(read) == set(SCALE.labels)
    assert sum(read.values()) <= 1.0
    for label, probability in brute.items():
        assert read[label] == pytest.approx(probability, rel=0.02)


def test_replies_have_counts_reasons_and_repeat_under_a_seed() -> None:
    async def job(model: EmbeddedModel) -> None:
        request = ChatRequest(
            (Message("user", "Write a sentence about rain."),),
            Decoding(max_tokens=12, temperature=0.7, seed=3),
        )
        first, second = await model.complete(request), await model.complete(request)
        assert first.text == second.text
        assert first.finish_reason == "length" and first.usage.completion_tokens == 12
        long = ChatRequest((Message("user", "word " * 9000),), Decoding(max_tokens=4))
        with pytest.raises(CallFailed) as caught:
            await model.complete(long)
        assert caught.value.status is CallStatus.CONTEXT

    with_model(job)


def test_wrong_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "model.gguf"
    wrong.write_bytes(b"GGUF")
    monkeypatch.setenv("R2W_SMOLLM2_GGUF", str(wrong))
    with pytest.raises(UsageError, match="sha256"):
        ensure_gguf()
    monkeypatch.setenv("R2W_SMOLLM2_GGUF", str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="no such file"):
        ensure_gguf()


def test_threads_are_a_whole_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_THREADS", "none")
    with pytest.raises(UsageError, match="R2W_THREADS"):
        count_threads()
