"""LongBench-Write: shape, length score, readings, averages. Parity: parity.py, by test_parity."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.longbench_write import utils
from support import run_with_fake_server

from r2w_eval.data import SuiteData, data_roots
from r2w_eval.stats import measure
from r2w_eval.suites.parity import values_of
from r2w_eval.suites.suite import JudgingJob, load_info, load_suite
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

INFO = load_info("longbench_write")
SUITE = utils.SUITE
REQUEST = JudgeRequest("quality", ())


def verdict(*values: object) -> str:
    return json.dumps(dict(zip(utils.DIMENSIONS, values, strict=False)))


def test_the_suite_has_the_documented_shape(samples: dict[str, Sample]) -> None:
    bins = Counter(sample.meta["bin"] for sample in samples.values())
    assert (len(samples), Counter(s.language for s in samples.values())["en"]) == (120, 60)
    assert list(bins.values()) == [26, 36, 31, 27]
    assert len({sample.meta["type"] for sample in samples.values()}) == 7
    assert {tuple(SUITE.criteria(sample)) for sample in samples.values()} == {("quality",)}


def test_the_ruler_has_six_lengths_in_two_languages_and_needs_no_judge(with_data: Path) -> None:
    info = load_info("longbench_write_ruler")
    suite = load_suite(info.folder)
    samples = list(suite.load_samples(info.data(data_roots(str(with_data)))))
    lengths = Counter((s.meta["bin"], s.language) for s in samples)
    assert len(samples) == info.n_samples == 48 and set(lengths.values()) == {4}
    assert {b for b, _ in lengths} == {"1,000", "2,000", "5,000", "10,000", "20,000", "30,000"}
    items = [
        ItemVerdicts(s.id, s.language, s.meta, WriterStatus.OK, {}, measures={"words": 2000})
        for s in samples
    ]
    got = values_of(suite.aggregate(items, Mode.STRICT))
    assert got["S_l:length/2,000"] == 100.0 and got["S_l:length/30,000"] == 0.0
    doc = {"suite": info.name, "id": samples[-1].id}
    words = "word " * samples[-1].meta["length"]
    assert utils.process_results(doc, [words])["length_score"] == 100.0


@given(st.integers(1, 20_000), st.integers(0, 100_000))
def test_length_score_peaks_at_the_demand_and_falls_to_both_sides(x: int, y: int) -> None:
    score = utils.length_score(x, y)
    assert 0 <= score <= 100
    assert (score == 100) == (x == y)
    assert score >= utils.length_score(x, y + 1 if y > x else y - 1) or y in (0, x)


def test_markers_inside_request_and_answer_are_not_replaced(
    samples: dict[str, Sample], data: SuiteData
) -> None:
    templates = SUITE.load_templates(data)
    sample = replace(samples["0"], messages=(Message("user", "Do $RESPONSE$."),))
    answer = Answer("It $INST$.", "raw", WriterStatus.OK)
    (request,) = SUITE.plan_judging(JudgingJob(sample, answer, templates, Mode.STRICT))
    (message,) = request.messages
    official = templates["judge.txt"].text.replace("$INST$", "\0").replace("$RESPONSE$", "\1")
    assert message.content == official.replace("\0", "Do $RESPONSE$.").replace("\1", "It $INST$.")
    assert (request.criterion, message.role) == ("quality", "user") and "\0" in official


def test_an_answer_is_measured_in_words() -> None:
    assert SUITE.measure is not None
    assert SUITE.measure(Answer("写一篇 short note", "raw", WriterStatus.OK)) == {"words": 5}


@given(st.text(), st.text())
def test_words_add_up_over_lines(a: str, b: str) -> None:
    joined = utils.count_words(f"{a}\n{b}")
    assert joined == utils.count_words(a) + utils.count_words(b)


@pytest.mark.parametrize(
    ("text", "strict", "parity", "failures"),
    [
        (verdict(1, 2, 3, 4, 5, 5), JudgeStatus.OK, JudgeStatus.OK, 1),
        (f"So:\n```json\n{verdict(1, 2, 3, 4, 5, 5)}\n```", JudgeStatus.OK, JudgeStatus.OK, 1),
        (f"x {verdict(1, 2, 3, 4, 5, 5)}", JudgeStatus.OK, JudgeStatus.PARSE_ERROR, 1),
        (verdict(1, 2, 3, 4, 5, 6), JudgeStatus.OUT_OF_RANGE, JudgeStatus.OK, 1),
        (verdict(1, 2, 3, 4, 5, 4.5), JudgeStatus.OUT_OF_RANGE, JudgeStatus.OK, 1),
        (verdict(1, 2, 3, 4, 5, True), JudgeStatus.OUT_OF_RANGE, JudgeStatus.OK, 1),
        (verdict(1, 2, 3, 4, 5, "fine"), JudgeStatus.OUT_OF_RANGE, JudgeStatus.UPSTREAM_LOST, 1),
        (verdict(1, 2, 3, 4, 5, 1e999), JudgeStatus.OUT_OF_RANGE, JudgeStatus.UPSTREAM_LOST, 1),
        (verdict(1, 2, 3, 4, 5, "nan"), JudgeStatus.OUT_OF_RANGE, JudgeStatus.UPSTREAM_LOST, 1),
        (verdict(1, 2, 3, 4, 5), JudgeStatus.CRITERIA_MISMATCH, JudgeStatus.CRITERIA_MISMATCH, 1),
        (verdict(1), JudgeStatus.CRITERIA_MISMATCH, JudgeStatus.CRITERIA_MISMATCH, 2),
        ("[1, 2]", JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR, 2),
        ("5", JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR, 1),
        ("```json {}", JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR, 1),
    ],
)
def test_readings(text: str, strict: JudgeStatus, parity: JudgeStatus, failures: int) -> None:
    assert utils.parse_strict(REQUEST, text).status is strict
    assert utils.parse_parity(REQUEST, text).status is parity
    assert utils.count_failures(text) == failures


def test_only_the_last_dimension_can_be_missed_at_the_price_of_one() -> None:
    whole = json.loads(verdict(1, 2, 3, 4, 5, 5))
    costs = [
        utils.count_failures(json.dumps({k: v for k, v in whole.items() if k != name}))
        for name in utils.DIMENSIONS
    ]
    assert costs == [2, 2, 2, 2, 2, 1]
    long = utils.parse_strict(REQUEST, verdict(1, 2, 3, 4, 5, "x" * 50))
    assert long.reason == f"Reading Experience is {'x' * 40!r}, expected an integer from 1 to 5"


def test_replies_without_a_dimension_cost_two_of_five_tries() -> None:
    assert utils.ask_again([verdict(1)] * 2) and not utils.ask_again([verdict(1)] * 3)
    assert utils.ask_again(["noise"] * 4) and not utils.ask_again(["noise"] * 5)


@given(st.text(alphabet='{}[]",:15 Relevance\n`json', max_size=120))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in SUITE.parse_verdict.values():
        parse(REQUEST, text)
    utils.ask_again([text])


def item(name: str, words: int | None, score: Score | None, required: int = 1000) -> ItemVerdicts:
    meta = {"type": "News Report", "length": required, "bin": "500 to 2k"}
    return ItemVerdicts(
        name,
        "en",
        meta,
        WriterStatus.OK if words is not None else WriterStatus.EMPTY,
        {"quality": (score,)} if score else {},
        measures={} if words is None else {"words": words},
    )


def test_averages_by_hand() -> None:
    fours = Score(4.0, parts={"dimensions": [4.0, 4.0, 4.0, 4.0, 3.0, 5.0]})
    items = [
        item("a", 1000, fours),
        item("b", 2500, Score(None, JudgeStatus.PARSE_ERROR)),
        item("c", None, None),
    ]
    estimates = utils.aggregate(items, Mode.PARITY)
    got = values_of(estimates)
    assert (got["S_l"], got["S_q"], got["S"]) == pytest.approx((50.0, 75.0, 62.5))
    assert (got["S_q/Clarity"], got["S_q/Reading Experience"]) == (75.0, 100.0)
    assert got["S:length/500 to 2k"] == got["S:language/en"] == got["S"]
    assert [e.name for e in estimates if e.is_headline] == ["S"]
    strict = measure(utils.aggregate(items, Mode.STRICT)[0])
    assert (strict.value, strict.n_scored, strict.n_expected) == (pytest.approx(87.5), 1, 3)


def test_repeats_are_averaged_and_the_floor_is_the_lowest_length() -> None:
    twice = (Score(4.0, parts={"dimensions": [3.0, 5.0, 4.0, 4.0, 4.0, 4.0]}),
             Score(2.0, parts={"dimensions": [1.0, 3.0, 2.0, 2.0, 2.0, 2.0]}),
             Score(None, JudgeStatus.TIMEOUT))  # fmt: skip
    made = replace(item("a", 2500, None), scores={"quality": twice})
    read = utils.read_item(made)
    assert (read.length, read.quality, list(read.dimensions)) == (50.0, 3.0, [2, 4, 3, 3, 3, 3])
    assert utils.read_item(replace(made, at_floor=True)).length == 0.0
    bare = utils.read_item(replace(made, scores={"quality": (Score(1.0),)}, measures={}))
    assert (bare.length, bare.quality, list(bare.dimensions)) == (None, 1.0, [])
    assert utils.read_item(item("b", None, None)).length == 0.0
    assert utils.parse_strict(REQUEST, verdict(1, 2, 3, 4, 5, 5)) == Score(
        20 / 6, parts={"dimensions": [1.0, 2.0, 3.0, 4.0, 5.0, 5.0]}
    )


def test_every_figure_says_of_how_many_answers_it_is() -> None:
    items = [
        item("a", 1000, Score(4.0, parts={"dimensions": [4.0] * 6})),
        item("b", 2500, None),
        replace(item("c", 1000, Score(2.0)), language="zh", measures={}),
    ]
    for mode in Mode:
        found = {e.name: measure(e) for e in utils.aggregate(items, mode)}
        counts = {name: (m.n_scored, m.n_expected) for name, m in found.items()}
        assert counts["S"] == ((1, 3) if mode is Mode.STRICT else (3, 3))
        assert counts["S_l"] == counts["S_q"] == counts["words"] == (2, 3)
        assert counts["S_q/Clarity"] == counts["S_q/Relevance"] == (1, 3)
        assert counts["S_l:language/zh"] == (0, 1) and counts["S_q:language/zh"] == (1, 1)
        assert counts["S_q:type/News Report"] == (2, 3)
        values = {name: m.value for name, m in found.items()}
        assert (values["S_l"], values["S_q"], values["words"]) == (75.0, 50.0, 1750.0)
        assert values["S"] == (87.5 if mode is Mode.STRICT else 62.5)
        assert values["S_q:language/zh"] == 25.0 and found["words"].note == "mean length"
    assert {e.name for e in utils.aggregate(items, Mode.STRICT) if not e.bounded} == {"words"}
    unread = [replace(one, measures={}) for one in items]
    assert values_of(utils.aggregate(unread, Mode.STRICT))["S_l"] is None


def test_a_bin_ends_below_its_upper_end(samples: dict[str, Sample]) -> None:
    bins = {sample.meta["length"]: sample.meta["bin"] for sample in samples.values()}
    ends = {"under 500": 500, "500 to 2k": 2000, "2k to 4k": 4000, "4k to 20k": 20_001}
    starts = dict(zip(ends, (0, *ends.values()), strict=False))
    assert all(starts[name] <= length < ends[name] for length, name in bins.items())
    assert set(starts.values()) - {0} <= bins.keys(), "each end is somebody's demand"
    assert [*samples] == [str(n) for n in range(120)]


def test_a_judge_that_was_asked_and_gave_nothing_leaves_no_score() -> None:
    items = [item(name, 1000, None) for name in "ab"]
    for mode in Mode:
        head = measure(utils.aggregate(items, mode)[0])
        assert (head.name, head.value) == ("S", None)
        alone = [replace(one, is_judged=False) for one in items]
        assert measure(utils.aggregate(alone, mode)[0]).name == "S_l"
        names = [estimate.name for estimate in utils.aggregate(alone, mode)]
        assert names == ["S_l", "words", "S_l:length/500 to 2k", "S_l:type/News Report",
                         "S_l:language/en"]  # fmt: skip


def test_without_a_judge_the_length_score_stands_alone(
    benchmarks: Path, tmp_path: Path, own_cache: Path
) -> None:
    result = run_with_fake_server("longbench_write", benchmarks, tmp_path / "run", judge=("none",))
    assert result.headline.name == "S_l" and result.headline.n_scored == 2
    names = {metric.name for metric in result.metrics}
    assert "S" not in names and {"words", "S_l:language/en"} <= names
    assert result.headline.high <= 100


def test_a_run_over_http(benchmarks: Path, tmp_path: Path, own_cache: Path) -> None:
    result = run_with_fake_server("longbench_write", benchmarks, tmp_path / "run")
    values = {metric.name: metric.value for metric in result.metrics}
    assert result.headline.name == "S" and result.judging.failures == {}
    assert values["S"] == pytest.approx((values["S_l"] + values["S_q"]) / 2)


def test_lm_eval_gets_the_length_score(samples: dict[str, Sample], with_data: Path) -> None:
    doc = {"suite": "longbench_write", "id": "0"}
    words = "word " * samples["0"].meta["length"]
    assert utils.process_results(doc, [words])["length_score"] == 100.0
    assert utils.process_results(doc, [f"<think>{words}</think>\n\n"])["length_score"] == 0.0
