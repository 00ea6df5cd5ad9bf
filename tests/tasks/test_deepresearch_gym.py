"""DeepResearchGym against upstream's result files: labels, ratings, citations, prompts."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.deepresearch_gym.build import join_key_points
from r2w_eval.tasks.deepresearch_gym.citations import names_a_source
from support import verification_files

from r2w_eval.data import SuiteData, data_roots
from r2w_eval.hashing import text_hash
from r2w_eval.stats import evaluate
from r2w_eval.suites import JudgingJob, Suite, load_info, load_suite
from r2w_eval.types import (
    Answer,
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Mode,
    Sample,
    Score,
    WriterStatus,
)

INFO = load_info("deepresearch_gym")
SUITE: Suite = load_suite(INFO.folder)
POINT = JudgeRequest("point:1", ())
RATING = JudgeRequest("quality:Clarity", ())
LABEL_FILES = [
    name
    for name in verification_files("deepresearch_gym/kpr_mini", "*.json")
    if "key_p" not in name
]


@pytest.fixture(scope="module")
def data(benchmarks: Path) -> SuiteData:
    return INFO.data(data_roots(str(benchmarks)))


@pytest.fixture(scope="module")
def samples(data: SuiteData) -> dict[str, Sample]:
    return {sample.id: sample for sample in SUITE.load_samples(data)}


@pytest.fixture(scope="module")
def folder(verification: Path) -> Path:
    return verification / "deepresearch_gym"


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "expected.json").read_bytes())
    return content


def item(
    sample_id: str,
    scores: dict[str, tuple[Score, ...]],
    points: list[str] | None = None,
    quality: list[str] | None = None,
) -> ItemVerdicts:
    meta = {"points": points or [], "quality": quality or []}
    return ItemVerdicts(sample_id, "en", meta, WriterStatus.OK, scores)


def judged(sample_id: str, labels: dict[str, str]) -> ItemVerdicts:
    """Labels through our parser."""
    scores = {
        f"point:{number}": (parse(POINT, {"label": label, "justification": ""}),)
        for number, label in labels.items()
    }
    return item(sample_id, scores, points=list(labels))


def parse(request: JudgeRequest, verdict: object, mode: Mode = Mode.PARITY) -> Score:
    return SUITE.parse_verdict[mode](request, json.dumps(verdict))


def values(items: list[ItemVerdicts], mode: Mode = Mode.PARITY) -> dict[str, Any]:
    return {estimate.name: evaluate(estimate) for estimate in SUITE.aggregate(items, mode)}


@pytest.mark.parametrize("name", LABEL_FILES)
def test_recall_and_contradiction_equal_those_of_upstream(
    name: str, folder: Path, expected: dict[str, Any]
) -> None:
    want = expected["kpr"][name.removesuffix(".json")]
    stored = json.loads((folder / "kpr_mini" / name).read_bytes())
    labels = {q: {n: label for n, (label, _) in e["labels"].items()} for q, e in stored.items()}
    items = [judged(query, own) for query, own in labels.items()]
    assert (len(items), sum(map(len, labels.values()))) == (want["queries"], want["labels"])
    got = values(items)
    assert got["kpr"] == pytest.approx(want["kpr"], abs=1e-9)
    assert got["kpc"] == pytest.approx(want["kpc"], abs=1e-9)
    for entry in items:
        alone = want["per_query"][entry.sample_id]
        assert values([entry])["kpr"] == pytest.approx(alone["kpr"], abs=1e-9)
        assert values([entry])["kpc"] == pytest.approx(alone["kpc"], abs=1e-9)


def test_queries_without_key_points_stay_in_the_published_divisor(
    expected: dict[str, Any],
) -> None:
    case = expected["kpr_divisor_case"]
    items = [
        judged(query, {str(n): label for n, label in enumerate(labels)})
        for query, labels in case["labels"].items()
    ]
    for mode in Mode:
        got = values(items, mode)
        assert (got["kpr"], got["kpr:scored"]) == (case["kpr_upstream"], case["kpr_scored_queries"])
    unanswered = [replace(entry, status=WriterStatus.ERROR) for entry in items if not entry.scores]
    assert values([*items[:2], *unanswered])["kpr"] == case["kpr_scored_queries"]


def read_gz(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def read_quality(folder: Path, system: str, judge: str) -> list[ItemVerdicts]:
    """Ratings and claims as verdicts of our own parser and of the citation stage."""
    base = folder / "quality_citation_2025-04-20" / system
    rated = read_gz(base / f"evaluation_results_detailed_{judge}.json.gz")
    cited = base / f"evaluation_results_citation_{judge}.json.gz"
    claims = read_gz(cited) if cited.is_file() else {}
    items = []
    for query, entry in rated.items():
        scores = {
            f"quality:{name}": (parse(RATING, {"rating": value, "justification": ""}),)
            for name, (value, _) in entry["scores"].items()
        }
        if query in claims:
            found = claims[query]["detailed"] or {}
            scores["claims"] = (Score(float(len(found))),)
            for n, claim in enumerate(found.values()):
                scores[f"support:{n}"] = (Score(float(claim["score"])),)
        items.append(item(query, scores, quality=list(entry["scores"])))
    return items


def test_quality_and_citations_equal_those_of_upstream(
    folder: Path, expected: dict[str, Any]
) -> None:
    for system, want in expected["quality_2025_04_20"].items():
        items = read_quality(folder, system, "gpt-4o-mini")
        got = values(items)
        assert len(items) == want["queries"]
        assert {len(entry.meta["quality"]) for entry in items} == {want["criteria"]}
        assert got["quality"] == pytest.approx(want["score_without_citations"], abs=1e-9)
        with_citations = want["score_with_citations"]
        assert got["quality:with_citations"] == pytest.approx(with_citations, abs=1e-9)
        for name, value in want["per_criterion_mean_0_10"].items():
            assert got[f"quality/{name}"] == pytest.approx(value, abs=1e-9)
        precision = want["citation_precision_mean_0_100"]
        assert got["citation_precision"] == pytest.approx(precision, abs=1e-9)
        support = [s.value for e in items for n, (s,) in e.scores.items() if "support" in n]
        assert len(support) == want["claims_judged"]
        assert [support.count(v) for v in (1.0, 0.5, 0.0)] == want["claims_full_partial_none"]
        assert (
            sum(e.scores["claims"][0].value == 0 for e in items) == want["queries_without_claims"]
        )
        for judge in (key for key in want if key.endswith("_judge")):
            again = values(read_quality(folder, system, judge.removesuffix("_judge")))
            assert again["quality"] == pytest.approx(want[judge]["stored"], abs=1e-9)


def test_judge_prompts_are_byte_equal(
    folder: Path, data: SuiteData, samples: dict[str, Sample]
) -> None:
    vectors = json.loads((folder / "vectors.json").read_bytes())["prompt"]["vectors"]
    templates = SUITE.load_templates(data)
    names = {"kpr": "point:{point_number}", "quality": "quality:{criterion}"}
    checked = 0
    for vector in vectors:
        if vector["kind"] not in names:
            continue  # prompts of the citation stage
        sample = samples[vector["id"]]
        answer = Answer(vector["answer"], vector["answer"], WriterStatus.OK)
        job = JudgingJob(sample, answer, templates, Mode.PARITY)
        wanted = names[vector["kind"]].format(**vector)
        (request,) = (r for r in SUITE.plan_judging(job) if r.criterion == wanted)
        assert len(request.messages[-1].content) == vector["chars"]
        assert text_hash(request.messages[-1].content) == vector["sha256"]
        checked += 1
    assert checked == sum(vector["kind"] in names for vector in vectors) > 0


def test_the_suite_has_the_documented_shape(samples: dict[str, Sample]) -> None:
    points = [len(sample.meta["points"]) for sample in samples.values()]
    assert (len(samples), sum(points), points.count(0), max(points)) == (1000, 16156, 24, 116)
    calls = sum(len(SUITE.criteria(sample)) for sample in samples.values())
    assert calls / len(samples) == INFO.judge_calls_per_sample


def test_the_joined_key_points_are_rebuilt_to_the_byte(
    data: SuiteData, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = INFO.files["key_points_aggregated.jsonl"]
    lines = data.path(file.name).read_bytes().split(b"\n")
    published = {}
    for record in (json.loads(line) for line in lines if line):
        path = f"key_point/{record.pop('id')}_aggregated.json"
        published[path] = json.dumps(record, indent=2).encode()
    monkeypatch.setattr(SuiteData, "read_upstream", lambda self, file, path: published[path])
    assert text_hash(join_key_points(data, file).decode()) == file.sha256


def test_one_lost_point_leaves_the_query_unscored() -> None:
    kept, lost = Score(1.0, parts={"contradicted": 0.0}), Score(None, JudgeStatus.UNKNOWN_LABEL)
    half = item("1", {"point:1": (kept,), "point:2": (lost,)}, points=["1", "2"])
    whole = item("2", {"point:1": (kept,)}, points=["1"])
    for mode in Mode:
        assert values([half], mode)["kpr"] is None
        assert values([half, whole], mode)["kpr:scored"] == 100.0


@pytest.mark.parametrize(
    ("request_", "verdict", "strict", "parity"),
    [
        (POINT, {"label": "Supported", "justification": "x"}, "ok", "ok"),
        (POINT, {"label": "Supported"}, "ok", "parse_error"),
        (POINT, {"label": "supported", "justification": "x"}, "unknown_label", "unknown_label"),
        (POINT, {"label": ["Supported"], "justification": ""}, "unknown_label", "unknown_label"),
        (POINT, {"verdict": "Supported", "justification": ""}, "parse_error", "unknown_label"),
        (RATING, {"rating": 0, "justification": "x"}, "ok", "ok"),
        (RATING, {"rating": 11, "justification": "x"}, "out_of_range", "out_of_range"),
        (RATING, {"rating": 7.5, "justification": "x"}, "out_of_range", "out_of_range"),
        (RATING, {"rating": True, "justification": "x"}, "parse_error", "out_of_range"),
        (RATING, [1], "parse_error", "parse_error"),
    ],
)
def test_each_damaged_verdict_has_its_status(
    request_: JudgeRequest, verdict: object, strict: str, parity: str
) -> None:
    assert parse(request_, verdict, Mode.STRICT).status == strict
    assert parse(request_, verdict, Mode.PARITY).status == parity


def test_strict_reads_through_prose_and_takes_the_last_verdict() -> None:
    text = 'First {"label": "Omitted"} but then\n```json\n{"label": "Contradicted"}\n```'
    score = SUITE.parse_verdict[Mode.STRICT](POINT, text)
    assert score.value == 0.0 and score.parts["contradicted"] == 1.0
    assert SUITE.parse_verdict[Mode.PARITY](POINT, text).status is JudgeStatus.PARSE_ERROR


def test_a_report_without_an_address_has_no_precision() -> None:
    assert names_a_source("see www.example.org") and not names_a_source("see example")
    bare = replace(item("1", {"claims": (Score(2.0),)}), measures={"names_a_source": False})
    lost = item("2", {"claims": (Score(2.0),), "support:0": (Score(None, JudgeStatus.TIMEOUT),)})
    assert values([bare])["citation_precision"] == 0.0
    assert values([lost], Mode.PARITY)["citation_precision"] == 0.0
    assert values([lost], Mode.STRICT)["citation_precision"] is None


@given(st.text(max_size=300))
def test_no_text_breaks_a_parser(text: str) -> None:
    for read in SUITE.parse_verdict.values():
        for request in (POINT, RATING):
            score = read(request, text)
            assert score.value is None or 0 <= score.value <= 1
