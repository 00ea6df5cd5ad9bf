"""`train pipeline --dry-run`: the forecast of every stage as a table, with what it would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from r2w_eval.reward_models.scorer import JUDGE
from r2w_eval.training.pipeline.calls import INNER, SECOND
from r2w_eval.training.pipeline.forecast import Forecaster, Need
from r2w_eval.training.pipeline.plan import Stage
from r2w_eval.training.pipeline.recipe import Recipe
from r2w_eval.training.pipeline.records import finished
from r2w_eval.training.rl.signal import read_back, tell_signal
from r2w_eval.training.trainer.hub import split_revision

from r2w_eval.models.cost import Price, load_prices
from r2w_eval.terminal import plain_table


def total_cost(needs: Iterable[Need], recipe: Recipe, prices: Mapping[str, Price]) -> str:
    """Dollars of all calls to endpoints, "n/a" if one has no price. Local models cost nothing."""
    writer, judge, internaliser = recipe.traces.models
    second = recipe.traces.second_judge
    of_loop = {
        "write": [writer],
        INNER: [internaliser],
        "judge": [judge],
        SECOND: [second] if second else [],
    }
    of_rl = {"judge": [recipe.rl.outcome]}
    of_evaluation = {"judge": recipe.evaluate.judge}
    total = 0.0
    for row in (row for need in needs for row in need.calls):
        own = {"loop": of_loop, "rl": of_rl}.get(row.task, of_evaluation)
        # a judge behind a scorer's name is its own model
        is_named = row.stage.startswith(JUDGE)
        models = [row.stage.removeprefix(JUDGE)] if is_named else own.get(row.stage, ())
        for name in (model.partition("#")[2] for model in models if model.startswith("http")):
            if name not in prices:
                return f"n/a (no price for {name})"
            share = 1 if row.task == "loop" else len(models)
            total += prices[name].cost_usd(row.prompt_tokens, row.completion_tokens) / share
    return f"${total:,.2f}"


def print_forecast(
    recipe: Recipe, stages: Sequence[Stage], out: Path, price_file: str | None
) -> None:
    """Print the forecast of all stages; runs nothing and sends nothing."""
    from rich.console import Console

    forecaster, prices = Forecaster(recipe), load_prices(price_file)
    table = plain_table(f"Dry run of {recipe.name} (estimates; nothing was run)")
    # where the terminal is narrow a long name breaks, and no figure does
    table.add_column("stage", overflow="fold")
    for column in ("GB", "trained", "generated", "calls", "hours", ""):
        table.add_column(column, justify="right", no_wrap=True)
    needs = {stage.name: forecaster.need(stage) for stage in stages}
    for stage in stages:
        done = "✓" if finished(stage, out) else ""
        table.add_row(stage.name, *_cells(needs[stage.name]), done)
    console = Console()
    console.print(table)
    notes = _notes(recipe, forecaster, needs.values(), prices)
    for line in (*notes, *_signal_notes(stages, out)):
        console.print(line, highlight=False, markup=False)


def _signal_notes(stages: Sequence[Stage], out: Path) -> Iterator[str]:
    """The findings of the signal stage if it has run, otherwise how to run it."""
    stage = next((one for one in stages if one.kind == "signal"), None)
    if stage is None:
        yield "Would RL see a signal? Set prompts.held and rollouts.samples, and a stage tells it."
        return
    record = finished(stage, out)
    if record is None:
        names = ",".join(dict.fromkeys((*stage.inputs, stage.name)))
        yield f"Would RL see a signal? Not known yet. After SFT, before RL: --only {names}"
        return
    for arm in record.facts["arms"]:
        yield from tell_signal(read_back(arm))


def _notes(
    recipe: Recipe, forecaster: Forecaster, needs: Iterable[Need], prices: Mapping[str, Price]
) -> Iterator[str]:
    every, own = list(needs), recipe.hardware
    hours = [need.hours for need in every]
    total = "n/a" if None in hours else f"{sum(hour or 0 for hour in hours):,.3g}"
    yield (
        f"In all: {total} hours of one device ({own.teraflops:g} TFLOPS, {own.train_share:.0%} of "
        f"it in training, {own.generate_share:.0%} in generation: section hardware of the recipe); "
        f"{total_cost(every, recipe, prices)} for calls to endpoints."
    )
    yield (
        f"Tokens trained and generated, and calls (w writer, j judges, r rewards), are upper "
        f"bounds, but for replies asked for again (synth.tries); those of judges of reflections "
        f"with {recipe.synth.rounds} of them in a rollout (synth.rounds)."
    )
    if forecaster.commit:
        name, revision = split_revision(recipe.sft.model)
        pin = "" if revision else f" Without a revision this may change: {name}@{forecaster.commit}"
        yield f"Size by config.json of {name}, commit {forecaster.commit}.{pin}"
    if forecaster.problem:
        yield f"Memory and hours n/a: {recipe.sft.model}: {forecaster.problem}."


def _cells(need: Need) -> list[str]:
    counts: Counter[str] = Counter()
    for row in need.calls:
        counts[row.stage[0]] += row.calls
    calls = " ".join(f"{short(n)}{letter}" for letter, n in counts.items())
    if not need.trained and not need.generated:
        return ["", "", "", calls, ""]
    memory = "n/a" if need.memory_bytes is None else f"{need.memory_bytes / 1e9:,.3g}"
    hours = "n/a" if need.hours is None else f"{need.hours:,.2g}"
    return [memory, short(need.trained), short(need.generated), calls, hours]


def short(value: float) -> str:
    """A count with an SI suffix, in three or four digits; empty for 0.

    >>> short(592), short(12_960), short(130_896_000), short(0)
    ('592', '13k', '131M', '')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}" if value else ""
