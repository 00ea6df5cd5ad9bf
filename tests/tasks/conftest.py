"""What the suite under test loads; a test file names its suite by the globals INFO and SUITE."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2w_eval.data import SuiteData, data_roots
from r2w_eval.types import Sample


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest, benchmarks: Path) -> SuiteData:
    found: SuiteData = request.module.INFO.data(data_roots(str(benchmarks)))
    return found


@pytest.fixture(scope="module")
def samples(request: pytest.FixtureRequest, data: SuiteData) -> dict[str, Sample]:
    """All samples by id, in the suite's order."""
    return {sample.id: sample for sample in request.module.SUITE.load_samples(data)}


@pytest.fixture(scope="module")
def sample(samples: dict[str, Sample]) -> Sample:
    """The first sample."""
    return next(iter(samples.values()))
