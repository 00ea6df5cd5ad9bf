"""Every suite's parity cases: what upstream published or computed, beside what we compute."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from r2w_eval.errors import DataError
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


@dataclass(frozen=True)
class DropIn:
    """One shipped case of a suite: the part of expected.json that names it, and its name there."""

    suite: str
    part: str
    shipped: str


DROP_INS = (
    DropIn("hellobench", "main_exp", "o1_mini"),
    DropIn("writingbench", "aggregation", "synthetic_resume_duplicate_last"),
    DropIn("deepresearch_gym", "kpr", "open_deep_search"),
    DropIn("deepresearch_gym", "quality_2025_04_20", "hf_deepsearch_gpt-4o-mini"),
    DropIn("deepresearch_bench", "race_aggregation", "dls_science_03_17"),
    DropIn("deepresearch_bench_fact", "fact_statistics", "poet-gpt"),
    DropIn("eqbench_creative_v3", "models", "anthropic__claude-3-haiku"),
    DropIn("eqbench_longform", "models", "microsoft__phi-4-multimodal-instruct"),
)
NEW = "never-seen_model.v2"


def copy_renamed(source: Path, target: Path, case: DropIn) -> None:
    """A verification folder in which the shipped case is the only model, under a new name."""
    expected = json.loads((source / "expected.json").read_bytes())
    others = expected[case.part].keys() - {case.shipped}
    for path in source.rglob("*"):
        place = str(path.relative_to(source))
        if path.is_file() and not any(name in place for name in others):
            copy = target / place.replace(case.shipped, NEW)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    own = expected[case.part][case.shipped]
    expected[case.part] = {NEW: {**own, "model": NEW} if "model" in own else own}
    (target / "expected.json").write_text(json.dumps(expected), "utf-8")


def rename_scores(folder: Path, case: DropIn) -> None:
    """HelloBench keeps the scores of all models in one file; the answers are left out here."""
    (path,) = folder.glob("judge_scores_*.jsonl.gz")
    own = f'"model": "{case.shipped}"'.encode()
    lines = [line for line in gzip.decompress(path.read_bytes()).split(b"\n") if own in line]
    text = b"\n".join(line.replace(own, f'"model": "{NEW}"'.encode()) for line in lines)
    path.write_bytes(gzip.compress(text, 1))
    (folder / "prompt_vectors.json").write_text('{"vectors": []}')


@pytest.mark.parametrize("case", DROP_INS, ids=lambda case: f"{case.suite}-{case.part}")
def test_a_case_under_another_name_passes_untouched(
    case: DropIn, verification: Path, benchmarks: Path, tmp_path: Path
) -> None:
    info = load_info(case.suite)
    folder = tmp_path / info.data_folder
    copy_renamed(verification / info.data_folder, folder, case)
    if case.suite == "hellobench":
        rename_scores(folder, case)
    found = parity_cases(info, tmp_path, str(benchmarks))
    assert len([entry for entry in found if NEW in entry.case]) >= 3
    assert [entry for entry in found if not entry.passes] == []
    # a raw file that nothing is expected of is told, not skipped
    (folder / "expected.json").write_text("{}")
    with pytest.raises(DataError, match="Expected a raw file for every entry of expected.json"):
        parity_cases(info, tmp_path, str(benchmarks))
