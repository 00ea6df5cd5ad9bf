"""The page of plots and the regression table, from the results in this folder and their history.

`python benchmarks/page.py` writes docs/figures.md and docs/images/bench-*.svg from results/*.json.
The table holds each figure beside its goal and beside its value in the version of the file before,
as git has it; a file that was changed and not committed is the newest version.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "figures.md"
IMAGES = ROOT / "docs" / "images"
# changes under this are the machine's: it is shared, and measures at different loads
NOISE = 0.1
OURS, BARE = "#b5482a", "#888888"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table: where its value is, and its goal (`at_least`, else at most)."""

    name: str
    file: str
    goal: float | None
    read: Callable[[Any], float]
    at_least: bool = False

    def bound(self) -> str:
        """The goal as the table shows it."""
        return "–" if self.goal is None else f"{'≥' if self.at_least else '≤'} {self.goal:g}"

    def verdict(self, value: float) -> str:
        """Whether the goal is reached."""
        if self.goal is None:
            return "–"
        return "yes" if (value >= self.goal if self.at_least else value <= self.goal) else "**no**"

    def change(self, before: float, now: float) -> str:
        """How the value moved, as a share of the value before or of the goal, if that is larger."""
        share = (now - before) / max(abs(before), abs(self.goal or 0.0), 1e-9)
        if abs(share) <= NOISE:
            return "as before"
        return f"{'better' if (share > 0) is self.at_least else '**worse**'} by {abs(share):.0%}"


def to_bare(workload: str, connections: int) -> Callable[[Any], float]:
    """Reads our rate relative to the bare client's."""

    def read(report: Mapping[str, Any]) -> float:
        wanted = (workload, connections)
        rows = report["comparisons"]
        found = (r["to_bare"] for r in rows if (r["workload"], r["connections"]) == wanted)
        return float(next(found))

    return read


def cpu_per_10k(workload: str) -> Callable[[Any], float]:
    """Reads our CPU seconds for 10,000 requests at 128 connections."""

    def read(report: Mapping[str, Any]) -> float:
        wanted = ("r2w-eval", workload, 128)
        found = (
            row["cpu_s_per_10k"]
            for row in report["rows"]
            if (row["client"], row["workload"], row["connections"]) == wanted
        )
        return float(next(found))

    return read


def of_size(verdicts: int, column: str) -> Callable[[Any], float]:
    """Reads a column of the row with this number of verdicts."""

    def read(report: Mapping[str, Any]) -> float:
        return float(next(r[column] for r in report["sizes"] if r["verdicts"] == verdicts))

    return read


FIGURES = (
    *(
        Figure(f"rate, x bare client: {w}, {n} connections", "throughput", 0.9, to_bare(w, n), True)
        for n in (32, 128)
        for w in ("generate", "judge", "judged")
    ),
    *(
        Figure(f"CPU s per 10,000: {w}, 128 connections", "throughput", None, cpu_per_10k(w))
        for w in ("generate", "judge", "judged")
    ),
    Figure(
        "generation and judging together, x the longer alone (worst)",
        "throughput", 1.15, lambda r: float(max(o["ratio"] for o in r["overlap"])),
    ),
    Figure(
        "requests of a finished run", "durability", 0,
        lambda r: float(r["sent_by_a_finished_run"]),
    ),
    Figure(
        "requests sent again per SIGKILL, over those in flight", "durability", 1,
        lambda r: float(r["sent_again_per_kill"] / r["peak_in_flight"]),
    ),
    Figure(
        "verdicts scored 0 by a fault", "fault_matrix", 0,
        lambda r: float(sum(row["scored_zero"] for row in r if "scored_zero" in row)),
    ),
    Figure(
        "peak MB, 20,040 verdicts over 960", "memory", 50,
        lambda r: float(r[2]["peak_rss_mb"] - r[1]["peak_rss_mb"]),
    ),
    Figure("s for 1,000 resamples of 1,000 x 5", "scale", 0.3, lambda r: float(r["bootstrap_s"])),
    *(
        figure
        for power, seconds, megabytes in ((6, 10, 1000), (7, None, 1000))
        for figure in (
            Figure(
                f"s to aggregate 10^{power} verdicts from Parquet", "scale", seconds,
                of_size(10**power, "aggregate_wall_s"),
            ),
            Figure(
                f"MB to aggregate 10^{power} verdicts", "scale", megabytes,
                of_size(10**power, "peak_rss_mb"),
            ),
        )
    ),
    Figure(
        "CPU s to aggregate 100,000 verdicts from JSON lines", "aggregate", None,
        lambda r: float(r[-1]["cpu_s"]),
    ),
    Figure(
        "simulated over real time of the queue, worst deviation", "queue_sim", None,
        lambda r: float(max(abs(c["ratio"] - 1) for c in r["checked"])),
    ),
)  # fmt: skip


