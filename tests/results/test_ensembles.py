"""Several judges as one: rules, losses, identity, and what stands beside the combined number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.cli import cli
from r2w_eval.config import RunConfig, merge_config, split_judges
from r2w_eval.data import data_roots
from r2w_eval.errors import CoverageTooLow, IdentityMismatch, UnknownName, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.judge.families import family_of, is_own_family
from r2w_eval.judge.scorers import ScoreItem, Verdict
from r2w_eval.results.ensembles import (
    PAIR_DRAWS,
    Combine,
    EnsembleSpec,
    combine_parts,
    combine_scores,
    combine_values,
    combine_verdicts,
    make_spec,
    summarise_ensemble,
)
from r2w_eval.run.display import describe_traffic, ensemble_table, work_prices
from r2w_eval.run.job import Outcome, check_outcome, evaluate, judge_again
from r2w_eval.stats.agreement import associate, krippendorff_alpha
from r2w_eval.stats.inference import evaluate as evaluate_estimate
from r2w_eval.stats.noise import Observation, judge_split
from r2w_eval.suites.suite import load_info, load_suite, suite_folders
from r2w_eval.types import (
    ItemVerdicts,
    Judgement,
    JudgeStatus,
    Mode,
    Score,
    Usage,
    WriterStatus,
)

VALUES = st.lists(st.integers(1, 10).map(float), min_size=3, max_size=9)


@given(VALUES)
def test_the_rules_equal_their_definitions(values: list[float]) -> None:
    assert combine_values(values, Combine.MEAN) == pytest.approx(sum(values) / len(values))
    twice, n = sorted(values * 2), len(values)
    assert combine_values(values, Combine.MEDIAN) == (twice[n - 1] + twice[n]) / 2
    trimmed = combine_values(values, Combine.TRIMMED)
    assert trimmed == pytest.approx(scipy.stats.trim_mean(values, 1 / len(values) + 1e-12))
    majority = combine_values(values, Combine.MAJORITY)
    winners = {v for v in values if 2 * values.count(v) > len(values)}
    assert ({majority} if majority is not None else set()) == winners


def test_the_median_of_an_even_number_lies_between() -> None:
    assert combine_values([1, 4, 8, 9], Combine.MEDIAN) == 6


@given(VALUES, st.sampled_from(list(Combine)))
def test_judges_who_agree_are_not_changed(values: list[float], combine: Combine) -> None:
    assert combine_values([values[0]] * len(values), combine) == pytest.approx(values[0])


def test_parts_are_combined_where_all_judges_have_them() -> None:
    parts: list[dict[str, Any]] = [
        {"scores": {"plot": 3, "style": 5}, "label": "A", "is_good": True, "mass": 0.5},
        {"scores": {"plot": 4}, "label": "B", "is_good": True, "mass": 0.75},
    ]
    assert combine_parts(parts, Combine.MEAN) == {"scores": {"plot": 4}, "mass": 0.625}


def test_whole_parts_stay_whole_and_without_a_majority_the_middle_one_counts() -> None:
    parts = [{"grade": 1, "mass": 0.25}, {"grade": 2, "mass": 0.5}, {"grade": 7, "mass": 1}]
    assert combine_parts(parts, Combine.MAJORITY) == {"grade": 2, "mass": 0.5}
    mean = combine_parts(parts, Combine.MEAN)
    assert mean == {"grade": 3, "mass": pytest.approx(1.75 / 3)} and type(mean["grade"]) is int
    assert combine_parts([{"a": True}, {"a": 1}], Combine.MEAN) == {}
    assert combine_parts([{"a": {"b": 1}}, {"a": 3}], Combine.MEAN) == {}
    lists: list[dict[str, Any]] = [{"a": [1.0, None], "b": [1]}, {"a": [2.0, 3.0], "b": [1, 2]}]
    assert combine_parts(lists, Combine.MEAN) == {"a": [1.5, None]}


def test_too_few_usable_verdicts_make_none() -> None:
    spec = make_spec(("a", "b", "c"), "mean", 2)
    lost = Score(None, JudgeStatus.PARSE_ERROR, "prose")
    found = combine_scores([Score(4.0), lost, lost], spec)
    assert found.status is JudgeStatus.TOO_FEW_JUDGES and found.value is None
    assert found.reason == "1 of 3 judges, 2 needed (parse_error 2)"
    assert combine_scores([Score(4.0), Score(8.0), lost], spec).value == 6.0
    split = combine_scores([Score(1.0), Score(2.0), Score(3.0)], make_spec("abc", "majority", 3))
    assert split.status is JudgeStatus.NO_MAJORITY


def test_a_question_that_one_judge_was_never_asked_counts_as_missing() -> None:
    spec = EnsembleSpec(("a", "b"), Combine.MEAN, 2)
    own = Judgement("k", "r", "t", "s", "a", "plot", Score(5.0))
    found = combine_verdicts({"a": {("plot", "", 0): own}, "b": {}}, spec)
    assert found["plot", "", 0].score.reason == "1 of 2 judges, 2 needed (not_sent 1)"
    stage = combine_verdicts({"a": {("plot", "", 0): own}, "b": {}}, spec, lambda _: False)
    assert stage["plot", "", 0].score.value == 5.0


def test_a_combined_verdict_stands_where_its_members_stand() -> None:
    spec = make_spec(("a", "b", "c"), "mean", 2)
    own = Judgement("k", "r", "t", "s", "a", "plot", Score(5.0, parts={"x": 2}), ("text",), 1, "ab",
                    2, usage=Usage(10, 3, 1), cached=True)  # fmt: skip
    lost = replace(own, judge="b", score=Score(None, JudgeStatus.TIMEOUT), usage=Usage(4, None))
    other = replace(own, judge="c", score=Score(8.0, parts={"x": 4}), usage=Usage(2, 2))
    place = ("plot", "ab", 1)
    found = combine_verdicts({"a": {place: own}, "b": {place: lost}, "c": {place: other}}, spec)
    assert found == {
        place: Judgement("", "r", "t", "s", spec.id, "plot", Score(6.5, parts={"x": 3}), (), 1,
                         "ab", 2, usage=found[place].usage)
    }  # fmt: skip
    assert found[place].usage.prompt_tokens == 16


def member(judge: str, values: dict[tuple[str, str], float | None]) -> list[Judgement]:
    return [
        Judgement("k", answer, "t", answer, judge, criterion,
                  Score(None, JudgeStatus.TIMEOUT) if value is None else Score(value))
        for (answer, criterion), value in values.items()
    ]  # fmt: skip


def test_the_members_agreement_is_that_of_their_verdicts_on_the_same_questions() -> None:
    places = [(f"r{n}", criterion) for n in range(4) for criterion in "ab"]
    columns = {
        "gpt-4o": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        "claude-3": [2.0, 1.0, 4.0, 3.0, 6.0, None, 8.0, 7.0],
    }
    judgements = {
        judge: member(judge, dict(zip(places, values, strict=True)))
        for judge, values in columns.items()
    }
    spec = EnsembleSpec(("gpt-4o", "claude-3"), Combine.MEDIAN, 1, ("qwen3",))
    found = summarise_ensemble(judgements, spec, [], "gpt-5")
    names = (found.judges, found.combine, found.min_valid, found.own_family, found.excluded)
    assert names == (("gpt-4o", "claude-3"), "median", 1, ("gpt-4o",), ("qwen3",))
    first, second = columns.values()
    units = list(zip(first, second, strict=True))
    clusters = [answer for answer, _ in places]
    assert found.alpha == krippendorff_alpha(units, clusters=clusters)
    assert (found.alpha.n_units, found.left_out) == (7, ())
    (pair,) = found.pairs
    whole = associate(first, second, draws=PAIR_DRAWS, clusters=clusters)
    assert (pair.first, pair.second, pair.spearman) == ("gpt-4o", "claude-3", whole)
    assert pair.spearman.low is not None and pair.spearman.n == 7
    rows = [
        Observation(f"{answer}/{criterion}", value, judge=judge)
        for judge, own in columns.items()
        for (answer, criterion), value in zip(places, own, strict=True)
        if value is not None
    ]
    assert found.split == judge_split(rows)
    alone = {judge: own[:1] for judge, own in judgements.items()}
    assert summarise_ensemble(alone, spec, [], "").split is None
    two = {judge: own[:2] for judge, own in judgements.items()}
    assert summarise_ensemble(two, spec, [], "").split is not None


def test_repeats_and_orders_are_questions_of_their_own() -> None:
    (verdict,) = member("a", {("r", "plot"): 3.0})
    own = [verdict, replace(verdict, repeat=1), replace(verdict, order="ab")]
    three = [replace(one, judge=judge) for judge in "bcd" for one in own]
    spec = EnsembleSpec(("a", "b", "c", "d"), Combine.MEAN, 4)
    by_judge = {j: [one for one in [*own, *three] if one.judge == j] for j in spec.judges}
    found = summarise_ensemble(by_judge, spec, [], "")
    assert (found.alpha.n_units, found.alpha.n_ratings) == (3, 12)
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [
        ((("a", "b"), "mean", None), EnsembleSpec(("a", "b"), Combine.MEAN, 2)),
        ((("a", "b"), "mean", 1), EnsembleSpec(("a", "b"), Combine.MEAN, 1)),
        ((("a", "b", "c"), "trimmed", 3), EnsembleSpec(("a", "b", "c"), Combine.TRIMMED, 3)),
        ((("a", "gpt-4o", "b"), "median", None, "gpt-5"),
         EnsembleSpec(("a", "gpt-4o", "b"), Combine.MEDIAN, 3)),
        ((("a", "gpt-4o", "b"), "median", None, "gpt-5", True),
         EnsembleSpec(("a", "b"), Combine.MEDIAN, 2, ("gpt-4o",))),
    ],
)  # fmt: skip
def test_ensembles_that_can_be_are_completed(arguments: Any, spec: EnsembleSpec) -> None:
    assert make_spec(*arguments) == spec
    facts = {judge: {"model": judge} for judge in ("a", "b", "c", "gpt-4o", "other")}
    assert spec.describe(facts) == {
        "combine": str(spec.combine),
        "min_valid_judges": spec.min_valid,
        "questions": "put to all judges",
        "judges": {judge: {"model": judge} for judge in spec.judges},
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("a",), "mean", None), r"an ensemble of 1 judge\(s\) \(a\).*--judge A --judge B"),
        ((("a", "b"), "trimmed", None), "trimmed needs 3 judges"),
        ((("a", "b"), "mean", 3), r"--min-valid-judges 3: expected 1 to 2"),
        ((("a", "b"), "mean", 0), r"--min-valid-judges 0: expected 1 to 2"),
        ((("a", "b", "c"), "trimmed", 2), r"--min-valid-judges 2: expected 3 to 3"),
        ((("qwen3", "gpt-4o"), "mean", None, "qwen2", True), "--exclude-self left out qwen3"),
    ],
)
def test_ensembles_that_cannot_be_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_spec(*arguments)
    with pytest.raises(UnknownName, match="Did you mean median"):
        make_spec(("a", "b"), "medain", None)


def test_leaving_one_out_keeps_the_rule_where_it_can() -> None:
    spec = make_spec(("a", "b", "c"), "trimmed", None)
    assert spec.id == "trimmed(a, b, c)"
    assert spec.without("b") == EnsembleSpec(("a", "c"), Combine.MEAN, 2)
    assert make_spec("abc", "mean", 1).without("a") == EnsembleSpec(("b", "c"), Combine.MEAN, 1)
    four = make_spec(("a", "b", "c", "d"), "trimmed", None)
    assert four.without("d").combine is Combine.TRIMMED


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("anthropic/claude-sonnet-4", "anthropic"),
        ("/models/Meta-Llama-3.1-8B/", "meta"),
        ("o3-mini", "openai"),
        ("hf:org/QwQ-32B", "qwen"),
        ("mistralai/Mixtral-8x7B", "mistral"),
        ("smollm2+expected", "smollm"),
        ("bigmodel", None),
    ],
)
def test_families_by_name(name: str, family: str | None) -> None:
    assert family_of(name) == family
    assert is_own_family("bigmodel", "bigmodel") and not is_own_family("bigmodel", "other")


def test_comma_lists_of_judges() -> None:
    shared = "http://a/v1,http://b/v1#m"
    assert split_judges(["local,mod:attr", shared]) == ("local", "mod:attr", shared)
    assert merge_config(None, {"judge": ("a:b, c:d",)}).judge == ("a:b", "c:d")


@pytest.fixture
def config(server: FakeServer, tmp_path: Path, own_cache: Path) -> RunConfig:
    return RunConfig(
        model=f"{server.base_url}#gen-0",
        judge=tuple(f"{server.base_url}#judge-0+seed={seed}" for seed in range(3)),
        out=str(tmp_path / "run"),
        limit=4,
        cache=False,
        judge_kwargs="max_tokens=300",
    )


def run(config: RunConfig) -> Outcome:
    return asyncio.run(evaluate(config))


def test_a_run_with_three_judges_shows_each_and_all(config: RunConfig) -> None:
    faulty = f"{config.judge[2]}+malformed=0.3+sticky"
    outcome = run(replace(config, judge=(*config.judge[:2], faulty), min_valid_judges=2))
    *alone, combined = outcome.results
    names = [result.judge for result in alone]
    assert combined.judge == f"mean({', '.join(names)})"
    assert len({result.score_key for result in outcome.results}) == 4
    assert combined.identity["judge_facts"]["judges"].keys() == set(names)
    ensemble = combined.ensemble
    assert ensemble is not None and ensemble.judges == tuple(names)
    assert [left.judge for left in ensemble.left_out] == names and len(ensemble.pairs) == 3
    assert alone[2].judging.n_valid < 20 and combined.judging.n_valid == 20
    assert ensemble.alpha.n_units == 20 and combined.headline.n_scored == 4
    assert ensemble_table(combined, outcome.results).row_count == 3
    check_outcome(outcome, 0.98)
    stored = json.loads(outcome.folder.results_path.read_bytes())
    assert stored[3]["ensemble"]["combine"] == "mean" and stored[0]["ensemble"] is None


def test_the_combined_number_is_the_mean_of_the_judges(config: RunConfig) -> None:
    outcome = run(config)
    *alone, combined = outcome.results
    values = [result.headline.value or 0 for result in alone]
    assert combined.headline.value == pytest.approx(sum(values) / 3)
    assert (combined.headline.low or 0) <= sum(values) / 3 <= (combined.headline.high or 0)


def test_another_combination_makes_no_calls(server: FakeServer, config: RunConfig) -> None:
    first = run(config)
    n = server.stats().total.requests
    with pytest.raises(IdentityMismatch, match=r"ensemble.combine: 'mean' -> 'median'"):
        run(replace(config, combine="median"))
    again = asyncio.run(
        judge_again(first.folder, replace(config, judge=(), combine="median"), reparse=False)
    )
    assert again.results[-1].judge.startswith("median(")
    assert server.stats().total.requests == n
    single = asyncio.run(
        judge_again(first.folder, replace(config, judge=(), combine="none"), reparse=False)
    )
    assert all(result.ensemble is None for result in single.results)


def test_an_ensemble_of_one_is_refused_before_any_call(
    server: FakeServer, config: RunConfig
) -> None:
    with pytest.raises(UsageError, match=r"an ensemble of 1 judge"):
        run(replace(config, judge=config.judge[:1], combine="mean"))
    assert server.stats().total.requests == 0


def test_too_many_answers_without_a_score_fail_the_run(config: RunConfig) -> None:
    lossy = f"{config.judge[0]}+malformed=1.0"
    outcome = run(replace(config, judge=(lossy,)))
    with pytest.raises(CoverageTooLow, match="4 of 4 answers have no score, over --max-unscored"):
        check_outcome(outcome, 0.0, 0.5)
    check_outcome(outcome, 0.0, 1.0)
    flags = ["--min-coverage", "0", "--max-unscored", "0.5", "--quiet", "--no-cache"]
    command = ["run", "--model", config.model, "--judge", lossy, "--limit", "4", *flags]
    done = CliRunner().invoke(cli, [*command, "--out", f"{config.out}-cli"])
    assert isinstance(done.exception, CoverageTooLow), done.output


def test_the_summary_says_what_was_sent_and_what_differed(
    server: FakeServer, config: RunConfig, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    name = "judge-0+newmodel=0.5"
    prices.write_text(f"{name}: {{input: 1.0, output: 2.0}}\n")
    own = replace(
        config,
        judge=(f"{server.base_url}#{name}",),
        prices=str(prices),
        repeats=2,
        judge_kwargs="temperature=1",
    )
    (result,) = run(own).results
    judging, performance = result.judging, result.performance
    assert len(judging.means_by_model) == 2
    assert sum(n for n, _ in judging.means_by_model.values()) == judging.n_valid == 40
    assert any("mean verdict by returned model id" in warning.text for warning in result.warnings)
    assert judging.disagreement is not None and judging.disagreement.n_questions == 20
    assert judging.distinct_values == len(judging.histogram)
    assert performance.n_judgements_sent == performance.n_judgements_requested == 40
    assert performance.judging_started and performance.judging_ended
    assert performance.judge_usd == pytest.approx(
        judging.prompt_tokens / 1e6 + 2 * judging.completion_tokens / 1e6
    )
    assert work_prices(result)[1] == "token"
    (unpriced,) = run(replace(own, prices=None)).results
    assert unpriced.performance.judge_usd is None


def test_a_text_with_a_verdict_of_its_own_is_flagged(config: RunConfig, server: FakeServer) -> None:
    planted = replace(config, model=f"{server.base_url}#gen-0+injection=1", judge=config.judge[:1])
    (result,) = run(planted).results
    assert result.judging.n_echoed == 20
    assert any("hold a verdict of their own" in warning.text for warning in result.warnings)


def test_retries_and_lowered_limits_are_reported(config: RunConfig, server: FakeServer) -> None:
    flaky = f"{server.base_url}#judge-0+http429=0.3+retryafter=0"
    outcome = run(replace(config, judge=(flaky,)))
    judge = next(endpoint for endpoint in outcome.traffic if endpoint.model.startswith("judge"))
    assert judge.retries["rate_limited"] > 0 and judge.limit_cuts >= 1
    stored = json.loads((outcome.folder.path / "traffic.json").read_bytes())
    assert stored[1]["retries"] == judge.retries
    assert "tried again: rate_limited" in describe_traffic(outcome.traffic)


def test_judges_whose_questions_differ_are_not_combined(
    config: RunConfig, benchmarks: Path
) -> None:
    """A gate that one judge shuts would leave the others' marks of that answer out of the mean."""
    judge = config.judge[0]
    several = replace(
        config,
        tasks="discox",
        judge=(judge, f"{judge}+score11=0.5"),
        data_dir=str(benchmarks),
        judge_kwargs="",
    )
    outcome = run(several)
    assert [result.ensemble for result in outcome.results] == [None, None]
    assert all("the judges are not combined" in r.warnings[0].text for r in outcome.results)
    own = replace(several, judge=("bad_scorer:SCORER",), out=f"{config.out}-own")
    with pytest.raises(UsageError, match="bad_scorer:SCORER gives numbers"):
        run(own)


