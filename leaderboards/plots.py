"""The plots of a board as inline SVG, for pages with a strict content security policy.

Drawn by matplotlib through `r2w_eval.plots`; style attributes, which the policy forbids, become
presentation attributes. The same board gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from r2w_eval.leaderboards.boards import Board
from r2w_eval.leaderboards.naming import clip
from r2w_eval.leaderboards.standings import Standing

from r2w_eval.plots import ACCENT, INK, new_figure, plain_label, render_svg
from r2w_eval.types import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LINES = 40
MAX_LABELS = 10
MAX_BINS = 24
LABEL_CHARS = 32
# room of a label in a scatter plot
LABEL_POINTS = 125
LINE_POINTS = 11
# of null baselines; replaced by a variable of the page
MUTED = "#7a8189"
_STYLE = re.compile(r' style="([^"]*)"')
_QUIET = re.compile(
    r"<metadata>.*?</metadata>|<defs>\s*<style[^>]*>.*?</style>\s*</defs>", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Plot:
    """An SVG element and its caption."""

    svg: str
    caption: str

    @property
    def file(self) -> str:
        """The plot with the colours of paper, for a file of its own."""
        svg = self.svg.replace("var(--accent)", ACCENT).replace("var(--faint)", MUTED)
        return svg.replace("currentColor", INK) + "\n"


def board_plots(board: Board) -> list[Plot]:
    """Intervals, rank ranges, score against tokens, score against length."""
    shown = board.standings[:MAX_LINES]
    rest = len(board.standings) - len(shown)
    more = f" The first {len(shown)}; {rest} more are in the table." if rest else ""
    plots = [Plot(intervals_plot(shown), f"Score with its 95 % interval.{more}")]
    if not board.is_smoke_test:
        plots.append(Plot(ranks_plot(shown), f"The ranks that the paired tests leave open.{more}"))
    if any(s.tokens_per_answer for s in board.standings):
        plots.append(
            Plot(
                tokens_plot(board.standings),
                "Score against tokens per answer. The line joins systems that none beats with as "
                "few tokens.",
            )
        )
    if any(s.mean_chars for s in board.standings):
        plots.append(
            Plot(
                length_plot(board.standings),
                "Score against the mean length of an answer; crosses are null baselines.",
            )
        )
    return plots


def intervals_plot(standings: Sequence[Standing]) -> str:
    """One line a system, best on top."""
    figure, axes = new_figure(6.2, 0.75 + 0.25 * len(standings))
    for y, standing in enumerate(reversed(standings)):
        head, colour = standing.row.headline, _colour(standing)
        if head.low is not None and head.high is not None:
            axes.plot([head.low, head.high], [y, y], color=colour, linewidth=1.8)
        axes.plot([standing.value], [y], "o", color=colour, markersize=4.5)
    _name_lines(axes, standings)
    axes.set_xlabel("score")
    title = "Scores with intervals"
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
    return inline(render_svg(figure, axes, title))


def ranks_plot(standings: Sequence[Standing]) -> str:
    """Rank ranges as bars, rank 1 on the left."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(6.2, 0.75 + 0.25 * len(standings))
    for y, standing in enumerate(reversed(standings)):
        rank = standing.rank
        axes.plot(
            [rank.best - 0.3, rank.worst + 0.3],
            [y, y],
            color=_colour(standing),
            linewidth=5,
            alpha=0.75,
            solid_capstyle="butt",
        )
    _name_lines(axes, standings)
    axes.set_xlabel("rank")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
    return inline(render_svg(figure, axes, "Rank ranges"))


def tokens_plot(standings: Sequence[Standing]) -> str:
    """Score against tokens, with the Pareto front."""
    points = [(s, s.tokens_per_answer) for s in standings if s.tokens_per_answer]
    figure, axes = new_figure(6.2, 3.6)
    _scatter(axes, points)
    front = sorted((x, s.value, s.label) for s, x in points if s.is_on_front)
    axes.plot(
        [x for x, _, _ in front],
        [y for _, y, _ in front],
        drawstyle="steps-post",
        color=ACCENT,
        linewidth=1.2,
        alpha=0.7,
    )
    _annotate(axes, [(label, x, y) for x, y, label in front[:MAX_LABELS]])
    axes.set_xlabel("tokens per answer")
    axes.set_ylabel("score")
    return inline(render_svg(figure, axes, "Score against tokens"))


