"""The transformer: the first layers of the embedded SmolLM2, low-rank adapters, one linear head.

The base weights come from the embedded model; only adapters and heads are stored. Merged, they are
an ordinary `LlamaForSequenceClassification`.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from r2w_eval.reward_models.transformer.render import PAD, TAGS
from torch import nn

from r2w_eval.errors import UsageError

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_POSITIONS = 8192
# what a training stores beside its train.json
ADAPTERS = "adapter.safetensors"


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Shape of the model. `adapted` counts the adapted layers from the top; both stop at all there
    are. `base` is a folder or a hub name; empty: the embedded SmolLM2.
    """

    layers: int = 8
    adapted: int = 5
    rank: int = 8
    alpha: float = 16.0
    base: str = ""

    def as_record(self) -> dict[str, Any]:
        """For manifests."""
        return asdict(self)


class LowRank(nn.Module):
    """x W + (x A B) * alpha / rank, with W frozen (Hu et al. 2021, LoRA)."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = alpha / rank
        self.down = nn.Parameter(
            torch.randn(linear.in_features, rank) / math.sqrt(linear.in_features)
        )
        self.up = nn.Parameter(torch.zeros(rank, linear.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) -> (…, out)."""
        base, low = self.linear(x).flatten(0, -2), x.flatten(0, -2) @ self.down.to(x.dtype)
        result = torch.addmm(base, low, self.up.to(x.dtype), alpha=self.scale)
        return torch.unflatten(result, 0, x.shape[:-1])

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain linear layer that computes the same."""
        self.linear.weight += (self.down @ self.up).T * self.scale
        return self.linear


def base_of(config: BackboneConfig) -> str:
    """Where the base is read from; the embedded one is converted once. Raises UsageError."""
    if config.base:
        return config.base
    from r2w_eval.models.embedded import convert_to_hf

    return str(convert_to_hf())


def load_tokenizer(base: str | Path) -> Any:
    """The base model's tokenizer with the tags as single tokens and a pad that is not EOS."""
    from r2w_eval.reward_models.transformer.render import CHAT_TEMPLATE
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    # special tokens would vanish when rollouts are decoded with skip_special_tokens=True
    tokenizer.add_tokens(list(TAGS), special_tokens=False)
    tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = MAX_POSITIONS
    return tokenizer


def load_backbone(config: BackboneConfig, tokenizer: Any, dtype: str = "float32") -> Any:
    """A sequence classifier with one label, cut to `config.layers`; the head in float32.

    Tag embeddings start as the mean of the pieces that they replace; the head starts at zero.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    base = base_of(config)
    layers = min(config.layers, AutoConfig.from_pretrained(base).num_hidden_layers)
    with _without_report():
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=1, num_hidden_layers=layers, dtype=getattr(torch, dtype)
        )
    model.score.float()
    plain = AutoTokenizer.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        for token in (*TAGS, PAD):
            pieces = plain(token, add_special_tokens=False).input_ids
            table[tokenizer.convert_tokens_to_ids(token)] = table[pieces].mean(0)
        model.score.weight.zero_()
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.problem_type = "regression"
    model.config.id2label, model.config.label2id = {0: "reward"}, {"reward": 0}
    return model.eval()


@contextmanager
def _without_report() -> Iterator[None]:
    """transformers warns of unused layers and of a new head; here both are intended."""
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)


def add_adapters(model: Any, config: BackboneConfig) -> list[nn.Parameter]:
    """Freeze the model, put adapters on its upper layers; returns what is trained."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    trained: list[nn.Parameter] = []
    for layer in model.model.layers[-config.adapted :]:
        for parent in (layer.self_attn, layer.mlp):
            for name in TARGETS:
                if hasattr(parent, name):
                    adapter = LowRank(getattr(parent, name), config.rank, config.alpha)
                    setattr(parent, name, adapter)
                    trained += [adapter.down, adapter.up]
    model.score.weight.requires_grad_(True)
    return [*trained, model.score.weight]


def adapters(model: Any) -> Iterator[tuple[str, LowRank]]:
    """All adapters by module name."""
    for name, module in model.named_modules():
        if isinstance(module, LowRank):
            yield name, module


def merge_adapters(model: Any) -> None:
    """Replace every adapter by the plain layer that computes the same."""
    for name, adapter in list(adapters(model)):
        parent_name, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent_name), leaf, adapter.merged())


def adapter_state(model: Any) -> dict[str, torch.Tensor]:
    """What has to be stored, in float16: adapters and the head."""
    state = {"score.weight": model.score.weight.detach()}
    for name, adapter in adapters(model):
        state[f"{name}.down"] = adapter.down.detach()
        state[f"{name}.up"] = adapter.up.detach()
    return {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in state.items()}


def read_adapters(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What a training stored: its tensors by name, and its configuration. Raises UsageError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(folder / ADAPTERS)
        config: dict[str, Any] = json.loads((folder / "train.json").read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(
            f"{folder}: no adapter weights ({error}). Try: r2w-eval train rm --transformer"
        ) from error
    if bad := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise UsageError(f"{folder}: {', '.join(bad[:3])} hold values that are not finite")
    return state, config


def load_adapters(
    model: Any, config: BackboneConfig, state: Mapping[str, torch.Tensor], source: Path
) -> torch.Tensor:
    """Put stored weights into a model with adapters; the axis heads (4, width) in float32.

    Raises UsageError naming `source` if they are those of another shape.
    """
    try:
        with torch.no_grad():
            model.score.weight.copy_(state["score.weight"])
            for name, adapter in adapters(model):
                adapter.down.copy_(state[f"{name}.down"])
                adapter.up.copy_(state[f"{name}.up"])
    except (KeyError, RuntimeError) as error:
        raise UsageError(f"{source}: not adapters for {config}: {error}. Wrong base?") from error
    return state["axes.weight"].float()
