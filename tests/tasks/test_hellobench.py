"""HelloBench: shape, strict reading, losses, averages. Parity: parity.py, run by test_parity."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.hellobench import utils
from support import run_with_fake_server

from r2w_eval.config import RunConfig
from r2w_eval.data import SuiteData, data_roots
from r2w_eval.errors import DataError, UsageError
from r2w_eval.run.planning import plan_tasks
from r2w_eval.stats import measure
from r2w_eval.suites.parity import values_of
from r2w_eval.suites.suite import JudgingJob, load_info, load_suite
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

pytest.importorskip("nltk", reason="HelloBench needs pip install 'r2w-eval[text]'")
INFO = load_info("hellobench")
SUITE = utils.SUITE
REQUEST = JudgeRequest("checklist", (), facts={"weights": [70.0, 30.0]})


def verdict(*scores: object, ids: tuple[object, ...] = (0, 1)) -> str:
    entries = zip(ids, scores, strict=False)
    rows = [{"checklist_id": i, "evaluation_score": s, "reason": "r"} for i, s in entries]
    return json.dumps(rows)


def test_the_suites_have_the_documented_shape(data: SuiteData, benchmarks: Path) -> None:
    samples = list(SUITE.load_samples(data))
    by_task = [sum(s.meta["task"] == task for s in samples) for task in utils.TASKS]
    assert (len(samples), by_task) == (647, [200, 100, 147, 77, 123])
    assert len({s.meta["category"] for s in samples}) == 38
    assert {tuple(SUITE.criteria(sample)) for sample in samples} == {("checklist",)}
    assert all(len(s.material["weights"]) == len(s.material["checklists"]) for s in samples)
    assert all(sum(s.material["weights"]) == pytest.approx(100) for s in samples)
    info = load_info("hellobench_length")
    runs = list(load_suite(info.folder).load_samples(info.data(data_roots(str(benchmarks)))))
    assert len({s.id for s in runs}) == len(runs) == info.n_samples == 492
    bounds = {s.id.partition("/")[0]: s.max_tokens or info.decoding.max_tokens for s in runs}
    assert bounds == {"2k": 16_384, "4k": 16_384, "8k": 16_384, "16k": 24_000}, "as upstream"


def test_weights_are_read_from_the_upstream_file_too(tmp_path: Path) -> None:
    path = tmp_path / "weighted_scores.txt"
    path.write_text("WEIGHTS = {\n 'travel': [60.5, 39.5],\n}\n")
    assert utils.read_weights(path) == {"travel": [60.5, 39.5]}
    path.write_text("WEIGHTS = exit()")
    with pytest.raises(DataError, match="no Python dict"):
        utils.read_weights(path)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (verdict(1, 0.5), JudgeStatus.OK),
        (f"Here:\n```python\n{verdict('1', '0.5')}\n```", JudgeStatus.OK),
        (f"{verdict(0, 0)} The list above was quoted. {verdict(1, 0.5)}", JudgeStatus.OK),
        (verdict(0.5, 1, ids=(1, 0)), JudgeStatus.OK),
        (
            '[{"checklist_id": 0, "evaluation_score": 1, "reason": "a\nb \\"c\\""},'
            ' {"checklist_id": 1, "evaluation_score": 0.5}]',
            JudgeStatus.OK,
        ),
        ("fine, all of it", JudgeStatus.PARSE_ERROR),
        (verdict("good", 1), JudgeStatus.PARSE_ERROR),
        ('[{"checklist_id": 0}, {"checklist_id": 1}]', JudgeStatus.PARSE_ERROR),
        (verdict(True, 0.5), JudgeStatus.PARSE_ERROR),
        (verdict(1, 0.5, ids=(False, True)), JudgeStatus.PARSE_ERROR),
        (verdict(1), JudgeStatus.CRITERIA_MISMATCH),
        (verdict(1, 0.5, ids=(0.9, 1)), JudgeStatus.CRITERIA_MISMATCH),
        (verdict(1, 1, ids=(0, 0)), JudgeStatus.CRITERIA_MISMATCH),
        (verdict(1, 1, ids=(1, 2)), JudgeStatus.CRITERIA_MISMATCH),
        (verdict(0.6, 1), JudgeStatus.OUT_OF_RANGE),
        (verdict(-1, 1), JudgeStatus.OUT_OF_RANGE),
        (verdict("NaN", 1), JudgeStatus.OUT_OF_RANGE),
    ],
)
def test_strict_reading(text: str, status: JudgeStatus) -> None:
    score = utils.parse_strict(REQUEST, text)
    assert score.status is status
    assert score.value == (85.0 if status is JudgeStatus.OK else None)


@pytest.mark.parametrize(
    ("text", "status", "parts"),
    [
        (verdict(1, 0.5), JudgeStatus.OK, [1.0, 0.5]),
        (verdict(1, 0.5, ids=(7, 7)), JudgeStatus.OK, [1.0, 0.5]),
        (verdict(0.6, "1"), JudgeStatus.OK, [0.6, 1.0]),
        (f"```json\n{verdict(1, 0)}\n```", JudgeStatus.OK, [1.0, 0.0]),
        (f"So: {verdict(1, 0)}", JudgeStatus.PARSE_ERROR, None),
        ("3", JudgeStatus.PARSE_ERROR, None),
        (verdict(1), JudgeStatus.CRITERIA_MISMATCH, [1.0]),
        (verdict(1, 1, 1, ids=(0, 1, 2)), JudgeStatus.CRITERIA_MISMATCH, [1.0, 1.0, 1.0]),
        ('["a"]', JudgeStatus.CRITERIA_MISMATCH, None),
        ('["a", "b"]', JudgeStatus.UPSTREAM_LOST, None),
        (verdict(1, "good"), JudgeStatus.UPSTREAM_LOST, None),
        (verdict(1, 0, ids=("x", 1)), JudgeStatus.UPSTREAM_LOST, None),
        (verdict(1, 1.5), JudgeStatus.UPSTREAM_LOST, [1.0, 1.5]),
        (verdict(-0.5, 1), JudgeStatus.UPSTREAM_LOST, [-0.5, 1.0]),
    ],
)
def test_upstreams_reading(text: str, status: JudgeStatus, parts: list[float] | None) -> None:
    score = utils.parse_parity(REQUEST, text)
    assert score.status is status and score.parts.get("scores") == parts
    if status is JudgeStatus.OK:
        assert parts is not None and score.value == 70 * parts[0] + 30 * parts[1]
    else:
        assert score.value is None


def test_a_list_with_other_ids_is_reported_with_ten_of_them() -> None:
    score = utils.parse_strict(REQUEST, verdict(*[1] * 12, ids=tuple(range(12))))
    assert score.reason == ("12 entries with ids 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, expected 2 from 0")
    assert [utils.ask_again(["noise"] * n) for n in (1, 2, 3)] == [True, True, False]
    parts = utils.parse_strict(REQUEST, verdict(0.25, 1, ids=(1, 0))).parts
    assert parts == {"scores": [1.0, 0.25]}


def test_an_answer_is_measured_in_the_words_that_the_judge_sees() -> None:
    assert SUITE.measure is not None
    assert SUITE.measure(Answer("It didn't.", "raw", WriterStatus.OK)) == {"tokens": 4}


def test_the_checklist_is_shown_in_its_own_letters() -> None:
    sample = Sample("t", "1", (), "en", material={"checklists": ["naïve?", "b"]})
    assert utils.show_checklist(sample) == (
        '[{"checklist_id": 0, "checklist_content": "naïve?"}, '
        '{"checklist_id": 1, "checklist_content": "b"}]'
    )


@given(st.text(alphabet='[]{}",:0.5 checklist_id evaluation_score\n`\\é', max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in SUITE.parse_verdict.values():
        score = parse(REQUEST, text)
        assert score.value is None or 0 <= score.value <= 100


@given(st.lists(st.sampled_from(utils.LEVELS), min_size=2, max_size=2))
def test_both_modes_agree_on_a_clean_verdict(levels: list[float]) -> None:
    text = verdict(*levels)
    strict, parity = (SUITE.parse_verdict[mode](REQUEST, text) for mode in Mode)
    assert strict == parity
    assert strict.value == pytest.approx(0.7 * 100 * levels[0] + 0.3 * 100 * levels[1])


def item(name: str, task: str, score: Score, tokens: int = 10) -> ItemVerdicts:
    meta = {"task": task, "category": "travel"}
    measures = {"tokens": tokens}
    return ItemVerdicts(name, "en", meta, WriterStatus.OK, {"checklist": (score,)}, 0, measures)


def test_averages_by_hand() -> None:
    items = [
        item("a", "chat", Score(100.0, parts={"scores": [1.0, 1.0]}), 10),
        item("b", "chat", Score(50.0, parts={"scores": [0.5, 0.0]}), 30),
        item("c", "qa", Score(75.0, parts={"scores": [0.75, 0.75]}), 50),
        item("d", "qa", Score(None, JudgeStatus.PARSE_ERROR), 999),
    ]
    got = values_of(utils.aggregate(items, Mode.STRICT))
    assert got["task/chat"] == got["task/qa"] == got["overall"] == 0.0
    assert got["task/chat:0_100"] == 75.0
    assert got["overall:unweighted_items"] == ((100 + 25) / 2 / 2 + 75 / 2 - 75) * 4
    assert got["overall:sample_pooled"] == 0.0
    assert (got["length/chat"], got["length/qa"], got["length"]) == (20.0, 50.0, 35.0)


def test_repeats_are_averaged_and_the_floor_has_its_own_value() -> None:
    twice = (Score(100.0, parts={"scores": [1.0, 1.0]}), Score(40.0, parts={"scores": [0.5, 0.0]}),
             Score(None, JudgeStatus.TIMEOUT))  # fmt: skip
    made = replace(item("a", "chat", twice[0]), scores={"checklist": twice})
    read = utils.read_item(made)
    assert (read.score, read.plain) == (70.0, 100 * (1.0 + 0.25) / 2)
    bare = utils.read_item(item("b", "chat", Score(20.0)))
    assert (bare.score, bare.plain) == (20.0, 20.0)
    assert utils.read_item(item("c", "chat", Score(None, JudgeStatus.TIMEOUT))) is None
    assert utils.read_item(replace(made, scores={})) is None


def test_every_figure_says_of_how_many_answers_it_is() -> None:
    lost = Score(None, JudgeStatus.PARSE_ERROR)
    kept = item("a", "chat", Score(100.0, parts={"scores": [1.0]}), 10)
    items = [kept, item("b", "chat", lost), item("c", "qa", Score(75.0), 50)]
    found = {e.name: measure(e) for e in utils.aggregate(items, Mode.STRICT)}
    counts = {name: (m.n_scored, m.n_expected) for name, m in found.items()}
    whole, chat, qa = (2, 3), (1, 2), (1, 1)
    assert counts == {
        "overall": whole, "overall:sample_pooled": whole, "overall:unweighted_items": whole,
        "task/chat": chat, "task/qa": qa, "task/chat:0_100": chat, "task/qa:0_100": qa,
        "length": whole, "length/chat": chat, "length/qa": qa,
    }  # fmt: skip
    assert found["overall"].value == found["overall:sample_pooled"].value == 50.0
    assert [name for name, m in found.items() if m.is_headline] == ["overall"]
    bounded = {e.name for e in utils.aggregate(items, Mode.STRICT) if e.bounded}
    assert bounded == {name for name in counts if not name.startswith("length")}
    notes = {e.name: e.note for e in utils.aggregate(items, Mode.STRICT)}
    assert notes["overall:sample_pooled"] == notes["overall:unweighted_items"] == "not upstream"
    assert (notes["length"], notes["length/qa"], notes["overall"]) == ("words", "words", "")
    assert measure(utils.average("x", [])).value is None


def test_a_task_without_a_score_leaves_no_overall() -> None:
    lost = item("c", "qa", Score(None, JudgeStatus.PARSE_ERROR))
    kept = item("a", "chat", Score(100.0, parts={"scores": [1.0]}))
    got = values_of(utils.aggregate([kept, lost], Mode.PARITY))
    assert got["overall"] is None and got["task/qa"] is None and got["task/chat"] == 100.0


def test_without_a_judge_lengths_are_those_of_all_answers() -> None:
    unjudged = ItemVerdicts("a", "en", {"task": "qa"}, WriterStatus.OK, {}, 0, {"tokens": 7})
    absent = ItemVerdicts("b", "en", {"task": "qa"}, WriterStatus.EMPTY, {})
    got = values_of(utils.aggregate([unjudged, absent], Mode.STRICT))
    assert (got["length"], got["overall"]) == (7.0, None)


def test_the_judge_sees_words_joined_by_blanks_and_no_more_than_16000(
    data: SuiteData, sample: Sample
) -> None:
    templates = SUITE.load_templates(data)

    def prompt(text: str) -> str:
        job = JudgingJob(sample, Answer(text, text, WriterStatus.OK), templates, Mode.STRICT)
        return SUITE.plan_judging(job)[0].messages[1].content

    assert '{"response": It did n\'t { stop } .}' in prompt("It didn't\n\n{stop}.")
    assert prompt("w " * 15_000).count("w w") == prompt("w " * 16_000).count("w w") - 500
    assert prompt("w " * 16_000) == prompt("w " * 20_000)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("hellobench_layout", '{"response": It didn\'t\n\n- {stop}.}'),
        ("hellobench_opencompass", '{{"response": It didn\'t\n\n- {stop}.}}'),
    ],
)
def test_variants_show_the_judge_the_layout_of_the_same_items(
    name: str, shown: str, data: SuiteData, benchmarks: Path
) -> None:
    info = load_info(name)
    suite = load_suite(info.folder)
    own = info.data(data_roots(str(benchmarks)))
    samples = list(suite.load_samples(own))
    assert [replace(s, task="hellobench") for s in samples] == list(SUITE.load_samples(data))
    text = "It didn't\n\n- {stop}."
    answer = Answer(text, text, WriterStatus.OK)
    job = JudgingJob(samples[0], answer, suite.load_templates(own), Mode.STRICT)
    (request,) = suite.plan_judging(job)
    system, user = (message.content for message in request.messages)
    assert shown in user and system == SUITE.load_templates(data)["helloeval.system"].text
    assert f'"checklist_content": {json.dumps(samples[0].material["checklists"][-1])}' in user
    assert not re.search(r"\{(prediction|response|instruction|num_checklist)\}", user)
    assert request.facts == {"weights": samples[0].material["weights"]}


def test_opencompass_asks_once_and_the_layout_has_no_parity(benchmarks: Path) -> None:
    asked = load_suite(load_info("hellobench_opencompass").folder).parity
    assert not asked.asks_again(REQUEST, ["noise"]) and SUITE.parity.asks_again(REQUEST, ["noise"])
    config = RunConfig("m", "hellobench_layout", mode="parity", data_dir=str(benchmarks))
    with pytest.raises(UsageError, match="only strict. Try: --mode strict"):
        plan_tasks(config)


@pytest.mark.parametrize("suite", ["hellobench", "hellobench_length", "hellobench_opencompass"])
def test_a_run_over_http(suite: str, benchmarks: Path, tmp_path: Path, own_cache: Path) -> None:
    result = run_with_fake_server(suite, benchmarks, tmp_path / "run")
    assert (result.headline.n_scored, result.judging.failures) == (2, {})
    assert -300 <= result.headline.value <= 100
    assert {m.name for m in result.metrics} >= {"overall:floor", "length"}
