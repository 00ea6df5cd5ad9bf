"""DeepResearchGym's citation questions: who is asked what, over which pages, and what is read."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from r2w_eval.tasks.deepresearch_gym import questions, utils

from r2w_eval.config import RunConfig
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.run import Outcome, evaluate
from r2w_eval.types import JudgeRequest, JudgeStatus, Mode, Score
from r2w_eval.web.pages import Page, PageStatus, PageStore

GOOD, GONE = "https://good.example/a", "https://gone.example/b"


def claims(*sources: list[str], ids: tuple[int, ...] = (1, 2, 3)) -> str:
    entries = [
        {"claim_id": n, "claim": f"Claim {i}.", "sources": own}
        for i, (n, own) in enumerate(zip(ids, sources, strict=False))
    ]
    return json.dumps({"claims": entries})


def read(name: str, text: str, mode: Mode) -> Score:
    return utils.SUITE.parse_verdict[mode](JudgeRequest(name, ()), text)


@pytest.mark.parametrize("mode", list(Mode))
def test_claims_and_recall_are_read_from_the_same_list(mode: Mode) -> None:
    text = claims([GOOD], [], [GOOD, GONE])
    found = read("claims", text, mode)
    assert found.value == 3
    assert json.loads(found.parts["claims"])[2] == ["Claim 2.", [GOOD, GONE]]
    assert read("recall", text, mode).value == pytest.approx(2 / 3)
    assert read("recall", '{"claims": []}', mode).value == 0


def test_upstream_keeps_the_later_of_two_claims_with_one_number() -> None:
    text = claims([GOOD], [GONE], ids=(7, 7))
    assert read("claims", text, Mode.STRICT).value == 2
    found = read("claims", text, Mode.PARITY)
    assert json.loads(found.parts["claims"]) == [["Claim 1.", [GONE]]]


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"claims": {}}', '{"claims": [5]}', '{"claims": [{"claim": "x", "sources": "u"}]}'],
)
def test_an_unreadable_list_is_a_status_and_upstreams_empty_one(text: str) -> None:
    for mode in Mode:
        assert read("claims", text, mode).status is JudgeStatus.PARSE_ERROR
    settle = utils.SUITE.parity.settle
    assert settle is not None
    for name in ("claims", "recall"):
        settled = settle(JudgeRequest(name, ()), [text])
        assert settled is not None and settled.value == 0
    for name in ("support:0", "point:1", "quality:Clarity"):
        assert settle(JudgeRequest(name, ()), [text]) is None


def test_support_has_three_labels() -> None:
    good = '{"support": "partial_support", "justification": ""}'
    for mode in Mode:
        assert read("support:0", good, mode).value == 0.5
        assert read("support:0", '{"support": "some"}', mode).status is JudgeStatus.UNKNOWN_LABEL
    assert read("support:0", f"So: {good}", Mode.STRICT).value == 0.5
    assert read("support:0", f"So: {good}", Mode.PARITY).status is JudgeStatus.PARSE_ERROR


def test_pages_lose_their_addresses_and_unread_ones_are_shown_by_parity_only() -> None:
    pages = [
        Page(GOOD, PageStatus.OK, f"It came ({GOOD} and www.x.example too)", "Ferries"),
        Page(GONE, PageStatus.HTTP_ERROR),
    ]
    assert questions.show_pages(pages, Mode.STRICT) == ["Ferries\n\nIt came ( and  too)"]
    assert questions.show_pages(pages, Mode.PARITY)[1] == "**Error for  http_error"


@pytest.fixture
def config(benchmarks: Path, tmp_path: Path, own_cache: Path) -> RunConfig:
    store = PageStore(tmp_path / "pages")
    store.write(Page(GOOD, PageStatus.OK, "The ferry came on the tenth day."))
    store.write(Page(GONE, PageStatus.HTTP_ERROR, http_status=404))
    ids = [
        json.loads(line)["id"]
        for line in (benchmarks / "deepresearch_gym/queries.jsonl").read_bytes().split(b"\n")[:2]
    ]
    texts = (f"It came {GOOD} and went {GONE} .", "No address at all.")
    lines = [json.dumps({"id": i, "answer": t}) for i, t in zip(ids, texts, strict=True)]
    (tmp_path / "reports.jsonl").write_text("\n".join(lines), "utf-8")
    return RunConfig(
        tasks="deepresearch_gym",
        model="mine",
        responses=str(tmp_path / "reports.jsonl"),
        only_recorded=True,
        data_dir=str(benchmarks),
        out=str(tmp_path / "run"),
        cache=False,
    )


def run(config: RunConfig) -> Outcome:
    with FakeServer() as server:
        return asyncio.run(evaluate(replace(config, judge=(f"{server.base_url}#judge-0",))))


@pytest.mark.parametrize(("mode", "n_checked"), [("strict", 1), ("parity", 2)])
def test_citations_are_judged_where_a_run_may_read_pages(
    config: RunConfig, tmp_path: Path, mode: str, n_checked: int
) -> None:
    outcome = run(replace(config, mode=mode, pages=f"replay:{tmp_path / 'pages'}"))
    asked = [j.criterion for j in outcome.folder.judgements()]
    assert (asked.count("claims"), asked.count("recall")) == (1, 1), "nothing to ask of the other"
    assert sum(name.startswith("support:") for name in asked) == n_checked
    result = outcome.results[0]
    found = {metric.name: metric for metric in result.metrics}
    assert found["citation_recall"].value == pytest.approx(100 * (2 / 3) / 2)
    precision = found["citation_precision"]
    assert precision.n_scored == 2 and precision.value is not None
    assert "pages" in result.identity["inputs"]


def test_without_pages_nothing_is_asked_about_citations(config: RunConfig) -> None:
    outcome = run(config)
    assert not any(
        utils.is_about_citations(JudgeRequest(j.criterion, ())) for j in outcome.folder.judgements()
    )
    assert not any("citation" in metric.name for metric in outcome.results[0].metrics)
