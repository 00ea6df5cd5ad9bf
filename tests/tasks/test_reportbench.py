"""ReportBench: titles, blocks and votes by hand, and a run over recorded pages."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.reportbench import build, texts, utils

from r2w_eval.config import RunConfig
from r2w_eval.data import data_roots
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.results.summary import put_at_floor
from r2w_eval.run import evaluate
from r2w_eval.run.display import describe_counts
from r2w_eval.stats import measure
from r2w_eval.suites.parity import values_of
from r2w_eval.suites.suite import load_info
from r2w_eval.types import ItemVerdicts, JudgeRequest, JudgeStatus, Mode, Score, WriterStatus
from r2w_eval.web.pages import Page, PageCounts, PageStatus, PageStore

INFO = load_info("reportbench")


def read(name: str, text: str, mode: Mode) -> Score:
    return utils.SUITE.parse_verdict[mode](JudgeRequest(name, ()), text)


def paper(title: str) -> Score:
    return read("reference:0", json.dumps({"is_academic_paper": True, "title": title}), Mode.STRICT)


def item(sample_id: str, titles: list[str], wanted: list[str]) -> ItemVerdicts:
    scores = {f"reference:{n}": (paper(title),) for n, title in enumerate(titles)}
    keys = [texts.title_key(title) for title in wanted]
    return ItemVerdicts(sample_id, "en", {"references": keys}, WriterStatus.OK, scores)


def test_titles_are_compared_without_case_and_punctuation_and_as_sets() -> None:
    reports = [
        item("1", ["A Survey: of X.", "a survey of x", "Other"], ["A survey of X", "Y", "Z"]),
        item("2", ["Y"], ["Y"]),
    ]
    found = values_of(utils.aggregate(reports, Mode.STRICT))
    assert found["precision"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["recall"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["f1"] == pytest.approx((2 / 5 + 1) / 2)
    assert found["precision:micro"] == pytest.approx(2 / 3)
    assert found["recall:micro"] == pytest.approx(2 / 4)
    assert found["f1:micro"] == pytest.approx(4 / 7)
    assert found["references"] == 1.5


def test_pages_that_are_no_papers_or_have_no_title_are_not_counted() -> None:
    no = read("reference:0", '{"is_academic_paper": false, "title": "X"}', Mode.STRICT)
    assert (no.value, dict(no.parts)) == (0.0, {})
    assert dict(paper("!?").parts) == {}
    lost = read("reference:0", "It is a paper.", Mode.STRICT)
    assert lost.status is JudgeStatus.PARSE_ERROR
    assert read("reference:0", "It is a paper.", Mode.PARITY).value == 0


def test_at_the_floor_a_failed_report_names_nothing() -> None:
    failed = replace(item("2", [], ["Y"]), status=WriterStatus.REFUSAL)
    found = [item("1", ["X"], ["X"]), failed]
    assert values_of(utils.aggregate(found, Mode.STRICT))["precision"] == 1.0
    floored = [found[0], put_at_floor(failed, ("cited:0",), (Score(0.0),))]
    values = values_of(utils.aggregate(floored, Mode.STRICT))
    assert (values["precision"], values["recall"], values["precision:micro"]) == (0.5, 0.5, 1.0)


def test_a_lost_verdict_costs_the_report_in_strict_mode_only() -> None:
    report = item("1", ["X"], ["X"])
    lost = {"reference:9": (Score(None, JudgeStatus.PARSE_ERROR, "lost"),)}
    report = replace(report, scores={**report.scores, **lost})
    assert values_of(utils.aggregate([report], Mode.STRICT))["precision"] is None
    assert values_of(utils.aggregate([report], Mode.PARITY))["precision"] == 1.0


def cited(*matches: float | None, statements: float | None = 1.0) -> dict[str, tuple[Score, ...]]:
    def score(value: float | None) -> Score:
        return Score(value) if value is not None else Score(None, JudgeStatus.TIMEOUT)

    own = {f"match:0.{n}": (Score(9.0), score(value)) for n, value in enumerate(matches)}
    return {"cited:0": (Score(9.0), score(statements)), **own}


def test_statements_are_counted_over_all_and_by_report() -> None:
    scores = [cited(1, 0, 0), cited(1), cited(), cited(1, None), cited(None), {},
              cited(1, statements=None)]  # fmt: skip
    reports = [replace(item(str(n), [], []), scores=own) for n, own in enumerate(scores)]
    found = {e.name: measure(e) for e in utils.aggregate(reports, Mode.STRICT)}
    pooled, macro = found["cited_match_rate"], found["cited_match_rate:macro"]
    assert (pooled.value, macro.value) == (2 / 4, (1 / 3 + 1) / 2)
    assert (pooled.n_scored, macro.n_scored, macro.n_expected) == (2, 2, 7)
    parity = values_of(utils.aggregate(reports, Mode.PARITY))
    assert parity["cited_match_rate"] == 3 / 5
    assert parity["cited_match_rate:macro"] == pytest.approx((1 / 3 + 1 + 1) / 3)
    both = {**cited(1), "cited:1": (Score(None, JudgeStatus.TIMEOUT),)}
    partly = [replace(item("1", [], []), scores=both)]
    assert values_of(utils.aggregate(partly, Mode.PARITY))["cited_match_rate"] == 1.0
    assert values_of(utils.aggregate(partly, Mode.STRICT))["cited_match_rate"] is None


def test_reports_that_name_or_share_nothing_have_zeros() -> None:
    no = {"reference:0": (Score(0.0),)}
    silent = replace(item("1", [], ["Y"]), scores=no)
    values = values_of(utils.aggregate([silent], Mode.STRICT))
    names = ("precision", "recall", "f1", "recall:micro", "f1:micro", "references")
    assert [values[name] for name in names] == [0.0] * 6
    assert values["precision:micro"] is None
    other = values_of(utils.aggregate([item("1", ["X", "Z"], ["Y"])], Mode.STRICT))
    assert [other[name] for name in names] == [0.0] * 5 + [2.0]
    nobody = values_of(utils.aggregate([item("1", ["X"], [])], Mode.STRICT))
    assert (nobody["precision"], nobody["recall"], nobody["f1"]) == (0.0, 0.0, 0.0)
    several = values_of(utils.aggregate([item("1", [*"ABC"], [*"BCDE"])], Mode.STRICT))
    shares = [several[name] for name in ("precision", "recall", "f1")]
    assert shares == pytest.approx([2 / 3, 2 / 4, 4 / 7])
    unasked = [item("1", [], ["Y"]), item("2", ["Y"], ["Y"])]
    found = {e.name: e for e in utils.aggregate(unasked, Mode.PARITY)}
    head = measure(found["precision"])
    assert (head.value, head.n_scored, head.n_expected, head.is_headline) == (1.0, 1, 2, True)
    assert {name for name, e in found.items() if not e.bounded} == {"references"}
    assert {e.n_expected for e in found.values()} == {2}
    later = (Score(None, JudgeStatus.TIMEOUT), paper("Y"))
    again = replace(unasked[1], scores={"reference:0": later})
    assert values_of(utils.aggregate([again], Mode.STRICT))["precision"] == 1.0


def test_addresses_are_found_once_a_page() -> None:
    report = 'See [x](https://a.example/x?v=1) and https://a.example/x#y, "https://b.example/z".'
    assert texts.find_references(report) == ["https://a.example/x?v=1", "https://b.example/z"]


@given(st.lists(st.sampled_from(["# A", "## B", "#### no header", "text", "", "x" * 30])))
def test_blocks_keep_every_line_in_order(lines: list[str]) -> None:
    blocks = texts.split_blocks("\n".join(lines), max_chars=40)
    kept = [line for block in blocks for line in block.split("\n") if line]
    assert kept == [line for line in lines if line]
    headers = sum(line.startswith(("# ", "## ")) for line in lines)
    assert headers or all(len(block) <= 40 for block in blocks)


def test_statements_are_read_and_matched() -> None:
    good = '[{"statement": " S. ", "url": " https://a.example "}]'
    for mode in Mode:
        score = read("cited:0", f"```json{good}```", mode)
        assert json.loads(score.parts["statements"]) == [["S.", "https://a.example"]]
        assert read("match:0.0", '{"reason": "", "match": false}', mode).value == 0
        assert read("cited:0", '[{"statement": "S."}]', mode).value is None
    assert read("cited:0", f"Here: {good}", Mode.STRICT).value == 1
    assert read("cited:0", f"Here: {good}", Mode.PARITY).value is None
    assert read("match:0.0", '{"match": "false"}', Mode.STRICT).value is None
    assert read("match:0.0", '{"match": "false"}', Mode.PARITY).value == 1, "upstream's bool()"


def test_the_data_have_the_documented_shape(benchmarks: Path) -> None:
    data = INFO.data(data_roots(str(benchmarks)))
    samples = list(utils.load_samples(data))
    assert len(samples) == INFO.n_samples == 100
    assert all(sample.meta["references"] for sample in samples)
    assert "{" not in samples[0].messages[0].content
    first = data.path("ground_truth_titles.jsonl").read_bytes().split(b"\n")[0]
    record = json.loads(first)
    line = json.dumps({**record, "author": "left out"}).encode()
    assert build.make_line(record["arxiv_id"], line) == first + b"\n"


@pytest.mark.parametrize("mode", ["strict", "parity"])
def test_a_run_over_recorded_pages(
    benchmarks: Path, tmp_path: Path, own_cache: Path, mode: str
) -> None:
    data = INFO.data(data_roots(str(benchmarks)))
    record = json.loads(data.path("ground_truth_titles.jsonl").read_bytes().split(b"\n")[0])
    store = PageStore(tmp_path / "pages")
    known, other, gone = (f"https://{name}.example/p" for name in ("known", "other", "gone"))
    store.write(Page(known, PageStatus.OK, "Abstract.", record["title"]))
    store.write(Page(other, PageStatus.OK, "Abstract.", "A title that nobody wrote"))
    store.write(Page(gone, PageStatus.HTTP_ERROR, http_status=404))
    report = {"id": record["arxiv_id"], "response": f"# A\nS {known} .\n# B\nT {other} , {gone} ."}
    (tmp_path / "reports.jsonl").write_text(json.dumps(report), "utf-8")
    config = RunConfig(
        tasks="reportbench",
        model="mine",
        responses=str(tmp_path / "reports.jsonl"),
        only_recorded=True,
        data_dir=str(benchmarks),
        out=str(tmp_path / "run"),
        mode=mode,
        pages=f"replay:{tmp_path / 'pages'}",
        cache=False,
    )
    with FakeServer() as server:
        judge = (f"{server.base_url}#judge-0",)
        outcome = asyncio.run(evaluate(replace(config, judge=judge)))
    asked = [j.criterion.partition(":")[0] for j in outcome.folder.judgements()]
    counts = {stage: asked.count(stage) for stage in ("reference", "cited", "passage", "match")}
    assert counts == {"reference": 2, "cited": 1, "passage": 2, "match": 2}
    found = {metric.name: metric.value for metric in outcome.results[0].metrics}
    assert (found["precision"], found["references"]) == (0.5, 2.0)
    assert found["cited_match_rate"] is not None
    assert outcome.results[0].pages == PageCounts(3, {"http_error": 1})
    line = "2 of 3 read; lost: http_error 1"
    assert line in describe_counts(outcome.results[0])
    assert line in outcome.folder.report_path.read_text("utf-8")
    (stored,) = json.loads(outcome.folder.results_path.read_bytes())
    assert stored["pages"] == {"n_wanted": 3, "failures": {"http_error": 1}}


def test_matches_are_those_of_the_repeat_whose_statements_count() -> None:
    """The first repeat named two statements, the last one: the second match is of another text."""
    scores = {"cited:0": (Score(2.0), Score(1.0)), "match:0.0": (Score(0.0), Score(1.0)),
              "match:0.1": (Score(0.0),)}  # fmt: skip
    own = [replace(item("1", [], []), scores=scores)]
    assert values_of(utils.aggregate(own, Mode.STRICT))["cited_match_rate"] == 1.0
