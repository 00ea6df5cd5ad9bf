"""The special tokens of a tokenizer: what stands for an end of turn or padding, and is no text."""

from __future__ import annotations

from typing import Any


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """All special tokens by id. A tokenizer's `all_special_tokens` lacks those that have no role,
    as Llama 3's `<|start_header_id|>` and `<|eom_id|>`.
    """
    added = tokenizer.added_tokens_decoder
    return {number: token.content for number, token in added.items() if token.special}
