"""What the pages show, computed from boards: plain views that the templates lay out.

The template engine escapes every text; plots and bars hold numbers only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from r2w_eval.leaderboards.boards import Apart, Board
from r2w_eval.leaderboards.collect import Entry
from r2w_eval.leaderboards.export import (
    direction,
    interval_text,
    minus,
    number,
    rank_text,
    signed,
)
from r2w_eval.leaderboards.naming import clip
from r2w_eval.leaderboards.plots import histogram_plot
from r2w_eval.leaderboards.rows import Row
from r2w_eval.leaderboards.standings import Standing

from r2w_eval.estimates import AS_WRITTEN, WORDS
from r2w_eval.hashing import content_hash, to_plain
from r2w_eval.judge_check.markdown import SIGNALS
from r2w_eval.paths import packaged_text, safe_name
from r2w_eval.suites.suite import load_info, suite_folders
from r2w_eval.types import Metric, is_number

# heading, key, sort order ("": not sortable), classes; only-wide columns need "all columns"
COLUMNS = (
    ("rank", "rank", "number", "rank l"),
    ("system", "name", "text", "l name"),
    ("score", "score", "number", "score"),
    ("interval, drawn", "bar", "", "narrow-off"),
    ("95 % interval", "interval", "number", ""),
    ("length-adjusted", "adjusted", "number", "narrow-off"),
    ("scored", "scored", "number", "narrow-off"),
    ("tokens / answer", "tokens", "number", "narrow-off"),
    ("of it thinking", "thinking", "number", "only-wide"),
    ("tokens / point", "per_point", "number", "only-wide"),
    ("cost", "cost", "number", "only-wide"),
    ("lost", "lost", "text", "only-wide l"),
    ("mean characters", "chars", "number", "only-wide"),
    ("reflection", "reflection", "text", "only-wide l"),
    ("rank (upper bound)", "upper", "number", "only-wide"),
    ("tied with", "tied", "number", "only-wide"),
    ("date", "date", "text", "only-wide"),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval on an axis from 0 to 100."""

    point: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Strength:
    """One group of one system against the board's mean; `bar` is -50 to 50."""

    name: str
    metric: Metric
    difference: float
    bar: float


@dataclass(frozen=True, slots=True)
class RowView:
    """One row on its system's page; `standing` is None when it is not ranked."""

    entry: Entry
    board: Board
    label: str
    standing: Standing | None
    reason: str
    strengths: tuple[Strength, ...]
    reflections: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class JudgeView:
    """One judge on one board."""

    board: Board
    n_rows: int
    n_valid: int
    n_total: int
    first_share: float | None
    floor_share: float | None
    ceiling_share: float | None
    n_values: int
    failures: str
    returned: tuple[str, ...]
    nulls: str
    svg: str


def bar_of(standing: Standing, board: Board) -> Bar | None:
    """A system's interval on the board's axis; None if all bounds are equal."""
    bounds = [
        bound
        for s in board.standings
        for bound in (s.row.headline.low, s.value, s.row.headline.high)
        if bound is not None
    ]
    low, high = min(bounds), max(bounds)
    if high == low:
        return None

    def place(value: float | None) -> float | None:
        return None if value is None else round((value - low) / (high - low) * 100, 2)

    head = standing.row.headline
    return Bar(place(standing.value) or 0.0, place(head.low), place(head.high))


def board_means(board: Board) -> dict[str, float]:
    """Mean of each group over the board's systems without null baselines."""
    found: dict[str, list[float]] = defaultdict(list)
    for standing in board.standings:
        for metric in standing.row.metrics if not standing.row.is_null else ():
            if metric.value is not None and "/" in metric.name:
                found[metric.name].append(metric.value)
    return {name: sum(own) / len(own) for name, own in found.items()}


def strengths(row: Row, means: Mapping[str, float]) -> tuple[Strength, ...]:
    """Groups of a row against the means, largest advantage first; only figures of which more is
    better.
    """
    gaps = {
        metric.name: (metric, metric.value - means[metric.name])
        for metric in row.metrics
        if metric.value is not None
        and metric.name in means
        and not metric.note.startswith((AS_WRITTEN, WORDS))
    }
    widest = max((abs(gap) for _, gap in gaps.values()), default=0.0) or 1.0
    found = [
        Strength(name.replace("/", ": ", 1), metric, gap, round(gap / widest * 48, 2))
        for name, (metric, gap) in gaps.items()
    ]
    return tuple(sorted(found, key=lambda s: (-s.difference, s.name)))


def row_views(boards: Sequence[Board]) -> dict[str, list[RowView]]:
    """All rows of each system on all boards, by the slug of its page."""
    views: dict[str, list[RowView]] = defaultdict(list)
    for board in boards:
        means = board_means(board)
        lines: list[Standing | Apart] = [*board.standings, *board.apart]
        for one in lines:
            row = one.entry.row
            view = RowView(
                one.entry,
                board,
                one.label,
                one if isinstance(one, Standing) else None,
                one.reason if isinstance(one, Apart) else "",
                strengths(row, means),
                reflection_facts(row.reflection),
            )
            views[system_slug(row)].append(view)
    return views


