"""Checkpoints in vLLM, in this process: every request on its own, finished ones at once.

vLLM's `AsyncLLM` batches continuously: a request joins the running batch when it comes and its
answer goes to the judges when it is finished, however long the others take. What a request needs to
be the same everywhere is ours (template, special tokens, seeds, typed failures); parallelism,
quantisation and caches are vLLM's own arguments: `--model-args tensor_parallel_size=2`.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.models.chat import (
    BROKEN_OFF,
    CallFailed,
    CallStatus,
    ChatRequest,
    LabelProbabilities,
    Reply,
    refuse_schema,
)
from r2w_eval.models.chat_template import ChatTemplate
from r2w_eval.models.fingerprint import describe_arguments, describe_commit, fingerprint
from r2w_eval.types import Message, Scale, Usage

# lm-eval's names for what vLLM calls otherwise
_RENAMED = {"max_length": "max_model_len"}
DEFAULT_MAX_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class VllmArguments:
    """`--model-args`, sorted: what vLLM takes, and what is ours to apply."""

    engine: Mapping[str, Any]
    template: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = DEFAULT_MAX_TOKENS
    lora_path: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    """What the user set of `engine` and `max_tokens`, by the user's names."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME=VALUE,…`. Prefix caching is on: criteria share the text under judgement.

        >>> VllmArguments.parse("tensor_parallel_size=2,enable_thinking=false").engine
        {'enable_prefix_caching': True, 'trust_remote_code': False, 'tensor_parallel_size': 2}
        """
        given = dict(_parse_pair(pair) for pair in text.split(",") if pair.strip())
        thinking = {k: given.pop(k) for k in ("enable_thinking",) if k in given}
        lora = given.pop("lora_local_path", None)
        told = dict(given)
        max_tokens = int(given.pop("max_gen_toks", DEFAULT_MAX_TOKENS))
        engine = {_RENAMED.get(name, name): value for name, value in given.items()}
        engine |= {"enable_lora": True} if lora else {}
        fixed = {"enable_prefix_caching": True, "trust_remote_code": False}
        return cls({**fixed, **engine}, thinking, max_tokens, lora, told)


def _parse_pair(pair: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = pair.partition("=")
    if not equals or not name.strip().isidentifier():
        raise UsageError(
            f"--model-args {pair[:100]!r}: expected NAME=VALUE, as in tensor_parallel_size=2"
        )
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        return name.strip(), value


class VllmModel:
    """`ChatModel` and `LabelReader` over one `AsyncLLM`; lives in the event loop that opened it."""

    def __init__(self, name: str, engine: Any, arguments: VllmArguments) -> None:
        self.id = name
        self._engine = engine
        self._arguments = arguments
        self._tokenizer: Any = engine.get_tokenizer()
        self._max_length = int(engine.vllm_config.model_config.max_model_len)
        self._numbers = itertools.count()
        self._template = ChatTemplate(self._tokenizer, name, arguments.template)

    @classmethod
    def open(cls, path: str, model_args: str = "") -> Self:
        """Load a checkpoint. Raises ModuleNotFoundError, UsageError."""
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = VllmArguments.parse(model_args)
        try:
            wanted = AsyncEngineArgs(model=path, **arguments.engine)
        except TypeError as error:
            raise UsageError(
                f"--model-args {model_args!r}: {error}. Expected arguments of vLLM's "
                f"AsyncEngineArgs, or enable_thinking, max_gen_toks, lora_local_path"
            ) from error
        try:
            return cls(path, AsyncLLM.from_engine_args(wanted), arguments)
        except RuntimeError as error:
            raise UsageError(
                f"{path!r} cannot be started in vLLM: {error}. What vLLM printed above says why; "
                f"often there is too little memory: --model-args gpu_memory_utilization=0.8"
            ) from error

    @property
    def concurrency(self) -> int:
        """Requests to keep in flight: one running batch, and one that waits behind it."""
        return 2 * int(self._engine.vllm_config.scheduler_config.max_num_seqs)

    def describe(self) -> dict[str, Any]:
        """Backend, weights, template; how many devices it ran on changes no identity."""
        config = self._engine.vllm_config.model_config
        lora = self._arguments.lora_path
        return {
            "backend": "vllm",
            "weights": fingerprint(self.id),
            "dtype": str(config.dtype),
            **self._template.describe(),
            **({"lora": fingerprint(lora)} if lora else {}),
            **describe_arguments(self._arguments.given),
            **describe_commit(self.id, config.hf_config),
        }

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt by the checkpoint's chat template."""
        return self._template.render(messages)

    async def complete(self, request: ChatRequest) -> Reply:
        """Answer one request as soon as it is finished. Raises CallFailed, EndpointDown."""
        from vllm import SamplingParams

        refuse_schema(request, self.id)
        tokens = self._encode(self._template.render(request.messages))
        room = self._max_length - len(tokens)
        if room <= 0:
            message = f"a prompt of {len(tokens)} tokens does not fit the model's context"
            raise CallFailed(CallStatus.CONTEXT, message)
        limit = min(request.decoding.max_tokens or self._arguments.max_tokens, room)
        sent = replace(request.decoding, max_tokens=limit).sent()
        started = time.monotonic()
        output = await self._run(tokens, SamplingParams(**sent, skip_special_tokens=False))
        best = output.outputs[0]
        if best.finish_reason in BROKEN_OFF:
            raise CallFailed(CallStatus.TRANSPORT, f"vLLM broke off: {best.finish_reason}")
        n_cached = getattr(output, "num_cached_tokens", None)
        return Reply(
            text=best.text.removesuffix(str(self._tokenizer.eos_token)),
            finish_reason=best.finish_reason or "length",
            model=self.id,
            usage=Usage(len(tokens), len(best.token_ids), cached_tokens=n_cached),
            latency_s=time.monotonic() - started,
        )

    async def read_labels(self, messages: tuple[Message, ...], scale: Scale) -> LabelProbabilities:
        """The exact probability of every label followed by `scale.end`. Raises CallFailed."""
        prompt = self._template.render(messages) + scale.lead
        paths = [self._encode(prompt + label + scale.end) for label in scale.labels]
        shared = len(os.path.commonprefix(paths))
        if max(map(len, paths)) >= self._max_length:
            raise CallFailed(CallStatus.CONTEXT, f"{shared} tokens do not fit the model's context")
        started = time.monotonic()
        found = await asyncio.gather(*(self._probability(path, shared) for path in paths))
        labels = dict(zip(scale.labels, found, strict=True))
        return LabelProbabilities(labels, self.id, latency_s=time.monotonic() - started)

    async def close(self) -> None:
        """Stop the engine's processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)

    async def _probability(self, path: list[int], shared: int) -> float:
        """Of the tokens after the first `shared` ones, given those."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, prompt_logprobs=1, max_tokens=1)
        output = await self._run(path, sampling)
        steps = zip(path[shared:], output.prompt_logprobs[shared:], strict=True)
        return math.exp(sum(step[token].logprob for token, step in steps))

    async def _run(self, tokens: list[int], sampling: Any) -> Any:
        """The finished output; a request that is given up is aborted in the engine."""
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        sampling.output_kind = RequestOutputKind.FINAL_ONLY
        number = f"r2w-{next(self._numbers)}"
        prompt = {"prompt_token_ids": tokens}
        finished: list[Any] = []
        try:
            async for output in self._engine.generate(
                prompt, sampling, number, lora_request=self._lora()
            ):
                finished.append(output)
        except EngineDeadError as error:
            raise EndpointDown(
                f"vLLM's engine ended: {error}. What it printed above says why. A CPU build that "
                f"cannot seed its sampler needs --omit seed. Run the same command again"
            ) from error
        except ValueError as error:
            raise CallFailed(CallStatus.BAD_REQUEST, str(error)) from error
        return finished[-1]

    def _lora(self) -> Any:
        if self._arguments.lora_path is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, self._arguments.lora_path)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))
