"""A board as CSV, JSON, Parquet, Markdown and LaTeX.

All formats share one list of columns. Model names are hostile text: a CSV cell never starts a
formula, Markdown and LaTeX are escaped (specification: harness D2, S5).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from r2w_eval.leaderboards.boards import Board
from r2w_eval.leaderboards.standings import Standing

from r2w_eval.hashing import to_plain

SMOKE_TEST = "Smoke-test judge: these scores rank nothing."
Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of every export; `kind` is its Parquet type."""

    name: str
    kind: str
    read: Callable[[Standing], Cell]


COLUMNS = (
    Column("rank_best", "int64", lambda s: s.rank.best),
    Column("rank_worst", "int64", lambda s: s.rank.worst),
    Column("rank_upper_bound", "int64", lambda s: s.rank_upper_bound),
    Column("model", "string", lambda s: s.label),
    Column("is_null_baseline", "bool", lambda s: s.row.is_null),
    Column("score", "double", lambda s: s.value),
    Column("low_95", "double", lambda s: s.row.headline.low),
    Column("high_95", "double", lambda s: s.row.headline.high),
    Column("score_length_adjusted", "double", lambda s: s.adjusted),
    Column("tied_with", "string", lambda s: "; ".join(s.rank.tied_with)),
    Column("n_scored", "int64", lambda s: s.row.headline.n_scored),
    Column("n_expected", "int64", lambda s: s.row.headline.n_expected),
    Column("lost_model", "int64", lambda s: sum(s.row.losses.model.values())),
    Column("lost_judge", "int64", lambda s: sum(s.row.losses.judge.values())),
    Column("lost_infrastructure", "int64", lambda s: sum(s.row.losses.infrastructure.values())),
    Column("mean_characters", "double", lambda s: s.mean_chars),
    Column("tokens_per_answer", "double", lambda s: s.tokens_per_answer),
    Column("thinking_tokens_per_answer", "double", lambda s: s.thinking_per_answer),
    Column("tokens_per_point", "double", lambda s: s.tokens_per_point),
    Column("cost_usd", "double", lambda s: s.cost_usd),
    Column("flags", "string", lambda s: "; ".join(s.flags)),
    Column("date", "string", lambda s: s.row.created[:10]),
    Column("judge", "string", lambda s: s.row.judge),
    Column("is_smoke_test", "bool", lambda s: s.row.is_smoke_test),
    Column("score_key", "string", lambda s: s.row.score_key),
    Column("row", "string", lambda s: s.row.id),
)


