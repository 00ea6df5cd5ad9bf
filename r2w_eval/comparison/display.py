"""What `r2w-eval compare` prints: paired tests on existing scores, or pairwise verdicts and
ratings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from r2w_eval.comparison.pairwise import judge_runs
from r2w_eval.comparison.scores import Comparison, compare_runs
from r2w_eval.config import RunConfig
from r2w_eval.errors import CoverageTooLow
from r2w_eval.stats.orders import (
    OrderPair,
    PairMargin,
    Positions,
    combined_battle,
    pair_margins,
    positions,
)
from r2w_eval.stats.ratings import PairTest, Ratings, bradley_terry
from r2w_eval.store import write_json
from r2w_eval.terminal import count, difference, escape, interval, number, open_console, plain_table
from r2w_eval.types import Metric

# more differences in parts of a suite than these do not fit a screen; of unclear ones a few do
MAX_GROUPS, N_UNCLEAR = 12, 3
TOLD_APART = 0.05
# p of n differences of one sign is 2 ** (1 - n)
LEAST_ITEMS = 6


def print_comparisons(runs: Sequence[str], force_common: bool, effect: float | None = None) -> None:
    """One block per task and judge."""
    console = open_console()
    comparisons = compare_runs(runs, force_common, effect)
    for comparison in comparisons:
        for warning in _uneven_items(comparison):
            console.print(warning, soft_wrap=True)
        console.print(ranking_table(comparison))
        console.print(test_table(comparison))
        console.print(escape(conclude(comparison.ranking.tests)) + "\n", soft_wrap=True)
        for passed in _passed(comparison):
            console.print(passed, soft_wrap=True)
        if comparison.groups:
            console.print(group_table(comparison))
        if comparison.left_out:
            console.print(left_out_table(comparison))
        for test, extremes in zip(comparison.ranking.tests, comparison.extremes, strict=True):
            shown = ", ".join(
                f"{e.sample_id} {e.difference:+.2f}" for e in extremes if e.difference
            )
            if shown:
                console.print(
                    f"{escape(test.first)} minus {escape(test.second)}, largest wins and losses by "
                    f"sample: {escape(shown)}\n"
                )
    if len(comparisons) > 1:
        console.print(overview_table(comparisons))
        n_tests = sum(len(comparison.ranking.tests) for comparison in comparisons)
        console.print(
            f"{n_tests} tests: where nothing differs, about one in twenty has p under .05.",
            soft_wrap=True,
        )


def overview_table(comparisons: Sequence[Comparison]) -> Table:
    """One row per suite, judge and pair of runs."""
    tests = [(comparison, test) for comparison in comparisons for test in comparison.ranking.tests]
    pairs = {(test.first, test.second) for _, test in tests}
    is_one = len(pairs) == 1
    told = f": {' minus '.join(*pairs)}" if is_one else ""
    table = plain_table(f"All suites and judges{told}")
    for name in ("suite", "judge") if is_one else ("suite", "judge", "first minus second"):
        table.add_column(name, overflow="fold")
    # in one column, so that the names of suites stay whole in 80 columns
    for name in ("difference (95 %)", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("better", overflow="fold")
    for comparison, test in tests:
        table.add_row(
            comparison.task,
            escape(comparison.judge),
            *([] if is_one else [escape(f"{test.first} – {test.second}")]),
            difference(test.difference, test.low, test.high),
            number(test.p_holm, ".3f"),
            escape(_better(test) or "not clear"),
        )
    return table


def _better(test: PairTest) -> str | None:
    """The run that the test puts ahead."""
    if test.p_holm is None or test.p_holm > TOLD_APART:
        return None
    return test.first if (test.difference or 0) > 0 else test.second


def conclude(tests: Sequence[PairTest]) -> str:
    """What the tests say, in words."""
    if len(tests) != 1:
        apart = sum(_better(test) is not None for test in tests)
        return f"The tests tell {apart} of {len(tests)} pairs apart."
    (test,) = tests
    better = _better(test)
    if better is None:
        few = (
            f" No test could: with {count(test.n_common, 'prompt')} p stays over .05. "
            f"Take {LEAST_ITEMS} or more."
        )
        told = f"The test does not tell {test.first} and {test.second} apart."
        return told + few * (test.n_common < LEAST_ITEMS)
    worse = test.second if better == test.first else test.first
    return f"{better} is better than {worse} on these prompts."


def _uneven_items(comparison: Comparison) -> Iterator[str]:
    """Warnings where the runs do not stand on the same items."""
    if comparison.subsets:
        took = "; ".join(f"{name}: {items}" for name, items in comparison.subsets.items())
        yield (
            f"[bold yellow]The runs cover different items; compared is what all have.[/] "
            f"{escape(took)}"
        )
    if comparison.is_uneven:
        yield (
            "[bold yellow]The runs scored different shares of their samples, so their scores "
            "are not of the same items.[/] Order, ranks and tests are: each pair stands on the "
            "items that both have scored."
        )


def _passed(comparison: Comparison) -> Iterator[str]:
    """Who passed how many items, where every item is passed or failed."""
    for test, outcome in zip(comparison.ranking.tests, comparison.outcomes, strict=True):
        if outcome is not None:
            yield (
                f"{escape(test.first)} alone passed {outcome.n_only_first}, "
                f"{escape(test.second)} alone {outcome.n_only_second}, both "
                f"{outcome.n_both}, neither {outcome.n_neither}: McNemar's exact p = "
                f"{outcome.p_value:.3g}"
            )


def ranking_table(comparison: Comparison) -> Table:
    """Each run's own score, in the order and with the ranks that the paired tests give."""
    table = plain_table(f"{comparison.task}, judge {comparison.judge}, key {comparison.score_key}")
    table.add_column("model", overflow="fold")
    for name in ("score", "95 % interval", "scored", "rank", "tied with best"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.ranking.rows:
        rank = f"{row.best}" if row.best == row.worst else f"{row.best}–{row.worst}"
        tied = "yes" if row.is_tied_with_best else "no"
        head = comparison.headlines[row.model]
        bounds = interval(head.low, head.high, ".2f")
        counts = comparison.scored[row.model]
        scored = f"{counts.n_scored}/{counts.n_expected}"
        table.add_row(escape(row.model), f"{row.value:.2f}", bounds, scored, rank, tied)
    return table


def test_table(comparison: Comparison) -> Table:
    """Every pair: difference, interval, corrected p, and the effect that could have been found."""
    table = plain_table("Paired tests (p corrected by Holm over all pairs)")
    table.add_column("first minus second", overflow="fold")
    names = ("difference", "95 % interval", "p", "detectable", "items")
    for name in (*names, "items\nneeded") if comparison.needed else names:
        table.add_column(name, justify="right", no_wrap=True)
    for place, test in enumerate(comparison.ranking.tests):
        effect = comparison.effects[place]
        needed = comparison.needed[place : place + 1]
        table.add_row(
            escape(f"{test.first} – {test.second}"),
            number(test.difference, "+.2f"),
            interval(test.low, test.high, "+.2f"),
            number(test.p_holm, ".3f"),
            number(effect, ".2f"),
            str(test.n_common),
            *("–" if n is None else f"{n:,}" for n in needed),
        )
    return table


def group_table(comparison: Comparison) -> Table:
    """The clearest differences in domains and criteria, marked as what they are."""
    clear = [own for own in comparison.groups if own.q_value < 0.05]
    shown = clear[:MAX_GROUPS] or comparison.groups[:N_UNCLEAR]
    pairs = {(own.first, own.second) for own in shown}
    is_one = len(comparison.ranking.tests) == 1
    told = f", {' minus '.join(*pairs)}" if is_one else ""
    table = plain_table(
        f"Domains, criteria and other parts{told}, exploratory: {len(clear)} of "
        f"{len(comparison.groups)} differences have q < .05 (Benjamini-Hochberg); "
        f"{len(shown)} shown"
    )
    for name in ("part",) if is_one else ("part", "first minus second"):
        table.add_column(name, overflow="fold")
    for name in ("difference", "95 % interval", "p", "q", "items"):
        table.add_column(name, justify="right", no_wrap=True)
    for own in shown:
        test = own.test
        table.add_row(
            escape(own.group),
            *([] if is_one else [escape(f"{own.first} – {own.second}")]),
            number(test.difference, "+.2f"),
            interval(test.low, test.high, "+.2f"),
            number(test.p_value, ".3g"),
            f"{own.q_value:.3g}",
            str(test.n_common),
        )
    return table


def left_out_table(comparison: Comparison) -> Table:
    """Rank and score of every run without each judge: what hangs on a single judge."""
    table = plain_table("Ranks without one judge")
    table.add_column("without", overflow="fold")
    for row in comparison.ranking.rows:
        table.add_column(escape(row.model), justify="right")
    for left in comparison.left_out:
        cells = {model: f"{rank} ({value:.2f})" for model, value, rank in left.rows}
        table.add_row(escape(left.judge), *(cells[row.model] for row in comparison.ranking.rows))
    return table


async def print_preferences(
    runs: Sequence[str], judge_spec: str, out: str, config: RunConfig
) -> None:
    """Judge all pairs of answers in both orders, then rate the models."""
    path = Path(out) / "pairs.jsonl"
    judge, pairs = await judge_runs(runs, judge_spec, path, config)
    _print_ratings(pairs, judge, path, config.min_coverage)


def _print_ratings(pairs: Sequence[OrderPair], judge: str, path: Path, min_coverage: float) -> None:
    """Raises CoverageTooLow, after everything is printed where there is something to print."""
    console = open_console()
    battles = [battle for pair in pairs if (battle := combined_battle(pair)) is not None]
    scored = len(battles)
    bias = positions(pairs)
    if not battles:
        raise CoverageTooLow(
            f"None of {len(pairs)} pairs has a verdict in both orders. Look into {path} for the "
            f"reasons; the same command asks again for what was lost on the way"
        )
    ratings = bradley_terry(battles)
    margins = pair_margins(pairs)
    found = {"ratings": ratings, "positions": bias, "margins": margins}
    write_json(path.with_name("ratings.json"), found)
    console.print(ratings_table(ratings, judge, scored, len(pairs)))
    console.print(positions_table(bias))
    console.print(margins_table(margins))
    console.print(f"Verdicts: {escape(str(path))}", soft_wrap=True)
    if scored < min_coverage * len(pairs):
        raise CoverageTooLow(
            f"{scored} of {len(pairs)} pairs have a verdict in both orders, under --min-coverage "
            f"{min_coverage}. The same command asks again for what was lost on the way; or lower "
            f"--min-coverage"
        )


def ratings_table(ratings: Ratings, judge: str, scored: int, total: int) -> Table:
    """Bradley-Terry strengths in natural log-odds of winning, bootstrap over items."""
    table = plain_table(f"Preferences of {judge}: {scored}/{total} pairs with both orders")
    table.add_column("model", overflow="fold")
    for name in ("strength (log-odds)", "95 % interval", "win share", "rank at least"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in ratings.rows:
        table.add_row(
            escape(row.model),
            f"{row.strength:+.2f}",
            interval(row.low, row.high, "+.2f"),
            f"{row.win_share:.2f}",
            str(row.rank_upper_bound),
        )
    return table


def positions_table(bias: Positions) -> Table:
    """What the order of showing did to this judge."""
    table = plain_table(f"Order effects in {bias.n_both_orders} of {bias.n_pairs} pairs")
    table.add_column("measure")
    for name in ("value", "95 % interval", "items"):
        table.add_column(name, justify="right")
    rows: dict[str, Metric] = {
        "first shown wins (.5 is unbiased)": bias.first_wins,
        "margin of the first shown": bias.side_bias,
        "winner flips with the order": bias.flip_rate,
        "same outcome in both orders": bias.consistency,
    }
    for name, metric in rows.items():
        bounds = interval(metric.low, metric.high, ".2f")
        table.add_row(name, number(metric.value), bounds, str(metric.n_scored))
    return table


def margins_table(margins: Sequence[PairMargin]) -> Table:
    """How far each model is ahead of each other one, before and after the side is taken out."""
    table = plain_table("Margins, in units of the verdict (A>B is 1, A>>B is 2)")
    table.add_column("first minus second", overflow="fold")
    for name in ("shown first", "side bias taken out", "95 % interval", "items"):
        table.add_column(name, justify="right")
    for margin in margins:
        own = margin.corrected
        table.add_row(
            escape(f"{margin.first} – {margin.second}"),
            number(margin.shown_first.value, "+.2f"),
            number(own.value, "+.2f"),
            interval(own.low, own.high, "+.2f"),
            str(own.n_scored),
        )
    return table
