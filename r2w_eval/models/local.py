"""Checkpoints on this machine in transformers, through lm-eval's `HFLM`; vLLM has its own module.

Loading, chat templates, PEFT, quantisation and `--model-args` are lm-eval's. Generation keeps what
lm-eval drops: special tokens, finish reasons, token counts; and a prompt that does not fit is an
error instead of losing its beginning (specification: harness G1, G2, G4, G5, L3). Requests that
are waiting together run as one batch in a worker thread, so that judging goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from r2w_eval.errors import UsageError
from r2w_eval.hashing import text_hash, to_plain
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, LabelProbabilities, Reply
from r2w_eval.types import Decoding, Message, Scale, Usage

if TYPE_CHECKING:
    from r2w_eval.models.vllm_engine import VllmModel

SETTLE_S = 0.02
BATCHES_PER_CHUNK = 8


@dataclass(frozen=True, slots=True)
class Job:
    """One rendered prompt on its way to an engine."""

    prompt: str
    decoding: Decoding


@dataclass(frozen=True, slots=True)
class Generated:
    """What an engine made of a job; `finish_reason` None means that the prompt did not fit."""

    text: str
    finish_reason: str | None
    n_prompt: int
    n_new: int


class LocalEngine(Protocol):
    """One loaded checkpoint."""

    batch_size: int

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt by the checkpoint's chat template, ready for the answer."""

    def generate(self, jobs: Sequence[Job]) -> list[Generated]:
        """Answer all jobs; blocks."""

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
        self._waiting: list[tuple[Job, asyncio.Future[Reply]]] = []
        self._runner: asyncio.Task[None] | None = None
        # weights and caches are not safe for two threads at once
        self._busy = asyncio.Lock()

    @property
    def concurrency(self) -> int:
        """How many requests to keep waiting, so that batches are full."""
        return BATCHES_PER_CHUNK * self._engine.batch_size

    def describe(self) -> dict[str, Any]:
        """The engine's facts."""
        return self._facts

    async def complete(self, request: ChatRequest) -> Reply:
        """Answer one request, together with those that wait beside it. Raises CallFailed."""
        job = Job(self._engine.render(request.messages), request.decoding)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run_batches())
        return await future

    async def _run_batches(self) -> None:
        await asyncio.sleep(SETTLE_S)
        while self._waiting:
            chunk = self._waiting[: self.concurrency]
            del self._waiting[: self.concurrency]
            started = time.monotonic()
            try:
                async with self._busy:
                    made = await asyncio.to_thread(self._engine.generate, [job for job, _ in chunk])
            except (RuntimeError, ValueError) as error:
                _fail(chunk, f"{type(error).__name__}: {error}")
                continue
            seconds = time.monotonic() - started
            for (_, future), generated in zip(chunk, made, strict=True):
                _resolve(future, generated, self.id, seconds)

    async def read_labels(self, messages: tuple[Message, ...], scale: Scale) -> LabelProbabilities:
        """The probability of every label followed by `scale.end`."""
        prompt = self._engine.render(messages) + scale.lead
        continuations = [label + scale.end for label in scale.labels]
        started = time.monotonic()
        async with self._busy:
            found = await asyncio.to_thread(self._engine.label_probabilities, prompt, continuations)
        return LabelProbabilities(
            dict(zip(scale.labels, found, strict=True)),
            self.id,
            latency_s=time.monotonic() - started,
        )

    async def close(self) -> None:
        """Drop the weights."""
        del self._engine


def _fail(chunk: Sequence[tuple[Job, asyncio.Future[Reply]]], message: str) -> None:
    for _, future in chunk:
        if not future.done():
            future.set_exception(CallFailed(CallStatus.BAD_REQUEST, message))


def _resolve(
    future: asyncio.Future[Reply], generated: Generated, model: str, seconds: float
) -> None:
    if future.done():
        return
    if generated.finish_reason is None:
        message = f"a prompt of {generated.n_prompt} tokens does not fit the model's context"
        future.set_exception(CallFailed(CallStatus.CONTEXT, message))
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


