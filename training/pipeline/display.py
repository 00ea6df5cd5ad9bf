"""What a synthesis and a choice of prompts made, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from r2w_eval.training.pipeline.commands import Choice, Synthesis

Show = Callable[[str], None]


def show_census(made: Synthesis, show: Show) -> None:
    """Show a synthesis: traces kept, effects of the steps, losses, calls and tokens."""
    census = made.census
    steps = sum(census.labels.values())
    shares = ", ".join(f"{label} {n} of {steps}" for label, n in census.labels.items())
    show(f"{census.n_kept} traces kept in {made.path}; ends: {_pairs(census.stops)}")
    show(f"steps (side steps too): {shares or 'none'}")
    show(f"dropped: {_pairs(census.dropped)}; refused reflections: {_pairs(census.leaks)}")
    gain = census.mean_fresh_gain
    show(
        f"mean gain by fresh assessments of the {census.gain_judge}: "
        f"{'n/a' if gain is None else f'{gain:+.2f}'} ({census.n_fresh_gains} of {census.n_kept})"
    )
    tally = made.tally
    show(
        f"calls sent: {_pairs(tally.sent)}; {tally.reused} reused; tokens in/out "
        f"{tally.prompt_tokens:,}/{tally.completion_tokens:,}; failed: {_pairs(tally.failed)}"
    )
    show(
        f"{steps - census.n_leaking_steps} steps for train rm --synth {made.path.parent}; "
        f"{census.n_leaking_steps} more show the judge"
    )
    small = sum(census.levels.get(level, 0) for level in ("mechanics", "wording"))
    warning = " ! more than half are of mechanics and wording" if 2 * small > steps else ""
    show(f"levels: {_pairs(census.levels)}{warning}")


def show_choice(made: Choice, show: Show) -> None:
    """Show a choice of prompts: how many were kept, why others were not, calls and tokens."""
    show(f"{made.n_kept} of {made.n_tried} prompts kept in {made.path}; {_pairs(made.left_out)}")
    costs = made.costs
    show(
        f"calls: {_pairs(costs.calls)}; tokens in/out {costs.prompt_tokens:,}/"
        f"{costs.completion_tokens:,}; failed: {_pairs(made.tally.failed)}"
    )


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "none"
