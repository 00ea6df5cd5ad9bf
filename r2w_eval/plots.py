"""Small SVG plots for the report, by matplotlib; the page colours them through `currentColor`.

Same input, same bytes: fixed hash salt, no date. Text stays text, so that pages can be searched and
read aloud.
"""

from __future__ import annotations

import html
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from r2w_eval.types import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn in this colour, then replaced by the page's text colour
INK = "#123456"
ACCENT = "#654321"


def distribution_svg(values: Sequence[float], title: str, unit: str) -> str:
    """Histogram of item values."""
    figure, axes = new_figure(5.2, 2.4)
    if values:
        # values that differ in the last bit only are one
        shown = [round(value, 9) for value in values]
        axes.hist(shown, bins=min(20, max(5, len(shown) // 4)), color=ACCENT, alpha=0.75)
    # counts are whole
    axes.locator_params(axis="y", integer=True)
    axes.set_title(title)
    axes.set_xlabel("mean verdict")
    axes.set_ylabel(unit)
    return render_svg(figure, axes, title)


def intervals_svg(metrics: Sequence[Metric]) -> str:
    """Each metric's value and 95 % interval, one row each; scales that differ are left out."""
    title = "Metrics with 95 % intervals"
    shown = [metric for metric in metrics if "x10" not in metric.name][::-1]
    figure, axes = new_figure(5.2, 0.9 + 0.2 * len(shown))
    for row, metric in enumerate(shown):
        if metric.low is not None and metric.high is not None:
            axes.plot([metric.low, metric.high], [row, row], color=ACCENT, linewidth=2)
        if metric.value is not None:
            axes.plot([metric.value], [row], "o", color=INK, markersize=4)
    axes.set_yticks(range(len(shown)), [plain_label(_short(metric.name)) for metric in shown])
    axes.set_title(title)
    return render_svg(figure, axes, title)


def length_svg(points: Sequence[tuple[int, float]]) -> str:
    """Score against answer length."""
    title = "Mean verdict against answer length"
    figure, axes = new_figure(5.2, 2.4)
    axes.plot([p[0] for p in points], [p[1] for p in points], "o", color=ACCENT, markersize=4)
    axes.set_title(title)
    axes.set_xlabel("characters")
    axes.set_ylabel("mean verdict")
    return render_svg(figure, axes, title)


def _short(name: str, limit: int = 34) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def plain_label(text: str) -> str:
    """A name as matplotlib must get it: no control characters, a dollar is no formula.

    >>> plain_label("$x^{$")
    '\\\\$x^{\\\\$'
    """
    plain = "".join(c for c in text if c.isprintable()).replace("$", r"\$")
    # a legend leaves out what begins with an underscore
    return f" {plain}" if plain.startswith("_") else plain


def new_figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """An empty figure with one plot; sizes in inches."""
    from matplotlib.figure import Figure

    # 72 dots an inch, as in SVG, so that the layout is that of the page
    figure = Figure(figsize=(width_in, height_in), layout="constrained", dpi=72)
    return figure, figure.add_subplot()


def render_svg(figure: Figure, axes: Axes, title: str) -> str:
    """The figure as SVG text that takes its colours from the page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
        text.set_fontsize(10)
    axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    buffer = io.StringIO()
    with (
        matplotlib.rc_context({"svg.hashsalt": "r2w-eval", "svg.fonttype": "none"}),
        warnings.catch_warnings(),
    ):
        # text stays text, so the reader's fonts decide, not those that measured it here
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas = FigureCanvasSVG(figure)
        # `savefig` lays out and draws twice, which is most of the time that a page takes
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
            figure.set_layout_engine("none")
        canvas.print_svg(  # type: ignore[no-untyped-call]
            buffer, metadata={"Date": None, "Creator": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(ACCENT, "var(--accent)")
    # a title may hold a model's name, which is anybody's text
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
