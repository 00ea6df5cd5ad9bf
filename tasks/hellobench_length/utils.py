"""HelloBench's length-constrained runs: the 123 heuristic prompts, asked for 2k to 16k words.

All but the samples is `hellobench`; each length is a task of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from r2w_eval.tasks.hellobench import utils as hellobench

from r2w_eval.data import SuiteData
from r2w_eval.types import Sample

LENGTHS = ("2k", "4k", "8k", "16k")
# only the longest length may use the suite's full token limit
SHORTER_MAX_TOKENS = 16_384


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """492 instructions, `<length>/<id>`, shortest first."""
    weights = hellobench.load_weights(data)
    for length in LENGTHS:
        path = data.path(f"length_constrained_data/heuristic_text_generation_{length}.jsonl")
        bound = None if length == LENGTHS[-1] else SHORTER_MAX_TOKENS
        for sample in hellobench.read_task("hellobench_length", length, path, weights):
            yield replace(sample, max_tokens=bound)


SUITE = replace(hellobench.SUITE, load_samples=load_samples)
