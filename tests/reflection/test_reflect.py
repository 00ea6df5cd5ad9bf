"""The reflect command end to end: files, a real run, a judge over HTTP, the page in a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support import open_chromium

from r2w_eval.cli import cli
from r2w_eval.config import RunConfig
from r2w_eval.errors import DataError, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.hashing import dump_line
from r2w_eval.reflection.report import mark_text
from r2w_eval.reflection.sources import read_file, read_run
from r2w_eval.run import evaluate
from r2w_eval.store import RunFolder, iter_jsonl
from r2w_eval.suites.suite import load_info
from r2w_eval.trace.types import Span
from r2w_eval.types import Judgement, Response, Score, Usage, WriterStatus

HOSTILE = (
    '</div></script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">'
    "\u202egnp\x00{{ 7*7 }} \ud800 </think>"
)
THINKING = (
    "<plan>Rain, two lines.</plan><draft>The rain was very sad. Nobody came.</draft>"
    '<reflection>"very sad" tells. Replace it.</reflection>'
    "<revision>The rain kept count. Nobody came.</revision>"
    '<reflection>"very sad" tells. Replace it.</reflection>'
)
CHINESE = "初稿：\n雨停了。\n\n这句太平淡。改成：“雨停在门口。”"
STRANGE = f"<draft>{HOSTILE}</draft><reflection>{HOSTILE} is too odd</reflection>"
TRACES = [
    {"id": "a", "prompt": "Rain.", "thinking": THINKING, "answer": "The rain kept count."},
    {"id": "b", "prompt": "雨。", "thinking": CHINESE, "answer": "雨停在门口。"},
    {"id": "h", "prompt": HOSTILE, "thinking": STRANGE, "answer": HOSTILE},
    {"id": "n", "thinking": None, "answer": "No thought."},
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def invoke(*args: str) -> str:
    result = CliRunner().invoke(cli, ["reflect", *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reflect")
    source = write_rows(folder / "traces.jsonl", TRACES)
    with FakeServer() as server:
        output = invoke(
            str(source),
            "--out",
            str(folder / "out"),
            "--judge",
            f"{server.base_url}#judge-0",
            "--no-cache",
        )
    assert "steps/improved" in output
    return folder / "out"


def test_the_files_hold_every_trace_and_reflection(out: Path) -> None:
    traces = {row["id"]: row for row in iter_jsonl(out / "traces.jsonl")}
    assert set(traces) == {"a", "b", "h", "n"}
    assert [s["kind"] for s in traces["b"]["segments"]] == [
        "plan",
        "draft",
        "reflection",
        "revision",
    ]
    rows = list(iter_jsonl(out / "reflections.jsonl"))
    own = [row for row in rows if row["id"] == "a"]
    assert own[0]["uptake_lift"] > 0.5 and own[0]["gain"] is not None
    assert own[1]["is_repeat"] and own[1]["in_answer"]
    table = pq.read_table(out / "reflections.parquet")
    assert table.num_rows == len(rows) and table.column_names == list(rows[0])
    summary = json.loads((out / "reflection.json").read_text())["traces"]
    assert (summary["n_responses"], summary["n_traces"]) == (4, 3)


def test_reflections_have_one_schema_with_or_without_verdicts(out: Path, tmp_path: Path) -> None:
    for name, rows in (("unjudged", TRACES[:1]), ("none", TRACES[-1:])):
        invoke(str(write_rows(tmp_path / f"{name}.jsonl", rows)), "--out", str(tmp_path / name))
    folders = (out, tmp_path / "unjudged", tmp_path / "none")
    tables = [pq.read_table(folder / "reflections.parquet") for folder in folders]
    judged, unjudged, none = tables
    assert judged.schema.equals(unjudged.schema) and judged.schema.equals(none.schema)
    assert unjudged.num_rows == 2 and unjudged["gain"].null_count == 2 and none.num_rows == 0
    assert any("\ufffd" in text for text in judged["text"].to_pylist())


def test_the_page_escapes_model_text_and_loads_nothing(out: Path) -> None:
    page = (out / "traces.html").read_text("utf-8")
    assert "<script>window" not in page and 'onerror="' not in page
    assert "\u202e" not in page and "\x00" not in page and "49 " not in page
    assert "default-src 'none'" in page


@pytest.fixture
def browser() -> Iterator[Any]:
    with open_chromium() as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_filters_work_in_a_browser(browser: Any, out: Path, scheme: str) -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    problems: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto((out / "traces.html").as_uri())
    assert tab.evaluate("window.hacked") is None
    assert len(requests) == 1 and not problems
    steps = tab.locator(".step")
    everything = steps.count()
    assert sum(steps.nth(i).is_visible() for i in range(everything)) == everything
    tab.get_by_label("repeats").check()
    assert sum(steps.nth(i).is_visible() for i in range(everything)) == 1
    assert "1 step" in tab.locator("output").first.inner_text()
    # no sideways scrolling of the page on a phone
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    tab.close()


def test_a_runs_results_carry_the_reflection_block(tmp_path: Path, own_cache: Path) -> None:
    sample = next(iter_jsonl(load_info("quickstart").folder / "samples.jsonl"))
    source = write_rows(
        tmp_path / "answers.jsonl",
        [{"id": sample["id"], "response": f"<think>{THINKING}</think>The rain kept count."}],
    )
    with FakeServer() as server:
        config = RunConfig(
            responses=str(source),
            only_recorded=True,
            judge=(f"{server.base_url}#judge-0",),
            out=str(tmp_path / "run"),
            cache=False,
        )
        asyncio.run(evaluate(config))
    [result] = json.loads((tmp_path / "run/results.json").read_text())
    block = result["reflection"]
    assert (block["n_traces"], block["n_reflections"], block["judge"]) == (1, 2, None)
    values = {metric["name"]: metric["value"] for metric in block["metrics"]}
    assert values["reflections_per_trace"] == 2.0 and values["repeats"] == 0.5
    [path] = (tmp_path / "run").glob("lm_eval/*/results_*.json")
    assert json.loads(path.read_text())["r2w"]["reflection"]["quickstart"] == block
    assert "Thinking: 2 reflections" in (tmp_path / "run/report.html").read_text("utf-8")
    output = invoke(str(tmp_path / "run"))
    assert "1 of 1 responses think" in output
    rows = list(iter_jsonl(tmp_path / "run/reflect/traces.jsonl"))
    assert rows[0]["score"] is not None


def test_a_response_scores_its_newest_verdicts_and_no_stages(tmp_path: Path) -> None:
    response = Response("k", "discox", "1", "writer", "x", "x", "Hm.", WriterStatus.OK)
    verdicts = [("first", 5_000.0), ("accuracy", 10.0), ("accuracy", 50.0), ("fluency", 20.0)]
    judged = [
        Judgement(f"j{n}", "k", "discox", "1", "judge", criterion, Score(value))
        for n, (criterion, value) in enumerate(verdicts)
    ]
    (tmp_path / "responses.jsonl").write_bytes(dump_line(response))
    (tmp_path / "judgements.jsonl").write_bytes(b"".join(map(dump_line, judged)))
    [source] = read_run(RunFolder(tmp_path))["discox"]
    assert source.score == 35.0


def test_a_run_without_thinking_has_no_block(tmp_path: Path, own_cache: Path) -> None:
    with FakeServer() as server:
        config = RunConfig(
            model=f"{server.base_url}#gen-0",
            judge=(f"{server.base_url}#judge-0",),
            out=str(tmp_path / "run"),
            limit=2,
            cache=False,
        )
        asyncio.run(evaluate(config))
    [result] = json.loads((tmp_path / "run/results.json").read_text())
    assert result["reflection"] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no record"),
        ('{"id": "a", "thinking": 7}\n', "must be texts"),
        ('{"id": "a"}\n', "."),
        ('{"id": "a", "thinking": "b"}\n[1]\n', "line 2: a list"),
    ],
)
def test_a_file_that_holds_no_traces_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises((UsageError, DataError), match=message):
        read_file(path)
    with pytest.raises(UsageError, match="no such run folder or file"):
        read_file(tmp_path / "none.jsonl")


def test_the_last_trace_of_a_file_needs_no_newline(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a", "thinking": "Hm."}\n{"id": "b", "thinking": "Ah."}')
    assert [one.id for one in read_file(path)] == ["a", "b"]


def test_marks_may_overlap() -> None:
    pieces = mark_text("abcd", {"del": [Span(0, 3)], "target": [Span(2, 4)]})
    assert [(p.text, p.classes) for p in pieces] == [
        ("ab", "del"),
        ("c", "del target"),
        ("d", "target"),
    ]


def test_ten_megabytes_of_one_sentence_are_analysed(tmp_path: Path) -> None:
    text = "Draft:\n" + "It rained on the town. " * 450_000
    source = write_rows(tmp_path / "big.jsonl", [{"id": "a", "thinking": text, "answer": "x"}])
    assert "1 of 1 responses think" in invoke(str(source), "--out", str(tmp_path / "out"))
    assert (tmp_path / "out/traces.html").stat().st_size < 200_000


def test_our_own_answers_are_the_newest_and_bring_their_tokens(tmp_path: Path) -> None:
    first = Response(
        "k", "t", "s", "m", raw="", answer="", thinking=None, status=WriterStatus.EMPTY
    )
    tokens = Usage(completion_tokens=110, reasoning_tokens=100)
    again = replace(first, thinking="Hm.", raw="Rain.", answer="Rain.", usage=tokens,
                    status=WriterStatus.OK)  # fmt: skip
    path = tmp_path / "responses.jsonl"
    lost = replace(first, sample_id="lost", status=WriterStatus.ERROR)
    path.write_bytes(dump_line(first) + dump_line(lost) + dump_line(again))
    (found,) = read_file(path)
    assert (found.answer, found.thinking, found.usage) == ("Rain.", "Hm.", tokens)


def test_a_row_without_thinking_takes_none_from_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"id": "off", "answer": "Rain."},
        {"id": "on", "thinking": "Hm.", "answer": "Rain."},
        {"id": "tags", "response": "<think>Ah.</think>Rain."},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [(one.id, one.thinking, one.answer) for one in read_file(path)]
    assert found == [("off", None, "Rain."), ("on", "Hm.", "Rain."), ("tags", "Ah.", "Rain.")]
