"""Every suite's parity cases: what upstream published or computed, beside what we compute."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from r2w_eval.data import read_jsonl
from r2w_eval.errors import DataError
from r2w_eval.suites.parity import ParityCase, parity_cases
from r2w_eval.suites.suite import load_info, suites_with_cases


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
    kept = []
    for record in read_jsonl(path):
        if record["exp"] != case.part:
            kept.append(record)
        elif record["model"] == case.shipped:
            kept.append({**record, "model": NEW})
    text = "".join(json.dumps(record) + "\n" for record in kept)
    path.write_bytes(gzip.compress(text.encode(), 1))
    (folder / "prompt_vectors.json").write_text('{"vectors": []}')


@pytest.fixture(params=DROP_INS, ids=lambda case: f"{case.suite}-{case.part}")
def dropped_in(
    request: pytest.FixtureRequest, verification: Path, tmp_path: Path
) -> tuple[DropIn, Path]:
    """A verification folder with one model that nobody has seen, and the suite's part of it."""
    case: DropIn = request.param
    name = load_info(case.suite).data_folder
    copy_renamed(verification / name, tmp_path / name, case)
    if case.suite == "hellobench":
        rename_scores(tmp_path / name, case)
    return case, tmp_path / name


def cases_of(dropped_in: tuple[DropIn, Path], benchmarks: Path) -> list[ParityCase]:
    """The cases that name the new model; all cases of the suite must pass."""
    case, folder = dropped_in
    found = parity_cases(load_info(case.suite), folder.parent, str(benchmarks))
    assert [entry for entry in found if not entry.passes] == []
    return [entry for entry in found if NEW in entry.case]


def test_a_case_under_another_name_passes_untouched(
    dropped_in: tuple[DropIn, Path], benchmarks: Path
) -> None:
    case, folder = dropped_in
    file = folder / "expected.json"
    whole = json.loads(file.read_bytes())
    n_whole = len(cases_of(dropped_in, benchmarks))
    assert n_whole >= 3
    # a model of which less is stated is compared with what is stated
    entry = whole[case.part][NEW]
    half = dict(list(entry.items())[::2])
    file.write_text(json.dumps({**whole, case.part: {NEW: half}}))
    assert 0 < len(cases_of(dropped_in, benchmarks)) < n_whole
    for name, models in ((NEW, {}), ("another", {NEW: entry, "another": entry})):
        file.write_text(json.dumps({**whole, case.part: models}))
        with pytest.raises(DataError, match=f"KeyError '{name}'.*Expected a raw file for every"):
            cases_of(dropped_in, benchmarks)


@pytest.mark.parametrize("dropped_in", DROP_INS[2:3], indirect=True)
def test_a_model_without_expected_figures_is_an_error(
    dropped_in: tuple[DropIn, Path], benchmarks: Path
) -> None:
    case, folder = dropped_in
    whole = json.loads((folder / "expected.json").read_bytes())
    (folder / "expected.json").write_text(json.dumps({**whole, case.part: {NEW: {}}}))
    with pytest.raises(DataError, match=f"states no figure of .*{NEW}"):
        cases_of(dropped_in, benchmarks)


def test_an_empty_raw_text_is_an_error_or_a_difference(
    verification: Path, benchmarks: Path, tmp_path: Path
) -> None:
    case = DropIn("eqbench_longform", "models", "microsoft__phi-4-multimodal-instruct")
    info = load_info(case.suite)
    folder = tmp_path / info.data_folder
    copy_renamed(verification / info.data_folder, folder, case)
    file = folder / f"items/{NEW}.jsonl.gz"
    records = read_jsonl(file)
    judged = next(record for record in records if record["final_judge_raw_first"])
    judged["final_judge_raw_first"] = ""
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode() + b"\n\n"))
    found = parity_cases(info, tmp_path, str(benchmarks))
    assert f"story {judged['prompt_id']}" in {c.figure for c in found if not c.passes}
    file.write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match=r"eqbench_longform.*Expected a raw file"):
        parity_cases(info, tmp_path, str(benchmarks))
