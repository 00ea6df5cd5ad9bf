"""Plots of reflection, by matplotlib: score against tokens, outcomes by reflection number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from r2w_eval.plots import ACCENT, INK, new_figure, render_svg
from r2w_eval.reflection.analysis import Analysis, Outcome, own_outcomes

MAX_NUMBER = 8
_SHOWN = (Outcome.IMPROVED, Outcome.NEUTRAL, Outcome.DEGRADED)
# CSS variables of the page; hex stand-ins that `render_svg` replaces
OUTCOME_COLOURS = {
    Outcome.IMPROVED: "#11aa11",
    Outcome.NEUTRAL: "#888811",
    Outcome.DEGRADED: "#aa1111",
}


def score_against_tokens_svg(analyses: Sequence[Analysis]) -> str | None:
    """One point a response: thinking tokens and the verdict on its answer; None without any."""
    points = [
        (analysis.thinking_tokens, analysis.source.score)
        for analysis in analyses
        if analysis.source.score is not None and analysis.trace is not None
    ]
    if not points:
        return None
    title = "Score against thinking tokens"
    figure, axes = new_figure(5.2, 2.6)
    axes.plot([p[0] for p in points], [p[1] for p in points], "o", color=ACCENT, markersize=4)
    axes.set_title(title)
    axes.set_xlabel("thinking tokens")
    axes.set_ylabel("score")
    return render_svg(figure, axes, title)


def outcome_counts(analyses: Sequence[Analysis]) -> dict[int, Counter[Outcome]]:
    """Outcomes of the first, second, ... step of all traces; late ones together."""
    counts: dict[int, Counter[Outcome]] = {}
    for analysis in analyses:
        for number, (index, _) in enumerate(own_outcomes(analysis), 1):
            if effect := analysis.effects.get(index):
                counts.setdefault(min(number, MAX_NUMBER), Counter())[effect.outcome] += 1
    return dict(sorted(counts.items()))


def outcomes_svg(analyses: Sequence[Analysis]) -> str | None:
    """Shares of improved, neutral and degraded by the number of the step; None without scores."""
    counts = {
        number: own
        for number, own in outcome_counts(analyses).items()
        if any(own[outcome] for outcome in _SHOWN)
    }
    if not counts:
        return None
    title = "Improved, neutral, degraded by step"
    figure, axes = new_figure(5.2, 2.6)
    numbers = list(counts)
    bottoms = [0.0] * len(numbers)
    for outcome in _SHOWN:
        totals = [sum(counts[n][o] for o in _SHOWN) for n in numbers]
        shares = [counts[n][outcome] / total for n, total in zip(numbers, totals, strict=True)]
        axes.bar(
            numbers, shares, bottom=bottoms, label=str(outcome), color=OUTCOME_COLOURS[outcome]
        )
        bottoms = [a + b for a, b in zip(bottoms, shares, strict=True)]
    labels = [f"{n}{'+' if n == MAX_NUMBER else ''}\nn={sum(counts[n].values())}" for n in numbers]
    axes.set_xticks(numbers, labels)
    axes.set_title(title)
    axes.set_ylabel("share of scored steps")
    axes.legend(
        fontsize=7, frameon=False, labelcolor=INK, loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )
    svg = render_svg(figure, axes, title)
    for outcome, colour in OUTCOME_COLOURS.items():
        svg = svg.replace(colour, f"var(--{outcome})")
    return svg
