"""Parity: what a suite's own authors published or computed, beside what this package computes.

A suite states its cases once, in `tasks/<suite>/parity.py`, as `cases(folder, data)`: `folder` is
its part of the verification folder, `data` its benchmark data. The tests and
`r2w-eval data verify --parity` run the same cases. Models, counts and expectations are read from
the files found there: more files of the same kind are checked without a change of code.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from r2w_eval.data import data_roots
from r2w_eval.errors import DataError, R2WError, UnknownName
from r2w_eval.stats.inference import evaluate
from r2w_eval.suites.suite import Suite, SuiteInfo, load_info, load_module, suites_with_cases
from r2w_eval.terminal import escape, plain_table
from r2w_eval.types import Estimate, JudgeRequest, Mode, Score, is_number

VARIABLE = "R2W_VERIFICATION"
DEFAULT_FOLDER = "../shared/verification"
ABSOLUTE_TOLERANCE = 1e-9
RIGHT = ("wanted", "got")

T = TypeVar("T")


class Stated(dict[str, Any]):
    """What expected.json states of one model; a figure that it leaves out is compared with nothing.

    >>> stated({"a": {"b": 1}})["a"]["c"] is UNSTATED
    True
    """

    def __missing__(self, key: str) -> Any:
        return UNSTATED


UNSTATED = Stated()


def stated(entry: Any) -> Any:
    """An entry of expected.json in which figures may be missing."""
    if isinstance(entry, Stated) or not isinstance(entry, Mapping):
        return entry
    return Stated({key: stated(value) for key, value in entry.items()})


def paired(expected: Mapping[str, Any], raw: Mapping[str, T]) -> Iterator[tuple[str, Any, T]]:
    """Each model with what is stated of it and its raw texts. Raises KeyError for one alone."""
    for name in sorted(expected.keys() ^ raw.keys()):
        raise KeyError(name)
    for name, entry in expected.items():
        yield name, stated(entry), raw[name]


@dataclass(frozen=True, slots=True)
class ParityCase:
    """One figure of one case: as published or recorded, and as we get it.

    Floats agree within 1e-9; everything else must be equal. A printed figure is compared as the
    string that upstream prints. `cause` names the reason of a difference that is known and stays.
    """

    case: str
    figure: str
    wanted: Any
    got: Any
    cause: str = ""

    @property
    def equal(self) -> bool:
        """Whether we get what is wanted.

        >>> ParityCase("a", "x", 0.1 + 0.2, 0.3).equal, ParityCase("a", "x", "0.30", "0.3").equal
        (True, False)
        """
        if is_number(self.wanted) and is_number(self.got):
            return math.isclose(self.wanted, self.got, rel_tol=0, abs_tol=ABSOLUTE_TOLERANCE)
        return type(self.wanted) is type(self.got) and bool(self.wanted == self.got)

    @property
    def passes(self) -> bool:
        """Equal, or different for a named cause."""
        return self.equal or bool(self.cause)


def figures(
    case: str, wanted: Mapping[str, Any], got: Mapping[str, Any], prefix: str = ""
) -> Iterator[ParityCase]:
    """One entry for each wanted figure; `prefix` is what our names have before theirs."""
    for name, value in wanted.items():
        yield ParityCase(case, f"{prefix}{name}", value, got.get(f"{prefix}{name}"))


def values_of(estimates: Iterable[Estimate]) -> dict[str, float | None]:
    """The value of each estimate by name."""
    return {estimate.name: evaluate(estimate) for estimate in estimates}


def replay(suite: Suite, request: JudgeRequest, texts: Sequence[str]) -> tuple[Score, int]:
    """What parity mode makes of a judge that says `texts` in order (the last one repeats), and the
    number of calls that it takes.
    """
    asked: list[str] = []
    while True:
        asked.append(texts[min(len(asked), len(texts) - 1)])
        score = suite.parse_verdict[Mode.PARITY](request, asked[-1])
        if not score.status.is_unreadable or not suite.parity.asks_again(request, asked):
            break
    if score.status.is_unreadable and suite.parity.settle is not None:
        score = suite.parity.settle(request, asked) or score
    return score, len(asked)


def verification_folder() -> Path:
    """`R2W_VERIFICATION`, else `../shared/verification`. Raises DataError."""
    folder = Path(os.environ.get(VARIABLE) or DEFAULT_FOLDER)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. Expected one sub-folder a suite, with expected.json and "
            f"raw judge texts. Set {VARIABLE} to it"
        )
    return folder


def parity_cases(info: SuiteInfo, verification: Path, data_dir: str | None) -> list[ParityCase]:
    """All cases of one suite, in its own order; none where the folder has nothing on it.

    Figures that expected.json leaves out are left out. Raises DataError where a raw file and
    expected.json do not fit together.
    """
    folder = verification / info.data_folder
    if not folder.is_dir():
        return []
    module = load_module(info.folder / "parity.py", f"r2w_eval.tasks.{info.folder.name}.parity")
    data = info.data(data_roots(data_dir))
    try:
        found = list(module.cases(folder, data))
    except (LookupError, ValueError, TypeError, ArithmeticError, EOFError, OSError) as error:
        raise DataError(
            f"{folder}: {type(error).__name__} {error} in the cases of {info.name}. Expected a raw "
            f"file for every entry of expected.json, and an entry for every raw file; see "
            f"tasks/README.md, Parity"
        ) from error
    kept = [case for case in found if case.wanted is not UNSTATED]
    for name in sorted({case.case for case in found} - {case.case for case in kept}):
        raise DataError(
            f"{folder}: expected.json states no figure of {name!r}. Expected the keys of the other "
            f"entries; see tasks/README.md, Parity"
        )
    return kept


def verify_parity(suites: Sequence[str], data_dir: str | None, every_figure: bool) -> None:
    """Print the table suite / case / figure wanted / figure got / equal.

    Raises R2WError when a figure differs without a named cause.
    """
    verification = verification_folder()
    known = suites_with_cases()
    for name in suites:
        if name not in known:
            raise UnknownName("SUITES", name, "suite with parity cases", known, "r2w-eval list")
    found = {
        name: parity_cases(load_info(name), verification, data_dir) for name in suites or known
    }
    console = Console()
    console.print(_table(found, every_figure))
    cases = [case for own in found.values() for case in own]
    different = [case for case in cases if not case.equal]
    unexplained = [case for case in different if not case.passes]
    console.print(
        f"{len(cases):,} figures, {len(cases) - len(different):,} equal, {len(different)} differ, "
        f"{len(unexplained)} of them without a named cause",
        highlight=False,
    )
    if unexplained:
        worst = ", ".join(f"{case.case} {case.figure}" for case in unexplained[:5])
        raise R2WError(f"Not equal to the published figures: {worst}")


def _table(found: Mapping[str, Sequence[ParityCase]], every_figure: bool) -> Table:
    table = plain_table()
    table.add_column("suite", no_wrap=True)
    for title in ("case", "figure", "wanted", "got", "equal"):
        table.add_column(title, overflow="fold", justify="right" if title in RIGHT else "left")
    for suite, cases in found.items():
        for name, group in groupby(cases, key=lambda case: case.case):
            own = list(group)
            table.add_row(suite, escape(name), *_headline(own))
            rest = own[1:] if every_figure else [case for case in own[1:] if not case.equal]
            for case in rest:
                table.add_row("", "", *_cells(case))
    return table


def _headline(own: Sequence[ParityCase]) -> list[str]:
    """The first figure of a case; the last cell counts all of them."""
    *cells, verdict = _cells(own[0])
    if len(own) == 1:
        return [*cells, verdict]
    return [*cells, f"{sum(case.equal for case in own)} of {len(own)}"]


def _cells(case: ParityCase) -> list[str]:
    verdict = "yes" if case.equal else f"no: {case.cause}" if case.cause else "NO"
    return [escape(case.figure), _shown(case.wanted), _shown(case.got), escape(verdict)]


def _shown(value: Any) -> str:
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    is_hash = isinstance(value, str) and len(text) == 64
    return escape(f"{text[:12]}…" if is_hash else text[:40])
