"""Recipes of the transformer: all read, and mistakes name what was allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from r2w_eval.errors import UsageError

pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_packaged_recipe_is_read() -> None:
    from r2w_eval.reward_models.transformer.recipe import load_recipe, recipe_names

    qwen = ["qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b"]
    assert recipe_names() == [*qwen, "smollm2-135m", "smollm2-cpu"]
    for name in recipe_names():
        config = load_recipe(name)
        assert config.every_row and config.backbone.adapted == config.backbone.layers
        assert bool(config.backbone.base) == name.startswith("qwen3")


@pytest.mark.parametrize(
    ("recipe", "given", "limit"),
    [("qwen3-8b", None, 57600.0), ("qwen3-8b", 60.0, 60.0), ("", None, 3000.0), ("", 60.0, 60.0)],
)
def test_a_limit_of_time_is_the_recipes_unless_one_is_given(
    recipe: str, given: float | None, limit: float
) -> None:
    from r2w_eval.reward_models.commands import TransformerChoice

    assert TransformerChoice(recipe, given).config().max_seconds == limit


@pytest.mark.parametrize(
    ("text", "words"),
    [("epoch: 3", "Did you mean epochs"), ("backbone: {ranks: 4}", "Did you mean rank"),
     ("tree_shares: {lamp_train: 1.5}", "tree_shares of 'lamp_train': 1.5. Expected more than 0"),
     ("- 1", "expected a mapping"), ("a: [", "not YAML")],
)  # fmt: skip
def test_a_mistake_in_a_recipe_is_named(tmp_path: Path, text: str, words: str) -> None:
    from r2w_eval.reward_models.transformer.recipe import load_recipe

    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_recipe(str(path))
    with pytest.raises(UsageError, match="Known: qwen3-0.6b"):
        load_recipe("qwen3-06b")


def tiny(width: int) -> Any:
    """A two-layer classifier with adapters."""
    from r2w_eval.reward_models.transformer.backbone import BackboneConfig, add_adapters
    from transformers import LlamaConfig, LlamaForSequenceClassification

    shape = LlamaConfig(vocab_size=32, hidden_size=width, intermediate_size=16, num_hidden_layers=2,
                        num_attention_heads=2, num_labels=1, pad_token_id=0)  # fmt: skip
    model = LlamaForSequenceClassification(shape).eval()
    add_adapters(model, BackboneConfig(layers=2, adapted=2, rank=2))
    return model


def test_adapters_of_another_shape_are_refused_and_merging_changes_nothing() -> None:
    import torch
    from r2w_eval.reward_models.transformer.backbone import (
        BackboneConfig,
        adapter_state,
        load_adapters,
        merge_adapters,
    )

    # adapters as large as some draws are move the sums of float32 by more than the tolerance
    torch.manual_seed(0)
    model = tiny(8)
    state = {name: torch.randn_like(tensor) for name, tensor in adapter_state(model).items()}
    state["axes.weight"] = torch.zeros(4, 8)
    shape = BackboneConfig(layers=2, adapted=2, rank=2)
    load_adapters(model, shape, state, Path("own"))
    ids = torch.arange(1, 9)[None]
    with torch.inference_mode():
        before = model(ids).logits
    merge_adapters(model)
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, before, atol=1e-5)
    with pytest.raises(UsageError, match="own: not adapters for .*size of tensor"):
        load_adapters(tiny(12), shape, state, Path("own"))