def to_csv(board: Board) -> bytes:
    """UTF-8 with a header line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    for standing in board.standings:
        writer.writerow([quote_formula(column.read(standing)) for column in COLUMNS])
    return buffer.getvalue().encode("utf-8", "replace")


def quote_formula(cell: Cell) -> Cell:
    """Prefix a text that a spreadsheet would run as a formula with an apostrophe.

    >>> quote_formula("=HYPERLINK(1)"), quote_formula(-1.5)
    ("'=HYPERLINK(1)", -1.5)
    """
    if not isinstance(cell, str):
        return cell
    is_formula = cell.lstrip()[:1] in ("=", "+", "-", "@") or cell[:1] in ("\t", "\r", "\n")
    return f"'{cell}" if is_formula else cell


def to_json(board: Board) -> bytes:
    """Identity, columns and every paired test."""
    content = {
        "suite": board.task,
        "version": board.version,
        "mode": board.mode,
        "judge": board.judge,
        "score_key": board.score_key,
        "identity": board.identity,
        "headline": board.headline,
        "smoke_test_judge": board.is_smoke_test,
        "mixed_coverage": board.is_mixed,
        "length_slope": board.slope,
        "rows": [{c.name: c.read(s) for c in COLUMNS} for s in board.standings],
        "not_ranked": [{"model": one.label, "reason": one.reason} for one in board.apart],
        "paired_tests": board.tests,
    }
    return (json.dumps(to_plain(content), indent=1) + "\n").encode()


def to_parquet(board: Board) -> bytes:
    """The columns as Parquet. Raises ImportError without pyarrow."""
    import pyarrow
    import pyarrow.parquet

    kinds = {
        "int64": pyarrow.int64(),
        "double": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "string": pyarrow.string(),
    }
    arrays = [
        pyarrow.array([_encodable(column.read(s)) for s in board.standings], kinds[column.kind])
        for column in COLUMNS
    ]
    table = pyarrow.table(arrays, names=[column.name for column in COLUMNS])
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _encodable(cell: Cell) -> Cell:
    return cell.encode("utf-8", "replace").decode() if isinstance(cell, str) else cell


def to_markdown(board: Board) -> str:
    """A table for a README."""
    lines = [
        f"### {markdown(board.task)} {markdown(board.version)}, judged by {markdown(board.judge)}",
        "",
        *([f"**{SMOKE_TEST}**", ""] if board.is_smoke_test else []),
        *(["**Mixed coverage (--allow-mixed): scores of unequal items.**", ""] * board.is_mixed),
        "| rank | model | score | 95 % interval | length-adjusted | scored | tokens / answer |",
        "| --- | --- | ---: | :---: | ---: | ---: | ---: |",
    ]
    for s in board.standings:
        head = s.row.headline
        name = f"*{markdown(s.label)}* (null)" if s.row.is_null else markdown(s.label)
        cells = (
            rank_text(s),
            name,
            number(s.value),
            interval_text(head.low, head.high),
            number(s.adjusted),
            f"{head.n_scored} / {head.n_expected}",
            number(s.tokens_per_answer, 0),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"Not ranked: {markdown(a.label)}: {markdown(a.reason)}." for a in board.apart)]
    lines.append(
        f"Score key `{board.score_key}`; ranks: what paired tests leave open (Holm over all pairs)."
    )
    return "\n".join(lines) + "\n"


def to_latex(board: Board) -> str:
    """A booktabs table; intervals as subscripts."""
    body = [
        rf"{rank_text(s)} & {_latex_name(s)} & {_latex_value(s)} & "
        rf"{s.row.headline.n_scored}/{s.row.headline.n_expected} & "
        rf"{number(s.tokens_per_answer, 0)} \\"
        for s in board.standings
    ]
    warning = (
        [rf"\multicolumn{{5}}{{l}}{{\textbf{{{SMOKE_TEST}}}}} \\"] if board.is_smoke_test else []
    )
    return "\n".join(
        [
            r"\begin{tabular}{llrrr}",
            r"\toprule",
            *warning,
            r"Rank & Model & Score (95\,\% interval) & Scored & Tokens \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            f"% {latex(board.task)} {latex(board.version)}, judge {latex(board.judge)}, "
            f"score key {board.score_key}; needs the package booktabs",
            "",
        ]
    )


def _latex_name(standing: Standing) -> str:
    name = latex(standing.label)
    return rf"\textit{{{name}}} (null)" if standing.row.is_null else name


def _latex_value(standing: Standing) -> str:
    head = standing.row.headline
    if head.low is None or head.high is None:
        return f"${standing.value:.2f}$"
    return f"${standing.value:.2f}_{{[{head.low:.2f},\\,{head.high:.2f}]}}$"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}


def latex(text: str) -> str:
    r"""Text with LaTeX's special characters escaped.

    >>> latex("a_b \\input{x}")
    'a\\_b \\textbackslash{}input\\{x\\}'
    """
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))


def markdown(text: str) -> str:
    """Text with Markdown, HTML and table syntax escaped.

    >>> markdown("a|b <script>")
    'a\\\\|b &lt;script&gt;'
    """
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", flat)


def rank_text(standing: Standing) -> str:
    """`2` or `1–3`; a dash where the judge cannot judge."""
    if standing.row.is_smoke_test:
        return "–"
    rank = standing.rank
    return str(rank.best) if rank.best == rank.worst else f"{rank.best}–{rank.worst}"


def number(value: float | None, digits: int = 2) -> str:
    """Fixed digits; a dash for None.

    >>> number(1234.5, 0), number(None)
    ('1,234', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"


def interval_text(low: float | None, high: float | None, digits: int = 2) -> str:
    """`6.91 to 7.40`, or a dash."""
    if low is None or high is None:
        return "–"
    return f"{number(low, digits)} to {number(high, digits)}"


def signed(value: float | None) -> str:
    """`+0.30`, `−0.30`, `0.00`, or a dash."""
    if value is None:
        return "–"
    text = f"{abs(value):,.2f}"
    return text if direction(value) == "soft" else f"{'−' if value < 0 else '+'}{text}"


def direction(value: float) -> str:
    """The CSS class of a difference; one printed as zero is neither up nor down."""
    if f"{abs(value):.2f}" == "0.00":
        return "soft"
    return "up" if value > 0 else "down"


def minus(text: str) -> str:
    """A number or an interval with real minus signs."""
    return text.replace("-", "−")


def pairs_to_csv(board: Board) -> bytes:
    """Every paired test of a board."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ("first", "second", "difference", "low", "high", "p_value", "p_holm", "n_common")
    writer.writerow(names)
    for test in board.tests:
        writer.writerow([quote_formula(getattr(test, name)) for name in names])
    return buffer.getvalue().encode("utf-8", "replace")


def has_parquet() -> bool:
    """Whether pyarrow is installed, which the base install does not include."""
    import importlib.util

    return importlib.util.find_spec("pyarrow") is not None
