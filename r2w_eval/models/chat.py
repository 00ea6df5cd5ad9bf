"""What a chat model is to the rest of the package: one request in, one reply out.

Writers and judges are the same thing. Every backend (HTTP endpoint, embedded server, local weights)
implements `ChatModel`; those that can read next-token probabilities also implement `LabelReader`.
Failures are `CallFailed` with a status from the table in the harness specification, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from r2w_eval.errors import EndpointDown
from r2w_eval.types import Decoding, Message, Scale, Usage

# Finish reasons of a text that a server broke off: vLLM and SGLang (abort), OpenRouter and Mistral
# (error), DeepSeek (insufficient_system_resource), TensorRT-LLM (cancelled, timeout)
BROKEN_OFF = frozenset({"abort", "error", "insufficient_system_resource", "cancelled", "timeout"})
# and of one that ended by itself or at its length; any other is counted
KNOWN_ENDS = frozenset({"stop", "length", "eos", "eos_token", "stop_sequence", "end_turn"})


class CallStatus(StrEnum):
    """Why a call brought no reply."""

    TRANSPORT = "transport"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    NOT_SENT = "not_sent"
    BAD_REQUEST = "bad_request"
    CONTEXT = "context"
    FILTERED = "filtered"


class CallFailed(Exception):
    """A request that ended without a reply, after all retries that its class deserves; `usage` is
    what the endpoint counted of its last try, None where it refused it.
    """

    def __init__(self, status: CallStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion. `index` and `ask` make repeated requests distinct in the cache.

    `anew`: the reply that a cache holds was of no use; the new one takes its place there.
    """

    messages: tuple[Message, ...]
    decoding: Decoding
    index: int = 0
    ask: int = 0
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `text` is raw; `reasoning` is the server's own field, if it has one."""

    text: str
    finish_reason: str | None
    reasoning: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    usage: Usage = Usage()
    latency_s: float = 0.0
    refusal: str | None = None
    cached: bool = False


@dataclass(frozen=True, slots=True)
class LabelProbabilities:
    """Probability mass of each label of a scale as the next text; not normalised."""

    probabilities: Mapping[str, float]
    model: str | None = None
    usage: Usage = Usage()
    latency_s: float = 0.0
    cached: bool = False


def refuse_schema(request: ChatRequest, model: str) -> None:
    """For models that write freely. Raises EndpointDown where a reply must follow a schema."""
    if request.decoding.response_format:
        raise EndpointDown(
            f"{model}: this suite wants replies of a JSON schema, and only an HTTP endpoint or the "
            f"embedded model is held to one. Try: --omit response_format, or serve the model"
        )


class ChatModel(Protocol):
    """A writer or a judge."""

    @property
    def id(self) -> str:
        """The name that identities record."""

    def describe(self) -> dict[str, Any]:
        """Everything else that changes answers (weights, template, versions); goes to run.json."""

    async def complete(self, request: ChatRequest) -> Reply:
        """Answer one request. Raises CallFailed."""

    async def close(self) -> None:
        """Give back connections, threads and memory."""


class LabelReader(Protocol):
    """A model whose next-token probabilities can be read."""

    async def read_labels(self, messages: tuple[Message, ...], scale: Scale) -> LabelProbabilities:
        """The probability of each label (followed by `scale.end`) after `scale.lead`."""
