"""The device of gpu_throughput.py: its ceilings, timing on it, and shapes of models."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LlamaConfig

STARTED = time.monotonic()


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a decoder; `tokens` is what one timed pass reads on a GPU."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    tokens: int

    @property
    def linear(self) -> int:
        """Weights that every token is multiplied with, without embeddings."""
        own = self.head * (2 * self.heads + 2 * self.kv_heads) + 3 * self.inner
        return self.layers * self.width * own

    def flop(self, length: int) -> float:
        """FLOP a token of a causal text: two a weight, and attention to half of the text."""
        return 2.0 * self.linear + 2.0 * (length + 1) * self.layers * self.heads * self.head

    def config(self, vocabulary: int, pad: int) -> LlamaConfig:
        """The shape as a transformers configuration."""
        return LlamaConfig(
            vocab_size=vocabulary, hidden_size=self.width, intermediate_size=self.inner,
            num_hidden_layers=self.layers, num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads, head_dim=self.head, pad_token_id=pad,
            max_position_embeddings=8192, num_labels=1, tie_word_embeddings=True,
            problem_type="regression",
        )  # fmt: skip


SHAPES = (
    Shape("SmolLM2-135M", 576, 30, 9, 3, 64, 1536, 1 << 18),
    Shape("SmolLM2-1.7B", 2048, 24, 32, 32, 64, 8192, 1 << 16),
    Shape("Qwen3-0.6B", 1024, 28, 16, 8, 128, 3072, 1 << 17),
)


TINY = Shape("tiny", 64, 2, 4, 2, 16, 128, 1 << 12)


@dataclass
class Run:
    """The device, its ceilings, and what was found."""

    device: str
    deadline: float
    vocabulary: Any
    words: list[str]
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether this is a GPU; figures of a CPU mean nothing."""
        return self.device == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16 on a GPU; a CPU without a matrix unit is slower in it."""
        return torch.bfloat16 if self.on_gpu else torch.float32

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - (time.monotonic() - STARTED)

    def sync(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeats: int = 3) -> float:
        """Median wall-clock seconds of `work`, the device's part included; warm it up before."""
        taken = []
        for _ in range(repeats):
            self.sync()
            started = time.perf_counter()
            work()
            self.sync()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def section(self, name: str, needs_s: float, work: Callable[[dict[str, Any]], None]) -> None:
        """One section, if there is time; a failure is recorded and does not end the run."""
        own = self.found.setdefault(name, {})
        if self.left() < needs_s:
            own["not run"] = f"{self.left():.0f} s left, {needs_s:.0f} needed"
            return
        started = time.monotonic()
        try:
            work(own)
        except Exception as error:  # noqa: BLE001 - one section must not cost the others
            own["failed"] = f"{type(error).__name__}: {str(error)[:400]}"
        own["section_s"] = round(time.monotonic() - started, 1)
        say(name, {k: v for k, v in own.items() if not isinstance(v, (dict, list))})


def say(*parts: object) -> None:
    """Print a line with the elapsed time."""
    print(f"[{time.monotonic() - STARTED:6.1f}]", *parts, flush=True)


def ceilings(run: Run) -> dict[str, float]:
    """TFLOP/s of a large matrix product and GB/s of a large copy, both on random data."""
    n = 8192 if run.on_gpu else 512
    a, b = (torch.randn(n, n, device=run.device, dtype=run.dtype) for _ in range(2))
    out = torch.empty_like(a)
    for _ in range(3):
        torch.matmul(a, b, out=out)
    product = run.seconds(lambda: [torch.matmul(a, b, out=out) for _ in range(10)], 5) / 10
    source = torch.empty((1 << 30) if run.on_gpu else (1 << 24), dtype=torch.uint8,
                         device=run.device).random_()  # fmt: skip
    target = torch.empty_like(source)
    target.copy_(source)
    copy = run.seconds(lambda: [target.copy_(source) for _ in range(5)], 5) / 5
    return {"matrix_tflops": 2 * n**3 / product / 1e12, "copy_gbs": 2 * len(source) / copy / 1e9}
