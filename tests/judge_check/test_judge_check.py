"""Judge checks: judges of known quality get the card they deserve; stopped checks go on."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r2w_eval.cli import main
from r2w_eval.config import RunConfig
from r2w_eval.errors import DataError, IdentityMismatch, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.hashing import to_plain
from r2w_eval.judge.scorers import ScoreItem, Scorer, Verdict
from r2w_eval.judge_check.card import (
    EvaluatorCard,
    NullFigures,
    Signal,
    find_card,
    load_card,
    load_cards,
    read_card,
)
from r2w_eval.judge_check.check import (
    Check,
    CheckOutcome,
    check_judges,
    checked_judge,
    make_card,
    make_check_manifest,
    read_answers,
)
from r2w_eval.judge_check.figures import Readings, rule_margins, set_figures, text_place
from r2w_eval.judge_check.labelled import LabelledSet, LabelledText, SetSpec, pair_item, rated_item
from r2w_eval.judge_check.markdown import card_markdown
from r2w_eval.judge_check.plan import CheckOptions, plan_questions
from r2w_eval.store import RunFolder
from r2w_eval.types import Decoding, Judgement, Metric, Score

N = 24
OPTIONS = CheckOptions(probes=N, pairs=N)


def spec(name: str, scale: tuple[float, float] | None = None) -> SetSpec:
    return SetSpec(name, f"{name}.jsonl", "0" * 64, "en", "ours", lambda record, key: None, scale)


def sentences(draw: random.Random, n: int) -> str:
    return " ".join(f"Word{draw.randrange(999)} stood by the sea." for _ in range(n))


def pair_set() -> LabelledSet:
    """The better text has a mark that no trivial rule sees; lengths and places are random."""
    draw = random.Random(0)
    items = []
    for i in range(N):
        texts = [sentences(draw, draw.randint(4, 9)) for _ in range(2)]
        better = draw.randrange(2)
        texts[better] += " Good."
        items.append(pair_item(f"p{i}", f"Request {i}.", (texts[0], texts[1]), 1.0 - 2.0 * better))
    return LabelledSet(spec("pairs"), tuple(items))


def rated_set() -> LabelledSet:
    draw = random.Random(1)
    items = []
    for i in range(N):
        texts = [
            LabelledText(
                name,
                sentences(draw, draw.randint(4, 9)) + " Good." * level,
                name,
                (float(level), float(min(3, max(0, level + draw.choice((-1, 0, 1)))))),
            )
            for name, level in (("weak", 1), ("middle", 2), ("strong", 3))
        ]
        items.append(rated_item(f"r{i}", f"Rated {i}.", texts, 1))
    return LabelledSet(spec("rated", (0.0, 3.0)), tuple(items))


class MarkScorer:
    """Counts the mark; sees through every null answer that lacks it."""

    id = "mark"

    def describe(self) -> dict[str, Any]:
        return {"range": [0, 3]}

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        return [Verdict(Score(self.value(item))) for item in items]

    def value(self, item: ScoreItem) -> float:
        order = "Good." in item.answer and item.answer.endswith("Good.")
        belongs = item.answer != "" and "Good." not in item.prompt
        return float(item.answer.count("Good.")) if order and belongs else 0.0

    async def close(self) -> None: ...


class LengthScorer(MarkScorer):
    """Prefers what is longer, whatever it says."""

    id = "length"

    def value(self, item: ScoreItem) -> float:
        return min(3.0, len(item.answer) / 200)


def card_of(scorer: Scorer, labelled: Sequence[LabelledSet]) -> EvaluatorCard:
    judgements = []
    for one in labelled:
        for question in plan_questions(one, OPTIONS, 1, with_pairs=False):
            item = ScoreItem(question.request, Decoding(), question.parse, 0)
            item = replace(item, prompt=question.prompt, answer=question.answer)
            (verdict,) = asyncio.run(scorer.score([item]))
            judgements.append(
                Judgement(
                    key=f"{one.spec.name}/{question.sample_id}",
                    response_key="",
                    task=question.task,
                    sample_id=question.sample_id,
                    judge=scorer.id,
                    criterion="quality",
                    score=verdict.score,
                )
            )
    check = Check(RunConfig(judge=("x:y",)), OPTIONS, labelled, Decoding())
    manifest = make_check_manifest(check, {scorer.id: scorer.describe()})
    return make_card(checked_judge(scorer), check, judgements, manifest, {})


@pytest.fixture(scope="module")
def good() -> EvaluatorCard:
    return card_of(MarkScorer(), [pair_set(), rated_set()])


@pytest.fixture(scope="module")
def lengthy() -> EvaluatorCard:
    return card_of(LengthScorer(), [pair_set()])


def test_a_judge_that_sees_quality_is_found_out(good: EvaluatorCard) -> None:
    pairs, rated = good.sets
    assert pairs.metrics[0].value == 1.0 and pairs.metrics[0].low > 0.85  # type: ignore[operator]
    assert pairs.lift.low is not None and pairs.lift.low > 0
    named = {metric.name: metric for metric in rated.metrics}
    assert named["spearman"].value == pytest.approx(1.0)
    assert named["quadratic_kappa"].value == pytest.approx(1.0)
    assert named["left_out:judge"].value > named["left_out:person"].value - 0.2  # type: ignore[operator]
    assert good.signal in (Signal.CLEAR, Signal.PARTIAL)
    empty = next(null for null in good.nulls if null.name == "empty")
    # half of the paired texts lack the mark too and tie with the null answer
    assert empty.survives and empty.below.value == 0.875 and not empty.beats_a_system
    assert "better than" in good.verdict[0]


@pytest.mark.parametrize(("n", "low", "shown"), [(5, 2.0, False), (6, 2.0, True), (3, 1.9, True)])
def test_equal_gaps_of_a_few_requests_show_nothing(n: int, low: float, shown: bool) -> None:
    gap = Metric("real minus null", 2.0, low, 2.0, n, n)
    assert NullFigures("empty", "", n, 1.0, 3.0, gap, gap).survives is shown


def test_a_judge_of_length_has_no_signal_and_is_flagged(lengthy: EvaluatorCard) -> None:
    assert lengthy.signal is Signal.NONE
    slope = next(m for m in lengthy.behaviour if m.name == "length_slope")
    assert slope.low is not None and slope.low > 0
    assert any("scores rise with length" in flag for flag in lengthy.flags)
    longest = next(null for null in lengthy.nulls if null.name == "longest")
    assert longest.below.value == 0.0 and not longest.survives
    shuffled = next(null for null in lengthy.nulls if null.name == "shuffled_sentences")
    assert not shuffled.survives
    # as high as the real ones, which the verdict says; a flag is for what scores above them
    assert "shuffled_sentences" in lengthy.verdict[-1]
    assert not any("shuffled_sentences" in flag for flag in lengthy.flags)


def test_trivial_rules_are_what_their_names_say() -> None:
    labelled = pair_set()
    item = labelled.items[0]
    (pair,) = item.pairs
    rules = rule_margins(labelled)
    margin = rules["longer"](item, pair)
    assert margin == len(item.texts[0].text) - len(item.texts[1].text)
    assert rules["shorter"](item, pair) == -margin and rules["constant"](item, pair) == 0
    figures = set_figures(read_answers(labelled, OPTIONS, [], None))
    named = {metric.name: metric for metric in figures.baselines}
    assert named["constant"].value == 0.5
    first = sum(item.pairs[0].human > 0 for item in labelled.items) / N
    assert named["first"].value == first and named["majority"].value == max(first, 1 - first)
    assert figures.metrics[0].value is None and figures.metrics[0].n_expected == N


def test_lost_verdicts_are_counted_and_never_scored() -> None:
    figures = set_figures(read_answers(pair_set(), OPTIONS, [], (1, 10)))
    assert figures.lift.value is None and figures.metrics[0].n_scored == 0


def test_a_card_survives_its_json_form(good: EvaluatorCard, tmp_path: Path) -> None:
    record = json.loads(json.dumps(to_plain(good)))
    assert read_card({**record, "of a later version": 1}) == good
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert load_cards(tmp_path) == [good] and load_cards(tmp_path / "none") == []
    assert find_card([good], "mark", {"range": [0, 3]}) == good
    assert find_card([good], "mark", {"range": [0, 4]}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "x"}, "not an evaluator card"),
        ({"schema": 99}, "schema 99"),
        ({"sets": 3}, "brok"),
    ],
)
def test_other_files_are_no_cards(
    good: EvaluatorCard, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps({**to_plain(good), **change}))
    with pytest.raises(DataError, match=message):
        load_card(path)


def test_names_from_outside_are_plain_text_in_markdown(good: EvaluatorCard) -> None:
    text = card_markdown(replace(good, judge="a|b<script>\n# x"))
    assert "<script>" not in text and "\n# x" not in text


@pytest.fixture
def config(server: FakeServer, tmp_path: Path, own_cache: Path) -> RunConfig:
    return RunConfig(
        judge=(f"{server.base_url}#judge-0",),
        out=str(tmp_path / "check"),
        limit=4,
        cache=False,
    )


@pytest.fixture
def small(reward_data: Path) -> CheckOptions:
    sets = "autoj_writing_dev,nextchapter_crowd"
    return CheckOptions(labels=str(reward_data), sets=sets, max_texts=3, probes=2, pairs=2)


def check(config: RunConfig, options: CheckOptions) -> CheckOutcome:
    return asyncio.run(check_judges(config, options))


def test_a_check_asks_everything_once(
    server: FakeServer, config: RunConfig, small: CheckOptions
) -> None:
    first = check(config, small)
    n = server.stats().total.requests
    (card,) = first.cards
    assert n == card.consumption.n_verdicts == card.consumption.n_usable == first.progress.sent
    assert {m.name for m in card.behaviour} >= {"first_wins", "flip_rate", "leniency"}
    again = check(config, small)
    assert server.stats().total.requests == n and again.cards == first.cards
    assert load_card(again.files[0]) == card
    assert again.files[1].read_text("utf-8").startswith("# Evaluator card: judge-0")


def test_a_stopped_check_has_a_card_that_says_so_and_goes_on(
    server: FakeServer, config: RunConfig, small: CheckOptions
) -> None:
    options = replace(small, sets="nextchapter_crowd")
    slow = replace(config, judge=(f"{server.base_url}#judge-150",), max_connections=1)

    async def stop_soon() -> None:
        await asyncio.wait_for(check_judges(slow, options), 1.5)

    with pytest.raises(TimeoutError):
        asyncio.run(stop_soon())
    (path,) = Path(config.out or "").glob("cards/*.json")
    card = load_card(path)
    assert 0 < card.consumption.n_usable < card.consumption.n_verdicts
    assert card.consumption.failures.keys() == {"not_sent"}
    assert any("verdicts lost: not_sent" in flag for flag in card.flags)
    (whole,) = check(slow, options).cards
    assert whole.consumption.n_usable == whole.consumption.n_verdicts == 28
    assert server.stats().total.requests <= 28 + 1


def test_a_check_of_other_sets_is_another_check(config: RunConfig, small: CheckOptions) -> None:
    check(config, small)
    with pytest.raises(IdentityMismatch, match="probes: 2 -> 1"):
        check(config, replace(small, probes=1))
    with pytest.raises(UsageError, match="holds a judge_check, not a run"):
        RunFolder.existing(config.out or "")


def test_repeats_are_measured_and_need_a_sampling_judge(
    config: RunConfig, small: CheckOptions
) -> None:
    with pytest.raises(UsageError, match="does not sample"):
        check(replace(config, repeats=2), small)
    outcome = check(replace(config, repeats=2, judge_kwargs="temperature=1"), small)
    named = {m.name: m for m in outcome.cards[0].behaviour}
    assert named["repeat_range"].n_expected > 0 and "repeat_variance_share" in named


def test_faults_are_statuses_and_red_flags(
    server: FakeServer, config: RunConfig, small: CheckOptions
) -> None:
    faulty = replace(config, judge=(f"{server.base_url}#judge-0+malformed=0.5+sticky",))
    (card,) = check(faulty, small).cards
    used = card.consumption
    assert used.failures["parse_error"] == used.n_verdicts - used.n_usable > 0
    assert any("verdicts lost: parse_error" in flag for flag in card.flags)


def test_several_judges_have_a_card_of_their_combination(
    server: FakeServer, config: RunConfig, small: CheckOptions
) -> None:
    judges = tuple(f"{server.base_url}#{name}" for name in ("judge-0", "judge-1"))
    options = replace(small, sets="nextchapter_crowd")
    outcome = check(replace(config, judge=judges), options)
    first, second, combined = outcome.cards
    assert combined.judge == "mean(judge-0, judge-1)" and len(outcome.files) == 6
    assert combined.judge_facts["judges"]["judge-1"] == second.judge_facts
    assert combined.consumption.n_usable == first.consumption.n_usable
    tokens = first.consumption.prompt_tokens + second.consumption.prompt_tokens
    assert combined.consumption.prompt_tokens == tokens
    own = [next(m for m in card.behaviour if m.name == "mean_score") for card in outcome.cards]
    values = [metric.value for metric in own]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2)  # type: ignore[operator]
    mixed = replace(config, judge=(judges[0], f"{__name__}:MarkScorer"), combine="mean")
    with pytest.raises(UsageError, match="scales differ"):
        check(replace(mixed, out=f"{config.out}-mixed"), options)


def test_a_scorer_of_single_texts_sees_no_pairs(config: RunConfig, small: CheckOptions) -> None:
    (card,) = check(replace(config, judge=(f"{__name__}:MarkScorer",)), small).cards
    assert card.judge == "mark" and any("single texts" in note for note in card.notes)
    assert "first_wins" not in {m.name for m in card.behaviour}


def test_missing_labels_are_a_user_error(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--labels"):
        check(config, CheckOptions(labels=str(tmp_path)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["judge-check", "--sets", "autoj_writing", "--labels", "."],
            "Did you mean autoj_writing_dev",
        ),
        (["judge-check", "--labels", "nowhere"], "the labelled set autoj_writing_dev is not there"),
        (["judge-check", "--dry-run", "--labels", "nowhere"], "or set R2W_REWARD_DATA"),
        (["run", "--model", "smollm2", "--combine", "men"], "'men' is not one of 'mean'"),
    ],
)
def test_user_errors_are_reported_without_a_traceback(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["r2w-eval", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_counts_calls_and_makes_none(
    small: CheckOptions, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    limits = ["--limit", "4", "--max-texts", "3", "--probes", "2", "--pairs", "2"]
    arguments = ["--labels", str(small.labels), "--sets", "nextchapter_crowd", *limits]
    monkeypatch.setattr(sys, "argv", ["r2w-eval", "judge-check", "--dry-run", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().out
    # 4 x 3 texts, 2 x 6 null answers, 2 pairs in both orders
    assert ended.value.code == 0 and "nextchapter_crowd" in shown and " 24 " in shown


def test_a_repeat_stands_in_for_a_lost_verdict() -> None:
    item = pair_item("one", "a prompt", ("a text", "another"), 1.0)
    scores = {text_place(item, "1"): (None, 4.0, 5.0), text_place(item, "2"): (None,)}
    readings = Readings(LabelledSet(spec("pairs"), (item,)), scores, {}, (), (1.0, 10.0))
    assert (readings.score(item, "1"), readings.score(item, "2")) == (4.0, None)
