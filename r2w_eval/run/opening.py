"""From the words of the command line to writers and judges; equal models are opened once.

smollm2                    the embedded model, served in this process
http://HOST:PORT/v1#NAME   an OpenAI-compatible endpoint
PATH, ORG/NAME             a checkpoint, by --backend; hf:PATH and vllm:PATH say which
local                      judge only: smollm2 reading score probabilities (smoke test)
r2w-quality                judge only: the shipped reward model's reading of the answer
MODULE:ATTR                judge only: the user's own scorer, or a function that makes one
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.judge.own_scorer import load_scorer
from r2w_eval.judge.scorers import MIN_MASS, ExpectedScoreJudge, Scorer, TextJudge
from r2w_eval.models.cache import CachedLabelReader, CachedModel, ReplyCache
from r2w_eval.models.chat import ChatModel, LabelReader
from r2w_eval.models.client import HttpModel
from r2w_eval.models.cost import Budget, MeteredModel, Price
from r2w_eval.models.endpoint import ClientSettings, Endpoint, Traffic
from r2w_eval.models.names import EMBEDDED, KINDS, NAMED_SCORERS, SMOKE_TEST_JUDGE
from r2w_eval.models.replay import ReplayedModel
from r2w_eval.models.thinking import ThinkTags
from r2w_eval.terminal import warn
from r2w_eval.types import Decoding, Message

# what a request says by the run's own settings; the same field twice would belie run.json
OWN_FIELDS = {"model", "messages", "n", "stream", *(field.name for field in fields(Decoding))}


class ReadableModel(ChatModel, LabelReader, Protocol):
    """A model that also gives label probabilities: everything that runs in this process."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What applies to every model that a command opens."""

    backend: str = "hf"
    model_args: str = ""
    client: ClientSettings = ClientSettings()
    cache: ReplyCache | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    budget: Budget | None = None
    replay: str | None = None
    """Folder of the records that `cache` was opened from, when nothing else may answer."""


@dataclass(frozen=True, slots=True)
class OpenModel:
    """An opened model; `reader` is None where probabilities cannot be read.

    `prompt` is one of its prompts, which may end by opening the thinking; "" where a server makes
    them.
    """

    chat: ChatModel
    reader: LabelReader | None
    concurrency: int
    prompt: str = ""

    @property
    def tags(self) -> ThinkTags:
        """How it marks its thinking."""
        return ThinkTags().after(self.prompt)


def is_smoke_test(spec: str) -> bool:
    """The embedded model as a judge carries no signal; every output says so."""
    return spec in (SMOKE_TEST_JUDGE, EMBEDDED)


