"""Arena-Hard v2, creative: labels, expanded outcomes and prompts against upstream's own code."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.tasks.arena_hard_creative import utils
from support import ScriptedReply, ScriptedServer, completion, run_with_fake_server

from r2w_eval.config import RunConfig
from r2w_eval.data import SuiteData, data_roots
from r2w_eval.errors import DataError
from r2w_eval.hashing import text_hash
from r2w_eval.results.summary import TaskResult
from r2w_eval.run import evaluate
from r2w_eval.run.display import describe_leanings
from r2w_eval.run.planning import plan_tasks
from r2w_eval.stats import measure
from r2w_eval.stats.inference import evaluate as value_of
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

INFO = load_info("arena_hard_creative")
SUITE = utils.SUITE
LABELS = sorted(utils.LABELS[Mode.PARITY])


def read_uids(benchmarks: Path) -> list[str]:
    path = benchmarks / "arena_hard_v2_creative/question_creative_writing.jsonl"
    return [json.loads(line)["uid"] for line in path.read_bytes().split(b"\n") if line]


@pytest.fixture(scope="module")
def baseline(benchmarks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers in upstream's own form."""
    path = tmp_path_factory.mktemp("baseline") / "gemini.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for uid in read_uids(benchmarks):
            content = {"answer": f"Baseline\u2028to {uid}."}
            line = {
                "uid": uid,
                "model": "b",
                "messages": [{"role": "assistant", "content": content}],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path


@pytest.fixture(scope="module")
def data(benchmarks: Path, baseline: Path) -> SuiteData:
    return INFO.data(data_roots(str(benchmarks)), {"baseline": baseline})


@pytest.fixture(scope="module")
def vectors(verification: Path) -> dict[str, Any]:
    path = verification / "arena_hard_v2_creative/vectors.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def judged(uid: str, first: str, second: str, mode: Mode = Mode.PARITY) -> ItemVerdicts:
    """A question whose games the judge decided by these labels."""
    scores = {
        game: (SUITE.parse_verdict[mode](JudgeRequest(game, ()), f"I say [[{label}]]"),)
        for game, label in zip(utils.GAMES, (first, second), strict=True)
    }
    return ItemVerdicts(uid, "", {}, WriterStatus.OK, scores)


def winrates(items: list[ItemVerdicts], mode: Mode = Mode.PARITY) -> dict[str, float | None]:
    return {e.name: value_of(e) for e in SUITE.aggregate(items, mode)}


def test_labels_are_read_as_upstream_reads_them(vectors: dict[str, Any]) -> None:
    for vector in vectors["verdict"]["vectors"]:
        score = utils.parse_parity(JudgeRequest(utils.MODEL_FIRST, ()), vector["text"])
        if vector["ok"]:
            assert score.parts.get("label") == vector["result"], vector
        else:
            assert score.value is None, vector


def test_outcomes_expand_and_average_as_upstream(vectors: dict[str, Any]) -> None:
    for vector in vectors["score"]["vectors"]:
        items = [judged(str(i), *games) for i, games in enumerate(vector["games"])]
        rows = [row for item in items for row in utils.expand(utils.read_games(item))]
        assert rows == vector["expanded"]
        found = winrates(items)
        assert found["winrate"] == pytest.approx(vector["mean"], abs=1e-12)
        assert found["winrate:copied_rows"] == found["winrate"]


def test_judge_prompts_are_byte_equal(vectors: dict[str, Any], data: SuiteData) -> None:
    samples = {sample.id: sample for sample in SUITE.load_samples(data)}
    templates = SUITE.load_templates(data)
    for vector in vectors["judge_prompt"]["vectors"]:
        sample = samples[vector["uid"]]
        sample = Sample("t", sample.id, sample.messages, material={"baseline": vector["answer_b"]})
        answer = Answer(vector["answer_a"], "", WriterStatus.OK)
        job = JudgingJob(sample, answer, templates, Mode.PARITY)
        user = {r.criterion: r.messages[1].content for r in SUITE.plan_judging(job)}
        assert text_hash(user[utils.MODEL_FIRST]) == vector["sha256"]
        assert len(user[utils.MODEL_FIRST]) == vector["chars"]


def test_all_prompts_are_there_and_line_separators_split_no_line(data: SuiteData) -> None:
    samples = list(SUITE.load_samples(data))
    assert len({sample.id for sample in samples}) == INFO.n_samples == 250
    assert {tuple(SUITE.criteria(sample)) for sample in samples} == {
        ("baseline_first", "model_first")
    }
    assert all(f"Baseline\u2028to {s.id}." == s.material["baseline"] for s in samples)


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1))
def test_weights_equal_copied_rows_and_swapping_sides_mirrors(games: list[tuple[str, str]]) -> None:
    items = [judged(str(i), *pair) for i, pair in enumerate(games)]
    mirrored = [judged(str(i), second, first) for i, (first, second) in enumerate(games)]
    found, other = winrates(items), winrates(mirrored)
    for name in ("winrate", "winrate:weighted", "winrate:plain"):
        value, mirror = found[name], other[name]
        assert value is not None and mirror is not None
        assert 0 <= value <= 1 and value + mirror == pytest.approx(1)
    assert found["winrate"] == pytest.approx(found["winrate:weighted"])


