"""DeepResearch Bench II: reading batches, losing one, averages. Figures: parity.py."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.deepresearch_bench_ii.reading import (
    count_marks,
    is_valid,
    parse_upstream,
    read_parity,
    read_strict,
    repair_keys,
)
from r2w_eval.tasks.deepresearch_bench_ii.scoring import (
    DIMENSIONS,
    aggregate,
    batch_names,
    read_records,
    shares,
    superseded,
)

from r2w_eval.config import RunConfig
from r2w_eval.data import SuiteData
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.results.ensembles import combine_scores, make_spec
from r2w_eval.run import evaluate
from r2w_eval.stats.inference import evaluate as value_of
from r2w_eval.stats.inference import measure
from r2w_eval.suites.suite import JudgingJob, Suite, load_info, load_suite
from r2w_eval.types import (
    Answer,
    ItemVerdicts,
    JudgeStatus,
    Mode,
    Sample,
    Score,
    WriterStatus,
)

INFO = load_info("deepresearch_bench_ii")
SUITE: Suite = load_suite(INFO.folder)
RUBRICS = ["one", "two", "three"]


def reply(*scores: object, rubrics: list[str] | None = None, indent: int | None = 1) -> str:
    rows = [
        {"rubric_item": rubric, "score": score, "reason": "r"}
        for rubric, score in zip(rubrics or RUBRICS, scores, strict=True)
    ]
    return json.dumps({"results": rows}, indent=indent)


def test_both_modes_read_a_whole_batch() -> None:
    for read in (read_strict, read_parity):
        score = read(RUBRICS, reply(1, 0, -1))
        assert score.value == pytest.approx(1 / 3) and score.parts["satisfied"] == [1, 0, 0]
        assert score.parts["blocked"] == [0, 0, 1]
        fenced = read(RUBRICS, f"Here:\n```json\n{reply(1, 1, 1)}\n```")
        assert fenced.value == 1.0


def test_json_on_one_line_is_read_and_upstreams_refusal_is_counted() -> None:
    line = reply(1, 0, 0, indent=None)
    assert parse_upstream(line) == (None, False)
    for read in (read_strict, read_parity):
        assert read(RUBRICS, line).parts["upstream_reads"] == 0.0
        assert read(RUBRICS, reply(1, 0, 0)).parts["upstream_reads"] == 1.0


@pytest.mark.parametrize(
    ("text", "strict", "parity"),
    [
        (reply(1, 0, "1"), "out_of_range", "ok"),
        (reply(1, 0, None), "out_of_range", "ok"),
        (reply(1, 0, 0.5), "out_of_range", "ok"),
        (reply(1, 0, True), "out_of_range", "ok"),
        (reply(1, 0, 2), "out_of_range", "ok"),
        (reply(1, 0, [1]), "out_of_range", "ok"),
        (reply(1, 0, rubrics=["one", "two"]), "criteria_mismatch", "criteria_mismatch"),
        (reply(1, 0, 0, rubrics=["one", "two", "Three"]), "criteria_mismatch", "criteria_mismatch"),
        (reply(1, 0, 0, rubrics=["one", "two", "two"]), "criteria_mismatch", "criteria_mismatch"),
        ('{"results": 5}', "parse_error", "criteria_mismatch"),
        ('{"results": [1, 2, 3]}', "parse_error", "criteria_mismatch"),
        ("[]", "parse_error", "parse_error"),
        ("", "parse_error", "parse_error"),
    ],
)
def test_each_damaged_batch_has_its_status(text: str, strict: str, parity: str) -> None:
    assert read_strict(RUBRICS, text).status == strict
    assert read_parity(RUBRICS, text).status == parity


def test_parity_does_not_count_non_numbers() -> None:
    parts = read_parity(RUBRICS, reply("1", 0.5, True)).parts
    assert parts["satisfied"] == [None, 0, 1] and parts["blocked"] == [None, 0, 0]
    assert shares({"analysis": [None, (0.0, 0.0), (1.0, 0.0)]})["total"] == 0.5


def test_a_mismatch_is_reported_without_the_rubrics() -> None:
    reason = read_strict(RUBRICS, reply(1, 0, 0, rubrics=["one", "two", "new"])).reason
    assert reason == "3 results for 3 rubrics; missing 3; 1 not asked for"


def test_equal_rubrics_are_distinguished_by_order() -> None:
    twice = ["same", "same", "other"]
    score = read_strict(twice, reply(0, 1, 1, rubrics=["other", "same", "same"]))
    assert score.parts["satisfied"] == [1, 1, 0]
    assert is_valid(twice, json.loads(reply(1, 1, 1, rubrics=["same", "other", "new"])))
    assert superseded(twice) == [0]


@given(st.text(alphabet='{}[]":,\\ \nab`json1', max_size=60))
def test_keys_are_repaired_exactly_as_by_upstreams_expression(text: str) -> None:
    expression = r'"(?P<k>.*?)"(?=\s*:)'

    def escape(match: re.Match[str]) -> str:
        return '"' + re.sub(r'(?<!\\)"', r"\"", match["k"]) + '"'

    assert repair_keys(text) == re.sub(expression, escape, text)


@given(st.text(alphabet='{}[]":,\\ \nresults`json1', max_size=200))
def test_no_text_breaks_a_reader(text: str) -> None:
    for read in (read_strict, read_parity):
        score = read(RUBRICS, text)
        assert score.value is None or 0 <= score.value <= 1


def test_hostile_quotes_take_linear_time() -> None:
    started = time.perf_counter()
    for text in ('"' * 200_000, '":' * 100_000, '" ' * 100_000 + ":", '"\n' * 100_000):
        read_parity(RUBRICS, text)
    assert time.perf_counter() - started < 10


def item(sizes: list[int], batches: list[list[int | None] | None], **changes: Any) -> ItemVerdicts:
    lost = Score(None, JudgeStatus.CRITERIA_MISMATCH)
    scores = {
        f"batch:{n}": (lost if own is None else Score(0.5, parts=count_marks(own)),)
        for n, own in enumerate(batches, 1)
    }
    meta = {"theme": "Art", "sizes": sizes, "superseded": changes.pop("superseded", [])}
    return ItemVerdicts(changes.pop("name", "1"), "en", meta, WriterStatus.OK, scores, **changes)


def values(*items: ItemVerdicts, mode: Mode = Mode.STRICT) -> dict[str, float | None]:
    return {estimate.name: value_of(estimate) for estimate in aggregate(items, mode)}


def test_batches_are_cut_into_dimensions() -> None:
    levels: list[int | None] = [1] * 30 + [0] * 20
    got = values(item([40, 15, 5], [levels, [-1] * 10]))
    assert (got["info_recall"], got["analysis"], got["presentation"]) == (0.75, 0.0, 0.0)
    assert (got["total"], got["blocked_rate"]) == (0.5, pytest.approx(1 / 6))


def test_one_lost_batch_discards_the_task() -> None:
    whole, half = item([1, 0, 0], [[1]]), item([40, 20, 0], [[1] * 50, None], name="2")
    for mode in Mode:
        total = aggregate([whole, half], mode)[0]
        assert total.n_expected == 2 and total.strata[0].clusters == ("1",)
    assert not read_records(half, Mode.PARITY)


def test_records_of_a_task_are_averaged_before_the_tasks() -> None:
    once, again = item([2, 0, 0], [[1, 1]]), item([2, 0, 0], [[0, 0]], repeat=1)
    other = item([2, 0, 0], [[1, 1]], name="2")
    got = values(once, again, other)
    assert got["total"] == 0.75 and got["total:rubric_micro"] == pytest.approx(2 / 3)
    assert got["analysis"] is None, "no rubrics, no share"


def test_a_repeated_rubric_counts_once_in_parity_and_by_place_in_strict() -> None:
    twice = item([3, 0, 0], [[1, 0, 0]], superseded=[0])
    assert values(twice)["total"] == pytest.approx(1 / 3)
    assert values(twice, mode=Mode.PARITY)["total"] == 0.0


def test_a_model_without_an_answer_satisfies_nothing() -> None:
    floor = ItemVerdicts(
        "1",
        "en",
        {"theme": "", "sizes": [3, 0, 0], "superseded": []},
        WriterStatus.EMPTY,
        {"batch:1": (Score(0.0),)},
    )
    assert values(floor)["total"] == 0.0


def test_two_judges_who_disagree_make_half_a_rubric() -> None:
    """Satisfied by one and blocked for the other is neither 0 nor lost (no mean of 1 and -1)."""
    replies = [read_strict(RUBRICS, reply(*own)) for own in ((1, 0, 1), (-1, 0, 1))]
    score = combine_scores(replies, make_spec(("a", "b"), "mean", None))
    got = values(replace(item([2, 1, 0], []), scores={"batch:1": (score,)}))
    assert (got["total"], got["blocked_rate"]) == (pytest.approx(1.5 / 3), pytest.approx(0.5 / 3))
    assert (got["info_recall"], got["analysis"]) == (0.25, 1.0)


def test_a_bare_share_counts_for_each_rubric() -> None:
    bare = replace(item([40, 12, 0], []), scores={f"batch:{n}": (Score(0.6),) for n in (1, 2)})
    got = values(bare)
    assert (got["total"], got["blocked_rate"]) == (pytest.approx(0.6), 0.0)


def test_figures_by_hand() -> None:
    """Two judgings of a report and a second report of one task; a lost judging is left out."""
    lost = Score(None, JudgeStatus.TIMEOUT)
    first, second = (Score(0.5, parts=count_marks(own)) for own in ([1, 0, -1, 1], [1, 1, 1, None]))
    base = item([2, 1, 1], [])
    items = [
        replace(base, scores={"batch:1": (first, second, lost)}),
        replace(base, sample_id="2", language="zh", meta={**base.meta, "theme": "Law"},
                scores={"batch:1": (first,)}),
        replace(base, sample_id="3", scores={}),
    ]  # fmt: skip
    found = {e.name: measure(e) for e in aggregate(items, Mode.STRICT)}
    assert {name: (m.value, m.n_scored, m.n_expected) for name, m in found.items()} == {
        "total": ((0.75 + 0.5) / 2, 2, 3),
        "info_recall": ((0.75 + 0.5) / 2, 2, 3),
        "analysis": (0.25, 2, 3),
        "presentation": (1.0, 2, 3),
        "blocked_rate": ((0.125 + 0.25) / 2, 2, 3),
        "total:rubric_micro": (pytest.approx(7 / 11), 2, 3),
        "language/en": (0.75, 1, 2),
        "language/zh": (0.5, 1, 1),
        "theme/Art": (0.75, 1, 2),
        "theme/Law": (0.5, 1, 1),
    }
    assert [name for name, m in found.items() if m.is_headline] == ["total"]


@pytest.mark.parametrize(("n", "n_batches"), [(0, 0), (1, 1), (50, 1), (51, 2), (100, 2), (101, 3)])
def test_rubrics_are_asked_about_fifty_at_a_time(n: int, n_batches: int) -> None:
    assert batch_names(n) == [f"batch:{k + 1}" for k in range(n_batches)]
    assert superseded(["a", "a", "b", "a", "b"]) == [0, 1, 2]


def test_the_suite_has_the_documented_shape(samples: dict[str, Sample]) -> None:
    sizes = [sample.meta["sizes"] for sample in samples.values()]
    assert [sum(own) for own in zip(*sizes, strict=True)] == [6983, 1686, 746]
    assert len(samples) == 132 and sum(bool(s.meta["superseded"]) for s in samples.values()) == 1
    calls = sum(len(SUITE.criteria(sample)) for sample in samples.values())
    assert calls == 262 and round(calls / 132, 3) == INFO.judge_calls_per_sample
    assert len(DIMENSIONS) == 3 and batch_names(51) == ["batch:1", "batch:2"]


def test_a_long_report_is_cut_as_upstream_does(sample: Sample, data: SuiteData) -> None:
    text = "x" * 150_001 + "END"
    answer = Answer(text, text, WriterStatus.OK)
    job = JudgingJob(sample, answer, SUITE.load_templates(data), Mode.STRICT)
    for request in SUITE.plan_judging(job):
        assert "x" * 150_000 in request.messages[0].content
        assert "END" not in request.messages[0].content


def test_upstreams_refusals_are_shares_of_batches() -> None:
    refused, read = (Score(0.0, parts={"levels": [0], "upstream_reads": own}) for own in (0.0, 1.0))
    meta = {"theme": "", "sizes": [1, 0, 0], "superseded": []}
    items = [
        ItemVerdicts(name, "en", meta, WriterStatus.OK, {"batch:1": (own,)})
        for name, own in (("1", refused), ("2", read))
    ]
    *_, estimate = aggregate(items, Mode.STRICT)
    assert (estimate.name, value_of(estimate)) == ("parser:json_first", 0.5)
    assert estimate.n_expected == 2 and not estimate.bounded


def test_a_run_over_numbered_reports(benchmarks: Path, tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "idx-1.md").write_text("A report.", encoding="utf-8")
    (folder / "idx-2.pdf").write_bytes(b"%PDF-1.7")
    with FakeServer() as server:
        config = RunConfig(
            responses=str(folder),
            only_recorded=True,
            judge=(f"{server.base_url}#judge-0",),
            tasks="deepresearch_bench_ii",
            data_dir=str(benchmarks),
            out=str(tmp_path / "run"),
        )
        outcome = asyncio.run(evaluate(config))
    (result,) = outcome.results
    assert result.writer.statuses == {"error": 1, "ok": 1}
    assert (result.headline.n_scored, result.headline.n_expected) == (1, 2)
    reasons = [response.reason for response in outcome.folder.responses() if response.reason]
    assert len(reasons) == 1 and "unsupported_input: idx-2.pdf" in reasons[0]
