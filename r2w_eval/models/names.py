"""The words that --model and --judge take; `run.opening` opens what they name."""

from __future__ import annotations

EMBEDDED = "smollm2"
SMOKE_TEST_JUDGE = "local"
# Scorers with a name of their own; resolved as MODULE:ATTR, so that no layer is imported here.
NAMED_SCORERS = {"r2w-quality": "r2w_eval.reward_models.quality:QualityJudge"}
KINDS = (
    EMBEDDED,
    SMOKE_TEST_JUDGE,
    *NAMED_SCORERS,
    "http://HOST:PORT/v1#NAME",
    "hf:PATH",
    "vllm:PATH",
)
