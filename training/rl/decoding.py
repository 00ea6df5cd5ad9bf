"""Generation that replays one decoding step as a CUDA graph.

Decoding with a small model is limited by launching its hundreds of kernels per token rather than by
memory bandwidth; a graph launches them as one. Keys and values are in transformers' `StaticCache`,
and `generate` takes the loop as its `custom_generate` argument, so that everything else stays as it
is. On a CPU the same step runs without a graph, for the tests.

Imports torch: load this module from within a function.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import StaticCache

from r2w_eval.errors import UsageError
from r2w_eval.models.local import end_tokens

# lengths are rounded up to a multiple, so that slightly longer prompts reuse the graph
LENGTH_STEP = 64
# tokens between checks whether all rows have ended; each check waits for the device
LOOK_EVERY = 16
# CUDA wants a few runs before it captures
WARM_UPS = 3


class GraphedDecoding:
    """A loop for `generate(custom_generate=...)` of one model whose weights stay in place.

    Rows are padded on the left. Sampling, end tokens and the maximal length are those of
    `generation_config`; other stopping criteria are ignored. New weights may be copied into the
    model between calls.
    """

    def __init__(self) -> None:
        self._step: _Step | None = None

    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        generation_config: Any,
        **fields: Any,
    ) -> torch.Tensor:
        """`input_ids` (rows, prompt) with the generated tokens, (rows, prompt + new tokens)."""
        n_rows, start = input_ids.shape
        attention_mask = fields.get("attention_mask")
        step = self._step_for(model, n_rows, generation_config.max_length)
        ends = torch.tensor([*end_tokens(generation_config)], device=input_ids.device)
        text = input_ids.new_full(
            (n_rows, generation_config.max_length), generation_config.pad_token_id
        )
        text[:, :start] = input_ids
        is_over = torch.zeros(n_rows, dtype=torch.bool, device=input_ids.device)
        logits = step.read(
            input_ids,
            input_ids.new_ones(n_rows, start) if attention_mask is None else attention_mask,
        )
        for place in range(start, generation_config.max_length):
            scores = logits_processor(text[:, :place], logits.float())
            chosen = _choose(scores, generation_config.do_sample)
            text[:, place] = torch.where(is_over, text[:, place], chosen)
            is_over |= torch.isin(chosen, ends)
            if (place - start) % LOOK_EVERY == LOOK_EVERY - 1 and bool(is_over.all()):
                return text[:, : place + 1]
            if place + 1 < generation_config.max_length:
                logits = step.write(chosen, place)
        return text

    def _step_for(self, model: Any, n_rows: int, length: int) -> _Step:
        known = self._step
        if known and known.model is model and known.n_rows == n_rows and known.length >= length:
            return known
        self._step = None  # its memory goes before the next one's comes
        self._step = _Step(model, n_rows, -(-length // LENGTH_STEP) * LENGTH_STEP)
        return self._step


class _Step:
    """One token for each of `n_rows` texts of at most `length` tokens, at fixed addresses."""

    def __init__(self, model: Any, n_rows: int, length: int) -> None:
        self.model, self.n_rows, self.length = model, n_rows, length
        device = model.device
        self._cache = StaticCache(config=model.config, max_cache_len=length)
        if any(self._cache.is_sliding):
            raise UsageError(
                f"graphed_generation: {model.config.model_type} has layers with a sliding window; "
                f"only full attention is captured. Set graphed_generation: false"
            )
        self._ids = torch.zeros((n_rows, 1), dtype=torch.long, device=device)
        self._positions = torch.zeros_like(self._ids)
        self._mask = torch.ones((n_rows, 1, 1, length), dtype=torch.bool, device=device)
        self._graph: Any = None
        self._logits: Any = None
        if device.type == "cuda":
            self._capture()

    def _capture(self) -> None:
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # a data loader's thread that pins memory meanwhile must not spoil it
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._logits = self._run()

    def _run(self) -> torch.Tensor:
        return self._forward(self._ids, self._mask, self._positions)

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Logits of the last place, (rows, vocabulary)."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def read(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Begin with the prompts, (rows, prompt); logits of the first new token."""
        length = ids.shape[1]
        is_text = attention_mask.bool()
        self._cache.reset()  # type: ignore[no-untyped-call]
        self._mask.zero_()
        self._mask[:, 0, 0, :length] = is_text
        earlier = torch.ones((length, self.length), dtype=torch.bool, device=ids.device).tril()
        # padding sees itself: a row of attention that sees nothing is not a number
        itself = torch.eye(length, self.length, dtype=torch.bool, device=ids.device)
        mask = (self._mask[:, 0] & earlier) | itself
        positions = (is_text.cumsum(1) - 1).clamp(min=0)
        self._positions[:, 0] = positions[:, -1]
        return self._forward(ids, mask.unsqueeze(1), positions)

    def write(self, chosen: torch.Tensor, place: int) -> torch.Tensor:
        """Take the tokens chosen for `place`; logits of the next, overwritten by the next call."""
        self._ids[:, 0] = chosen
        self._positions += 1
        self._mask[..., place] = True
        if self._graph is None:
            return self._run()
        self._graph.replay()
        logits: torch.Tensor = self._logits
        return logits


def _choose(scores: torch.Tensor, do_sample: bool) -> torch.Tensor:
    if not do_sample:
        return scores.argmax(-1)
    return torch.multinomial(scores.softmax(-1), 1).squeeze(1)