def test_combined_pieces_have_the_mean_of_the_judges_scores(benchmarks: Path) -> None:
    """One judge leaves a criterion out: 22 and 21 values are no 22 of the mean sum."""
    suite, info = (
        load_suite(suite_folders()["eqbench_creative_v3"]),
        load_info("eqbench_creative_v3"),
    )
    sample = next(iter(suite.load_samples(info.data(data_roots(str(benchmarks))))))
    scores = [Score(15.0, parts={"n": 22}), Score(10.0, parts={"n": 21})]
    score = combine_scores(scores, make_spec(("a", "b"), "mean", None))
    item = ItemVerdicts(sample.id, "en", sample.meta, WriterStatus.OK, {"rubric": (score,)})
    assert evaluate_estimate(suite.aggregate([item], Mode.STRICT)[0]) == pytest.approx(12.5)


class Halves:
    """Gives 0.5 to everything, on a scale of its own."""

    def __init__(self, name: str) -> None:
        self.id = name

    def describe(self) -> dict[str, Any]:
        return {"range": [0, 1]}

    async def close(self) -> None: ...

    async def score(self, items: Sequence[ScoreItem]) -> list[Verdict]:
        return [Verdict(Score(0.5)) for _ in items]


HALF, OTHER_HALF = Halves("half"), Halves("other-half")


def test_judges_of_different_scales_are_not_averaged(config: RunConfig) -> None:
    here = __name__
    mixed = run(replace(config, judge=(config.judge[0], f"{here}:HALF"), judge_kwargs=""))
    assert [result.ensemble for result in mixed.results] == [None, None]
    told = mixed.results[0].warnings[0].text
    assert told.endswith("scales differ: judge-0+seed=0 1 to 10, half 0 to 1")
    # an answer that failed has the lowest value of the scale that both judges state
    own = replace(config, judge=(f"{here}:HALF", f"{here}:OTHER_HALF"), judge_kwargs="",
                  model=f"{config.model}+refusal=0.5", out=f"{config.out}-own")  # fmt: skip
    *alone, combined = run(own).results
    floors = [result.metrics[1].value for result in (*alone, combined)]
    assert combined.headline.value == 0.5 and len(set(floors)) == 1 and floors[0] < 0.5