def reflection_facts(block: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """The figures of a run's reflection block: metrics with intervals, counts; its report has the
    levels too.
    """
    found = []
    for key, value in (block or {}).items():
        if isinstance(value, list):
            named = (one for one in value if isinstance(one, Mapping) and "name" in one)
            found += [
                _figure(str(one["name"]), one)
                for one in named
                if is_metric(one) and not str(one["name"]).startswith("level/")
            ]
        elif isinstance(value, Mapping) and is_metric(value):
            found.append(_figure(key, value))
        elif is_number(value):
            shown = f"{value:,}" if isinstance(value, int) else number(value)
            found.append((key.replace("_", " "), shown))
    return tuple(found)


def is_metric(value: Mapping[str, Any]) -> bool:
    """Whether it is a metric with a value; others are not shown."""
    return isinstance(value.get("value"), (int, float))


def _figure(name: str, metric: Mapping[str, Any]) -> tuple[str, str]:
    bounds = interval_text(metric.get("low"), metric.get("high"))
    n, expected = metric.get("n_scored"), metric.get("n_expected")
    of = f"; n {n}" if n != expected else ""
    return name.replace("_", " "), f"{number(metric['value'])} ({bounds}{of})"


def judge_view(board: Board) -> JudgeView:
    """What a judge did over all rows of a board."""
    rows = [s.row for s in board.standings] + [one.entry.row for one in board.apart]
    judging = [row.judging for row in rows]
    valid = sum(j["n_valid"] for j in judging)
    histogram: Counter[float] = Counter()
    failures: Counter[str] = Counter()
    for own in judging:
        histogram.update({float(value): n for value, n in own["histogram"].items()})
        failures.update(own["failures"])

    def share(name: str) -> float | None:
        hits = sum((j[name] or 0.0) * j["n_valid"] for j in judging)
        return hits / valid if valid else None

    nulls = [s for s in board.standings if s.row.is_null]
    return JudgeView(
        board=board,
        n_rows=len(rows),
        n_valid=valid,
        n_total=sum(j["n_total"] for j in judging),
        first_share=sum(j["n_parsed_first"] for j in judging) / valid if valid else None,
        floor_share=share("share_at_floor"),
        ceiling_share=share("share_at_ceiling"),
        n_values=len(histogram),
        failures=", ".join(f"{name} {n:,}" for name, n in sorted(failures.items())),
        returned=tuple(sorted({m for j in judging for m in j["models_returned"]})),
        nulls=f"{nulls[0].label}: {number(nulls[0].value)}, rank {rank_text(nulls[0])}"
        if nulls
        else "",
        svg=histogram_plot(histogram),
    )


def system_slug(row: Row) -> str:
    """The page of a row's system."""
    return f"{safe_name(row.model, 40).lower()}-{row.page_key}"


def judge_slug(judge: str) -> str:
    """The page of a judge; the hash tells apart names that give the same file name."""
    return f"{safe_name(judge, 40).lower()}-{content_hash(judge, 6)}"


def make_environment() -> jinja2.Environment:
    """The template engine: it escapes everything, and an unknown name is an error."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(read_template),
        trim_blocks=True,
    )
    environment.filters.update(
        number=lambda *given: minus(number(*given)),
        signed=signed,
        direction=direction,
        money=lambda v: "–" if v is None else f"${v:,.2f}",
        percent=lambda v: "–" if v is None else f"{v:.1%}",
        p=lambda v: "–" if v is None else "< 0.0001" if v < 1e-4 else f"{v:.4f}",
        digits=lambda v: f"{v:g}",
        interval=lambda m: minus(interval_text(m.low, m.high)),
        interval3=lambda m: minus(interval_text(m.low, m.high, 3)),
        rank=rank_text,
        clip=clip,
        bar=bar_of,
        plain=to_plain,
        judge_slug=judge_slug,
        signal=lambda name: SIGNALS[name],
        suite_title=suite_title,
        system_slug=system_slug,
        reflection=lambda block: (
            ", ".join(f"{k} {v}" for k, v in reflection_facts(block)[:3]) or "–"
        ),
    )
    return environment


@cache
def suite_title(task: str) -> str:
    """The suite's title; its name if the suite is not installed."""
    return load_info(task).title if task in suite_folders() else task


def read_template(name: str) -> str:
    """A file of the templates folder."""
    return packaged_text(f"templates/{name}", "r2w_eval.leaderboards")


def columns(has_reflection: bool) -> Iterable[tuple[str, str, str, str]]:
    """The ranking's columns; the reflection column only if some row has such figures."""
    return (c for c in COLUMNS if has_reflection or c[1] != "reflection")
