"""RACE and its variants: searches, weights, cleaning, references, losses. Figures: parity.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.deepresearch_bench.cleaning import MIN_CHARS, cleaned_text, cut_in_half
from r2w_eval.tasks.deepresearch_bench.race import (
    POINTWISE,
    RACE,
    STATIC,
    VANILLA,
    WHERE,
    load_samples,
    load_templates,
    make_suite,
    score_request,
    static_criteria,
)
from r2w_eval.tasks.deepresearch_bench.reading import DIMENSIONS, extract_json, read_strict
from r2w_eval.tasks.deepresearch_bench.scoring import (
    aggregate,
    compare_score,
    look_up_weight,
    share,
    single_score,
    weigh,
)

from r2w_eval.config import RunConfig
from r2w_eval.data import SuiteData, data_roots
from r2w_eval.errors import DataError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.lmeval_tasks import load_dataset
from r2w_eval.run import Outcome, evaluate
from r2w_eval.stats import measure
from r2w_eval.suites.suite import JudgingJob, load_info
from r2w_eval.template import Template
from r2w_eval.types import (
    Answer,
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Message,
    Mode,
    Sample,
    Score,
    WriterStatus,
)

INFO = load_info("deepresearch_bench")
SUITE = make_suite(RACE)
REFERENCES = "deepresearch_bench/reference_subset_cleaned_ids58-65.jsonl"
OFFICIAL = {name: {"Breadth": 0.75, "Depth": 0.25} for name in DIMENSIONS}
FACTS = {"weights": dict.fromkeys(DIMENSIONS, 0.25), "criteria": OFFICIAL}
REQUEST = JudgeRequest("score", (), facts=FACTS)
CLEAN = JudgeRequest("clean", ())
REPORT = "A sentence. " * 50


def verdict(**changes: object) -> dict[str, Any]:
    rows = [
        {"criterion": name, "article_1_score": 6, "article_2_score": 4}
        for name in ("Breadth", "Depth")
    ]
    return {**{name: [dict(row) for row in rows] for name in DIMENSIONS}, **changes}


def parse(value: object, mode: Mode = Mode.STRICT) -> Score:
    return SUITE.parse_verdict[mode](
        REQUEST, value if isinstance(value, str) else json.dumps(value)
    )


def rows(*scores: tuple[str, object, object]) -> list[dict[str, object]]:
    return [{"criterion": c, "article_1_score": a, "article_2_score": b} for c, a, b in scores]


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        (rows(("Breadth", 6, 4)), "criteria_mismatch"),
        (rows(("Breadth", 6, 4), ("Breadth", 6, 4)), "criteria_mismatch"),
        (rows(("Breadth", 6, 4), ("Width", 6, 4)), "criteria_mismatch"),
        (rows(("Breadth", 6, 4), ("Depth", 6, 4), ("Style", 6, 4)), "criteria_mismatch"),
        (rows(("Breadth", 6, 4), ("depth", 6, 4)), "criteria_mismatch"),
        (rows((" Breadth\n", 6, 4), ("Depth", 6, 4)), "ok"),
        (rows(("Breadth", 6, 4), ("Depth", 10.5, 4)), "out_of_range"),
        (rows(("Breadth", 6, 4), ("Depth", 6, -1)), "out_of_range"),
        (rows(("Breadth", 6, 4), ("Depth", "6", 4)), "parse_error"),
        (rows(("Breadth", 6, 4), ("Depth", True, 4)), "parse_error"),
        (rows(("Breadth", 6, 4), ("Depth", 6, None)), "parse_error"),
        ("none", "parse_error"),
        ([1, 2], "parse_error"),
    ],
)
def test_strict_types_each_damage(entries: object, status: str) -> None:
    score = parse(verdict(insight=entries))
    assert score.status == status, score.reason


def test_a_mismatch_names_both_sets() -> None:
    score = parse(verdict(insight=rows(("Breadth", 6, 4), ("Width", 6, 4))))
    assert score.reason == "insight: missing Depth; not asked for or repeated Width"


def test_parity_takes_what_strict_refuses_and_reweights_silently() -> None:
    dropped = parse(verdict(insight=rows(("Breadth", 9, 1))), Mode.PARITY)
    assert dropped.parts["insight"] == 0.9
    renamed = parse(verdict(insight=rows(("broad BREADTH", 9, 1), ("Width", 1, 9))), Mode.PARITY)
    assert renamed.parts["insight"] == pytest.approx((9 * 0.75 + 0.5) / (10 * 0.75 + 5))
    assert parse(verdict(insight="none"), Mode.PARITY).parts["insight"] == 0.0
    assert parse({"insight": []}, Mode.PARITY).status is JudgeStatus.CRITERIA_MISMATCH
    assert parse("[1]", Mode.PARITY).status is JudgeStatus.PARSE_ERROR
    infinite = verdict(insight=rows(("Breadth", "inf", 4)))
    assert parse(infinite, Mode.PARITY).status is JudgeStatus.OUT_OF_RANGE


def test_the_value_is_the_share_of_the_totals() -> None:
    for mode in Mode:
        score = parse(verdict(), mode)
        assert score.value == 0.6 and score.parts["insight"] == 0.6
        assert (score.parts["target_total"], score.parts["reference_total"]) == (6.0, 4.0)


@given(st.floats(0, 10), st.floats(0, 10))
def test_equal_texts_give_one_half_and_shares_add_up(a: float, b: float) -> None:
    assert 0 <= share(a, b) <= 1
    assert share(a, a) == (0.5 if a > 0 else 0)
    if a + b > 1e-6:
        assert share(a, b) + share(b, a) == pytest.approx(1)


def test_a_broken_verdict_is_salvaged_as_upstream_does() -> None:
    cut = json.dumps(verdict())[:-30]
    assert parse(cut, Mode.PARITY).value == 0.6
    assert parse(cut).status is JudgeStatus.PARSE_ERROR
    assert extract_json("comprehensiveness article_1_score article_2_score") is None


@given(st.text(alphabet='{}[]":,`json comprehensiveness12_ article score', max_size=200))
def test_no_text_breaks_a_reader(text: str) -> None:
    for suite in map(make_suite, (RACE, POINTWISE, VANILLA)):
        for read in suite.parse_verdict.values():
            for request in (REQUEST, CLEAN):
                score = read(request, text)
                assert score.value is None or score.value >= 0
    read_strict(text, OFFICIAL, ("article_1_score",))


def test_single_scores_are_tenths() -> None:
    single = {d: [{"criterion": c, "target_score": 6} for c in OFFICIAL[d]] for d in DIMENSIONS}
    for mode in Mode:
        score = make_suite(POINTWISE).parse_verdict[mode](REQUEST, json.dumps(single))
        assert score.value == pytest.approx(0.6)
        overall = make_suite(VANILLA).parse_verdict[mode](REQUEST, '{"overall_score": 7.5}')
        assert overall.value == 0.75
    weighted = weigh(single, FACTS["weights"], OFFICIAL)
    assert share(*weighted.totals) == 1.0, "why the pointwise value is not the share"


def weighed(*entries: object, **official: float) -> tuple[float, float]:
    """Means of the report and of the reference in one dimension."""
    criteria = {"insight": official or OFFICIAL["insight"]}
    found = weigh({"insight": list(entries)}, {"insight": 0.5}, criteria)
    assert found.totals == (found.target["insight"] / 2, found.reference["insight"] / 2)
    return found.target["insight"], found.reference["insight"]


def test_weights_are_those_of_the_criteria_that_came_back() -> None:
    both = rows(("Breadth", 8, 4), ("Depth", 4, 6))
    assert weighed(*both) == (0.75 * 8 + 0.25 * 4, 0.75 * 4 + 0.25 * 6)
    assert weighed(*both, Breadth=3, Depth=1) == weighed(*both)
    assert weighed(*both, Breadth=0, Depth=0) == (0.0, 0.0)
    assert weighed(*rows(("Breadth", "8", "4"), ("Depth", "x", 9), ("Depth", 1, []))) == (8, 4)
    assert weighed(*rows(("", 9, 9), (" ", 9, 9), ("Depth", 2, 1)), 5, {"criterion": 5}) == (2, 0)
    # upstream asks only the last entry whether there is a reference
    assert weighed(*rows(("Breadth", 8, None), ("Depth", 4, 6))) == (7.0, 0.25 * 6)
    assert weighed(*rows(("Breadth", 8, 4), ("Depth", 4, None))) == (7.0, 0.0)
    single = [{"criterion": "Depth", "target_score": 3, "article_2_score": 1}]
    assert weighed(*single) == (3, 1)
    assert weighed({**single[0], "article_1_score": 5}) == (5, 1)
    assert weighed({"criterion": "Depth", "article_2_score": 1}) == (0.0, 0.0)
    assert weighed() == (0.0, 0.0)


def test_dimensions_without_list_weight_or_criteria_are_left_out() -> None:
    own = rows(("Breadth", 6, 4))
    verdict = {"insight": own, "readability": own, "mood": own, "comprehensiveness": "none"}
    weights = {"insight": 0.5, "readability": 0.25, "comprehensiveness": 0.25}
    criteria = {"insight": OFFICIAL["insight"], "readability": {}, "mood": {"Breadth": 1.0}}
    found = weigh(verdict, weights, criteria)
    assert (found.target, found.reference) == ({"insight": 6}, {"insight": 4})
    assert found.totals == (3.0, 2.0)
    score = compare_score(found)
    assert score.value == 0.6 and score.parts == {
        **dict.fromkeys(DIMENSIONS, 0.0), "insight": 0.6, "target_total": 3.0,
        "reference_total": 2.0,
    }  # fmt: skip
    alone = single_score(found)
    assert alone.value == 0.3 and alone.parts == {
        **dict.fromkeys(DIMENSIONS, 0.0), "insight": 0.6
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "official", "weight"),
    [
        ("Deep", {"Deepest Deep": 4, "deep": 2, "Deep": 1}, 1),
        ("Deep", {"Deepest Deep": 4, "deep": 2}, 2),
        ("Deep", {"Style": 1, "Deepest Deep": 4, "deeply": 2}, 4),
        ("how deep it is", {"Style": 1, "Deep": 4, "it": 2}, 4),
        ("Style", {"Depth": 1, "Deep": 4, "Breadth": 2}, 7 / 3),
    ],
)
def test_a_weight_is_looked_up_exactly_then_without_case_then_inside(
    name: str, official: dict[str, float], weight: float
) -> None:
    assert look_up_weight(name, official) == weight


def job(done: Mapping[str, tuple[Score, str]], mode: Mode = Mode.STRICT) -> JudgingJob:
    sample = Sample("t", "1", (Message("user", "q"),), "en")
    templates = {
        f"clean_{language}": Template(language, f"{language}: {{article}}")
        for language in ("en", "zh")
    }
    return JudgingJob(sample, Answer(REPORT, REPORT, WriterStatus.OK), templates, mode, done)


def asked(done: Mapping[str, tuple[Score, str]], mode: Mode = Mode.STRICT) -> list[str]:
    race = replace(RACE, compares=False)
    plan = make_suite(race).plan_judging
    return [request.criterion for request in plan(job(done, mode))]


def test_a_short_reply_is_not_a_cleaned_text() -> None:
    for read in SUITE.parse_verdict.values():
        assert read(CLEAN, " " * MIN_CHARS + "x" * (MIN_CHARS - 1)).status == "parse_error"
        assert read(CLEAN, "x" * MIN_CHARS).value == MIN_CHARS


def test_halves_are_cleaned_when_the_whole_does_not_work() -> None:
    assert asked({}) == ["clean"]
    too_long = (Score(None, JudgeStatus.TOO_LONG), "")
    for failed in (too_long, (Score(None, JudgeStatus.PARSE_ERROR), "short")):
        assert asked({"clean": failed}) == ["clean", "clean:1", "clean:2"]
    assert asked({"clean": (Score(None, JudgeStatus.TIMEOUT), "")}) == ["clean"]
    done = {"clean": too_long, "clean:1": (Score(200.0), "One."), "clean:2": (Score(200.0), "Two.")}
    assert cleaned_text(job(done)) == "One.Two."
    assert cleaned_text(job({**done, "clean:2": too_long})) is None


@given(st.text(alphabet="ab. \n。", max_size=900))
def test_strict_halves_lose_nothing_and_parity_cuts_as_upstream(text: str) -> None:
    assert "".join(cut_in_half(text, Mode.STRICT)) == text
    first, second = cut_in_half(text, Mode.PARITY)
    middle = len(text) // 2
    assert second == text[middle:] and text.startswith(first) and len(first) <= middle + 1


def test_parity_cleans_with_the_chinese_prompt() -> None:
    plan = make_suite(replace(RACE, compares=False)).plan_judging
    texts = {mode: plan(job({}, mode))[0].messages[0].content[:3] for mode in Mode}
    assert texts == {Mode.PARITY: "zh:", Mode.STRICT: "en:"}


@pytest.fixture(scope="module")
def read(benchmarks: Path) -> Callable[..., SuiteData]:
    def with_inputs(**inputs: Path) -> SuiteData:
        return INFO.data(data_roots(str(benchmarks)), inputs)

    return with_inputs


def test_without_references_the_error_says_where_to_get_them(
    read: Callable[..., SuiteData],
) -> None:
    with pytest.raises(DataError, match="needs --references FILE.*reference.jsonl of github"):
        list(load_samples(RACE, read()))
    assert not any(sample.lacks for sample in load_samples(POINTWISE, read()))


def test_tasks_without_a_reference_lack_it(
    read: Callable[..., SuiteData], benchmarks: Path
) -> None:
    samples = list(load_samples(RACE, read(references=benchmarks / REFERENCES)))
    complete = [sample.id for sample in samples if not sample.lacks]
    assert complete == [str(n) for n in range(58, 66)] and len(samples) == 100
    criteria = [entry for s in samples for own in s.material["criteria"].values() for entry in own]
    assert len(criteria) == 2517


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"prompt": "x"}', "record 1: expected prompt and article"),
        ('["x"]', "record 1: expected prompt and article"),
        ('{"prompt": "x", "article": 5}', "record 1: expected prompt and article"),
        ('{"prompt": "x", "article": " "}', "record 1: expected prompt and article"),
        (
            '{"prompt": "x", "article": "a"}\n{"prompt": "x", "article": "b"}',
            "record 2: another reference for the prompt 'x'",
        ),
    ],
)
def test_a_reference_of_another_form_or_a_second_one_is_named(
    line: str, complaint: str, read: Callable[..., SuiteData], tmp_path: Path
) -> None:
    path = tmp_path / "reference.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=complaint):
        list(load_samples(RACE, read(references=path)))
    assert "only-complete" in WHERE


def test_the_static_criteria_stand_in_the_prompt(read: Callable[..., SuiteData]) -> None:
    templates = load_templates(STATIC, read())
    for language in ("en", "zh"):
        found = static_criteria(templates[f"score_{language}"])
        assert [len(found[name]) for name in DIMENSIONS] == [4, 4, 3, 4]
        assert all(sum(e["weight"] for e in own) == pytest.approx(1) for own in found.values())


def test_each_variant_fills_its_own_prompt(
    read: Callable[..., SuiteData], benchmarks: Path
) -> None:
    data = read(references=benchmarks / REFERENCES)
    for variant in (RACE, STATIC, POINTWISE, VANILLA):
        sample = next(s for s in load_samples(variant, data) if s.id == "58")
        answer = Answer(REPORT, REPORT, WriterStatus.OK)
        templates = load_templates(variant, data)
        request = score_request(variant, JudgingJob(sample, answer, templates, Mode.STRICT), REPORT)
        text = request.messages[0].content
        assert REPORT in text and sample.material["prompt"] in text
        assert (sample.material["reference"] or "\0") in text or not variant.compares


def test_a_lost_task_is_left_out_and_counted() -> None:
    kept = (Score(0.4, parts=dict.fromkeys(DIMENSIONS, 0.4)),)
    lost = (Score(None, JudgeStatus.CRITERIA_MISMATCH),)
    items = [
        ItemVerdicts(name, "en", {"topic": "Art"}, WriterStatus.OK, {"score": own})
        for name, own in (("1", kept), ("2", lost))
    ]
    for mode in Mode:
        overall = aggregate(items, mode)[0]
        assert overall.is_headline and overall.n_expected == 2
        assert overall.strata[0].numerators == (0.4,)


def test_repeats_are_averaged_before_the_tasks() -> None:
    def scores(*values: float | None) -> tuple[Score, ...]:
        lost = Score(None, JudgeStatus.TIMEOUT)
        return tuple(lost if v is None else Score(v, parts={"insight": v / 2}) for v in values)

    items = [
        ItemVerdicts("1", "en", {"topic": "Art"}, WriterStatus.OK, {"score": scores(0.4, 0.8)}),
        ItemVerdicts("2", "zh", {"topic": "Art"}, WriterStatus.OK, {"score": scores(None, 0.2)}),
        ItemVerdicts("3", "zh", {"topic": "Law"}, WriterStatus.OK, {"score": (Score(0.0),)}),
        ItemVerdicts("4", "zh", {"topic": "Law"}, WriterStatus.OK, {}),
    ]
    found = {e.name: measure(e) for e in aggregate(items, Mode.STRICT)}
    assert {name: (m.value, m.n_scored, m.n_expected) for name, m in found.items()} == {
        "overall": (pytest.approx(0.8 / 3), 3, 4),
        "overall_x100": (pytest.approx(80 / 3), 3, 4),
        "insight": (pytest.approx(0.2), 2, 4),
        "language/en": (pytest.approx(0.6), 1, 1),
        "language/zh": (pytest.approx(0.1), 2, 3),
        "topic/Art": (pytest.approx(0.4), 2, 2),
        "topic/Law": (0.0, 1, 2),
    }
    assert [name for name, m in found.items() if m.is_headline] == ["overall"]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def run(
    server: FakeServer, benchmarks: Path, tmp_path: Path, own_cache: Path
) -> Callable[..., Outcome]:
    def go(**settings: Any) -> Outcome:
        defaults = {
            "model": f"{server.base_url}#gen-0",
            "judge": (f"{server.base_url}#judge-0",),
            "data_dir": str(benchmarks),
            "out": str(tmp_path / f"run-{len(list(tmp_path.iterdir()))}"),
            "references": str(benchmarks / REFERENCES),
            "only_complete": True,
            "limit": 2,
        }
        return asyncio.run(evaluate(RunConfig(**{**defaults, **settings})))

    return go


def test_a_run_cleans_scores_and_names_the_tasks_left_out(run: Callable[..., Outcome]) -> None:
    (result,) = run(tasks="deepresearch_bench").results
    assert (result.headline.n_scored, result.headline.n_expected) == (2, 2)
    assert result.judging.n_total == 4, "a cleaning and a scoring each"
    assert sum(result.judging.histogram.values()) == 2, "lengths are no verdicts"
    assert result.judging.n_echoed == 0, "any long text would pass as a cleaned one"
    assert result.warnings[0].text.startswith(
        "92 samples left out that --references has nothing for: 1,"
    )
    assert result.samples[0].value == pytest.approx(result.estimate.strata[0].numerators[0])


def test_an_incomplete_reference_file_stops_the_run(run: Callable[..., Outcome]) -> None:
    with pytest.raises(DataError, match="has nothing for 2 samples: 1, 2.*--only-complete"):
        run(tasks="deepresearch_bench", only_complete=False)


def test_variants_run_and_have_score_keys_of_their_own(run: Callable[..., Outcome]) -> None:
    names = [f"deepresearch_bench{part}" for part in ("", "_static", "_pointwise", "_vanilla")]
    results = run(tasks=",".join(names)).results
    assert [result.headline.n_scored for result in results] == [2] * 4
    assert len({result.score_key for result in results}) == 4


def test_three_ways_to_a_report_never_share_a_score_key(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    texts = tmp_path / "context"
    texts.mkdir()
    for task_id in (58, 59):
        (texts / f"{task_id}.txt").write_text(f"Known of {task_id}.", encoding="utf-8")
    given = tmp_path / "reports.jsonl"
    lines = [{"id": n, "response": f"Report. {REPORT}"} for n in (58, 59, 999)]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    closed = run(tasks="deepresearch_bench").results[0]
    context = run(tasks="deepresearch_bench", context=str(texts)).results[0]
    brought = run(tasks="deepresearch_bench", responses=str(given), model="m").results[0]
    assert len({closed.score_key, context.score_key, brought.score_key}) == 3
    assert closed.identity["inputs"]["reports"] == "closed book"
    assert brought.identity["inputs"]["reports"] == "given"
    assert "context" in context.identity["inputs"]
    assert "--responses has 1 answers to no sample: 999" in [
        notice.text for notice in brought.warnings
    ]


def test_missing_reports_are_named_and_not_averaged_away(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    given = tmp_path / "reports.jsonl"
    given.write_text(json.dumps({"id": 59, "article": REPORT}) + "\n", encoding="utf-8")
    result = run(tasks="deepresearch_bench", responses=str(given), model="m").results[0]
    assert (result.headline.n_scored, result.headline.n_expected) == (1, 2)
    assert result.writer.statuses == {"not_sent": 1, "ok": 1}
    assert "--responses has no answer for 1 of 2 samples: 58" in [
        notice.text for notice in result.warnings
    ]


def test_answers_beyond_the_limit_are_no_strays(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    given = tmp_path / "reports.jsonl"
    lines = [{"id": n, "response": REPORT} for n in (58, 59, 60)]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    outcome = run(tasks="deepresearch_bench", responses=str(given), model="m", limit=1)
    assert not any("to no sample" in warning.text for warning in outcome.results[0].warnings)


def test_stock_lm_eval_gets_the_complete_tasks_or_an_error(
    benchmarks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="needs pip install 'r2w-eval[hf]'")
    monkeypatch.setenv("R2W_DATA", str(benchmarks))
    with pytest.raises(DataError, match="needs --references"):
        load_dataset(suite="deepresearch_bench")
    monkeypatch.setenv("R2W_REFERENCES", str(benchmarks / REFERENCES))
    with pytest.raises(DataError, match="has nothing for 92 samples"):
        load_dataset(suite="deepresearch_bench")
    monkeypatch.setenv("R2W_ONLY_COMPLETE", "1")
    documents = load_dataset(suite="deepresearch_bench")["test"]
    assert [document["id"] for document in documents] == [str(n) for n in range(58, 66)]