def test_an_interval_draws_questions_not_copies() -> None:
    decided = [("B>>A", "A>>B") if i % 2 else ("A>>B", "B>>A") for i in range(40)]
    items = [judged(str(i), *pair) for i, pair in enumerate(decided)]
    metrics = {e.name: measure(e) for e in SUITE.aggregate(items, Mode.STRICT)}
    ours, copies = metrics["winrate"], metrics["winrate:copied_rows"]
    assert ours.low is not None and ours.high is not None
    assert copies.low is not None and copies.high is not None
    # six equal rows a question: upstream's interval is about a 6th of the variance
    assert (ours.high - ours.low) / (copies.high - copies.low) == pytest.approx(6**0.5, rel=0.1)
    assert (ours.n_scored, copies.n_scored) == (40, 240)


def test_strong_verdicts_count_three_times_and_once() -> None:
    found = winrates([judged("1", "A>B", "A>>B")])
    assert (found["winrate"], found["winrate:plain"]) == (0.75, 0.5)


def test_every_label_says_how_the_model_fares(data: SuiteData, sample: Sample) -> None:
    job = JudgingJob(
        sample, Answer("x", "x", WriterStatus.OK), SUITE.load_templates(data), Mode.STRICT
    )
    first, second = (request.scale for request in SUITE.plan_judging(job))
    assert first is not None and second is not None
    wins = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0}
    assert second.labels == wins and first.labels == {name: 1 - own for name, own in wins.items()}
    for mode, labels in utils.LABELS.items():
        for label in labels:
            # the other order of the letters with the signs turned says the same
            turned = label[::-1].translate(str.maketrans("<>", "><"))
            mirror = turned if mode is Mode.PARITY else label
            one, other = (winrates([judged("1", own, own, mode)], mode) for own in (label, mirror))
            assert one == other and one["winrate"] == 0.5
            (game, _) = utils.read_games(judged("1", label, "A=B", mode))
            assert (
                utils.read_games(judged("1", "A=B", label, mode))[0].weight
                == (3 if len(label) == 4 else 1)
                and game.weight == 1
            )


