"""FACT: verdicts upstream's way and strictly, statistics, and whole runs over recorded pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import QuietHandler, ScriptedServer, completion, serve

from r2w_eval.config import RunConfig
from r2w_eval.errors import DataError, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.client import HttpModel
from r2w_eval.results.summary import put_at_floor
from r2w_eval.run import Outcome, evaluate, judge_again
from r2w_eval.suites.parity import values_of
from r2w_eval.suites.suite import Suite, load_info, load_module, load_suite
from r2w_eval.types import ItemVerdicts, JudgeRequest, JudgeStatus, Mode, Score, WriterStatus
from r2w_eval.web.pages import PageCounts

INFO = load_info("deepresearch_bench_fact")
SUITE: Suite = load_suite(INFO.folder)
VERDICTS = load_module(INFO.folder / "verdicts.py", "fact_verdicts")
FACT = {"fact": "See [A study](https://a.example/x) now.", "url": "https://a.example/x"}
FACTS = json.dumps([{**FACT, "ref_idx": "1"}])


def read(name: str, text: str, mode: Mode, n: int = 2) -> Score:
    return SUITE.parse_verdict[mode](JudgeRequest(name, (), facts={"n": n}), text)


def validated(*results: str, first: int = 1) -> str:
    return json.dumps([{"idx": n, "result": r} for n, r in enumerate(results, first)])


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("text", [FACTS, f"```json\n{FACTS}\n```"])
def test_facts_are_extracted_with_links_reduced_to_titles(mode: Mode, text: str) -> None:
    score = read("extract", text, mode)
    assert json.loads(score.parts["facts"]) == [["See [A study] now.", "https://a.example/x"]]
    assert (score.value, score.parts["groups"]) == (1.0, [1])
    assert read("extract", "[]", mode).value == 0, "a report without citations"


def test_the_order_of_addresses_is_that_of_their_first_fact() -> None:
    entries = [{"fact": str(n), "url": url} for n, url in enumerate("baab")]
    score = read("extract", json.dumps(entries), Mode.STRICT)
    assert score.parts["groups"] == [2, 2]


@pytest.mark.parametrize(
    ("text", "strict", "parity"),
    [
        (f"Here: {FACTS}", JudgeStatus.OK, JudgeStatus.PARSE_ERROR),
        (r'[{"fact": "a \> b", "url": "u"}]', JudgeStatus.OK, JudgeStatus.OK),
        (r'[{"fact": "a \\> b", "url": "u"}]', JudgeStatus.OK, JudgeStatus.PARSE_ERROR),
        ("It cites nothing: []", JudgeStatus.OK, JudgeStatus.PARSE_ERROR),
        ('[{"fact": "a", "url": []', JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR),
        ('[{"fact": "a"}]', JudgeStatus.CRITERIA_MISMATCH, JudgeStatus.UPSTREAM_LOST),
        ('[{"url": "u"}]', JudgeStatus.CRITERIA_MISMATCH, JudgeStatus.PARSE_ERROR),
        ('[{"fact": 5, "url": "u"}]', JudgeStatus.CRITERIA_MISMATCH, JudgeStatus.PARSE_ERROR),
        ('{"fact": "a", "url": "u"}', JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR),
        ("", JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR),
        ("[" * 100_000, JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR),
    ],
)
def test_odd_extractions_are_statuses(text: str, strict: JudgeStatus, parity: JudgeStatus) -> None:
    assert read("extract", text, Mode.STRICT).status is strict
    assert read("extract", text, Mode.PARITY).status is parity


@pytest.mark.parametrize(
    ("text", "strict", "parity"),
    [
        ("[2]", [2], [2]),
        ("```json\n[2, 1]\n```", [1, 2], [2, 1]),
        ("I keep both: [1, 2].", [1, 2], JudgeStatus.PARSE_ERROR),
        ("[1] repeats [2]: [2]", JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR),
        ("[]", JudgeStatus.OUT_OF_RANGE, [1, 2]),
        ("[0]", JudgeStatus.OUT_OF_RANGE, [1, 2]),
        ("[1, 1, 2]", JudgeStatus.OUT_OF_RANGE, [1, 2]),
        ("[1, 1]", JudgeStatus.OUT_OF_RANGE, [1, 1]),
        ("[-1]", JudgeStatus.OUT_OF_RANGE, [1]),
        ("[-2]", JudgeStatus.OUT_OF_RANGE, JudgeStatus.UPSTREAM_LOST),
        ("[3]", JudgeStatus.OUT_OF_RANGE, JudgeStatus.UPSTREAM_LOST),
        ('["1"]', JudgeStatus.PARSE_ERROR, JudgeStatus.UPSTREAM_LOST),
        ("5", JudgeStatus.PARSE_ERROR, JudgeStatus.UPSTREAM_LOST),
        ("null", JudgeStatus.PARSE_ERROR, [1, 2]),
        ("keep all", JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR),
    ],
)
def test_what_deduplication_keeps(text: str, strict: Any, parity: Any) -> None:
    for mode, wanted in ((Mode.STRICT, strict), (Mode.PARITY, parity)):
        score = read("deduplicate:0", text, mode)
        found = score.status if score.value is None else score.parts["kept"]
        assert found == wanted, (mode, score)


@pytest.mark.parametrize(
    ("text", "strict", "parity"),
    [
        (validated("supported", "unknown"), 0.5, 0.5),
        (f"So: {validated('supported', 'unsupported')}", 0.5, JudgeStatus.PARSE_ERROR),
        (validated("supported", "unsupported", first=0), JudgeStatus.CRITERIA_MISMATCH, 0.5),
        (validated("supported"), JudgeStatus.CRITERIA_MISMATCH, JudgeStatus.CRITERIA_MISMATCH),
        (validated("supported", "partly"), JudgeStatus.UNKNOWN_LABEL, 0.5),
        ('[{"idx": 1}, {"idx": 2}]', JudgeStatus.UNKNOWN_LABEL, JudgeStatus.UPSTREAM_LOST),
        ('[{"idx": "1"}, {"idx": 2}]', JudgeStatus.UNKNOWN_LABEL, JudgeStatus.PARSE_ERROR),
        ("[1, 2]", JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR),
    ],
)
def test_what_validation_says(text: str, strict: Any, parity: Any) -> None:
    for mode, wanted in ((Mode.STRICT, strict), (Mode.PARITY, parity)):
        score = read("validate:0", text, mode)
        assert (score.status if score.value is None else score.value) == wanted, (mode, score)


@given(st.text(max_size=200), st.sampled_from(["extract", "deduplicate:0", "validate:0"]))
def test_no_text_breaks_a_reader(text: str, name: str) -> None:
    for mode in Mode:
        read(name, text, mode)
        read(name, json.dumps([text]), mode)


def item(sample_id: str, *counts: tuple[int, int, int] | None) -> ItemVerdicts:
    """A report with one address per (supported, unsupported, unknown); None: a lost validation."""
    scores: dict[str, tuple[Score, ...]] = {}
    facts = []
    for number, count in enumerate(counts):
        facts += [("f", str(number))] * (2 if count is None else sum(count))
        lost = Score(None, JudgeStatus.PARSE_ERROR, "lost")
        results = (
            []
            if count is None
            else [r for r, n in zip(VERDICTS.RESULTS, count, strict=True) for _ in range(n)]
        )
        scores[f"validate:{number}"] = (VERDICTS.support_score(results) if results else lost,)
        scores[f"deduplicate:{number}"] = (VERDICTS.kept_score([1, 2]),)
    scores["extract"] = (VERDICTS.facts_score(facts),)
    return ItemVerdicts(sample_id, "en", {}, WriterStatus.OK, scores)


def test_micro_macro_and_all_reports_differ_as_named() -> None:
    reports = [item("1", (3, 1, 0)), item("2", (0, 1, 1)), item("3")]
    found = values_of(SUITE.aggregate(reports, Mode.STRICT))
    assert found["valid_rate"] == pytest.approx(3 / 5)
    assert found["valid_rate:macro"] == pytest.approx((3 / 4 + 0) / 2)
    assert (found["total_citations"], found["total_valid_citations"]) == (2.5, 1.5)
    assert found["total_citations:all_reports"] == pytest.approx(5 / 3)
    assert found["total_valid_citations:all_reports"] == 1.0
    assert found["unknown_share"] == pytest.approx(1 / 6)


def test_at_the_floor_a_failed_report_has_average_citations_without_support() -> None:
    failed = [ItemVerdicts(name, "en", {}, WriterStatus.EMPTY, {}) for name in "ab"]
    reports = [item("1", (3, 1, 0)), item("2", (6, 0, 0))]
    assert values_of(SUITE.aggregate([*reports, *failed], Mode.STRICT))["valid_rate"] == 0.9
    floored = [put_at_floor(report, ("extract",), (Score(0.0),)) for report in failed]
    for mode in Mode:
        assert values_of(SUITE.aggregate([*reports, *floored], mode))["valid_rate"] == 0.45
        assert values_of(SUITE.aggregate(floored, mode))["valid_rate"] == 0.0


def test_a_lost_validation_costs_the_address_upstream_and_the_report_here() -> None:
    reports = [item("1", (2, 0, 0), None), item("2", (1, 1, 0))]
    strict, parity = (
        values_of(SUITE.aggregate(reports, mode)) for mode in (Mode.STRICT, Mode.PARITY)
    )
    assert strict["valid_rate"] == 0.5
    assert parity["valid_rate"] == 0.75


ARTICLE = "<p>The ferry came on the tenth day, at dawn, with mail.</p>"
PAGES = {
    "/good": f"<html><body><article>{ARTICLE}</article></body></html>".encode(),
    "/robots.txt": b"User-agent: *\nDisallow: /private",
    "/private": b"secret",
}


class Site(QuietHandler):
    """A small web site."""

    def do_GET(self) -> None:
        body = PAGES.get(self.path)
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")


@pytest.fixture
def site() -> Iterator[str]:
    pytest.importorskip("trafilatura", reason="needs pip install 'r2w-eval[pages]'")
    with serve(Site) as address:
        yield address


@pytest.fixture
def config(benchmarks: Path, tmp_path: Path, own_cache: Path) -> RunConfig:
    return RunConfig(
        tasks="deepresearch_bench_fact",
        model="mine",
        responses=str(tmp_path / "reports.jsonl"),
        only_recorded=True,
        data_dir=str(benchmarks),
        out=str(tmp_path / "run"),
        pages=f"record:{tmp_path / 'pages'}",
        pages_allow="127.0.0.0/8",
        cache=False,
    )


def write_reports(config: RunConfig, *articles: str) -> None:
    lines = [
        json.dumps({"id": n, "prompt": "", "article": text}) for n, text in enumerate(articles, 1)
    ]
    Path(str(config.responses)).write_text("\n".join(lines), "utf-8")


def read_statuses(folder: Path) -> list[str]:
    return [json.loads(path.read_bytes())["status"] for path in folder.glob("*.json")]


def run(config: RunConfig, server: FakeServer, **changes: Any) -> Outcome:
    judge = (f"{server.base_url}#judge-0",)
    return asyncio.run(evaluate(replace(config, judge=judge, **changes)))


def test_a_run_reads_records_and_replays_the_cited_pages(
    config: RunConfig, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = tmp_path / "records"
    config = replace(
        config, cache=True, cache_dir=str(records), pages=f"record:{records / 'pages'}"
    )
    cited = f"One {site}/good for one. Two ({site}/good#part) and {site}/gone and {site}/private"
    write_reports(config, cited, "No citation at all.")
    with FakeServer() as server:
        recorded = run(config, server)
        n_sent = server.stats().total.requests
    result = recorded.results[0]
    assert result.identity["inputs"] == {"reports": "given", "pages": "live"}
    found = {metric.name: metric for metric in result.metrics}
    assert (
        found["total_citations"].n_scored == 1
        and found["total_citations:all_reports"].n_scored == 2
    )
    asked = {j.criterion: j.score for j in recorded.folder.judgements()}
    assert {asked[f"validate:{n}"].parts["unknown"] for n in (2, 3)} == {1}, "two pages are unread"
    assert n_sent == 2 + 4
    statuses = sorted(read_statuses(records / "pages"))
    assert statuses == ["http_error", "ok", "robots"], "a fragment is no page of its own"
    # judge and site are gone for the second run: even an attempt to connect would fail
    monkeypatch.setattr(HttpModel, "_open", None)
    monkeypatch.setattr("r2w_eval.web.fetching.LiveFetcher", None)
    offline: dict[str, Any] = {"cache_dir": None, "pages": None, "pages_allow": "", "max_cost": 0.0}
    replayed = run(config, server, **offline, replay=str(records), out=str(tmp_path / "again"))
    again = replayed.results[0]
    assert again.metrics == result.metrics and again.judging == result.judging
    assert again.pages == result.pages == PageCounts(4, {"http_error": 1, "robots": 1})
    assert again.identity["inputs"]["pages"] != "live" and again.score_key != result.score_key
    texts = [
        {j.criterion: j.asks for j in outcome.folder.judgements()}
        for outcome in (recorded, replayed)
    ]
    assert texts[0] == texts[1]
    reread = asyncio.run(judge_again(recorded.folder, config, reparse=True))
    assert reread.results[0].metrics == result.metrics


def test_a_page_that_was_never_recorded_stops_the_run(config: RunConfig, tmp_path: Path) -> None:
    write_reports(config, "See http://10.0.0.1/inside.")
    (tmp_path / "empty").mkdir()
    with (
        FakeServer() as server,
        pytest.raises(DataError, match="no record of 'http://10.0.0.1/inside"),
    ):
        run(config, server, pages=f"replay:{tmp_path / 'empty'}")


def test_private_pages_are_refused_and_the_run_goes_on(config: RunConfig, tmp_path: Path) -> None:
    pytest.importorskip("trafilatura", reason="needs pip install 'r2w-eval[pages]'")
    write_reports(config, "See http://169.254.169.254/latest and http://10.0.0.5/x")
    with FakeServer() as server:
        outcome = run(config, server, pages_allow="", pages="live")
    assert read_statuses(tmp_path / "run" / "pages") == ["refused_address"] * 2
    assert outcome.results[0].judging.coverage == 1.0


def test_without_access_to_pages_nothing_is_sent(config: RunConfig) -> None:
    write_reports(config, "x")
    with pytest.raises(UsageError, match="it needs --pages live, record:DIR or replay:DIR"):
        asyncio.run(evaluate(replace(config, pages=None)))
    with pytest.raises(UsageError, match="none of the suites quickstart reads web pages"):
        asyncio.run(evaluate(replace(config, tasks="quickstart")))


def test_parity_asks_as_often_as_upstream(config: RunConfig, tmp_path: Path) -> None:
    """One extraction; three tries of a deduplication, which then keeps all; three validations."""
    pytest.importorskip("trafilatura", reason="needs pip install 'r2w-eval[pages]'")
    write_reports(config, "x")
    facts = json.dumps([{"fact": f"f{n}", "ref_idx": "1", "url": "ftp://a"} for n in (1, 2)])
    texts = [
        facts,
        "no",
        "no",
        "no",
        "no",
        validated("supported"),
        validated("supported", "unknown"),
    ]
    with ScriptedServer(*((200, {}, completion(text)) for text in texts)) as server:
        judge = (f"{server.base_url}#judge",)
        outcome = asyncio.run(evaluate(replace(config, judge=judge, mode="parity")))
    found = {j.criterion: j for j in outcome.folder.judgements()}
    assert {name: len(j.asks) for name, j in found.items()} == {
        "extract": 1,
        "deduplicate:0": 3,
        "validate:0": 3,
    }
    assert found["deduplicate:0"].score.parts["kept"] == [1, 2]
    assert outcome.results[0].headline.value == 1.0


def test_validations_are_those_of_the_repeat_whose_citations_count() -> None:
    once, again = item("1", (2, 0, 0), (0, 2, 0)), item("1", (2, 0, 0), (1, 1, 0))
    scores = {name: (*once.scores[name], *again.scores[name]) for name in once.scores}
    del scores["validate:1"]
    scores["validate:1"] = once.scores["validate:1"]
    both = replace(once, scores=scores)
    assert values_of(SUITE.aggregate([both], Mode.STRICT))["valid_rate"] is None
    assert values_of(SUITE.aggregate([both], Mode.PARITY))["valid_rate"] == 1.0
