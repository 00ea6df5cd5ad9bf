"""Compares finished runs: paired tests on the scores they have, without any call.

Only results with the same score key stand in one comparison; anything else is refused with the
fields that differ (specification: harness I3, A2-A5, D6).
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from r2w_eval.errors import IdentityMismatch, UsageError
from r2w_eval.records.selection import describe_subset
from r2w_eval.results.coverage import Scored, is_uneven, scored_of
from r2w_eval.stats.inference import (
    McNemar,
    PairedComparison,
    benjamini_hochberg,
    compare,
    mcnemar,
)
from r2w_eval.stats.power import items_needed, minimum_detectable_effect
from r2w_eval.stats.ratings import Ranking, rank_by_paired_tests
from r2w_eval.stats.sign_bounds import least_p
from r2w_eval.store import RunFolder
from r2w_eval.terminal import warn
from r2w_eval.types import Estimate, Metric, Stratum

N_EXTREMES = 5


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One row of a run's results.json."""

    run: str
    model: str
    task: str
    judge: str
    score_key: str
    identity: Mapping[str, Any]
    headline: Metric
    estimate: Estimate
    left_out: Mapping[str, float | None] = field(default_factory=dict)
    """Headline without each judge, for results of ensembles."""
    subset: str = ""
    """How the run chose its samples, as command-line flags."""
    answers: Mapping[str, int] | None = None
    """Answers with a score, where a query has several."""
    groups: Mapping[str, Estimate] = field(default_factory=dict)
    """Domains, criteria and other parts of the score, by name."""

    @property
    def compared(self) -> Mapping[str, Any]:
        """The identity that two results must share to be compared, the headline's name included."""
        return {**self.identity, "headline": self.estimate.name}

    @property
    def scored(self) -> Scored:
        """Coverage of the headline."""
        return scored_of(self.headline, self.answers)

    @property
    def items(self) -> str:
        """How many samples, and which."""
        return f"{self.headline.n_expected} samples ({self.subset})"


@dataclass(frozen=True, slots=True)
class LeftOutRanks:
    """How the runs rank when one judge of an ensemble is left out: (run, value, rank)."""

    judge: str
    rows: tuple[tuple[str, float, int], ...]


