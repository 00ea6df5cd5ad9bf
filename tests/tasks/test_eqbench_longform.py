"""EQ-Bench Longform: strict reading, variants, turns under a kill. Published rows: parity.py."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.eqbench_longform import scoring, utils

from r2w_eval.config import RunConfig
from r2w_eval.data import SuiteData
from r2w_eval.errors import DataError, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.records.recorded import open_recorded
from r2w_eval.run import job as run
from r2w_eval.stats.inference import evaluate
from r2w_eval.store import iter_jsonl
from r2w_eval.suites.suite import JudgingJob, load_info
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

INFO = load_info("eqbench_longform")
SUITE = utils.SUITE
TURNS = tuple(f"OUTPUT {number}" for number in range(1, 14))


def values_of(items: list[ItemVerdicts], mode: Mode) -> dict[str, float]:
    found = {e.name: evaluate(e) for e in SUITE.aggregate(items, mode)}
    return {name: value for name, value in found.items() if value is not None}


def test_the_final_call_shows_the_whole_story(data: SuiteData, samples: dict[str, Sample]) -> None:
    answer = Answer("x", "x", WriterStatus.OK, TURNS)
    job = JudgingJob(samples["1"], answer, SUITE.load_templates(data), Mode.STRICT)
    requests = SUITE.plan_judging(job)
    assert [r.criterion for r in requests] == list(SUITE.criteria(samples["1"]))
    final = requests[-1].messages[0].content
    assert "# Chapter 1\n\nOUTPUT 6\n\n---\n\n# Chapter 2\n\nOUTPUT 7" in final
    assert "OUTPUT 5" not in final and "{" not in final


def test_the_conversation_has_thirteen_turns(samples: dict[str, Sample]) -> None:
    assert len(samples) == INFO.n_samples
    for sample in samples.values():
        asked, answers = [sample.messages[0].content], []
        while (following := SUITE.next_turn(sample, answers := [*answers, "text"])) is not None:  # type: ignore[misc]
            asked.append(following)
        assert len(asked) == SUITE.n_turns == 13
        assert sample.material["writing_prompt"] in asked[0]
        assert not any(re.search(r"\{\w+\}", turn) for turn in asked)
        assert [f"chapter {n}" in asked[n + 4] for n in range(1, 9)] == [True] * 8


NAMES = ("Plot", "Tell-Don't-Show", "Forced Poetry or Metaphor")
FACTS = {
    "criteria": NAMES,
    "negative": NAMES[1:],
    "weights": {"forced poetry or metaphor": 5},
}
REQUEST = JudgeRequest("chapter_1", (), facts=FACTS)


def strict(text: str) -> Score:
    return SUITE.parse_verdict[Mode.STRICT](REQUEST, text)


def test_strict_reads_names_however_they_are_marked() -> None:
    text = "[Scores]\n- **Plot**: [12]\n* Tell-Don’t Show: 4/20\nForced Poetry or Metaphor:  20"
    assert strict(text).value == pytest.approx((12 + 16 + 0 * 5) / 7)
    assert strict(text).parts["plain"] == pytest.approx((12 + 16 + 0) / 3)


@pytest.mark.parametrize(
    ("lines", "status", "told"),
    [
        ("Plot: 12\nTell-Don't-Show: 4", JudgeStatus.CRITERIA_MISMATCH, "missing: Forced"),
        (
            "Plot: 12\nTell-Don't-Show: 4\nForced Metaphors: 3",
            JudgeStatus.CRITERIA_MISMATCH,
            "not official: Forced Metaphors",
        ),
        (
            "Plot: 21\nTell-Don't-Show: 4\nForced Poetry or Metaphor: 3",
            JudgeStatus.OUT_OF_RANGE,
            "Plot is 21",
        ),
        ("A fine chapter.", JudgeStatus.PARSE_ERROR, "no line"),
        ("Plot: 12\n" * 100_000, JudgeStatus.PARSE_ERROR, "verdict of"),
    ],
)
def test_strict_types_what_it_cannot_use(lines: str, status: JudgeStatus, told: str) -> None:
    score = strict(lines)
    assert score.value is None and score.status is status and told in score.reason


def test_an_invented_criterion_counts_in_parity_only() -> None:
    text = "Plot: 10\nTell-Don't-Show: 10\nForced Poetry or Metaphor: 10\nCharm: 20"
    assert strict(text).parts["criteria"].keys() == set(NAMES)
    parity = SUITE.parse_verdict[Mode.PARITY](REQUEST, text)
    assert (
        "Charm" in parity.parts["criteria"] and parity.parts["plain"] > strict(text).parts["plain"]
    )


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("Plot:12\nPace: -4", {"Plot": 12, "Pace": 0}),
        ("x: y:7\n:5", {"y": 7}),
        ("SUMMARY: 3\nPlot: 1", {"Plot": 1}),
        ("Early: 3\n[Scores]\nPlot: 5\n---\nLate: 6", {"Plot": 5}),
    ],
)
def test_upstreams_reading_of_odd_lines(text: str, scores: dict[str, float]) -> None:
    assert scoring.parse_scores(text) == scores


def test_a_verdict_is_a_weighted_mean() -> None:
    signs = scoring.Signs.of(["Weak Plot "], {"plot": 3.0})
    assert scoring.judgement({"Plot": 10.0, "Weak plot": 16.0}, signs) == (30 + 4) / 4


def test_each_official_criterion_has_a_mean_of_what_the_judge_wrote() -> None:
    texts = ("Plot: 10\nCharm: 20", "Plot: 16\nTell-Don't-Show: 3")
    read = SUITE.parse_verdict[Mode.PARITY]
    scores = {f"chapter_{n}": (read(REQUEST, text),) for n, text in enumerate(texts, 1)}
    meta = {"criteria": {"chapter": list(NAMES), "final": ["Plot"]}}
    found = {
        e.name: evaluate(e)
        for e in SUITE.aggregate(
            [ItemVerdicts("1", "en", meta, WriterStatus.OK, scores)], Mode.PARITY
        )
    }
    assert found["chapter criterion/Plot"] == 13
    assert found["chapter criterion/Tell-Don't-Show"] == 3, "not turned round"
    assert found["final criterion/Plot"] is None and not any("Charm" in name for name in found)


def test_a_verdict_quoted_from_the_story_does_not_count() -> None:
    text = f"He wrote: Plot: 20\n[Scores]\nPlot: 2\n{NAMES[1]}: 1\n{NAMES[2]}: 0"
    assert strict(text).parts["criteria"]["Plot"] == 2


@given(st.text(max_size=300))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in SUITE.parse_verdict.values():
        for shown in (text, "[Scores]\n" + text):
            score = parse(REQUEST, shown)
            assert score.value is None or 0 <= score.value <= 20


def item(
    scores: Mapping[str, float | None], status: WriterStatus = WriterStatus.OK
) -> ItemVerdicts:
    made = {
        name: (Score(None, JudgeStatus.PARSE_ERROR) if v is None else Score(v, parts={"plain": v}),)
        for name, v in scores.items()
    }
    return ItemVerdicts("1", "en", {}, status, made)


def test_variants_differ_in_the_weight_of_the_final_verdict() -> None:
    scores = {**dict.fromkeys(utils.CHAPTERS, 10.0), utils.FINAL: 19.0}
    got = values_of([item(scores)], Mode.STRICT)
    assert got["score"] == pytest.approx((80 + 19) / 9 * 5)
    assert got["score:final4"] == pytest.approx((80 + 76) / 12 * 5)
    assert got["chapter_1"] == 10.0 and got["final"] == 19.0


def test_strict_wants_all_nine_verdicts() -> None:
    scores = {**dict.fromkeys(utils.CHAPTERS, 10.0), utils.FINAL: None}
    assert "score" not in values_of([item(scores)], Mode.STRICT)
    assert values_of([item(scores)], Mode.PARITY)["score"] == 50.0


def test_altered_or_wrongly_encoded_data_is_refused(benchmarks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "eqbench_longform"
    folder.mkdir()
    for name in INFO.files:
        content = (benchmarks / "eqbench_longform" / name).read_bytes()
        if name == "prompt1.txt":
            content = content.decode().encode("utf-16")
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=r"prompt1\.txt: altered"):
        list(SUITE.load_samples(INFO.data((tmp_path,))))


def test_a_conversation_killed_in_the_middle_goes_on_there(
    tmp_path: Path, benchmarks: Path, own_cache: Path
) -> None:
    path = tmp_path / "run" / "responses.jsonl"
    with FakeServer() as server:
        config = RunConfig(
            model=f"{server.base_url}#gen-60",
            tasks="eqbench_longform",
            judge=("none",),
            limit=1,
            out=str(path.parent),
            data_dir=str(benchmarks),
            cache=False,
        )
        job = f"import asyncio; from r2w_eval.run.job import *; asyncio.run(evaluate({config!r}))"
        process = subprocess.Popen([sys.executable, "-c", job])
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (
            path.exists() and path.read_bytes().count(b"\n") >= 3
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        before = list(iter_jsonl(path))
        assert 3 <= len(before) < 13
        server.reset()
        asyncio.run(run.evaluate(config))
        sent = server.stats().by_model["gen-60"].requests
    assert sent == 13 - len(before)
    rows = list(iter_jsonl(path))
    assert [row["turn"] for row in rows] == list(range(13))
    assert rows[: len(before)] == before
    assert {row["status"] for row in rows} == {"ok"}


@pytest.mark.parametrize("mode", ["strict", "parity"])
def test_recorded_conversations_are_judged_from_end_to_end(
    tmp_path: Path, benchmarks: Path, own_cache: Path, mode: str
) -> None:
    lines = [
        json.dumps({"id": "1", "turns": [f"Turn {n}. " + "word " * 120 for n in range(13)]}),
        json.dumps({"id": "2", "turns": ["word " * 120, "too short"]}),
        json.dumps({"id": "3", "turns": ["word\u2028" * 120] * 12}, ensure_ascii=False),
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines), "utf-8")
    with FakeServer() as server:
        config = RunConfig(
            model="m",
            tasks="eqbench_longform",
            judge=(f"{server.base_url}#judge-0",),
            responses=str(tmp_path / "answers.jsonl"),
            limit=3,
            mode=mode,
            out=str(tmp_path / "run"),
            data_dir=str(benchmarks),
        )
        (result,) = asyncio.run(run.evaluate(config)).results
    assert result.headline.n_scored == 1 and result.headline.n_expected == 3
    assert result.headline.value is not None and 0 <= result.headline.value <= 100
    # the third conversation lacks its last turn, so that nothing of it is judged
    assert result.writer.statuses == {"not_sent": 1, "ok": 1, "too_short": 1}
    assert result.judging.n_valid == 9
    metrics = {metric.name: metric for metric in result.metrics}
    assert metrics["length"].value == pytest.approx(608, abs=1)
    assert metrics["repetition"].value == 0.0, "one story repeats no phrase of another"


@pytest.mark.parametrize("turns", [["a", 5], [None]])
def test_turns_that_are_no_texts_are_named(tmp_path: Path, turns: list[object]) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"id": "1", "turns": turns}))
    with pytest.raises(UsageError, match="line 1: `turns` holds a"):
        open_recorded(path, "m", 1)


def test_the_same_conversation_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "1", "turns": ["a", "b"]}\n' * 2)
    with pytest.raises(UsageError, match="stands 2 times"):
        open_recorded(path, "m", 1)
