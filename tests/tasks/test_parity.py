"""Every suite's parity cases: what upstream published or computed, beside what we compute."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2w_eval.parity import parity_cases
from r2w_eval.suites import load_info, suites_with_cases


@pytest.mark.parametrize("suite", suites_with_cases())
def test_published_figures_are_reproduced(suite: str, verification: Path, benchmarks: Path) -> None:
    info = load_info(suite)
    if not (verification / info.data_folder).is_dir():
        pytest.skip(f"{verification / info.data_folder} is not here")
    cases = parity_cases(info, verification, str(benchmarks))
    assert cases, "a folder without a single case proves nothing"
    assert [case for case in cases if not case.passes] == []
