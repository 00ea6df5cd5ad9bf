"""EQ-Bench Creative Writing v3: strict reading, pairs, whole runs. Published rows: parity.py."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.eqbench_creative_v3 import pairwise, scoring, utils
from support import verification_files

from r2w_eval.comparison.display import print_preferences
from r2w_eval.config import RunConfig
from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.errors import DataError, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.results.coverage import Scored, count_answers, scored_of
from r2w_eval.results.summary import put_at_floor
from r2w_eval.run import job as run
from r2w_eval.run.planning import plan_task
from r2w_eval.stats.inference import evaluate, measure
from r2w_eval.store import iter_jsonl
from r2w_eval.suites.suite import PairwiseForm, load_info
from r2w_eval.text.measures import measure_texts, why_uncounted
from r2w_eval.text.metrics import SlopLists, read_slop_lists
from r2w_eval.types import (
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Mode,
    Sample,
    Score,
    WriterStatus,
)

INFO = load_info("eqbench_creative_v3")
SUITE = utils.SUITE
FOLDER = "eqbench_creative_writing_v3"
MODELS = [name.removesuffix(".jsonl.gz") for name in verification_files(f"{FOLDER}/items", "*.gz")]


@pytest.fixture(scope="module")
def lists(data: SuiteData) -> SlopLists:
    return read_slop_lists(data)


@pytest.fixture(scope="module")
def expected(verification: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((verification / FOLDER / "expected.json").read_bytes())
    return content["models"]


def records(verification: Path, model: str) -> list[dict[str, Any]]:
    return read_jsonl(verification / FOLDER / "items" / f"{model}.jsonl.gz")


def read_item(
    record: Mapping[str, Any],
    samples: Mapping[str, Sample],
    mode: Mode = Mode.PARITY,
    measures: Mapping[str, Any] | None = None,
) -> ItemVerdicts:
    sample = samples[f"{record['prompt_id']}-{record['iteration']}"]
    request = JudgeRequest(utils.VERDICT, (), facts=sample.material["facts"])
    score = SUITE.parse_verdict[mode](request, record["judge_raw"])
    scores = {utils.VERDICT: (score,)}
    return ItemVerdicts(
        sample.id, "en", sample.meta, WriterStatus.OK, scores, measures=measures or {}
    )


def values_of(items: list[ItemVerdicts], mode: Mode = Mode.PARITY) -> dict[str, float]:
    found = {e.name: evaluate(e) for e in SUITE.aggregate(items, mode)}
    return {name: value for name, value in found.items() if value is not None}


def test_a_run_counts_its_texts_one_by_one(
    verification: Path, samples: dict[str, Sample], expected: dict[str, Any], lists: SlopLists
) -> None:
    """Borders between texts cost a token or two: the one named difference from the joined count."""
    if why_uncounted():
        pytest.skip(why_uncounted())
    model = next(name for name in MODELS if "published" in expected[name])
    items = []
    for record in records(verification, model):
        measures = json.loads(json.dumps(measure_texts([record["response"]], lists)))
        items.append(read_item(record, samples, measures=measures))
    got, want = values_of(items), expected[model]
    assert got["length"] == pytest.approx(want["avg_length_chars"], abs=1e-9)
    assert f"{got['length']:.0f}" == want["published"]["avg_length"]
    assert got["slop"] == pytest.approx(want["published_slop_index"], abs=0.01)
    notes = {e.name: e.note for e in SUITE.aggregate(items, Mode.PARITY)}
    assert notes["repetition"].startswith("not verified")
    assert notes["vocabulary"].startswith("not verified")


def test_each_prompt_is_written_under_three_seeds(samples: dict[str, Sample]) -> None:
    assert len(samples) == INFO.n_samples == 96
    for sample in samples.values():
        assert "<SEED>" in sample.material["writing_prompt"]
        assert "<SEED>" not in sample.messages[0].content
    assert len({sample.messages[0].content for sample in samples.values()}) == 96
    assert len({sample.meta["prompt_id"] for sample in samples.values()}) == 32


def test_upstream_takes_thinking_out_only_between_two_tags() -> None:
    assert scoring.strip_thinking("<reasoning>x</reasoning>\n\ny") == "y"
    assert scoring.strip_thinking("x</think>y") == "x</think>y"
    assert scoring.strip_thinking("<think>x") == "<think>x"


def test_the_ends_of_the_scale_count_and_an_empty_item_does_not() -> None:
    assert scoring.parse_scores("Pace: 20\nVoice: [20.5]\nTone: -3") == {"Pace": 20, "Tone": -3}
    assert scoring.good_values({"Pace": 20, "Trite": 0, "Purple": -1}, {"Trite", "Purple"}) == [
        20, 20,
    ]  # fmt: skip
    assert scoring.item_mean([[1.0, 3.0], [], [8.0]]) == 5.0
    assert scoring.item_mean([[], []]) is None


def test_each_official_criterion_has_a_mean_of_what_the_judge_wrote(
    samples: dict[str, Sample],
) -> None:
    first, other = (samples[name] for name in ("1-1", "2-1"))
    names = first.meta["criteria"]
    assert len(names) == 22
    lines = {first.id: f"{names[0]}: 4\nCharm: 9", other.id: f"{names[0]}: 5"}
    records = [
        {"prompt_id": s.meta["prompt_id"], "iteration": 1, "judge_raw": lines[s.id]}
        for s in (first, other)
    ]
    found = values_of([read_item(record, samples) for record in records])
    assert found[f"criterion/{names[0]}"] == 4.5
    assert not any(name.endswith("Charm") for name in found)


def test_at_the_floor_a_failed_answer_weighs_as_much_as_a_judged_one(
    samples: dict[str, Sample],
) -> None:
    names = samples["1-1"].meta["criteria"]
    score = Score(15.0, parts={"n": 22, "criteria": dict.fromkeys(names, 15.0)})
    items = [
        ItemVerdicts(s.id, "en", s.meta, WriterStatus.OK, {utils.VERDICT: (score, score)})
        if place % 2
        else ItemVerdicts(s.id, "en", s.meta, WriterStatus.REFUSAL, {})
        for place, s in enumerate(samples.values())
    ]
    floored = [put_at_floor(item, (utils.VERDICT,), (Score(0.0),) * 2) for item in items]
    for mode in Mode:
        assert values_of(items, mode)["rubric"] == 15.0
        assert values_of(floored, mode)["rubric"] == 7.5


def test_a_prompt_with_one_of_its_three_answers_is_a_third_scored(
    samples: dict[str, Sample],
) -> None:
    score = Score(15.0, parts={"n": 22})
    items = [
        ItemVerdicts(s.id, "en", s.meta, WriterStatus.OK, {utils.VERDICT: (score,)})
        if s.meta["iteration"] == 1
        else ItemVerdicts(s.id, "en", s.meta, WriterStatus.CONTENT_FILTER, {})
        for s in samples.values()
    ]
    plan = plan_task("quickstart", RunConfig(), ())
    answers = count_answers(replace(plan, suite=SUITE), items)
    head = measure(SUITE.aggregate(items, Mode.STRICT)[0], draws=10)
    assert (head.n_scored, head.n_expected, answers) == (32, 32, Scored(32, 96))
    assert scored_of(head, answers).is_partial


NAMES = ("Coherent", "Weak Dialogue", "Meandering")
REQUEST = JudgeRequest("rubric", (), facts={"criteria": NAMES, "negative": NAMES[1:]})


def strict(text: str) -> Score:
    return SUITE.parse_verdict[Mode.STRICT](REQUEST, text)


def test_only_the_criterion_about_dialogue_may_be_absent() -> None:
    assert strict("Coherent: 12\nMeandering: 4").value == 14.0
    absent = strict("Coherent: 12\nWeak Dialogue: 3")
    assert absent.status is JudgeStatus.CRITERIA_MISMATCH and "Meandering" in absent.reason
    renamed = strict("Coherent: 12\nMeanders: 4")
    assert "not official: Meanders" in renamed.reason
    outside = strict("Coherent: 12\nMeandering: -1")
    assert outside.status is JudgeStatus.OUT_OF_RANGE


def test_prose_with_numbers_counts_upstream_only() -> None:
    text = "At 11: 2 of them left.\n[Scores]\nCoherent: 12\nMeandering: 4"
    assert strict(text).value == 14.0
    parity = SUITE.parse_verdict[Mode.PARITY](REQUEST, text)
    assert parity.parts["criteria"] == {"At 11": 2.0, "Coherent": 12.0, "Meandering": 4.0}


@given(st.text(max_size=300))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in SUITE.parse_verdict.values():
        score = parse(REQUEST, text)
        assert score.value is None or score.value <= 20
    assert strict(text).value is None or 0 <= float(strict(text).value or 0) <= 20


UPSTREAM = (
    re.compile(r"(.*?):\s*(?:Score\s+)?(-?\d+(?:\.\d+)?)"),
    re.compile(r"(.*?):\s*\[(-?\d+(?:\.\d+)?)\]"),
)


@given(st.text(st.sampled_from("ab:[] \n12.-Score"), max_size=60))
def test_the_fast_reading_is_upstreams(text: str) -> None:
    found = [pair for pattern in UPSTREAM for pair in pattern.findall(text)]
    want = {name.strip(): float(value) for name, value in found if float(value) <= 20}
    assert scoring.parse_scores(text) == want


@pytest.mark.parametrize("unit", ["a: ", "a ", " ", ":", "Score: ", "[", "a:\t"])
def test_hostile_texts_are_read_in_linear_time(unit: str) -> None:
    started = time.monotonic()
    for parse in SUITE.parse_verdict.values():
        parse(REQUEST, (unit * 200_000)[:190_000] + "x")
    assert time.monotonic() - started < 20


def test_wrongly_encoded_data_is_refused(benchmarks: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in INFO.files:
        content = (benchmarks / FOLDER / name).read_bytes()
        if name.endswith("criteria.txt"):
            content = content.decode().encode("utf-16")
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=r"criteria\.txt: altered"):
        list(SUITE.load_samples(INFO.data((tmp_path,))))


@pytest.fixture(scope="module")
def form(data: SuiteData) -> PairwiseForm:
    return utils.load_pairwise(data)


def verdict(request: JudgeRequest, labels: Mapping[str, str], default: str) -> str:
    names = request.facts["criteria"]
    return json.dumps({"reasoning": "x", **{n: labels.get(n, default) for n in names}})


def test_pluses_are_counted_with_their_sign(form: PairwiseForm) -> None:
    request = form.build("Prompt", "First", "Second")
    first, second = request.facts["sides"]
    names = request.facts["criteria"]
    assert len(names) == 9 and first != second
    text = verdict(request, {names[0]: f"{first}+++++", names[1]: f" {first} ++ "}, f"{second}+")
    assert form.parse(request, text).value == 5 + 2 - 7
    assert form.parse(request, f"Well:\n```json\n{text}\n```").value == 0.0


@pytest.mark.parametrize(
    ("label", "status"),
    [
        ("A0001+", JudgeStatus.UNKNOWN_LABEL),
        ("draw", JudgeStatus.UNKNOWN_LABEL),
        ("{first}++++++", JudgeStatus.UNKNOWN_LABEL),
        ("{first}", JudgeStatus.UNKNOWN_LABEL),
    ],
)
def test_an_unknown_label_has_a_status(form: PairwiseForm, label: str, status: JudgeStatus) -> None:
    request = form.build("Prompt", "First", "Second")
    first = request.facts["sides"][0]
    own = {request.facts["criteria"][3]: label.format(first=first)}
    assert form.parse(request, verdict(request, own, f"{first}+")).status is status


def test_a_dropped_criterion_is_typed(form: PairwiseForm) -> None:
    request = form.build("Prompt", "First", "Second")
    labels = json.loads(verdict(request, {}, f"{request.facts['sides'][0]}+"))
    labels.pop(request.facts["criteria"][0])
    score = form.parse(request, json.dumps(labels))
    assert score.status is JudgeStatus.CRITERIA_MISMATCH
    assert form.parse(request, "A tie.").status is JudgeStatus.PARSE_ERROR


def test_long_and_hostile_texts_stay_in_their_frame(form: PairwiseForm) -> None:
    hostile = "{model_b_analysis}" + "x" * 5000
    content = form.build("{model_a_analysis}", hostile, "y" * 5000).messages[0].content
    assert content.count("{model_b_analysis}") == 1 and "x" * 3982 in content
    assert "x" * 3983 not in content and "y" * 4000 in content and "y" * 4001 not in content


@given(st.text(max_size=200))
def test_no_text_breaks_the_pair_parser(text: str) -> None:
    facts = {"sides": ["A1", "A2"], "criteria": ["one", "two"]}
    score = pairwise.parse_pluses(JudgeRequest("preference", (), facts=facts), text)
    assert score.value is None or abs(score.value) <= 10


def write_answers(path: Path, mark: str, samples: Mapping[str, Sample], n: int) -> Path:
    rows = [{"id": name, "response": f"{mark} of {name}. " + "word " * 120} for name in samples]
    path.write_text("\n".join(json.dumps(row) for row in rows[:n]), "utf-8")
    return path


def test_two_runs_are_judged_and_compared_from_end_to_end(
    tmp_path: Path,
    benchmarks: Path,
    samples: dict[str, Sample],
    own_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeServer() as server:
        judge = f"{server.base_url}#judge-0"
        for name in ("one", "two"):
            config = RunConfig(
                model=name,
                tasks="eqbench_creative_v3",
                judge=(judge,),
                responses=str(write_answers(tmp_path / f"{name}.jsonl", name, samples, 18)),
                only_recorded=True,
                out=str(tmp_path / name),
                data_dir=str(benchmarks),
            )
            (result,) = asyncio.run(run.evaluate(config)).results
            assert result.judging.n_valid == 18
            # n counts prompts: the three seeds of one are no independent items
            assert (result.headline.n_scored, result.headline.n_expected) == (6, 6)
            assert result.headline.low is not None
        runs = [str(tmp_path / "one"), str(tmp_path / "two")]
        asyncio.run(print_preferences(runs, judge, str(tmp_path / "pairs"), RunConfig()))
    rows = list(iter_jsonl(tmp_path / "pairs/pairs.jsonl"))
    prompts = {row["item"].partition("/")[2].partition("-")[0] for row in rows}
    # prompt 5 is left out of comparisons
    assert prompts == {"1", "2", "3", "4", "6"} and len(rows) == 5 * 3 * 2
    assert {row["status"] for row in rows} == {"ok"}
    shown = capsys.readouterr().out
    assert "15/15 pairs" in shown and not re.search(r"\belo\b", shown, re.IGNORECASE)


def test_short_answers_are_no_answers(tmp_path: Path, benchmarks: Path, own_cache: Path) -> None:
    lines = [
        json.dumps({"id": "1-1", "response": "x" * 499}),
        json.dumps({"id": "1-2", "response": "Chapter One: 3\n".ljust(500, "x")}),
        json.dumps({"id": "1-3", "response": "word\u2028" * 120}, ensure_ascii=False),
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines), "utf-8")
    with FakeServer() as server:
        config = RunConfig(
            model="m",
            tasks="eqbench_creative_v3",
            judge=(f"{server.base_url}#judge-0",),
            responses=str(tmp_path / "answers.jsonl"),
            only_recorded=True,
            mode="parity",
            out=str(tmp_path / "run"),
            data_dir=str(benchmarks),
        )
        (result,) = asyncio.run(run.evaluate(config)).results
    assert result.writer.statuses == {"ok": 2, "too_short": 1}
    assert result.judging.n_valid == 2
    assert result.judging.n_echoed == 0, "a heading with a number is no verdict"


def test_the_same_id_twice_is_refused(tmp_path: Path, benchmarks: Path) -> None:
    (tmp_path / "answers.jsonl").write_text('{"id": "1-1", "response": "a"}\n' * 2)
    config = RunConfig(
        model="m",
        tasks="eqbench_creative_v3",
        judge=("none",),
        responses=str(tmp_path / "answers.jsonl"),
        out=str(tmp_path / "run"),
        data_dir=str(benchmarks),
    )
    with pytest.raises(UsageError, match="'1-1' stands 2 times"):
        asyncio.run(run.evaluate(config))


def test_a_bare_number_stands_for_every_criterion(samples: dict[str, Sample]) -> None:
    sample = samples["1-1"]
    own = {utils.VERDICT: (Score(0.6),)}
    item = ItemVerdicts(sample.id, "en", sample.meta, WriterStatus.OK, own)
    assert values_of([item])["rubric"] == pytest.approx(0.6)
