"""DeepResearchGym: reading verdicts, losing some, rebuilding its data. Figures: parity.py."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.deepresearch_gym.build import join_key_points
from r2w_eval.tasks.deepresearch_gym.citations import names_a_source
from r2w_eval.tasks.deepresearch_gym.parity import judged, make_item
from r2w_eval.tasks.deepresearch_gym.schemas import reply_schema

from r2w_eval.config import override_decoding
from r2w_eval.data import SuiteData
from r2w_eval.hashing import text_hash
from r2w_eval.stats.inference import evaluate, measure
from r2w_eval.suites.suite import Suite, load_info, load_suite, suite_folders
from r2w_eval.types import (
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


def parse(request: JudgeRequest, verdict: object, mode: Mode = Mode.PARITY) -> Score:
    return SUITE.parse_verdict[mode](request, json.dumps(verdict))


def values(items: list[ItemVerdicts], mode: Mode = Mode.PARITY) -> dict[str, Any]:
    return {estimate.name: evaluate(estimate) for estimate in SUITE.aggregate(items, mode)}


def test_unanswered_queries_without_key_points_do_not_count() -> None:
    items = [judged("1", {"1": "Supported"}), judged("2", {}), judged("3", {"1": "Omitted"})]
    for mode in Mode:
        assert values(items, mode)["kpr"] == pytest.approx(100 / 3)
        assert values(items, mode)["kpr:scored"] == 50.0
    lost = replace(items[1], status=WriterStatus.ERROR)
    assert values([items[0], lost, items[2]])["kpr"] == 50.0


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
    half = make_item("1", {"point:1": (kept,), "point:2": (lost,)}, points=["1", "2"])
    whole = make_item("2", {"point:1": (kept,)}, points=["1"])
    for mode in Mode:
        assert values([half], mode)["kpr"] is None
        assert values([half, whole], mode)["kpr:scored"] == 100.0


def test_figures_by_hand() -> None:
    """Two verdicts on a question are averaged before the points of a report are."""
    both = ("Clarity", "Insightfulness")
    halves = (Score(1.0, parts={"contradicted": 0.0}), Score(0.0, parts={"contradicted": 1.0}))
    first = {
        "point:1": halves, "point:2": (Score(1.0, parts={"contradicted": 0.0}),),
        "quality:Clarity": (Score(0.8), Score(0.4), Score(None, JudgeStatus.TIMEOUT)),
        "quality:Insightfulness": (Score(0.2),), "quality:Depth": (Score(0.9),),
        "claims": (Score(2.0),), "support:0": (Score(1.0),), "support:1": (Score(0.5),),
        "recall": (Score(0.25),),
    }  # fmt: skip
    second = {"point:1": (Score(0.0),), "quality:Clarity": (Score(1.0),),
              "claims": (Score(0.0),), "recall": (Score(None, JudgeStatus.TIMEOUT),)}  # fmt: skip
    items = [
        make_item("1", first, ["1", "2"], [*both, "Depth"]),
        make_item("2", second, ["1"], both),
        make_item("3", {}, [], both),
        replace(make_item("4", {}, [], both), status=WriterStatus.ERROR),
    ]
    found = {e.name: measure(e) for e in SUITE.aggregate(items, Mode.STRICT)}
    told = {name: (m.value, m.n_scored, m.n_expected) for name, m in found.items()}
    assert told == {
        "kpr": (pytest.approx(100 * 0.75 / 3), 3, 4),
        "kpr:scored": (pytest.approx(100 * 0.75 / 2), 2, 2),
        "kpc": (pytest.approx(100 * 0.25 / 2), 2, 4),
        "kpc:scored": (pytest.approx(25.0), 1, 2),
        "quality": (pytest.approx(100 * (0.6 + 0.2 + 0.9) / 3), 1, 4),
        "quality:clarity_insight": (pytest.approx(40.0), 1, 4),
        "quality/Clarity": (pytest.approx(10 * (0.6 + 1.0) / 2), 2, 4),
        "quality/Insightfulness": (pytest.approx(2.0), 1, 4),
        "quality/Depth": (pytest.approx(9.0), 1, 4),
        "citation_precision": (pytest.approx(100 * (0.75 + 0.0) / 2), 2, 4),
        "quality:with_citations": (pytest.approx(100 * (1.7 + 0.75) / 4), 1, 4),
        "citation_recall": (pytest.approx(25.0), 1, 4),
    }
    assert [name for name, m in found.items() if m.is_headline] == ["kpr"]
    unjudged = {e.name for e in SUITE.aggregate(items[2:], Mode.STRICT)}
    assert not any("citation" in name for name in unjudged)
    nothing = make_item("5", {}, ["1"], [])
    assert values([nothing])["quality"] is None and values([nothing])["kpr"] is None
    answered = replace(items[3], scores={"quality:Clarity": (Score(0.5),)})
    assert values([items[0], answered])["kpr"] == pytest.approx(37.5)


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
    bare = replace(make_item("1", {"claims": (Score(2.0),)}), measures={"names_a_source": False})
    lost = make_item(
        "2", {"claims": (Score(2.0),), "support:0": (Score(None, JudgeStatus.TIMEOUT),)}
    )
    assert values([bare])["citation_precision"] == 0.0
    assert values([lost], Mode.PARITY)["citation_precision"] == 0.0
    assert values([lost], Mode.STRICT)["citation_precision"] is None


@given(st.text(max_size=300))
def test_no_text_breaks_a_parser(text: str) -> None:
    for read in SUITE.parse_verdict.values():
        for request in (POINT, RATING):
            score = read(request, text)
            assert score.value is None or 0 <= score.value <= 1


def test_each_question_has_the_schema_of_upstreams_models() -> None:
    names = ("point:1", "quality:Clarity", "claims", "recall", "support:0")
    found = {name: reply_schema(JudgeRequest(name, ())) for name in names}
    assert [one["name"] for one in found.values()] == [
        "KeyPointRecall", "CriterionEvaluation", "ClaimsModel", "ClaimsModel", "CitationSupport"
    ]  # fmt: skip
    for name, key in (
        ("point:1", "label"),
        ("quality:Clarity", "rating"),
        ("support:0", "support"),
    ):
        allowed = found[name]["schema"]["properties"][key]["enum"]
        for value in allowed:
            verdict = json.dumps({key: value, "justification": ""})
            request = JudgeRequest(name, ())
            assert SUITE.parse_verdict[Mode.PARITY](request, verdict).value is not None
    assert found["quality:Clarity"]["schema"]["properties"]["rating"]["enum"] == [*range(11)]
    usual = INFO.judge_decoding
    assert json.loads(str(SUITE.decoding_for(POINT, usual).response_format)) == found["point:1"]
    omitted = override_decoding(usual, "", "response_format", "--judge-kwargs")
    assert SUITE.decoding_for(POINT, omitted) == omitted


def test_every_suite_that_speaks_of_schemas_has_them() -> None:
    for name, folder in suite_folders().items():
        is_set = load_info(name).judge_decoding.response_format == "json_schema"
        assert is_set == (load_suite(folder).reply_schema is not None), name


def test_support_is_that_of_the_repeat_whose_claims_count() -> None:
    scores = {"claims": (Score(2.0), Score(1.0)), "support:0": (Score(0.0), Score(1.0)),
              "support:1": (Score(0.0),)}  # fmt: skip
    made = make_item("1", scores, [], ["Clarity"])
    found = {e.name: measure(e).value for e in SUITE.aggregate([made], Mode.STRICT)}
    assert found["citation_precision"] == 100.0