class ModelPool:
    """Opens models and scorers on demand and closes all of them at the end."""

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._open: dict[str, OpenModel] = {}
        self._clients: list[HttpModel] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all models and scorers."""
        await self._stack.aclose()

    def traffic(self) -> list[Traffic]:
        """What became of the requests to each endpoint since the pool was opened."""
        return [client.traffic() for client in self._clients]

    async def model(
        self, spec: str, api_key_env: str = "R2W_API_KEY", extra_body: str = ""
    ) -> OpenModel:
        """The model that `spec` names. Raises UsageError, UnknownName."""
        place = f"{spec} {extra_body}"
        if place not in self._open:
            opened = await self._open_model(spec, api_key_env, extra_body)
            self._stack.push_async_callback(opened.chat.close)
            self._open[place] = opened
        return self._open[place]

    async def scorer(self, spec: str, score_mode: str) -> tuple[Scorer, OpenModel | None]:
        """The judge that `spec` names, and the model behind it (None for the user's own scorer)."""
        spec = NAMED_SCORERS.get(spec, spec)
        if is_own_scorer(spec):
            own = load_scorer(spec)
            self._stack.push_async_callback(own.close)
            return own, None
        smoke = spec == SMOKE_TEST_JUDGE
        opened = await self.model(EMBEDDED if smoke else spec, "R2W_JUDGE_API_KEY")
        if not smoke and score_mode == "text":
            return TextJudge(opened.chat, opened.tags), opened
        if opened.reader is None:
            raise UsageError(
                f"--score-mode expected: {spec!r} is an HTTP endpoint, whose probabilities of a "
                f"given continuation cannot be read. Use hf:PATH, vllm:PATH or local, or "
                f"--score-mode text"
            )
        # the smoke-test judge must always give a number; its mass is stored beside it
        judge = ExpectedScoreJudge(opened.reader, opened.chat, 0.0 if smoke else MIN_MASS)
        return judge, opened

    async def _open_model(self, spec: str, api_key_env: str, extra_body: str) -> OpenModel:
        extra = read_extra_body(extra_body)
        if is_endpoint(spec):
            return await self._open_http(Endpoint.parse(spec, api_key_env), extra)
        if extra:
            raise UsageError(
                f"--extra-body is for HTTP endpoints, and {spec!r} is none. Use --model-args for "
                f"checkpoints: enable_thinking=false"
            )
        if spec == EMBEDDED:
            return self._open_embedded()
        backend, _, path = spec.partition(":")
        if backend in ("hf", "vllm"):
            return self._open_local(backend, path)
        if not _is_model(spec):
            raise _unknown(spec)
        return self._open_local(self._options.backend, spec)

    async def _open_http(self, endpoint: Endpoint, extra: Mapping[str, Any]) -> OpenModel:
        client = HttpModel(endpoint, self._options.client, extra)
        chat: ChatModel
        if self._options.replay:
            chat = ReplayedModel(client, self._options.replay)
        else:
            await _check(client)
            chat = self._meter(client)
        if self._options.cache is not None:
            # outside the meter: what the cache holds costs nothing
            chat = CachedModel(
                chat, self._options.cache, endpoint.base_urls, client.replicas.answering
            )
        self._clients.append(client)
        return OpenModel(chat, None, self._options.client.max_connections)

    def _meter(self, client: HttpModel) -> ChatModel:
        """Put an endpoint under the budget; local models cost nothing. Raises UsageError."""
        budget = self._options.budget
        if budget is None:
            return client
        if (price := self._options.prices.get(client.id)) is None:
            raise UsageError(
                f"--max-cost needs a price for {client.id!r}. Known: "
                f"{', '.join(sorted(self._options.prices)) or 'none'}. Add it to the --prices file"
            )
        metered = MeteredModel(client, price, budget)
        client.on_lost = metered.charge
        return metered

    def _open_embedded(self) -> OpenModel:
        from r2w_eval.models.embedded import EmbeddedModel

        model = EmbeddedModel()
        return self._wrap(model, model.concurrency)

    def _open_local(self, backend: str, path: str) -> OpenModel:
        from r2w_eval.models.local import open_local

        if path == EMBEDDED:
            from r2w_eval.models.embedded import convert_to_hf

            path = str(convert_to_hf())
        model = open_local(backend, path, self._options.model_args)
        prompt = model.render([Message("user", "Write.")])
        return replace(self._wrap(model, model.concurrency), prompt=prompt)

    def _wrap(self, model: ReadableModel, concurrency: int) -> OpenModel:
        cache = self._options.cache
        if self._options.replay:
            model = ReplayedModel(model, self._options.replay)
        if cache is None:
            return OpenModel(model, model, concurrency)
        return OpenModel(
            CachedModel(model, cache), CachedLabelReader(model, model, cache), concurrency
        )


async def _check(client: HttpModel) -> None:
    """Warn of what the endpoint says about itself; close it when it cannot be used."""
    try:
        if (warning := await client.check()) is not None:
            warn(warning)
    except BaseException:
        await client.close()
        raise


def read_extra_body(text: str) -> dict[str, Any]:
    """The object of --extra-body. Raises UsageError."""
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise UsageError(f"--extra-body {text[:200]!r}: {error}. Expected a JSON object") from error
    if not isinstance(value, dict):
        raise UsageError(
            f"--extra-body {text[:200]!r}: expected a JSON object, for example "
            '{"chat_template_kwargs": {"enable_thinking": false}}'
        )
    if taken := sorted(value.keys() & OWN_FIELDS):
        raise UsageError(
            f"--extra-body {text[:200]!r}: {', '.join(taken)} is set by the run itself, which "
            f"records it. Use --model, --gen-kwargs temperature=…,max_tokens=…, --seed, --samples "
            f"or --omit"
        )
    return value


def require_known(judges: Iterable[str], writer: str | None = None) -> None:
    """Raises UnknownName for a word that names no model, UsageError for a folder that is no
    checkpoint.

    Asked before anything is opened: a checkpoint takes minutes to load.
    """
    for spec in judges:
        named = NAMED_SCORERS.get(spec, spec)
        if named != SMOKE_TEST_JUDGE and not is_own_scorer(named):
            _require_model(spec)
    if writer is not None:
        _require_model(writer)


def _require_model(spec: str) -> None:
    from r2w_eval.models.local import check_folder

    if "#" in spec and not is_endpoint(spec) and not Path(spec).exists():
        raise UsageError(
            f"--model/--judge {spec!r}: not an endpoint, which begins with http:// or https://. "
            f"Try: http://{spec}"
        )
    if not _is_model(spec):
        raise _unknown(spec)
    if spec != EMBEDDED and not is_endpoint(spec):
        check_folder(spec.removeprefix("hf:").removeprefix("vllm:"))


def is_hub_id(spec: str) -> bool:
    """Whether a model would be looked for on the hub: it is no address, and no folder here."""
    path = spec.removeprefix("hf:").removeprefix("vllm:")
    return "/" in path and not is_endpoint(spec) and not Path(path).exists()


def is_endpoint(spec: str) -> bool:
    """Whether it is an address."""
    return spec.startswith(("http://", "https://"))


def _unknown(spec: str) -> UnknownName:
    hint = "r2w-eval list. A model behind an API is named https://HOST/v1#NAME"
    return UnknownName("--model/--judge", spec, "model", KINDS, hint)


def _is_model(spec: str) -> bool:
    kind = spec.partition(":")[0]
    is_place = "/" in spec or "\\" in spec or Path(spec).is_dir()
    return spec == EMBEDDED or kind in ("hf", "vllm") or is_place


def is_own_scorer(spec: str) -> bool:
    """Whether a judge is the object of a Python module, which gives numbers and no texts."""
    module, colon, attribute = NAMED_SCORERS.get(spec, spec).partition(":")
    return (
        bool(colon)
        and attribute.isidentifier()
        and all(part.isidentifier() for part in module.split("."))
        and module not in ("hf", "vllm")
    )