def test_figures_by_weights_and_by_verdicts() -> None:
    items = [judged("1", "B>>A", "A>B"), judged("2", "A>B", "A=B"), judged("3", "B>A", "B>>A")]
    found = {e.name: measure(e) for e in SUITE.aggregate(items, Mode.STRICT)}
    # outcomes and weights: 1 (3), 1 (1); 0 (1), 1/2 (1); 1 (1), 0 (3)
    assert found["winrate"].value == found["winrate:weighted"].value == pytest.approx(5.5 / 10)
    assert found["winrate_percent"].value == pytest.approx(55.0)
    assert found["winrate:plain"].value == pytest.approx(3.5 / 6)
    counts = {name: (m.n_scored, m.n_expected) for name, m in found.items()}
    copies = counts.pop("winrate:copied_rows")
    assert copies == (10, 10) and set(counts.values()) == {(3, 3)}
    assert [name for name, m in found.items() if m.is_headline] == ["winrate"]
    weighted = found["winrate:weighted"]
    assert (weighted.low, weighted.high) == (found["winrate"].low, found["winrate"].high)
    missing = judged("1", "A>B", "A>B")
    floored = replace(missing, scores=dict.fromkeys(utils.GAMES, (Score(0.0),)), at_floor=True)
    rows = utils.expand(utils.read_games(floored))
    assert rows == [0.0] * 6
    assert winrates([floored, judged("2", "A=B", "A=B")])["winrate"] == pytest.approx(1 / 8)
    far = utils.parse_strict(JudgeRequest("model_first", ()), f"[[{'A' * 50}]]")
    assert far.reason.startswith(f"[[{'A' * 40}]] is not one of A>>B, A>B")


def test_a_null_in_one_game_drops_the_question_only() -> None:
    whole = judged("1", "B>A", "A>B")
    lost = (Score(None, JudgeStatus.PARSE_ERROR, "no label"),)
    half = ItemVerdicts(
        "2", "", {}, WriterStatus.OK, {**judged("2", "A>B", "B>A").scores, utils.MODEL_FIRST: lost}
    )
    assert utils.read_games(half) == []
    headline = measure(SUITE.aggregate([whole, half], Mode.PARITY)[0])
    assert (headline.value, headline.n_scored, headline.n_expected) == (1.0, 1, 2)


@pytest.mark.parametrize(
    ("text", "strict", "parity"),
    [
        ("[[A>B]] at first, but [[b>>a]]", JudgeStatus.OK, JudgeStatus.OK),
        ("[A>B]", JudgeStatus.PARSE_ERROR, JudgeStatus.OK),
        (r"so **\[\[ B \> A \]\]**", JudgeStatus.OK, JudgeStatus.PARSE_ERROR),
        ("[[A<B]]", JudgeStatus.UNKNOWN_LABEL, JudgeStatus.OK),
        ("[[A>B]] no: [[A>>>B]]", JudgeStatus.UNKNOWN_LABEL, JudgeStatus.UNKNOWN_LABEL),
        ("[[A]]", JudgeStatus.UNKNOWN_LABEL, JudgeStatus.UNKNOWN_LABEL),
        ("A is better", JudgeStatus.PARSE_ERROR, JudgeStatus.PARSE_ERROR),
    ],
)
def test_odd_labels_are_statuses(text: str, strict: JudgeStatus, parity: JudgeStatus) -> None:
    request = JudgeRequest(utils.BASELINE_FIRST, ())
    assert utils.parse_strict(request, text).status is strict
    assert utils.parse_parity(request, text).status is parity


def test_a_spaced_last_label_is_the_verdict() -> None:
    request = JudgeRequest(utils.MODEL_FIRST, ())
    assert (
        utils.parse_strict(request, "[[A>B]] at first. My final verdict is: [[ B > A ]]").value == 0
    )


def test_without_a_baseline_it_says_where_to_get_one(benchmarks: Path) -> None:
    with pytest.raises(DataError, match="--baseline FILE.*gemini-2.0-flash-001.jsonl"):
        list(SUITE.load_samples(INFO.data(data_roots(str(benchmarks)))))


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([("nobody", "x")], "no answer to any of the 250 prompts.*gemini-2.0-flash-001"),
        ([("{uid}", "x"), ("{uid}", "y")], "two different answers to {uid}"),
    ],
)
def test_a_baseline_of_strangers_or_doubles_is_refused(
    lines: list[tuple[str, str]], complaint: str, benchmarks: Path, tmp_path: Path
) -> None:
    uid = read_uids(benchmarks)[0]
    path = write_baseline(tmp_path, [(name.format(uid=uid), text) for name, text in lines])
    with pytest.raises(DataError, match=complaint.format(uid=uid)):
        list(SUITE.load_samples(INFO.data(data_roots(str(benchmarks)), {"baseline": path})))


