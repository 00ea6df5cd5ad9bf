"""DiscoX with upstream's longer instructions to the translator; all else is `discox`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from r2w_eval.tasks.discox import utils as discox

from r2w_eval.data import SuiteData
from r2w_eval.types import Sample


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The same 200 texts, asked for with detailed prompts."""
    return discox.read_samples("discox_detailed", data.path("DISCOX-detailedprompt.json"))


SUITE = replace(discox.SUITE, load_samples=load_samples)