def open_local(backend: str, path: str, model_args: str = "") -> LocalModel | VllmModel:
    """Load a checkpoint folder or hub id. Raises UsageError."""
    _check_folder(path)
    _check_weights(path, model_args)
    try:
        return _open(backend, path, model_args)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--backend {backend} needs {error.name}. Try: pip install 'r2w-eval[{backend}]'"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path!r} cannot be loaded as a {backend} checkpoint: {error}. Expected a folder with "
            f"config.json, weights and a tokenizer, or a hub id that can be reached"
        ) from error


def _open(backend: str, path: str, model_args: str) -> LocalModel | VllmModel:
    if backend == "vllm":
        from r2w_eval.models.vllm_engine import VllmModel

        return VllmModel.open(path, model_args)
    from lm_eval.utils import simple_parse_args_string

    arguments = {"trust_remote_code": False, **simple_parse_args_string(model_args)}
    return LocalModel(path, HfEngine(path, arguments))


def _check_folder(path: str) -> None:
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise UsageError(
            f"{path!r}: no config.json, so not a checkpoint. The folder holds {held}. Expected "
            f"what save_pretrained writes"
        )


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


class HfEngine:
    """A checkpoint in transformers, loaded by lm-eval's `HFLM`.

    Sampling is seeded once a batch, from the seeds of its requests: the same batch gives the same
    texts, the same request in another batch may not.
    """

    def __init__(self, path: str, arguments: dict[str, Any]) -> None:
        from lm_eval.models.huggingface import HFLM

        device = {} if _has_cuda() else {"device": "cpu"}
        self._lm = HFLM(pretrained=path, **{"batch_size": 4, **device, **arguments})
        self.batch_size = int(self._lm.batch_size)
        self._path = path
        check_template(self._lm.tokenizer, path)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt by the chat template."""
        return str(self._lm.apply_chat_template(to_plain(messages)))

    def describe(self) -> dict[str, Any]:
        """Backend, weights, dtype, template."""
        return {
            "backend": "hf",
            "weights": fingerprint(self._path),
            "dtype": str(self._lm.model.dtype),
            "chat_template": text_hash(str(self._lm.tokenizer.chat_template))[:12],
        }

    def generate(self, jobs: Sequence[Job]) -> list[Generated]:
        """Longest prompts first, in batches of equal sampling."""
        encoded = [self._lm.tok_encode(job.prompt, add_special_tokens=False) for job in jobs]
        results: dict[int, Generated] = {}
        fitting = []
        for index, tokens in enumerate(encoded):
            if len(tokens) >= self._lm.max_length:
                results[index] = Generated("", None, len(tokens), 0)
            else:
                fitting.append(index)
        fitting.sort(key=lambda i: (str(_sampling(jobs[i].decoding)), -len(encoded[i])))
        while fitting:
            first = jobs[fitting[0]].decoding
            batch = [
                i
                for i in fitting[: self.batch_size]
                if _sampling(jobs[i].decoding) == _sampling(first)
            ]
            fitting = fitting[len(batch) :]
            made = self._generate_batch([encoded[i] for i in batch], [jobs[i] for i in batch])
            results.update(zip(batch, made, strict=True))
        return [results[index] for index in range(len(jobs))]

    def _generate_batch(self, encoded: Sequence[list[int]], jobs: Sequence[Job]) -> list[Generated]:
        import torch

        decoding = jobs[0].decoding
        width = max(len(tokens) for tokens in encoded)
        pad = self._lm.tokenizer.pad_token_id
        rows = [[pad] * (width - len(tokens)) + tokens for tokens in encoded]
        mask = [[0] * (width - len(tokens)) + [1] * len(tokens) for tokens in encoded]
        room = min(decoding.max_tokens or self._lm.max_gen_toks, self._lm.max_length - width)
        torch.manual_seed(_joint_seed([job.decoding.seed for job in jobs]))
        output = self._lm._model_generate(
            context=torch.tensor(rows, device=self._lm.device),
            attention_mask=torch.tensor(mask, device=self._lm.device),
            stop=list(decoding.stop) or [self._lm.tokenizer.eos_token],
            max_length=width + max(room, 1),
            **_hf_sampling(decoding),
        )
        return [
            self._finish(row[width:], len(tokens), decoding.stop)
            for row, tokens in zip(output.tolist(), encoded, strict=True)
        ]

    def _finish(self, new: list[int], n_prompt: int, stop: Sequence[str]) -> Generated:
        """Cut at the end-of-text token; without one the answer was cut by its length."""
        ends = self._end_tokens()
        end = next((i for i, token in enumerate(new) if token in ends), None)
        kept = new if end is None else new[:end]
        # special tokens stay: thinking tags may be among them
        text = str(self._lm.tok_decode(kept, skip_special_tokens=False))
        cuts = [text.find(mark) for mark in stop if mark in text]
        stopped = end is not None or bool(cuts)
        text = text[: min(cuts)] if cuts else text
        return Generated(text, "stop" if stopped else "length", n_prompt, len(kept))

    def _end_tokens(self) -> set[int]:
        configured = self._lm.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        return {t for t in (*listed, self._lm.tokenizer.eos_token_id) if t is not None}

    def label_probabilities(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """One pass over the shared tokens, one padded batch over the rest."""
        import torch

        paths = [
            self._lm.tok_encode(prompt + text, add_special_tokens=False) for text in continuations
        ]
        shared = len(os.path.commonprefix(paths))
        if max(map(len, paths)) > self._lm.max_length:
            raise CallFailed(CallStatus.CONTEXT, f"{shared} tokens do not fit the model's context")
        tails = [path[shared:] for path in paths]
        width = max(map(len, tails))
        device = self._lm.device
        with torch.no_grad():
            prefix = torch.tensor([paths[0][:shared]], device=device)
            first = self._lm.model(prefix, use_cache=True)
            cache = first.past_key_values
            cache.batch_repeat_interleave(len(tails))
            padded = torch.tensor([t + [0] * (width - len(t)) for t in tails], device=device)
            rest = self._lm.model(padded, past_key_values=cache, use_cache=True)
            start = first.logits[:, -1:].expand(len(tails), -1, -1)
            logits_N_T_V = torch.cat([start, rest.logits[:, :-1]], dim=1).float()
            logprobs_N_T_V = torch.log_softmax(logits_N_T_V, dim=-1)
        return [
            math.exp(sum(float(logprobs_N_T_V[n, t, token]) for t, token in enumerate(tail)))
            for n, tail in enumerate(tails)
        ]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def check_template(tokenizer: Any, path: str) -> None:
    if not tokenizer.chat_template:
        raise UsageError(
            f"{path!r}: the tokenizer has no chat template, so there is no way to put a request "
            f"to this model. Expected chat_template in tokenizer_config.json or "
            f"chat_template.jinja beside it"
        )


def _sampling(decoding: Decoding) -> Decoding:
    """What must be equal within a batch: everything but the seed."""
    return replace(decoding, seed=None)


def _hf_sampling(decoding: Decoding) -> dict[str, Any]:
    """Arguments of `generate`; temperature 0 or none is greedy."""
    if not decoding.temperature:
        return {"do_sample": False, "temperature": 0.0}
    named = {"top_p": decoding.top_p, "top_k": decoding.top_k, "min_p": decoding.min_p}
    given = {name: value for name, value in named.items() if value is not None}
    # without this transformers would apply its own top_k of 50
    return {"do_sample": True, "temperature": decoding.temperature, "top_k": 0, **given}


def _joint_seed(seeds: Sequence[int | None]) -> int:
    return int(hashlib.sha256(repr(seeds).encode()).hexdigest()[:8], 16)


def fingerprint(path: str) -> str:
    """A name for the weights: sizes and headers of the files, not gigabytes of content."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin")):
        with file.open("rb") as content:
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode() + content.read(1 << 16))
            # a fine-tuned copy has the same header: look into the weights too
            for share in range(1, 9):
                content.seek(size * share // 9)
                digest.update(content.read(4096))
    digest.update((folder / "config.json").read_bytes())
    return digest.hexdigest()[:16]
