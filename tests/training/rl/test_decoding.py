"""The decoding loop that a GPU replays as a graph writes what transformers' own loop writes."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
from r2w_eval.training.rl.settings import RLSettings
from toy_policy import make_policy, make_tokenizer

from r2w_eval.errors import UsageError

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'r2w-eval[train]'")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def policy(request: pytest.FixtureRequest) -> Any:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an accelerator")
    return make_policy().to(request.param).eval()


def prompts(policy: Any, *lengths: int) -> dict[str, Any]:
    """Rows of the given lengths, padded on the left."""
    pad, width = make_tokenizer().pad_token_id, max(lengths)
    rows = [[pad] * (width - n) + list(range(1, n + 1)) for n in lengths]
    ids = torch.tensor(rows, device=policy.device)
    mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths], device=policy.device)
    return {"input_ids": ids, "attention_mask": mask, "pad_token_id": pad}


def same_texts(policy: Any, ours: Any, theirs: Any, end: int) -> bool:
    """Up to the first end of each row; what follows is padding."""

    def cut(row: list[int]) -> list[int]:
        return row[: row.index(end)] if end in row else row

    return [cut(row) for row in ours.tolist()] == [cut(row) for row in theirs.tolist()]


def test_greedy_and_sampled_texts_are_those_of_generate(policy: Any) -> None:
    from r2w_eval.training.rl.decoding import GraphedDecoding

    loop, end = GraphedDecoding(), make_tokenizer().eos_token_id
    for lengths, new in (((3, 1, 5), 20), ((2, 2, 2), 40), ((4,), 70)):
        given = {**prompts(policy, *lengths), "max_new_tokens": new, "eos_token_id": end}
        for options in ({"do_sample": False}, {"do_sample": True, "top_k": 5, "temperature": 0.7}):
            torch.manual_seed(7)
            theirs = policy.generate(**given, **options)
            torch.manual_seed(7)
            ours = policy.generate(**given, **options, custom_generate=loop)
            start = given["input_ids"].shape[1]
            assert torch.equal(ours[:, :start], given["input_ids"])
            assert same_texts(policy, ours[:, start:], theirs[:, start:], end)


def test_new_weights_are_used_and_ended_rows_stay_ended(policy: Any) -> None:
    from r2w_eval.training.rl.decoding import GraphedDecoding

    own = copy.deepcopy(policy)
    write = partial(own.generate, custom_generate=GraphedDecoding(), do_sample=False)
    given = {**prompts(policy, 2, 3), "max_new_tokens": 48}
    first = write(**given, eos_token_id=None)
    # the first row ends with the token that it wrote as its fourth
    end = int(first[0, 6])
    ended = write(**given, eos_token_id=end)[0, 3:].tolist()
    stop = ended.index(end)
    assert ended[: stop + 1] == first[0, 3 : 4 + stop].tolist()
    assert set(ended[stop + 1 :]) <= {given["pad_token_id"]}
    with torch.no_grad():
        for weights in own.parameters():
            weights.copy_(torch.randn_like(weights))
    plain = own.generate(**given, do_sample=False, eos_token_id=None)
    assert torch.equal(write(**given, eos_token_id=None), plain)


def test_a_sliding_window_and_a_graph_without_a_copy_are_refused() -> None:
    from r2w_eval.training.rl.decoding import GraphedDecoding
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, sliding_window=4,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    ids = torch.ones((1, 3), dtype=torch.long)
    with pytest.raises(UsageError, match="sliding window.*graphed_generation: false"):
        model.generate(ids, max_new_tokens=4, pad_token_id=0, custom_generate=GraphedDecoding())
    with pytest.raises(UsageError, match="half_generation: true"):
        RLSettings(graphed_generation=True)
