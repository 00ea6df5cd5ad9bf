"""LongWrite-Ruler: eight requests at six lengths, to find how long a model can write.

Follows THUDM/LongWriter@3fcfdff (evaluation/longwrite_ruler.jsonl); counting, formulas and the
judge's prompt are `longbench_write`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from r2w_eval.tasks.longbench_write import utils as longbench_write

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.types import Message, Sample


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 48 requests in file order; a sample's id is its place, from 0."""
    for place, record in enumerate(read_jsonl(data.path("longwrite_ruler.jsonl"))):
        prompt, length = record["prompt"], record["length"]
        yield Sample(
            task="longbench_write_ruler",
            id=str(place),
            messages=(Message("user", prompt),),
            language="zh" if longbench_write.CHINESE.search(prompt) else "en",
            meta={"type": record["type"], "length": length, "bin": f"{length:,}"},
        )


SUITE = replace(longbench_write.SUITE, load_samples=load_samples)
