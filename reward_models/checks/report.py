"""Validity reports: made, shown, read, and asked for before a policy is trained on a scorer.

A policy finds what a reward pays for by mistake. So reinforcement learning asks for the report of
the very scorer it will use, and for the tests that a policy would exploit first (specification:
r2write.md section 5).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from r2w_eval.reward_models.checks.validity import Check, run_validity
from r2w_eval.reward_models.scorer import ItemScorer

from r2w_eval.errors import UsageError
from r2w_eval.store import write_json

REPORT = "validity.json"
WAIVED = "waived"
REQUIRED = (
    "matched > ",
    "generic > shuffled",
    "matching revision > ",
    "said ",
    "first > paraphrase",
    "self-praise",
    "padding and neighbours",
)
"""How the names of the tests begin that reinforcement learning asks for."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of the validity suite on one scorer, by name whether a test was passed."""

    scorer: str
    passed: dict[str, bool]

    @property
    def failed(self) -> list[str]:
        """What speaks against training on the scorer: required tests failed, or absent."""
        bad = [name for name, ok in self.passed.items() if not ok and name.startswith(REQUIRED)]
        absent = [lead for lead in REQUIRED if not any(n.startswith(lead) for n in self.passed)]
        return bad + [f"{lead.strip()} (not in the report)" for lead in absent]


def write_report(scorer: ItemScorer, path: Path) -> list[Check]:
    """Run the suite and keep its outcome as JSON."""
    checks = run_validity(scorer)
    write_json(path, {"scorer": scorer.id, "checks": checks})
    return checks


def show_validity(scorer: ItemScorer, path: Path | None) -> None:
    """Run the suite, print its outcome as a table, and keep it where a path is given."""
    from rich.console import Console
    from rich.table import Table

    checks = run_validity(scorer) if path is None else write_report(scorer, path)
    table = Table(title=f"Validity of {scorer.id}")
    for column in ("test", "value", "95 % interval", "n", "passes", "rule"):
        table.add_column(column)
    for c in checks:
        value = "n/a" if c.value is None else f"{c.value:.3f}"
        bounds = "" if c.low is None or c.high is None else f"{c.low:.3f} to {c.high:.3f}"
        table.add_row(c.name, value, bounds, str(c.n), "yes" if c.passed else "NO", c.rule)
    Console().print(table)


def read_report(path: Path) -> Report:
    """A report of `write_report`. Raises UsageError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        passed = {str(check["name"]): check["passed"] is True for check in found["checks"]}
        return Report(str(found["scorer"]), passed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: no validity report ({type(error).__name__}: {error}). Make one with "
            f"r2w-eval train rm --validate --scorer NAME --out DIR"
        ) from None


def require_valid(scorer: ItemScorer, named: str, folder: Path) -> None:
    """Let a scorer pass whose report is good: the one named, or one made and kept in `folder`.

    Raises UsageError for a report of another scorer and for failed tests.
    """
    if named == WAIVED:
        return
    path = Path(named) if named else folder / REPORT
    if not named and not (path.is_file() and read_report(path).scorer == scorer.id):
        write_report(scorer, path)
    report = read_report(path)
    if report.scorer != scorer.id:
        raise UsageError(
            f"{path}: the report is of {report.scorer}, the process scorer is {scorer.id}. Make "
            f"its own with r2w-eval train rm --validate --scorer NAME --out DIR"
        )
    if report.failed:
        raise UsageError(
            f"{scorer.id} is no process reward: {path} says that it failed "
            f"{'; '.join(report.failed)}. Expected all of them passed. Try another scorer, "
            f"process_mapping.weight 0, or rl.validity: {WAIVED} to train on it all the same"
        )