@dataclass(frozen=True, slots=True)
class ItemDifference:
    """How far apart two runs are on one item (first minus second, score units)."""

    sample_id: str
    difference: float


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """First minus second in one part of a suite: a domain, a criterion. Exploratory (harness A3).

    `q_value` is p by Benjamini and Hochberg over all parts and pairs of the comparison.
    """

    group: str
    first: str
    second: str
    test: PairedComparison
    q_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs on one task under one judge.

    Entry i of the following belongs to test i of the ranking. `effects`: the smallest difference
    detectable with 80 % power at the corrected level; None where the items are too few to reach
    that level. `needed`: the number of items that would detect the difference the user asked about.
    `extremes`: the items with the largest differences, wins of the first run first. `outcomes`: the
    contingency table, where every item is passed or failed.

    `groups` are differences in parts of the suite, smallest q first. `subsets` describes the
    samples of each run where these differ. `headlines` holds each run's own score, over all of its
    `scored` samples.
    """

    task: str
    judge: str
    score_key: str
    subsets: Mapping[str, str]
    headlines: Mapping[str, Metric]
    scored: Mapping[str, Scored]
    ranking: Ranking
    effects: tuple[float | None, ...]
    extremes: tuple[tuple[ItemDifference, ...], ...]
    needed: tuple[int | None, ...] = ()
    left_out: tuple[LeftOutRanks, ...] = ()
    outcomes: tuple[McNemar | None, ...] = ()
    groups: tuple[GroupDifference, ...] = ()

    @property
    def is_uneven(self) -> bool:
        """Whether the runs scored shares of their samples that differ by more than a point."""
        return is_uneven([scored.share for scored in self.scored.values()])


def load_results(path: str) -> list[StoredResult]:
    """The results of a run folder. Raises UsageError when there are none yet."""
    folder = RunFolder.existing(path)
    if not folder.results_path.exists():
        raise UsageError(f"{path!r}: the run has no results yet. Run the same command again first")
    manifest = folder.manifest()
    records = json.loads(folder.results_path.read_bytes())
    try:
        return [_read_result(path, manifest, record) for record in records]
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{folder.results_path}: written by another version ({type(error).__name__}: {error}). "
            f"Try: r2w-eval judge {path} --reparse"
        ) from error


def _read_result(run: str, manifest: Mapping[str, Any], record: Mapping[str, Any]) -> StoredResult:
    headline = next(metric for metric in record["metrics"] if metric["is_headline"])
    return StoredResult(
        run=run,
        model=manifest["model"],
        task=record["task"],
        judge=record["judge"],
        score_key=record["score_key"],
        identity=record["identity"],
        headline=Metric(**headline),
        estimate=read_estimate(record["estimate"]),
        left_out={
            left["judge"]: left["headline"]["value"]
            for left in (record.get("ensemble") or {}).get("left_out", ())
        },
        subset=describe_subset(manifest.get("config", {})),
        answers=(record.get("judging") or {}).get("answers"),
        groups={group["name"]: read_estimate(group) for group in record.get("groups", ())},
    )


def read_estimate(record: Mapping[str, Any]) -> Estimate:
    """An `Estimate` from its JSON form; names that many estimates share are held once."""
    strata = tuple(
        Stratum(
            tuple(map(sys.intern, stratum["clusters"])),
            tuple(stratum["numerators"]),
            tuple(stratum["denominators"]),
            stratum["weight"],
        )
        for stratum in record["strata"]
    )
    return Estimate(**{**record, "strata": strata})


def _tell_nothing_shared(
    runs: Sequence[str], by_place: Mapping[tuple[str, str], Mapping[str, StoredResult]]
) -> str:
    """What each run holds, and whether a suite or a judge is what one of them lacks."""
    judges: dict[str, dict[str, list[str]]] = {run: defaultdict(list) for run in runs}
    for (task, judge), own in sorted(by_place.items()):
        for run in own:
            judges[run][task].append(judge)
    held = "; ".join(
        f"{run} holds " + ", ".join(f"{task} ({', '.join(own)})" for task, own in tasks.items())
        for run, tasks in judges.items()
    )
    common = set.intersection(*map(set, judges.values()))
    way = (
        "Try: r2w-eval judge RUN --judge J, for the run that this judge has not read"
        if common
        else "Run both models on one suite: --tasks SUITE"
    )
    return f"The runs share no suite with the same judge: {held}. {way}"


def compare_runs(
    runs: Sequence[str], force_common: bool = False, effect: float | None = None
) -> list[Comparison]:
    """Every (task, judge) that all runs have; `effect` is a wished difference in points.

    Raises UsageError, IdentityMismatch.
    """
    runs = list({Path(run).resolve(): run for run in runs}.values())
    if len(runs) < 2:
        raise UsageError("compare needs two different runs or more. Try: r2w-eval compare RUN RUN")
    by_place: dict[tuple[str, str], dict[str, StoredResult]] = defaultdict(dict)
    for run in runs:
        for result in load_results(run):
            by_place[result.task, result.judge][run] = result
    shared = {place: rows for place, rows in by_place.items() if len(rows) == len(runs)}
    if not shared:
        raise UsageError(_tell_nothing_shared(runs, by_place))
    scored = {place: rows for place, rows in shared.items() if not _unscored(rows.values())}
    told = [
        f"{task} by {judge}: no score in {', '.join(_unscored(rows.values()))}"
        for (task, judge), rows in shared.items()
        if (task, judge) not in scored
    ]
    for text in told if scored else ():
        warn(f"{text}; left out. Try: r2w-eval judge RUN --judge J, or the run with --retry-failed")
    if not scored:
        raise UsageError(
            f"Nothing to compare. {'; '.join(told)}. Try: r2w-eval judge RUN --judge J, or the "
            f"run's own command with --retry-failed"
        )
    return [_compare_place(list(rows.values()), force_common, effect) for rows in scored.values()]


def _unscored(results: Iterable[StoredResult]) -> list[str]:
    """Runs whose headline has no value."""
    return [result.run for result in results if result.headline.value is None]


def _compare_place(
    results: Sequence[StoredResult], force_common: bool, effect: float | None
) -> Comparison:
    check_identities(results, force_common)
    named = {name_of(result, results): result for result in results}
    estimates = {name: result.estimate for name, result in named.items()}
    ranking = rank_by_paired_tests(estimates)
    score_keys = {result.score_key for result in results}
    alpha = 0.05 / len(ranking.tests)
    pairs = [(estimates[test.first], estimates[test.second]) for test in ranking.tests]
    errors = [
        (error, test.n_common)
        for test, error in zip(ranking.tests, ranking.standard_errors, strict=True)
    ]
    return Comparison(
        task=results[0].task,
        judge=results[0].judge,
        score_key=results[0].score_key,
        subsets={name: r.items for name, r in named.items()} if len(score_keys) > 1 else {},
        headlines={name: result.headline for name, result in named.items()},
        scored={name: result.scored for name, result in named.items()},
        ranking=ranking,
        effects=tuple(_detectable(error, n, alpha) for error, n in errors),
        extremes=tuple(extreme_items(*pair) for pair in pairs),
        needed=() if effect is None else tuple(_needed(effect, *own, alpha) for own in errors),
        left_out=_ranks_without(named),
        outcomes=tuple(count_passes(*pair) for pair in pairs),
        groups=group_differences({name: result.groups for name, result in named.items()}),
    )


def _detectable(error: float | None, n_items: int, alpha: float) -> float | None:
    """The smallest difference that a test with this standard error detects."""
    if error is None or least_p(n_items) > alpha:
        return None
    return minimum_detectable_effect(error, alpha)


def _needed(effect: float, error: float | None, n_items: int, alpha: float) -> int | None:
    """The number of items that would detect the effect, from the spread over these."""
    return items_needed(effect, error * math.sqrt(n_items), alpha) if error else None


def count_passes(first: Estimate, second: Estimate) -> McNemar | None:
    """Who passed which items (harness A2); None where items are scored and not passed."""
    ours, theirs = _passes(first), _passes(second)
    return None if ours is None or theirs is None else mcnemar(ours, theirs)


def _passes(estimate: Estimate) -> dict[str, bool] | None:
    values = item_values(estimate)
    is_binary = estimate.is_share and set(values.values()) <= {0.0, 1.0}
    return {item: value == 1.0 for item, value in values.items()} if is_binary else None


def group_differences(
    groups: Mapping[str, Mapping[str, Estimate]],
) -> tuple[GroupDifference, ...]:
    """Every part of the suite that two runs have, for every pair of runs; smallest q first."""
    found: list[tuple[str, str, str, PairedComparison]] = []
    for first, second in combinations(sorted(groups), 2):
        for name in groups[first].keys() & groups[second].keys():
            test = compare(groups[first][name], groups[second][name])
            if test.p_value is not None and test.n_common > 1:
                found.append((name, first, second, test))
    q_values = benjamini_hochberg([test.p_value or 0.0 for *_, test in found])
    made = [GroupDifference(*own, q) for own, q in zip(found, q_values, strict=True)]
    return tuple(sorted(made, key=lambda d: (d.q_value, d.group, d.first, d.second)))


def _ranks_without(named: Mapping[str, StoredResult]) -> tuple[LeftOutRanks, ...]:
    """Ranks by value under each reduced ensemble that all runs have."""
    results = list(named.values())
    judges = [j for j in results[0].left_out if all(r.left_out.get(j) is not None for r in results)]
    ranked = []
    for judge in judges:
        values = {name: result.left_out[judge] or 0.0 for name, result in named.items()}
        order = sorted(values, key=lambda name: (-values[name], name))
        rows = ((n, values[n], 1 + sum(v > values[n] for v in values.values())) for n in order)
        ranked.append(LeftOutRanks(judge, tuple(rows)))
    return tuple(ranked)


def check_identities(results: Sequence[StoredResult], force_common: bool) -> None:
    """Refuse results that may not be compared; with `force_common` the items alone may differ."""
    first, *others = results
    for other in others:
        ours, theirs = first.compared, other.compared
        differing = sorted(f for f in {**ours, **theirs} if ours.get(f) != theirs.get(f))
        if not differing or (force_common and differing == ["items"]):
            continue
        shown = "\n  ".join(_show_difference(name, first, other) for name in differing)
        hint = (
            "--force-common compares the items that both have"
            if differing == ["items"]
            else "re-judge one of them: r2w-eval judge RUN --judge J"
        )
        raise IdentityMismatch(
            f"{first.run} and {other.run} differ in {first.task}:\n  {shown}\nTry: {hint}"
        )


def _show_difference(name: str, first: StoredResult, other: StoredResult) -> str:
    if name != "items":
        return f"{name}: {first.compared.get(name)!r:.150} | {other.compared.get(name)!r:.150}"
    common = item_values(first.estimate).keys() & item_values(other.estimate).keys()
    return f"items: {first.items} | {other.items}; {len(common)} are scored in both"


def name_of(result: StoredResult, among: Sequence[StoredResult]) -> str:
    """The model's name, or the run folder where two runs are of one model."""
    same = [other for other in among if other.model == result.model]
    return result.model if len(same) == 1 else result.run


def item_values(estimate: Estimate) -> dict[str, float]:
    """Each item's own part of an estimate, on the estimate's scale."""
    sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for stratum in estimate.strata:
        terms = zip(stratum.clusters, stratum.numerators, stratum.denominators, strict=True)
        for cluster, numerator, denominator in terms:
            before = sums[cluster]
            sums[cluster] = (before[0] + numerator, before[1] + denominator)
    return {
        cluster: estimate.offset + estimate.scale * numerator / denominator
        for cluster, (numerator, denominator) in sums.items()
        if denominator
    }


def extreme_items(first: Estimate, second: Estimate) -> tuple[ItemDifference, ...]:
    """The items with the largest wins and the largest losses of the first run."""
    ours, theirs = item_values(first), item_values(second)
    differences = sorted(
        (ItemDifference(item, ours[item] - theirs[item]) for item in ours.keys() & theirs.keys()),
        key=lambda d: (-d.difference, d.sample_id),
    )
    if len(differences) <= 2 * N_EXTREMES:
        return tuple(differences)
    return (*differences[:N_EXTREMES], *differences[-N_EXTREMES:])
