"""Checkpoints on this machine: opened, checked, and asked in batches through a `LocalEngine`.

`hf_engine` is the engine for transformers; vLLM batches by itself and has `vllm_engine`. Requests
that are waiting together run as one batch in a worker thread, so that judging goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar

from r2w_eval.errors import UsageError
from r2w_eval.models.chat import (
    CallFailed,
    CallStatus,
    ChatRequest,
    LabelProbabilities,
    Reply,
    refuse_schema,
)
from r2w_eval.types import Decoding, Message, Scale, Usage

if TYPE_CHECKING:
    from r2w_eval.models.vllm_engine import VllmModel

P = ParamSpec("P")
T = TypeVar("T")

SETTLE_S = 0.02
BATCHES_WAITING = 8


@dataclass(frozen=True, slots=True)
class Job:
    """One rendered prompt on its way to an engine."""

    prompt: str
    decoding: Decoding

    @property
    def sampling(self) -> Decoding:
        """What must be equal within a batch: everything but the seed."""
        return replace(self.decoding, seed=None)


@dataclass(frozen=True, slots=True)
class Generated:
    """What an engine made of a job; `finish_reason` None means that the prompt did not fit."""

    text: str
    finish_reason: str | None
    n_prompt: int
    n_new: int


Waiting: TypeAlias = tuple[Job, "asyncio.Future[Reply]"]


class LocalEngine(Protocol):
    """One loaded checkpoint."""

    batch_size: int

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt by the checkpoint's chat template, ready for the answer."""

    def generate(self, jobs: Sequence[Job]) -> list[Generated]:
        """Answer a batch of equal sampling; blocks."""

    def label_probabilities(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """Exact probability of each continuation of the prompt; blocks. Raises CallFailed."""

    def describe(self) -> dict[str, Any]:
        """Weights, template, versions."""


class LocalModel:
    """`ChatModel` and `LabelReader` over a `LocalEngine`."""

    def __init__(self, name: str, engine: LocalEngine) -> None:
        self.id = name
        self._engine = engine
        self._facts = engine.describe()
        self._waiting: list[Waiting] = []
        self._runner: asyncio.Task[None] | None = None
        # weights and caches are not safe for two threads at once
        self._busy = asyncio.Lock()

    @property
    def concurrency(self) -> int:
        """How many requests to keep waiting: batches are full, and of prompts about as long."""
        return BATCHES_WAITING * self._engine.batch_size

    def describe(self) -> dict[str, Any]:
        """The engine's facts."""
        return self._facts

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt by the checkpoint's chat template."""
        return self._engine.render(messages)

    async def complete(self, request: ChatRequest) -> Reply:
        """Answer one request, together with those that wait beside it. Raises CallFailed,
        EndpointDown.
        """
        refuse_schema(request, self.id)
        job = Job(self._engine.render(request.messages), request.decoding)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run_batches())
        return await future

    async def _run_batches(self) -> None:
        await asyncio.sleep(SETTLE_S)
        while self._waiting:
            await self._answer(self._take_batch())

    def _take_batch(self) -> list[Waiting]:
        """The longest prompt, and those next to it in length that sample alike: little is padded.

        One batch at a time, so that an interrupt waits for no more and loses no more.
        """
        self._waiting.sort(key=lambda waiting: -len(waiting[0].prompt))
        first = self._waiting[0][0].sampling
        alike = [waiting for waiting in self._waiting if waiting[0].sampling == first]
        batch = alike[: self._engine.batch_size]
        self._waiting = [waiting for waiting in self._waiting if waiting not in batch]
        return batch

    async def _answer(self, batch: Sequence[Waiting]) -> None:
        started = time.monotonic()
        try:
            made = await self._work(self._engine.generate, [job for job, _ in batch])
        except CallFailed as failure:
            if len(batch) == 1:
                _fail(batch[0][1], failure)
                return
            # one prompt may be at fault, or all of them together take too much memory
            for waiting in batch:
                await self._answer([waiting])
            return
        seconds = time.monotonic() - started
        for (_, future), generated in zip(batch, made, strict=True):
            _resolve(future, generated, self.id, seconds)

    async def read_labels(self, messages: tuple[Message, ...], scale: Scale) -> LabelProbabilities:
        """The probability of every label followed by `scale.end`. Raises CallFailed."""
        prompt = self._engine.render(messages) + scale.lead
        continuations = [label + scale.end for label in scale.labels]
        started = time.monotonic()
        found = await self._work(self._engine.label_probabilities, prompt, continuations)
        return LabelProbabilities(
            dict(zip(scale.labels, found, strict=True)),
            self.id,
            latency_s=time.monotonic() - started,
        )

    async def _work(self, function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """In a thread, one call at a time. Whatever it raises ends these requests, not the run."""
        try:
            async with self._busy:
                return await asyncio.to_thread(function, *given, **named)
        except CallFailed:
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            raise CallFailed(CallStatus.BAD_REQUEST, message) from error

    async def close(self) -> None:
        """Drop the weights."""
        if self._runner is not None:
            self._runner.cancel()
        del self._engine


def _fail(future: asyncio.Future[Reply], failure: CallFailed) -> None:
    if not future.done():
        future.set_exception(failure)


def _resolve(
    future: asyncio.Future[Reply], generated: Generated, model: str, seconds: float
) -> None:
    if future.done():
        return
    if generated.finish_reason is None:
        message = f"a prompt of {generated.n_prompt} tokens does not fit the model's context"
        _fail(future, CallFailed(CallStatus.CONTEXT, message))
        return
    usage = Usage(prompt_tokens=generated.n_prompt, completion_tokens=generated.n_new)
    future.set_result(
        Reply(
            text=generated.text,
            finish_reason=generated.finish_reason,
            model=model,
            usage=usage,
            latency_s=seconds,
        )
    )


def end_tokens(generation_config: Any, tokenizer: Any = None) -> frozenset[int]:
    """Every token that ends a text: a model may have several, one of which pads the others."""
    own = generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    return frozenset({*listed, tokenizer and tokenizer.eos_token_id} - {None})


def open_local(backend: str, path: str, model_args: str = "") -> LocalModel | VllmModel:
    """Load a checkpoint folder or hub id. Raises UsageError."""
    check_folder(path)
    _check_weights(path, model_args)
    try:
        return _open(backend, path, model_args)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--backend {backend} needs {error.name}. Try: pip install 'r2w-eval[{backend}]'"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        # RuntimeError: weights of other shapes than the configuration says, memory
        absent = "" if Path(path).exists() else "there is no such folder here, and as a hub id it "
        raise UsageError(
            f"{path!r}: {absent}cannot be loaded by {backend}: {error}. Expected a folder with "
            f"config.json, weights and a tokenizer, or a hub id that can be reached"
        ) from error


def _open(backend: str, path: str, model_args: str) -> LocalModel | VllmModel:
    if backend == "vllm":
        from r2w_eval.models.vllm_engine import VllmModel

        return VllmModel.open(path, model_args)
    from lm_eval.utils import simple_parse_args_string

    from r2w_eval.models.hf_engine import HfEngine

    return LocalModel(path, HfEngine(path, simple_parse_args_string(model_args)))


def check_folder(path: str) -> None:
    """Raises UsageError for a path that is not there, and for a folder that is no checkpoint."""
    folder = Path(path)
    if not folder.exists() and _is_path(path):
        raise UsageError(
            f"{path!r}: no such folder. Expected a checkpoint with config.json, weights and a "
            f"tokenizer. Try: ls {shlex.quote(str(folder.parent))}"
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise UsageError(
            f"{path!r}: no config.json, so not a checkpoint. The folder holds {held}. Expected "
            f"what save_pretrained writes"
        )


def _is_path(name: str) -> bool:
    """Whether no hub id looks like this, or the first part of the name is a folder here."""
    begins = name.startswith(("/", "./", "../", "~")) or "\\" in name
    first, slash, _ = name.partition("/")
    return begins or name.count("/") > 1 or (bool(slash) and Path(first).is_dir())


def _check_weights(path: str, model_args: str) -> None:
    """Pickled weights can run code when they are read: only where the user says so."""
    folder = Path(path)
    pickled = sorted(file.name for end in ("bin", "pt", "pth") for file in folder.glob(f"*.{end}"))
    has_weights = any(folder.glob("*.safetensors"))
    if pickled and not has_weights and "use_safetensors=False" not in model_args:
        raise UsageError(
            f"{path!r}: weights only as pickle ({', '.join(pickled[:4])}), which may run code when "
            f"read. Save them as safetensors; or, if you trust them: --model-args "
            f"use_safetensors=False"
        )
