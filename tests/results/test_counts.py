"""Counts, rates, latencies and money of one task, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.models.cost import Price
from r2w_eval.records.collect import Written
from r2w_eval.results.counts import (
    MAX_HISTOGRAMS,
    Disagreement,
    SampleRow,
    disagreement,
    measure_performance,
    run_length_slope,
    summarise_judge,
    summarise_writer,
)
from r2w_eval.types import Judgement, JudgeStatus, Response, Score, Usage, WriterStatus


def verdict(
    value: float | JudgeStatus, answer: str = "r", criterion: str = "a", **changes: object
) -> Judgement:
    score = Score(None, value) if isinstance(value, JudgeStatus) else Score(value)
    made = Judgement("k", answer, "t", answer, "j", criterion, score, ("text",))
    return replace(made, **changes)  # type: ignore[arg-type]


def written(key: str, response: Response | None = None, **changes: int) -> tuple[str, Written]:
    own = response or Response(key, "t", key, "m", "raw", "answer", None, WriterStatus.OK)
    return key, replace(Written(own, 6, None, 0, 0, 0, {}), **changes)


def test_a_judge_is_counted_by_its_replies() -> None:
    judgements = [
        verdict(1, usage=Usage(10, 3), echoed=True),
        verdict(3, asks=("prose", "text"), model_returned="m-2"),
        verdict(5, criterion="b", asks=(), model_returned="m-1", usage=Usage(7, 2)),
        verdict(2.04, criterion="b", model_returned="m-1"),
        verdict(9, criterion="draft"),
        verdict(JudgeStatus.TIMEOUT, criterion="b", asks=("", "")),
        verdict(JudgeStatus.REFUSED, criterion="a"),
        verdict(JudgeStatus.NO_ANSWER, criterion="b"),
    ]
    absent = {JudgeStatus.NOT_SENT: 4, JudgeStatus.NO_ANSWER: 0}
    found = summarise_judge("j", judgements, absent, (1, 5), lambda name: name != "draft")
    assert (found.n_valid, found.n_total, found.coverage) == (5, 12, 5 / 12)
    assert found.failures == {"judge_refused": 1, "no_answer": 1, "not_sent": 4, "timeout": 1}
    assert found.failures_by_cause == {"answer": 1, "infrastructure": 5, "judge": 1}
    assert found.failures_by_criterion == {"a": 1, "b": 2}
    assert (found.n_reasked, found.n_parsed_first, found.n_echoed) == (2, 4, 1)
    assert found.models_returned == ("m-1", "m-2")
    assert found.means_by_model == {"m-1": (2, (5 + 2.04) / 2), "m-2": (1, 3.0)}
    assert found.histogram == {"1": 1, "2": 1, "3": 1, "5": 1}
    assert found.histograms == {"a": {"1": 1, "3": 1}, "b": {"2": 1, "5": 1}}
    assert (found.share_at_floor, found.share_at_ceiling) == (1 / 4, 1 / 4)
    assert (found.prompt_tokens, found.completion_tokens) == (17, 5)
    assert found.distinct_values == 4 and found.status == "degraded"


def test_a_judge_without_losses_succeeds_and_one_without_verdicts_is_excluded() -> None:
    whole = summarise_judge("j", [verdict(1)], {JudgeStatus.NOT_SENT: 0}, (1, 5))
    assert (whole.status, whole.failures, whole.coverage) == ("success", {}, 1.0)
    lost = summarise_judge("j", [verdict(JudgeStatus.TIMEOUT)], {}, (1, 5))
    assert (lost.status, lost.coverage, lost.share_at_floor) == ("excluded", 0.0, None)
    nobody_asked = summarise_judge("j", [], {}, (1, 5))
    assert (nobody_asked.status, nobody_asked.coverage) == ("success", 1.0)


@pytest.mark.parametrize(
    ("n", "has"), [(1, False), (2, True), (MAX_HISTOGRAMS, True), (MAX_HISTOGRAMS + 1, False)]
)
def test_a_few_criteria_have_a_histogram_each(n: int, has: bool) -> None:
    judgements = [verdict(k % 3, criterion=f"c{k}") for k in range(n)]
    found = summarise_judge("j", judgements, {}, (0, 2)).histograms
    assert found == ({f"c{k}": {str(k % 3): 1} for k in range(n)} if has else {})


def test_questions_that_are_numbered_within_a_query_share_a_histogram() -> None:
    names = ("point:1", "point:2", "match:0.3", "quality:Depth")
    judgements = [verdict(1, criterion=name) for name in names]
    found = summarise_judge("j", judgements, {}, (0, 2)).histograms
    assert found == {"match": {"1": 1}, "point": {"1": 2}, "quality:Depth": {"1": 1}}


def test_repeats_of_a_question_disagree_by_their_range() -> None:
    judgements = [
        verdict(2), verdict(5, repeat=1), verdict(3, repeat=2),
        verdict(4, "s"), verdict(4, "s", repeat=1),
        verdict(9, criterion="b"), verdict(JudgeStatus.TIMEOUT, criterion="b", repeat=1),
    ]  # fmt: skip
    assert disagreement(judgements, 5.0) == Disagreement(2, 1.5, 0.5, 0, 0)
    again = [verdict(value, "t", repeat=n) for n, value in enumerate((6, 6))]
    assert disagreement(judgements + again, 5.0) == Disagreement(3, 1.0, 2 / 3, 0, 0)
    assert disagreement(judgements[-2:], 5.0) is None
    assert disagreement([], 5.0) is None


def test_two_orders_flip_where_they_fall_on_two_sides_of_the_middle() -> None:
    judgements = [
        verdict(value, answer, order=order)
        for answer, values in {"r": (2, 4), "s": (4, 5), "t": (3, 1), "u": (1, 2)}.items()
        for order, value in zip(("first", "second"), values, strict=True)
    ]
    alone = verdict(5, "v", order="first")
    assert disagreement([*judgements, alone], 3.0) == Disagreement(0, 0.0, 1.0, 4, 1)
    again = [replace(j, repeat=1, score=Score(4.0)) for j in judgements[:2]]
    assert disagreement(judgements + again, 3.0) == Disagreement(2, 1.0, 0.5, 5, 1)


def test_orders_may_be_criteria_of_one_question() -> None:
    orders = {"ab": "pair", "ba": "pair"}
    judgements = [verdict(1, criterion="ab"), verdict(5, criterion="ba"), verdict(2, criterion="c")]
    assert disagreement(judgements, 3.0, orders) == Disagreement(0, 0.0, 1.0, 1, 1)
    assert disagreement(judgements, 3.0) is None
    summary = summarise_judge("j", judgements, {}, (0, 4), orders=orders)
    assert summary.disagreement == Disagreement(0, 0.0, 1.0, 1, 1)
    assert summarise_judge("j", judgements, {}, (2, 8), orders=orders).disagreement == (
        Disagreement(0, 0.0, 1.0, 1, 0)
    )


def row(sample: str, status: str, chars: int = 0, **changes: object) -> SampleRow:
    made = SampleRow(sample, 0, "en", status, None, 0, chars, None, sample)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_writer_is_counted_by_its_answers() -> None:
    rows = [
        row("q", "ok", 10, thinking_chars=4),
        row("r", "truncated", 30),
        row("s", "empty", 70, thinking_chars=50),
        row("t", "not_sent"),
    ]
    base = Response("q", "t", "q", "m", "raw", "answer", None, WriterStatus.OK)
    entries = dict([
        written("q", replace(base, model_returned="m-2", finish_reason="stop"),
                prompt_tokens=5, completion_tokens=7, thinking_tokens=2),
        written("r", replace(base, model_returned="m-1", finish_reason="safety"),
                prompt_tokens=50, completion_tokens=70, thinking_tokens=20),
        written("s", replace(base, model_returned="m-1", finish_reason="odd")),
        written("another", replace(base, model_returned="m-9", finish_reason="odd"),
                prompt_tokens=1, completion_tokens=1, thinking_tokens=1),
    ])  # fmt: skip
    found = summarise_writer(rows, {(name, 0): entry for name, entry in entries.items()})
    assert (found.n_expected, found.n_answered) == (4, 2)
    assert found.statuses == {"empty": 1, "not_sent": 1, "ok": 1, "truncated": 1}
    assert found.models_returned == ("m-1", "m-2")
    assert (found.prompt_tokens, found.completion_tokens, found.thinking_tokens) == (55, 77, 22)
    assert (found.mean_answer_chars, found.mean_thinking_chars) == (20.0, 4.0)
    assert found.odd_ends == {"odd": 1, "safety": 1}
    nothing = summarise_writer([row("t", "not_sent")], {})
    assert (nothing.mean_answer_chars, nothing.mean_thinking_chars) == (None, None)


def test_time_and_reuse_are_those_of_what_was_sent() -> None:
    base = Response("q", "t", "q", "m", "raw", "answer", None, WriterStatus.OK)
    answers = [
        written("q", replace(base, latency_s=2.0))[1],
        written("r", replace(base, latency_s=4.0))[1],
        written("s", replace(base, latency_s=100.0, cached=True))[1],
    ]
    judgements = [
        *(verdict(1, latency_s=n / 10, at=1000.0 - n) for n in range(1, 101)),
        verdict(1, latency_s=0.0, asks=()),
        verdict(1, latency_s=0.5, asks=("", "", "text"), at=2000.0),
        verdict(1, latency_s=99.0, asks=("", "text"), cached=True, at=10.0),
    ]
    found = measure_performance("t", "j", answers, judgements, None)
    assert (found.writer_latency_mean_s, found.n_responses_cached) == (3.0, 1)
    # 0.1, 0.2, … 10.0 and one 0.5: 101 sorted values
    places = (found.judge_latency_p50_s, found.judge_latency_p95_s, found.judge_latency_p99_s)
    assert places == (5.0, 9.5, 9.9)
    assert (found.n_judgements_requested, found.n_judgements_cached) == (103, 1)
    assert found.n_judgements_sent == 100 + 1 + 3
    assert (found.judging_started, found.judging_ended) == (10.0, 2000.0)


def test_nothing_measured_is_unknown_and_never_zero() -> None:
    found = measure_performance("t", "j", [], [verdict(1)], Price(1, 1))
    assert (found.writer_latency_mean_s, found.judge_latency_p50_s) == (None, None)
    assert (found.judging_started, found.judging_ended) == (None, None)
    alone = measure_performance("t", "j", [], [verdict(1, latency_s=0.25)], None)
    assert (alone.judge_latency_p50_s, alone.judge_latency_p99_s) == (0.25, 0.25)


def test_money_is_that_of_what_was_sent_and_one_unknown_makes_it_unknown() -> None:
    price = Price(2.0, 10.0)
    paid = [verdict(1, usage=Usage(500_000, 100_000)), verdict(1, usage=Usage(1_000_000, 0))]
    reused = verdict(1, usage=Usage(9, 9), cached=True)

    def usd(judgements: list[Judgement], price: Price | None) -> float | None:
        return measure_performance("t", "j", [], judgements, price).judge_usd

    assert usd([reused, *paid], price) == pytest.approx(4.0)
    assert usd([reused], price) == 0.0 and usd([reused], None) is None
    for used in (Usage(None, 3), Usage(3, None)):
        assert usd([*paid, verdict(1, usage=used)], price) is None
    assert usd(paid, None) is None


def test_the_length_slope_reads_scored_answers_with_a_text() -> None:
    rows = [
        *(row(str(n), "ok", 2**n, value=1 + 0.5 * n) for n in range(6)),
        row("lost", "ok", 900),
        row("empty", "empty", 0, value=1.0),
    ]
    found = run_length_slope(rows)
    assert found is not None and found.value == pytest.approx(0.5)
    assert (found.n_scored, found.n_expected) == (6, 6) and "per doubling" in found.note
    assert run_length_slope(rows[6:]) is None


@given(st.lists(st.integers(1, 5).map(float), min_size=1))
def test_shares_and_histogram_add_up(values: list[float]) -> None:
    found = summarise_judge("j", [verdict(value) for value in values], {}, (1, 5))
    assert sum(found.histogram.values()) == len(values)
    assert found.share_at_floor == found.histogram.get("1", 0) / len(values)
    assert found.share_at_ceiling == found.histogram.get("5", 0) / len(values)
