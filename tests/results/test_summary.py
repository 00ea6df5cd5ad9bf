"""From records to numbers: every item counted once, every loss by its cause, nothing scored 0."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.hashing import content_hash
from r2w_eval.records.plan import NO_JUDGE, TaskPlan
from r2w_eval.results.coverage import Scored
from r2w_eval.results.ensembles import Combine, EnsembleSpec
from r2w_eval.results.summary import (
    RunFacts,
    TaskResult,
    measure_within,
    put_at_floor,
    split_noise,
    summarise,
)
from r2w_eval.run.display import result_table
from r2w_eval.stats.inference import measure
from r2w_eval.stats.noise import Observation, noise_split
from r2w_eval.store import JsonlWriter, RunFolder
from r2w_eval.suites.suite import Suite, load_info
from r2w_eval.types import (
    Cause,
    Decoding,
    Estimate,
    ItemVerdicts,
    Judgement,
    JudgeStatus,
    Message,
    Mode,
    Response,
    Sample,
    Score,
    Usage,
    WriterStatus,
)

CRITERIA = ("a", "b")


def samples() -> Iterable[Sample]:
    return [Sample("quickstart", str(n), (Message("user", "x"),), "en") for n in range(5)]


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """Mean over complete answers of their mean verdict, and the parts that reached us."""
    complete = {}
    for item in items:
        values = [s.value for name in CRITERIA for s in item.scores.get(name, ())]
        if len(values) >= 2 and None not in values:
            complete[item.sample_id] = sum(v for v in values if v is not None) / len(values)
    seen = [
        (item.sample_id, float(score.parts["inner"]["x"]))
        for item in items
        for scores in item.scores.values()
        for score in scores
        if "inner" in score.parts
    ]
    return [
        mean_of("inner", seen, len(items)),
        as_headline(mean_of("overall", complete.items(), len(items))),
    ]


SUITE = Suite(
    load_samples=lambda data: samples(),
    load_templates=lambda data: {},
    criteria=lambda sample: CRITERIA,
    plan_judging=lambda job: [],
    parse_verdict={},
    aggregate=aggregate,
)


def response(number: int, status: WriterStatus = WriterStatus.OK, **changes: object) -> Response:
    made = Response(f"r{number}", "quickstart", str(number), "m", "raw", "answer", "why", status,
                    model_returned="m-1", usage=Usage(10, 20), latency_s=1.0)  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def judgement(number: int, criterion: str, score: Score, **changes: object) -> Judgement:
    key = f"r{number}{criterion}"
    made = Judgement(key, f"r{number}", "quickstart", str(number), "j", criterion, score,
                     ("text",), usage=Usage(5, 1), latency_s=0.5)  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def result(
    folder: Path,
    responses: Sequence[Response],
    judgements: Sequence[Judgement],
    judges: str = "j",
    n_repeats: int = 1,
    suite: Suite = SUITE,
    **judge_facts: object,
) -> TaskResult:
    facts = RunFacts({}, n_repeats, {judge: judge_facts for judge in judges}, 1)
    return results(folder, responses, judgements, facts, suite)[0]


def results(
    folder: Path,
    responses: Sequence[Response],
    judgements: Sequence[Judgement],
    facts: RunFacts,
    suite: Suite = SUITE,
) -> list[TaskResult]:
    for name, records in (("responses", responses), ("judgements", judgements)):
        path = folder / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        writer = JsonlWriter(path)
        for record in records:
            writer.append(record)
        writer.close()
    plan = TaskPlan(load_info("quickstart"), suite, Mode.STRICT, {}, samples, Decoding())
    return summarise(RunFolder(folder), [plan], facts)


def metrics(found: TaskResult) -> dict[str, tuple[float | None, int, int]]:
    return {m.name: (m.value, m.n_scored, m.n_expected) for m in found.metrics}


def test_an_empty_folder_has_no_value_and_loses_everything(tmp_path: Path) -> None:
    found = result(tmp_path, [], [])
    assert metrics(found)["overall"] == (None, 0, 5)
    assert metrics(found)["overall:floor"] == (None, 0, 5)
    assert found.writer.statuses == {"not_sent": 5}
    assert found.judging.failures == {"no_answer": 10} and found.judging.status == "excluded"
    assert found.judging.coverage == 0.0


def test_unknown_finish_reasons_are_counted_and_reported(tmp_path: Path) -> None:
    ends = ("stop", "length", None, "safety", "safety")
    found = result(tmp_path, [response(n, finish_reason=end) for n, end in enumerate(ends)], [])
    assert found.writer.odd_ends == {"safety": 2}
    (told,) = (notice.text for notice in found.warnings if notice.code == "odd_ends")
    assert "'safety' 2" in told


def test_a_judge_that_answered_as_another_model_has_another_score_key(tmp_path: Path) -> None:
    def judged(returned: str | None) -> TaskResult:
        verdicts = [judgement(0, name, Score(9.0), model_returned=returned) for name in CRITERIA]
        return result(tmp_path, [response(0)], verdicts)

    as_asked, silent, other = judged("j"), judged(None), judged("j-2026")
    assert as_asked.identity == silent.identity and "judge_returned" not in silent.identity
    assert other.identity["judge_returned"] == {"j": ("j-2026",)}
    assert other.score_key != as_asked.score_key


@pytest.mark.parametrize("status", list(WriterStatus))
def test_only_failures_of_the_model_get_the_floor(tmp_path: Path, status: WriterStatus) -> None:
    scored = [judgement(0, name, Score(9.0)) for name in CRITERIA]
    found = result(tmp_path, [response(0), response(1, status)], scored)
    assert metrics(found)["overall"] == (9.0, 1, 5)
    floor = (5.0, 2, 5) if status.cause is Cause.MODEL else (9.0, 1, 5)
    assert metrics(found)["overall:floor"] == floor
    assert found.headline.name == "overall" and found.metrics[0] is found.headline


def test_at_the_floor_stands_the_lowest_value_and_says_so() -> None:
    empty = ItemVerdicts("1", "en", {}, WriterStatus.EMPTY, {"a": (Score(9.0),)})
    lowest = (Score(1.0),) * 2
    assert put_at_floor(empty, CRITERIA, lowest) == replace(
        empty, scores={"a": lowest, "b": lowest}, at_floor=True
    )
    answered = replace(empty, status=WriterStatus.OK)
    assert put_at_floor(answered, CRITERIA, lowest) is answered


@pytest.mark.parametrize(
    ("facts", "floor"), [({}, (1 + 48 + 52) / 3), ({"range": [0, 100]}, (0 + 48 + 52) / 3)]
)
def test_a_judge_on_a_scale_of_its_own_has_its_own_interval_and_floor(
    tmp_path: Path, facts: dict[str, object], floor: float
) -> None:
    answers = [response(0), response(1), response(2, WriterStatus.EMPTY)]
    scored = [
        judgement(n, name, Score(value)) for n, value in ((0, 48.0), (1, 52.0)) for name in CRITERIA
    ]
    found = result(tmp_path, answers, scored, **facts)
    head = found.headline
    assert head.value == 50.0 and head.low is not None and head.high is not None
    assert head.low < 48 and 52 < head.high <= 100
    assert metrics(found)["overall:floor"] == (pytest.approx(floor), 3, 5)


@pytest.mark.parametrize("status", [s for s in JudgeStatus if s is not JudgeStatus.OK])
def test_a_lost_verdict_has_no_value_and_drops_its_answer(
    tmp_path: Path, status: JudgeStatus
) -> None:
    verdicts = [judgement(n, name, Score(8.0)) for n in (0, 1) for name in CRITERIA]
    verdicts[3] = judgement(1, "b", Score(None, status, "why"))
    found = result(tmp_path, [response(0), response(1)], verdicts)
    assert metrics(found)["overall"] == metrics(found)["overall:floor"] == (8.0, 1, 5)
    assert found.judging.failures == {"no_answer": 6} | (
        {"no_answer": 7} if status is JudgeStatus.NO_ANSWER else {str(status): 1}
    )
    assert found.judging.failures_by_criterion == {"b": 1}
    assert found.judging.histogram == {"8": 3} and found.judging.status == "degraded"
    assert found.judging.histograms == {"a": {"8": 2}, "b": {"8": 1}}
    assert (found.judging.n_valid, found.judging.n_total) == (3, 10)


def test_not_sent_and_no_answer_are_different_failures(
    tmp_path: Path,
) -> None:
    responses = [response(0), response(1, WriterStatus.EMPTY), response(2)]
    found = result(tmp_path, responses, [judgement(0, "a", Score(5.0))])
    assert found.judging.failures == {"no_answer": 2 + 4, "not_sent": 1 + 2}


def test_a_retried_record_replaces_its_failure(tmp_path: Path) -> None:
    lost = response(0, WriterStatus.ERROR, answer="", model_returned=None, usage=Usage())
    verdicts = [
        judgement(0, "a", Score(None, JudgeStatus.TIMEOUT, "slow")),
        judgement(0, "a", Score(6.0)),
        judgement(0, "b", Score(8.0)),
    ]
    found = result(tmp_path, [lost, response(0)], verdicts)
    assert metrics(found)["overall"] == (7.0, 1, 5) and found.writer.statuses["ok"] == 1
    assert found.judging.failures == {"no_answer": 8}
    assert (found.writer.prompt_tokens, found.judging.prompt_tokens) == (10, 10)


def test_records_of_other_judges_tasks_and_items_change_nothing(tmp_path: Path) -> None:
    own = [judgement(0, name, Score(6.0)) for name in CRITERIA]
    alone = result(tmp_path, [response(0)], own)
    foreign = [
        judgement(0, "a", Score(1.0), judge="k", key="k1"),
        judgement(9, "a", Score(1.0)),
        judgement(0, "a", Score(1.0), response_key="gone", key="k2"),
    ]
    beside = result(tmp_path, [response(0), response(0, task="other", key="o")], own + foreign)
    assert metrics(beside) == metrics(alone) and beside.judging == alone.judging
    assert beside.score_key == alone.score_key


def test_structured_parts_reach_the_aggregator_and_texts_do_not(tmp_path: Path) -> None:
    score = Score(5.0, reason="long", parts={"inner": {"x": 3}, "reason": "text"})
    found = result(tmp_path, [response(0)], [judgement(0, "a", score)])
    assert metrics(found)["inner"] == (3.0, 1, 5)


def test_answers_are_counted_beside_the_queries_that_they_belong_to(tmp_path: Path) -> None:
    def scored(
        places: Iterable[tuple[int, int]], n_repeats: int, query: str | None = None
    ) -> TaskResult:
        made = [response(n, repeat=r, key=f"r{n}.{r}") for n, r in places]
        verdicts = [
            judgement(n, name, Score(8.0), response_key=f"r{n}.{r}", key=f"{n}.{r}.{name}")
            for n, r in places
            for name in CRITERIA
        ]
        suite = SUITE if query is None else replace(SUITE, query_of=lambda item: query)
        return result(tmp_path, made, verdicts, n_repeats=n_repeats, suite=suite)

    every = [(n, r) for n in range(5) for r in range(3)]
    full, lossy = scored(every, 3), scored([(n, 0) for n in range(5)], 3)
    assert metrics(full)["overall"] == metrics(lossy)["overall"] == (8.0, 5, 5)
    assert (full.scored, lossy.scored) == (Scored(5, 5), Scored(5, 15))
    assert full.judging.answers == Scored(15, 15) and not full.scored.is_partial
    (told,) = [notice.text for notice in lossy.warnings if notice.code == "partial"]
    assert told.startswith("judge j: 5 of 15 answers are scored")
    assert scored([(n, 0) for n in range(5)], 1).judging.answers is None
    assert scored([(0, 0)], 1, query="one prompt").scored == Scored(1, 5)


def test_the_last_turn_stands_for_a_conversation(tmp_path: Path) -> None:
    turns = [
        response(0, turn=0, key="t0"),
        response(0, WriterStatus.EMPTY, turn=1, key="t1"),
    ]
    for order in (turns, turns[::-1]):
        assert result(tmp_path, order, []).writer.statuses == {"empty": 1, "not_sent": 4}


def test_a_conversation_before_its_end_has_no_answer_yet(tmp_path: Path) -> None:
    suite = replace(SUITE, n_turns=3)
    made = [response(0, turn=1), response(1, turn=2), response(2, WriterStatus.REFUSAL, turn=0)]
    statuses = result(tmp_path, made, [], suite=suite).writer.statuses
    assert statuses == {"not_sent": 3, "ok": 1, "refusal": 1}


def test_a_row_tells_the_mean_verdict_of_one_answer(tmp_path: Path) -> None:
    verdicts = [
        judgement(0, "a", Score(4.0)),
        judgement(0, "b", Score(9.0)),
        judgement(1, "a", Score(None, JudgeStatus.TIMEOUT)),
    ]
    suite = replace(SUITE, stages=("b",))
    made = [response(0, thinking="hm"), response(1, thinking=None)]
    both, first, *rest = result(tmp_path, made, verdicts).samples
    assert (both.value, both.n_verdicts, both.response_key) == (6.5, 2, "r0")
    assert (both.answer_chars, both.thinking_chars, both.status) == (6, 2, "ok")
    assert (first.value, first.n_verdicts, first.thinking_chars) == (None, 0, None)
    assert {(row.value, row.n_verdicts, row.answer_chars, row.response_key, row.status)
            for row in rest} == {(None, 0, 0, "", "not_sent")}  # fmt: skip
    staged = result(tmp_path, made, verdicts, suite=suite)
    assert (staged.samples[0].value, staged.samples[0].n_verdicts) == (4.0, 1)
    assert staged.judging.histogram == {"4": 1}


def test_repeated_verdicts_are_awaited_put_in_order_and_split(tmp_path: Path) -> None:
    seen: list[tuple[float | None, ...]] = []

    def look(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
        assert all(item.is_judged for item in items)
        seen.append(tuple(score.value for score in items[0].scores.get("a", ())))
        return aggregate(items, mode)

    values = {0: (1.0, 4.0), 1: (7.0, 9.0)}
    verdicts = [
        judgement(n, name, Score(value), repeat=repeat, key=f"{n}{name}{repeat}")
        for n, own in values.items()
        for repeat, value in reversed(list(enumerate(own)))
        for name in CRITERIA
    ]
    made = [response(0), response(1), response(2, WriterStatus.EMPTY)]
    facts = RunFacts({}, 1, {"j": {}}, 2)
    (found,) = results(tmp_path, made, verdicts, facts, replace(SUITE, aggregate=look))
    assert seen[0] == (1.0, 4.0) and seen[1] == (1.0, 4.0)
    assert found.judging.n_total == 5 * 2 * 2 and found.judging.failures == {"no_answer": 12}
    assert found.noise == noise_split(
        Observation(str(n), value) for n, own in values.items() for value in own
    )
    assert found.identity["judge_repeats"] == 2
    once = [verdict for verdict in verdicts if not verdict.repeat]
    assert result(tmp_path, made, once).noise is None
    assert result(tmp_path, made, once, n_repeats=2).noise is not None


def test_the_split_of_verdicts_is_that_of_an_answers_mean() -> None:
    def verdicts() -> Iterable[Judgement]:
        for n in range(3):
            for sample in range(2):
                for repeat in range(2):
                    for name in CRITERIA:
                        value = float(n * n + sample * 2 + repeat + (name == "b") * 4)
                        lost = (n, name) == (2, "b")
                        score = Score(None, JudgeStatus.TIMEOUT) if lost else Score(value)
                        yield judgement(n, name, score, repeat=repeat, sample_repeat=sample)

    rows = [
        Observation(str(n), n * n + sample * 2 + repeat + (0 if n == 2 else 2), sample)
        for n in range(3)
        for sample in range(2)
        for repeat in range(2)
    ]
    assert split_noise(verdicts()) == noise_split(rows)
    assert split_noise(v for v in verdicts() if v.sample_id == "0") is None
    assert split_noise(v for v in verdicts() if v.sample_id != "2") is not None


def test_no_judge_is_asked_and_none_is_missed_where_a_suite_asks_none(tmp_path: Path) -> None:
    def look(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
        assert not any(item.is_judged for item in items)
        return aggregate(items, mode)

    info = replace(load_info("quickstart"), judge_calls_per_sample=0)
    plan = TaskPlan(info, replace(SUITE, aggregate=look), Mode.STRICT, {}, samples, Decoding())
    facts = RunFacts({}, 1, {"j": {}, "k": {}}, 3, EnsembleSpec(("j", "k"), Combine.MEAN, 1))
    (found,) = summarise(RunFolder(tmp_path), [plan], facts)
    assert (found.judge, found.judging.n_total, found.judging.failures) == (NO_JUDGE, 0, {})
    assert found.identity["judge_repeats"] == 1


@pytest.mark.parametrize("n_judges", [2, 3])
def test_an_ensemble_stands_behind_its_judges_and_without_each_of_three(
    tmp_path: Path, n_judges: int
) -> None:
    judges = ("gpt", "k", "l")[:n_judges]
    verdicts = [
        judgement(n, name, Score(float(place * 2 + 1)), judge=judge, key=f"{judge}{n}{name}",
                  model_returned="gpt-5" if judge == "gpt" else judge)
        for place, judge in enumerate(judges)
        for n in range(2)
        for name in CRITERIA
    ]  # fmt: skip
    spec = EnsembleSpec(judges, Combine.MEAN, 1)
    facts = RunFacts({"model": "gpt-4"}, 1, {judge: {"size": 1} for judge in judges}, 1, spec)
    *alone, whole = results(tmp_path, [response(0), response(1)], verdicts, facts)
    assert [one.judge for one in alone] == list(judges) and whole.judge == spec.id
    assert [one.headline.value for one in alone] == [1.0, 3.0, 5.0][:n_judges]
    assert whole.headline.value == n_judges and whole.ensemble is not None
    assert whole.identity["judge_facts"] == spec.describe(facts.judges)
    assert (
        whole.identity["judge_returned"]
        == {"gpt": ("gpt-5",)}
        == (alone[0].identity["judge_returned"])
    )
    assert "judge_returned" not in alone[1].identity
    left = {one.judge: one.headline.value for one in whole.ensemble.left_out}
    assert left == ({"gpt": 4.0, "k": 3.0, "l": 2.0} if n_judges == 3 else {})
    assert whole.ensemble.own_family == ("gpt",) and whole.ensemble.alpha.n_units == 4
    staged = results(
        tmp_path, [response(0), response(1)], verdicts, facts, replace(SUITE, stages=("b",))
    )[-1]
    assert staged.ensemble is not None and staged.ensemble.alpha.n_units == 2


@pytest.mark.parametrize(
    ("values", "cut"),
    [
        ([9.0, 10.0, 10.0], (None, 10.0)),
        ([1.0, 1.0, 2.0], (1.0, None)),
        ([0.5, 1.5], (1.0, None)),
        ([9.5, 10.5], (None, 10.0)),
        ([0.0, 2.0 - 8e-9], (1.0, 10.0)),
        ([9.0, 11.0 + 8e-9], (1.0, 10.0)),
        ([9.0, 11.0 + 2.1e-8], (None, None)),
        ([-1.0, 0.5], (None, None)),
        ([11.0, 13.0], (None, None)),
    ],
)
def test_an_interval_ends_where_the_scale_does(
    values: list[float], cut: tuple[float | None, float | None]
) -> None:
    """Also of an estimate that is stated on another scale, and of one over several strata."""
    plain = mean_of("x", [(str(n), value) for n, value in enumerate(values)], 9)
    (stratum,) = plain.strata
    twice = tuple(replace(stratum, weight=weight) for weight in (0.5, 1.0))
    for own, offset, scale in (
        (plain, 0.0, 1.0), (replace(plain, scale=2.0, offset=-2.0), -2.0, 2.0),
        (replace(plain, strata=twice, scale=2.0, offset=3.0), 3.0, 3.0),
    ):  # fmt: skip
        free, found = measure(own), measure_within(own, (1.0, 10.0))
        assert found.value == free.value
        ends = (free.low, free.high)
        wanted = [end if bound is None else offset + scale * bound
                  for end, bound in zip(ends, cut, strict=True)]  # fmt: skip
        assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=1e-12)
        assert measure_within(replace(own, bounded=False), (1.0, 10.0)) == free
    nothing = mean_of("x", [], 9)
    assert measure_within(nothing, (1.0, 10.0)) == measure(nothing)


def test_the_score_key_is_a_short_hash_of_an_identity_that_names_its_items(tmp_path: Path) -> None:
    found = result(tmp_path, [], [])
    assert found.identity["items"] == content_hash([str(n) for n in range(5)], 12)
    assert found.score_key == content_hash(found.identity, 12) and len(found.score_key) == 12


def test_parts_of_a_score_stand_as_groups_and_the_headline_first(tmp_path: Path) -> None:
    def split(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
        first, head = aggregate(items, mode)
        return [replace(first, name="criterion/a"), head]

    verdicts = [judgement(0, name, Score(9.0)) for name in CRITERIA]
    found = result(tmp_path, [response(0)], verdicts, suite=replace(SUITE, aggregate=split))
    assert [group.name for group in found.groups] == ["criterion/a"]
    assert [m.name for m in found.metrics] == ["overall", "overall:floor", "criterion/a"]
    assert [m.is_headline for m in found.metrics] == [True, False, False]
    assert found.estimate.name == "overall"


def test_more_than_one_returned_model_is_a_warning(tmp_path: Path) -> None:
    found = result(tmp_path, [response(0), response(1, model_returned="m-2")], [])
    assert any("2 model ids: m-1, m-2" in warning.text for warning in found.warnings)


def test_a_score_over_a_part_of_the_samples_says_so(tmp_path: Path) -> None:
    found = result(tmp_path, [response(0)], [judgement(0, name, Score(5.0)) for name in CRITERIA])
    (told,) = [notice.text for notice in found.warnings if notice.code == "partial"]
    assert told.startswith("judge j: 1 of 5 samples are scored")
    assert "part: 1/5" in next(iter(result_table([found]).columns[4].cells))


@pytest.mark.parametrize("status", [WriterStatus.TRUNCATED, WriterStatus.UNCLOSED_THINK])
def test_many_cut_answers_are_a_warning(tmp_path: Path, status: WriterStatus) -> None:
    found = result(tmp_path, [response(0, status)], [])
    assert any(str(status) in warning.text for warning in found.warnings)


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from(CRITERIA),
        st.one_of(
            st.integers(1, 10).map(lambda n: Score(float(n))),
            st.sampled_from(list(JudgeStatus)[1:]).map(lambda s: Score(None, s, "why")),
        ),
    ),
    unique_by=lambda record: record[:2],
)


@given(RECORDS, st.lists(st.sampled_from(list(WriterStatus)), max_size=5), st.randoms())
@settings(max_examples=40, deadline=None)
def test_every_verdict_is_counted_once_and_the_order_of_lines_is_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[int, str, Score]],
    statuses: list[WriterStatus],
    shuffled: random.Random,
) -> None:
    folder = tmp_path_factory.mktemp("summary")
    responses = [response(n, status) for n, status in enumerate(statuses)]
    verdicts = [judgement(*record) for record in records if record[0] < len(statuses)]
    found = result(folder, responses, verdicts)
    judging = found.judging
    assert judging.n_total == 10 == judging.n_valid + sum(judging.failures.values())
    assert judging.n_valid == sum(judging.histogram.values()) and "0" not in judging.histogram
    assert sum(found.writer.statuses.values()) == 5
    shuffled.shuffle(responses)
    shuffled.shuffle(verdicts)
    # latencies are summed in file order; they are no result
    again = replace(result(folder, responses, verdicts), performance=found.performance)
    assert again == found
