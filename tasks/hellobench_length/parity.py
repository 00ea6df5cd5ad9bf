"""The length-constrained runs beside HelloBench's printed table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.tasks.hellobench import utils as hellobench
from r2w_eval.tasks.hellobench.parity import names_of, one_task, printed, scores_by_model, to_item
from r2w_eval.tasks.hellobench_length import utils

from r2w_eval.data import SuiteData
from r2w_eval.suites.parity import ParityCase, paired, values_of
from r2w_eval.types import Mode, Sample

EXPERIMENT = "length_constrained_exp"


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """One case a model and demanded length."""
    expected = json.loads((folder / "expected.json").read_bytes())[EXPERIMENT]
    samples = {sample.id: sample for sample in utils.load_samples(data)}
    for model, want, records in paired(expected, scores_by_model(folder)[EXPERIMENT]):
        yield from _lengths(model, want, records, samples)


def _lengths(
    model: str,
    want: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    samples: Mapping[str, Sample],
) -> Iterator[ParityCase]:
    items = [to_item(r, samples[f"{r['length']}/{r['id']}"]) for r in records]
    got = values_of(hellobench.aggregate(items, Mode.PARITY))
    for length, row in want.items():
        case = f"length run of {model}, {length}"
        if row is None:
            yield ParityCase(case, "score", None, got.get(f"task/{length}"))
            continue
        score, words = (got[name] for name in names_of(length))
        yield ParityCase(case, "printed", row["printed"], printed(score, words))
        yield from one_task(case, length, row, got)
        scored = sum(
            i.meta["task"] == length and hellobench.read_item(i) is not None for i in items
        )
        yield ParityCase(case, "scored", row["scored"], scored)