def length_plot(standings: Sequence[Standing]) -> str:
    """Score against the mean answer length, on a logarithmic axis."""
    points = [(s, s.mean_chars) for s in standings if s.mean_chars]
    figure, axes = new_figure(6.2, 3.6)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _scatter(axes, points)
    _annotate(axes, [(s.label, x, s.value) for s, x in points[:3]])
    axes.set_xlabel("characters (logarithmic)")
    axes.set_ylabel("score")
    return inline(render_svg(figure, axes, "Score against length"))


def histogram_plot(histogram: Mapping[float, int]) -> str:
    """Verdicts by value; more than `MAX_BINS` distinct values are binned."""
    figure, axes = new_figure(6.2, 2.4)
    values = sorted(histogram)
    counts = [histogram[value] for value in values]
    if len(values) > MAX_BINS:
        axes.hist(values, bins=MAX_BINS, weights=counts, color=ACCENT, rwidth=0.9)
    else:
        gaps = [b - a for a, b in zip(values, values[1:], strict=False)]
        axes.bar(values, counts, width=0.85 * min(gaps, default=1.0), color=ACCENT)
    axes.set_xlabel("verdict")
    axes.set_ylabel("verdicts")
    return inline(render_svg(figure, axes, "Distribution of verdicts"))


def curve_plot(points: Sequence[tuple[float, Metric]], name: str) -> str:
    """Score with its interval by training step."""
    figure, axes = new_figure(6.2, 3.2)
    scored = [(step, m.value) for step, m in points if m.value is not None]
    axes.plot([s for s, _ in scored], [v for _, v in scored], "-o", color=ACCENT, markersize=4)
    for step, metric in points:
        if metric.low is not None and metric.high is not None:
            axes.plot([step, step], [metric.low, metric.high], color=ACCENT, alpha=0.5)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("score")
    return inline(render_svg(figure, axes, clip(name, 60)))


def _colour(standing: Standing) -> str:
    return MUTED if standing.row.is_null else ACCENT


def _name_lines(axes: Axes, standings: Sequence[Standing]) -> None:
    names = [plain_label(clip(standing.label, LABEL_CHARS)) for standing in reversed(standings)]
    axes.set_yticks(range(len(names)), names)
    # keeps the outer bars clear of the frame
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", length=0)


def _scatter(axes: Axes, points: Sequence[tuple[Standing, float]]) -> None:
    for standing, x in points:
        marker = "x" if standing.row.is_null else "o"
        axes.plot([x], [standing.value], marker, color=_colour(standing), markersize=5)
    axes.margins(0.12)


def _annotate(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Label points (name, x, y) on the side of the middle of the plot, so that no label is cut off;
    one that would stand on an earlier one is left out.
    """
    axes.autoscale_view()
    taken: list[tuple[float, float]] = []
    for label, x, y in points:
        # a figure has 72 dots an inch, so these are points of type
        right, level = axes.transData.transform((x, y))
        place, _ = axes.transAxes.inverted().transform((right, level))
        is_right = bool(place > 0.5)
        left = right - (LABEL_POINTS if is_right else 0)
        if any(
            abs(left - other) < LABEL_POINTS and abs(level - line) < LINE_POINTS
            for other, line in taken
        ):
            continue
        taken.append((left, level))
        axes.annotate(
            plain_label(clip(label, 26)),
            (x, y),
            xytext=(-5 if is_right else 5, 5),
            ha="right" if is_right else "left",
            textcoords="offset points",
            fontsize=9,
            color=INK,
        )


def inline(svg: str) -> str:
    """The SVG without style elements and attributes, coloured by variables of the page."""
    clean = _QUIET.sub("", svg).replace(MUTED, "var(--faint)")
    return _STYLE.sub(_to_attributes, clean)


def _to_attributes(match: re.Match[str]) -> str:
    pairs = (part.partition(":") for part in match.group(1).split(";") if ":" in part)
    kept = {name.strip(): value.strip() for name, _, value in pairs}
    # the page sets the font; the size is kept
    kept.pop("font-family", None)
    if font := kept.pop("font", None):
        kept.setdefault("font-size", font.split()[0])
    return "".join(f' {name}="{value}"' for name, value in sorted(kept.items()))