def test_a_prompt_without_an_answer_of_the_baseline_lacks_it(
    benchmarks: Path, tmp_path: Path
) -> None:
    uids = read_uids(benchmarks)
    path = write_baseline(tmp_path, [(uids[1], "The baseline's.")])
    samples = SUITE.load_samples(INFO.data(data_roots(str(benchmarks)), {"baseline": path}))
    lacking = {sample.id: (sample.lacks, dict(sample.material)) for sample in samples}
    assert lacking.pop(uids[1]) == ("", {"baseline": "The baseline's."})
    assert len(lacking) == 249 and all(own == ("baseline", {}) for own in lacking.values())


def write_baseline(folder: Path, answers: list[tuple[str, str]]) -> Path:
    path = folder / "partial.jsonl"
    lines = [json.dumps({"id": name, "response": text}) for name, text in answers]
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_prompts_without_a_baseline_answer_are_named_counted_and_not_averaged_away(
    benchmarks: Path, tmp_path: Path, own_cache: Path
) -> None:
    uids = read_uids(benchmarks)
    partial = write_baseline(tmp_path, [(uid, "The baseline's.") for uid in uids[1:3]])
    given = {"baseline": str(partial), "limit": None, "mode": "parity"}
    with pytest.raises(DataError, match=f"has nothing for 248 samples: {uids[0]}.*--only-complete"):
        run_with_fake_server("arena_hard_creative", benchmarks, tmp_path / "all", **given)
    result = run_with_fake_server(
        "arena_hard_creative", benchmarks, tmp_path / "run", only_complete=True, **given
    )
    assert [row.sample_id for row in result.samples] == uids[1:3]
    assert (result.headline.n_expected, result.judging.n_total) == (2, 4)
    assert result.warnings[0].text.startswith(
        f"248 samples left out that --baseline has nothing for: {uids[0]}, {uids[3]}"
    )
    drawn = RunConfig(
        tasks="arena_hard_creative", only_complete=True, shuffle=True,
        data_dir=str(benchmarks), **{**given, "limit": 1},
    )  # fmt: skip
    assert plan_tasks(drawn)[0].notes[0] == result.warnings[0].text


def test_both_games_are_judged_over_http_and_the_lost_one_is_asked_again(
    benchmarks: Path, baseline: Path, tmp_path: Path, own_cache: Path, capsys: Any
) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(
        "".join(
            json.dumps({"id": uid, "response": "Mine."}) + "\n" for uid in read_uids(benchmarks)[:2]
        ),
        "utf-8",
    )
    config = RunConfig(
        tasks="arena_hard_creative",
        model="mine",
        responses=str(answers),
        only_recorded=True,
        baseline=str(baseline),
        data_dir=str(benchmarks),
        mode="parity",
        out=str(tmp_path / "run"),
        cache=False,
    )

    def run(*texts: str, retry_failed: bool = False) -> TaskResult:
        replies: list[ScriptedReply] = [(200, {}, completion(text)) for text in texts]
        with ScriptedServer(*replies) as server:
            server.models = ["judge-2\x1b[2J"]
            judges = (f"{server.base_url}#judge",)
            changed = replace(config, judge=judges, retry_failed=retry_failed)
            outcome = asyncio.run(evaluate(changed))
        assert len(server.seen) == len(texts)
        return outcome.results[0]

    result = run("[[A>>B]]", "[[A>>B]]", "I cannot decide", "[[A>>B]]")
    assert "does not list model 'judge'; it lists judge-2\ufffd[2J" in capsys.readouterr().err
    assert result.judging.failures == {"parse_error": 1}
    apart = result.judging.disagreement
    assert apart is not None and (apart.n_order_flips, apart.n_order_pairs) == (1, 1)
    assert "winner changed with the order: 1 of 1" in describe_leanings(result.judging)
    assert (result.headline.value, result.headline.n_scored, result.headline.n_expected) == (
        0.5,
        1,
        2,
    )
    assert set(result.identity["inputs"]) == {"baseline"}
    result = run("[[A=B]]", retry_failed=True)
    assert result.judging.n_valid == 4 and result.headline.n_scored == 2