def versions(file: str) -> Iterator[Any]:
    """The contents of a result file, newest first: on disk, then as committed."""
    path = RESULTS / f"{file}.json"
    newest = path.read_text(encoding="utf-8")
    yield json.loads(newest)
    place = str(path.relative_to(ROOT))
    log = _git("log", "--format=%h", "--", place).split()
    for commit in log:
        text = _git("show", f"{commit}:{place}")
        if text != newest:
            yield json.loads(text)


def _git(*words: str) -> str:
    return subprocess.check_output(["git", *words], cwd=ROOT, text=True)


def known(figure: Figure) -> Iterator[float]:
    """The figure's value in each version of its file that has it, newest first."""
    for report in versions(figure.file):
        try:
            yield figure.read(report)
        except (KeyError, IndexError, StopIteration, TypeError, ValueError, ZeroDivisionError):
            continue


def table() -> Iterator[str]:
    """The rows of the page."""
    yield "| figure | goal | now | before | change | goal reached | from |"
    yield "|---|---|---|---|---|---|---|"
    for figure in FIGURES:
        values = known(figure)
        now, earlier = next(values, None), next(values, None)
        if now is None:
            cells = [figure.name, figure.bound(), "not measured", "", "", ""]
        else:
            before = "–" if earlier is None else f"{earlier:.3g}"
            change = "–" if earlier is None else figure.change(earlier, now)
            cells = [figure.name, figure.bound(), f"{now:.3g}", before, change, figure.verdict(now)]
        yield f"| {' | '.join(cells)} | `{figure.file}.json` |"


def plot_throughput(report: Mapping[str, Any], path: Path) -> None:
    """Requests per second of every client, a panel for each workload and number of connections."""
    panels = sorted({(r["connections"], r["workload"]) for r in report["rows"]})
    figure = _figure(10, 5.6)
    for place, (connections, workload) in enumerate(panels, 1):
        axes = figure.add_subplot(2, -(-len(panels) // 2), place)
        rates: dict[str, list[float]] = {}
        for row in report["rows"]:
            if (row["connections"], row["workload"]) == (connections, workload):
                rates.setdefault(row["client"], []).append(row["rate"])
        names = sorted(rates, key=lambda name: sum(rates[name]) / len(rates[name]))
        means = [sum(rates[name]) / len(rates[name]) for name in names]
        colours = [OURS if name.startswith("r2w-eval") else BARE for name in names]
        axes.barh(names, means, color=colours)
        for y, mean in enumerate(means):
            axes.text(mean, y, f" {mean:.0f}", va="center", fontsize=8)
        axes.set_xlim(0, max(means) * 1.15)
        _label(axes, f"{workload}, {connections} connections", "requests per second")
    figure.savefig(path, metadata={"Date": None})


def plot_growth(report: Mapping[str, Any], path: Path) -> None:
    """CPU time and memory against the number of verdicts, both axes logarithmic."""
    figure = _figure(10, 3.4)
    sizes = report["sizes"]
    count = [size["verdicts"] for size in sizes]
    lines = {
        "CPU seconds": {"export": "export_cpu_s", "aggregate": "aggregate_cpu_s"},
        "MB": {"peak memory": "peak_rss_mb", "Parquet on disk": "parquet_mb"},
    }
    for place, (unit, keys) in enumerate(lines.items(), 1):
        axes = figure.add_subplot(1, 2, place)
        for (name, key), colour in zip(keys.items(), (OURS, BARE), strict=True):
            axes.loglog(count, [size[key] for size in sizes], "o-", color=colour, label=name)
        axes.legend(fontsize=8, frameon=False)
        _label(axes, unit, "verdicts")
    figure.savefig(path, metadata={"Date": None})


def _figure(width: float, height: float) -> Any:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    matplotlib.use("svg")
    # the same input gives the same bytes
    matplotlib.rcParams["svg.hashsalt"] = "figures"
    matplotlib.rcParams["svg.fonttype"] = "none"
    return Canvas(figsize=(width, height), layout="constrained")


def _label(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    plot_throughput(next(versions("throughput")), IMAGES / "bench-throughput.svg")
    plot_growth(next(versions("scale")), IMAGES / "bench-growth.svg")
    lines = [
        "# Figures and goals",
        "",
        "Written by `python benchmarks/page.py` from `benchmarks/results/`;",
        "[Measured](benchmarks.md) says which command makes which file, and what the figures mean.",
        "*Before* is the value in the committed version of the file before this one; changes of up",
        f"to {NOISE:.0%}, of the value or the goal, are the shared machine's.",
        "",
        *table(),
        "",
        "![requests per second by client](images/bench-throughput.svg)",
        "",
        "![CPU and memory against the number of verdicts](images/bench-growth.svg)",
    ]  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
