"""Attention of a CPU to packs without padding: the values of separate texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r2w_eval.reward_models.transformer.packing import Pack, Segment, hidden_at, lay_out

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r2w_eval.reward_models.transformer import forest as module  # noqa: E402
from r2w_eval.reward_models.transformer.forest import forest_inputs, grove_of  # noqa: E402

WORDS = 50


@pytest.fixture(scope="module")
def body() -> Any:
    """A Llama of two layers with random weights, two query heads to a key head."""
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    shape = LlamaConfig(vocab_size=WORDS, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                        num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    return LlamaModel(shape).eval()


@st.composite
def trees(draw: st.DrawFn) -> list[Segment]:
    """Segments of one to five tokens; some without a parent."""
    segments: list[Segment] = []
    for i in range(draw(st.integers(1, 7))):
        ids = tuple(draw(st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=5)))
        segments.append(Segment(ids, draw(st.none() | st.integers(0, i - 1)) if i else None))
    return segments


def path(segments: list[Segment], at: int) -> tuple[int, ...]:
    """The text that ends with a segment."""
    parent = segments[at].parent
    return (() if parent is None else path(segments, parent)) + segments[at].ids


@settings(deadline=None)
@given(st.lists(trees(), min_size=1, max_size=3), st.sampled_from([1, 8, 64]))
def test_every_end_has_the_state_of_its_text_alone(
    body: Any, many: list[list[Segment]], together: int
) -> None:
    packs = [lay_out(segments) for segments in many]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(module, "TOGETHER", together)
        found = hidden_at(body, packs, [pack.ends for pack in packs], 0)
    # the model as transformers has it
    body.set_attn_implementation("eager")
    texts = [path(segments, at) for segments in many for at in range(len(segments))]
    with torch.no_grad():
        alone = [body(torch.tensor([text])).last_hidden_state[0, -1] for text in texts]
    assert torch.allclose(found, torch.stack(alone), atol=1e-5)


@given(trees())
def test_parts_hold_every_token_once(segments: list[Segment]) -> None:
    pack = lay_out(segments)
    grove = grove_of(pack)
    assert sum(grove.sizes) == len(pack.ids) and 0 not in grove.sizes


@given(trees())
def test_masks_say_what_the_pack_says(segments: list[Segment]) -> None:
    pack = lay_out(segments)
    grove, start = grove_of(pack), grove_of(pack).stem
    for n, mask in grove.groups:
        own = np.r_[0 : grove.stem, start : start + n]
        seen = np.tri(n, dtype=bool) if mask is None else (mask == 0).numpy()
        assert np.array_equal(seen, pack.allowed[start : start + n][:, own])
        assert not pack.allowed[start : start + n, grove.stem : start].any()
        start += n


def test_gradients_are_those_of_separate_texts(body: Any) -> None:
    segments = [Segment((3, 4, 5), None), Segment((6, 7), 0), Segment((8,), 0), Segment((9, 1), 1)]
    pack = lay_out(segments)
    torch.autograd.backward(hidden_at(body, [pack], [pack.ends], 0).square().sum())
    found = [p.grad.clone() for p in body.parameters()]
    body.zero_grad()
    body.set_attn_implementation("eager")
    for at in range(len(segments)):
        state = body(torch.tensor([path(segments, at)])).last_hidden_state[0, -1]
        torch.autograd.backward(state.square().sum())
    for one, parameter in zip(found, body.parameters(), strict=True):
        assert torch.allclose(one, parameter.grad, atol=1e-4, rtol=1e-4)
    body.zero_grad()


def test_packs_of_any_length_stand_in_one_row() -> None:
    packs: list[Pack] = [lay_out([Segment((1, 2), None)]), lay_out([Segment((3,), None)])]
    inputs = forest_inputs(packs, torch.float32)
    assert inputs["input_ids"].tolist() == [[1, 2, 3]]
    assert inputs["position_ids"].tolist() == [[0, 1, 0]]
