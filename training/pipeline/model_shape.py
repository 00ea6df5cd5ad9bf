"""The size of a decoder from its config.json, without loading it.

Counts what Llama, Qwen and Mistral have: embeddings, attention with grouped keys and values, and a
gated feed-forward of three matrices a layer. Mixtures of experts are not counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.training.trainer.hub import commit_of, fetch_config
from r2w_eval.training.trainer.stage import EMBEDDED

from r2w_eval.errors import UsageError

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Dimensions of a decoder.

    inner: width of the feed-forward layer
    queries, keys: total width of all query heads, and of all key heads
    is_tied: input and output embeddings are the same matrix
    """

    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    vocabulary: int
    is_tied: bool

    @property
    def parameters(self) -> int:
        """Number of weights, biases left out.

        >>> ModelShape(30, 576, 1536, 576, 192, 49152, True).parameters
        134515008
        """
        embeddings = self.vocabulary * self.hidden * (1 if self.is_tied else 2)
        attention = self.hidden * (2 * self.queries + 2 * self.keys)
        layer = attention + 3 * self.hidden * self.inner + 2 * self.hidden
        return embeddings + self.layers * layer + self.hidden

    def adapter_parameters(self, rank: int) -> int:
        """Number of weights of low-rank adapters on every matrix of every layer."""
        attention = 4 * self.hidden + 2 * self.queries + 2 * self.keys
        return self.layers * rank * (attention + 3 * (self.hidden + self.inner))


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape in a config.json. Raises UsageError naming what is missing."""
    if any(config.get(name) for name in _EXPERTS):
        raise UsageError("a mixture of experts, whose size the dry run does not count")
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        width = int(config.get("head_dim") or hidden // heads)
        return ModelShape(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            inner=int(config["intermediate_size"]),
            queries=heads * width,
            keys=int(config.get("num_key_value_heads") or heads) * width,
            vocabulary=int(config["vocab_size"]),
            is_tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"its config.json has no usable {error}") from error


def shape_of(model: str) -> tuple[ModelShape, str]:
    """The shape of a checkpoint folder, a hub id or the embedded model, and the commit at which a
    hub id was read (empty for the others). Raises UsageError saying why the shape is not known.
    """
    if model == EMBEDDED:
        # the pinned weights: SmolLM2-135M-Instruct
        return ModelShape(30, 576, 1536, 576, 192, 49152, True), ""
    path = Path(model) / "config.json"
    if not path.is_file():
        path = fetch_config(model)
    try:
        return read_shape(json.loads(path.read_bytes())), commit_of(path)
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})") from error
