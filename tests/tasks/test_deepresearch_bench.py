"""RACE and its variants: cleaning, references, prompts, whole runs. Figures: parity.py."""

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
from r2w_eval.tasks.deepresearch_bench.reading import DIMENSIONS

from r2w_eval.config import RunConfig
from r2w_eval.data import SuiteData, data_roots
from r2w_eval.errors import DataError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.lmeval_tasks import load_dataset
from r2w_eval.run import Outcome, evaluate
from r2w_eval.suites.suite import JudgingJob, load_info
from r2w_eval.template import Template
from r2w_eval.types import (
    Answer,
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
CLEAN = JudgeRequest("clean", ())
REPORT = "A sentence. " * 50


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


def test_a_report_that_is_short_is_not_lost_by_the_judge() -> None:
    short = replace(CLEAN, facts={"n_chars": 40})
    strict, parity = (SUITE.parse_verdict[mode] for mode in (Mode.STRICT, Mode.PARITY))
    assert (strict(short, "x" * 20).value, strict(short, "x" * 19).status) == (20, "parse_error")
    assert strict(replace(CLEAN, facts={"n_chars": 1}), "").status == "parse_error"
    assert parity(short, "x" * 40).status == "parse_error"
    (asked_first,) = make_suite(replace(RACE, compares=False)).plan_judging(job({}))
    assert asked_first.facts == {"n_chars": len(REPORT)}


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
    with_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="needs pip install 'r2w-eval[hf]'")
    with pytest.raises(DataError, match="needs --references"):
        load_dataset(suite="deepresearch_bench")
    monkeypatch.setenv("R2W_REFERENCES", str(with_data / REFERENCES))
    with pytest.raises(DataError, match="has nothing for 92 samples"):
        load_dataset(suite="deepresearch_bench")
    monkeypatch.setenv("R2W_ONLY_COMPLETE", "1")
    documents = load_dataset(suite="deepresearch_bench")["test"]
    assert [document["id"] for document in documents] == [str(n) for n in range(58, 66)]
