"""DiscoX: shape, the pipeline step by step, readings, losses. Parity: parity.py, by test_parity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.discox.aspects import ASPECTS, GATE
from r2w_eval.tasks.discox.points import Points, aggregate, calculate, read_item
from r2w_eval.tasks.discox.reading import parse_parity, parse_strict
from support import run_with_fake_server

from r2w_eval.data import SuiteData, data_roots
from r2w_eval.results.summary import group_scores
from r2w_eval.suites.parity import replay, values_of
from r2w_eval.suites.suite import JudgingJob, Suite, load_info, load_suite
from r2w_eval.types import (
    Answer,
    ItemVerdicts,
    Judgement,
    JudgeRequest,
    JudgeStatus,
    Mode,
    Sample,
    Score,
    WriterStatus,
)

INFO = load_info("discox")
SUITE: Suite = load_suite(INFO.folder)
FIRST_LISTS = {
    "accuracy": '[{"问题严重程度": "普通", "问题分析": "it\'s"}]',
    "checkpoints": '[{"判断结果": "错误"}]',
    "fluency": '[{"问题严重程度": "有问题"}]',
    "appropriateness": '[{"问题严重程度": "整体无问题"}]',
}


def labels(name: str, *values: str) -> str:
    return json.dumps([{ASPECTS[name].key: value} for value in values], ensure_ascii=False)


def test_both_task_names_have_the_documented_shape(
    samples: dict[str, Sample], benchmarks: Path
) -> None:
    directions = [sample.meta["direction"] for sample in samples.values()]
    assert (len(samples), directions.count("zh-en")) == (200, 100)
    domains = [sample.meta["domain"] for sample in samples.values()]
    assert sorted(domains.count(name) for name in set(domains)) == [14, 28, 37, 121]
    info = load_info("discox_detailed")
    longer = list(load_suite(info.folder).load_samples(info.data(data_roots(str(benchmarks)))))
    assert [s.id for s in longer] == [*samples]
    assert all(a.messages != b.messages for a, b in zip(longer, samples.values(), strict=True))


def walk(sample: Sample, data: SuiteData, mode: Mode, replies: dict[str, str]) -> list[list[str]]:
    """Criteria asked, stage by stage, when the judge says `replies`; empty replies are unread."""
    done: dict[str, tuple[Score, str]] = {}
    stages = []
    templates = SUITE.load_templates(data)
    answer = Answer("译文", "译文", WriterStatus.OK)
    while requests := SUITE.plan_judging(JudgingJob(sample, answer, templates, mode, dict(done))):
        stages.append([request.criterion for request in requests])
        for request in requests:
            text = replies[request.criterion]
            if mode is Mode.PARITY:
                score, _ = replay(SUITE, request, [text])
            else:
                score = SUITE.parse_verdict[mode](request, text)
            done[request.criterion] = (score, text)
    return stages


REPLIES = {
    GATE: "是否存在问题：否",
    **{f"first:{name}": text for name, text in FIRST_LISTS.items()},
    "critique": '```json\n[{"判断结果": "删除"}]\n```',
    **FIRST_LISTS,
}


@pytest.mark.parametrize("mode", list(Mode))
def test_ten_calls_in_four_stages(sample: Sample, data: SuiteData, mode: Mode) -> None:
    stages = walk(sample, data, mode, REPLIES)
    assert [len(stage) for stage in stages] == [1, 4, 1, 4]
    assert walk(sample, data, mode, {**REPLIES, GATE: "是否存在问题：是"}) == [[GATE]]


def test_a_lost_list_ends_the_pipeline_in_strict_and_is_full_marks_in_parity(
    sample: Sample, data: SuiteData
) -> None:
    lost = {**REPLIES, "first:fluency": "I see no list"}
    assert len(walk(sample, data, Mode.STRICT, lost)) == 2
    assert len(walk(sample, data, Mode.PARITY, lost)) == 4
    score, calls = replay(SUITE, JudgeRequest("fluency", ()), ["no list"])
    assert (score.value, score.parts["lost"], calls) == (1.0, 0, 3)
    # upstream has no marks to give for a gate or a critique that never came
    assert SUITE.parity.settle is not None
    for name in (GATE, "critique"):
        assert SUITE.parity.settle(JudgeRequest(name, ()), ["<think>so"]) is None


def test_earlier_lists_go_on_as_pythons_repr(sample: Sample, data: SuiteData) -> None:
    names = [f"first:{name}" for name in ASPECTS]
    done = {GATE: (Score(1.0), REPLIES[GATE])}
    done |= {name: (Score(1.0), REPLIES[name]) for name in names}
    job = JudgingJob(
        sample,
        Answer("a", "a", WriterStatus.OK),
        SUITE.load_templates(data),
        Mode.PARITY,
        done,
    )
    (critique,) = SUITE.plan_judging(job)
    assert "[{'问题严重程度': '普通', '问题分析': \"it's\"}]" in critique.messages[1].content


@pytest.mark.parametrize(
    ("criterion", "text", "strict", "parity"),
    [
        (GATE, "是否存在问题：否", 1.0, 1.0),
        (GATE, "是否存在问题: 是", 0.0, 1.0),
        (GATE, "示例 是否存在问题：是 … 是否存在问题：否", 1.0, 0.0),
        (GATE, "**是否存在问题：** **是**", 0.0, 1.0),
        (GATE, '{"是否存在问题": "否", "问题等级": "无"}', 1.0, 1.0),
        (GATE, "是否存在问题：是/否 … 是否存在问题：**否**", 1.0, 0.0),
        (GATE, "no such line", JudgeStatus.PARSE_ERROR, 1.0),
        (GATE, "是否存在问题：？", JudgeStatus.UNKNOWN_LABEL, 1.0),
        ("accuracy", labels("accuracy", "普通", "严重"), 0.75, 0.75),
        ("accuracy", labels("accuracy", "普通（Major）"), 55 / 60, 55 / 60),
        ("accuracy", labels("accuracy", "minor"), JudgeStatus.UNKNOWN_LABEL, 55 / 60),
        ("accuracy", labels("accuracy", "非常严重", "严重", "普通"), 0.0, 0.0),
        ("checkpoints", labels("checkpoints", "正确", "不确定"), JudgeStatus.UNKNOWN_LABEL, 1.0),
        ("fluency", labels("fluency", "有问题", "无问题"), 0.9, 0.9),
        ("fluency", f"Here: {labels('fluency', '有问题')}", 0.9, JudgeStatus.PARSE_ERROR),
        ("fluency", "[]", JudgeStatus.PARSE_ERROR, 1.0),
        ("appropriateness", "[3]", JudgeStatus.PARSE_ERROR, JudgeStatus.UPSTREAM_LOST),
        ("appropriateness", "null", JudgeStatus.PARSE_ERROR, JudgeStatus.UPSTREAM_LOST),
        ("critique", "", JudgeStatus.PARSE_ERROR, 0.0),
    ],
)
def test_readings(criterion: str, text: str, strict: Any, parity: Any) -> None:
    for parse, wanted in ((parse_strict, strict), (parse_parity, parity)):
        score = parse(JudgeRequest(criterion, ()), text)
        if isinstance(wanted, JudgeStatus):
            assert score.status is wanted
        else:
            assert score.value == pytest.approx(wanted)


@given(
    st.sampled_from([GATE, "critique", *ASPECTS, *(f"first:{name}" for name in ASPECTS)]),
    st.text(alphabet='[]{}",:`json是否存在问题：严重程度普通1', max_size=80),
)
def test_no_text_breaks_a_parser(criterion: str, text: str) -> None:
    for parse in SUITE.parse_verdict.values():
        parse(JudgeRequest(criterion, ()), text)


def item(name: str, gate: float | None, **lost: int) -> ItemVerdicts:
    def score(value: float | None, **parts: int) -> tuple[Score, ...]:
        return (
            Score(None, JudgeStatus.PARSE_ERROR) if value is None else Score(value, parts=parts),
        )

    scores = {aspect: score(1.0, lost=points) for aspect, points in lost.items()}
    meta = {"direction": "zh-en", "domain": "学术论文"}
    return ItemVerdicts(name, "en", meta, WriterStatus.OK, {GATE: score(gate), **scores})


@given(st.lists(st.integers(0, 90), min_size=4, max_size=4))
def test_points_stay_in_their_range(lost: list[int]) -> None:
    points = calculate(dict(zip(ASPECTS, lost, strict=True)))
    assert 0 <= points.total <= 100
    assert points.accuracy == max(0, 60 - lost[0] - lost[1])
    assert (points.fluency, points.appropriateness) == (max(0, 20 - lost[2]), max(0, 20 - lost[3]))


def test_an_item_has_the_mean_points_of_the_judges_repeats() -> None:
    first, second = (
        item("a", 1.0, accuracy=a, checkpoints=0, fluency=b, appropriateness=c)
        for a, b, c in ((10, 4, 5), (20, 8, 15))
    )
    both = {name: (*first.scores[name], *second.scores[name]) for name in first.scores}
    assert read_item(replace(first, scores=both)) == Points(45.0, 14.0, 10.0)


def test_averages_by_hand() -> None:
    items = [
        item("a", 1.0, accuracy=10, checkpoints=5, fluency=4, appropriateness=5),
        item("b", 0.0),
        item("c", 1.0, accuracy=0, checkpoints=0, fluency=0),
        item("d", None),
    ]
    got = values_of(aggregate(items, Mode.STRICT))
    assert [read_item(entry) is not None for entry in items] == [True, True, False, False]
    assert (got["total"], got["total:all"]) == pytest.approx((38.0, 38.0))
    failed = replace(items[3], status=WriterStatus.EMPTY, scores={})
    got_all = values_of(aggregate([*items, failed], Mode.STRICT))
    assert (got_all["total"], got_all["total:all"]) == pytest.approx((38.0, 76 / 3))
    assert (got["accuracy"], got["accuracy:share"]) == pytest.approx((22.5, 0.375))
    assert (got["fluency"], got["appropriateness"]) == pytest.approx((8.0, 7.5))
    assert got["not_translated"] == pytest.approx(1 / 3)
    assert got["domain/学术论文"] == pytest.approx(38.0)


@pytest.mark.parametrize("suite", ["discox", "discox_detailed"])
def test_a_run_over_http(suite: str, benchmarks: Path, tmp_path: Path, own_cache: Path) -> None:
    result = run_with_fake_server(suite, benchmarks, tmp_path / "run", limit=6)
    assert (result.headline.n_scored, result.judging.failures) == (6, {})
    floor = next(metric for metric in result.metrics if metric.name == "total:floor")
    assert floor.value == result.headline.value
    assert set(result.judging.histogram) <= {f"{tenth / 10:g}" for tenth in range(11)}


def test_the_steps_of_a_repeat_stand_together() -> None:
    """A repeat that ends at the gate has no marks, and takes none of the next repeat's."""
    whole = item("a", 1.0, accuracy=10, checkpoints=0, fluency=4, appropriateness=5)
    made = [
        Judgement("k", "r", "discox", "a", "j", name, score, repeat=repeat)
        for repeat, names in enumerate(((GATE,), whole.scores))
        for name in names
        for score in ([Score(0.0)] if repeat == 0 else whole.scores[name])
    ]
    both = replace(whole, scores=group_scores(made))
    assert read_item(both) == Points(25.0, 8.0, 7.5)
