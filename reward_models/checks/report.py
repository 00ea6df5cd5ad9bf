"""Validity reports: making, showing, reading and requiring them.

A policy exploits whatever a reward pays for by mistake. Reinforcement learning therefore requires a
report on the very scorer that it uses, in which the tests of the likeliest exploits are passed
(specification: r2write.md section 5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from r2w_eval.reward_models.checks.validity import Check, run_validity
from r2w_eval.reward_models.items import TRANSIENT, Item, ItemScore
from r2w_eval.reward_models.scorer import ItemScorer

from r2w_eval.errors import EndpointSilent, UsageError
from r2w_eval.store import write_json
from r2w_eval.terminal import escape, interval, number, plain_table

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
"""Beginnings of the names of the tests that reinforcement learning requires."""


@dataclass(frozen=True, slots=True)
class Report:
    """The validity of one scorer: for each test by name, whether it was passed."""

    scorer: str
    passed: dict[str, bool]

    @property
    def failed(self) -> list[str]:
        """Required tests that failed or are missing; empty if the scorer may be trained on."""
        bad = [name for name, ok in self.passed.items() if not ok and name.startswith(REQUIRED)]
        absent = [lead for lead in REQUIRED if not any(n.startswith(lead) for n in self.passed)]
        return bad + [f"{lead.strip()} (not in the report)" for lead in absent]


class Answering:
    """A scorer whose silence ends the suite: what a judge never said is no test that it failed."""

    def __init__(self, scorer: ItemScorer) -> None:
        self._scorer = scorer

    @property
    def id(self) -> str:
        """The inner scorer's."""
        return self._scorer.id

    def describe(self) -> Mapping[str, Any]:
        """The inner scorer's."""
        return self._scorer.describe()

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item, in order. Raises EndpointSilent."""
        scores = self._scorer.score(items)
        owed = [score for score in scores if str(score.status) in TRANSIENT]
        if owed:
            raise EndpointSilent(
                f"{self.id} left {len(owed)} of {len(scores)} questions of the validity suite "
                f"without an answer ({owed[0].status}: {owed[0].reason}). No report was kept; run "
                f"the same command again, and what it has answered is not asked twice"
            )
        return scores


def run_whole(scorer: ItemScorer) -> list[Check]:
    """All tests, each question answered. Raises EndpointSilent."""
    return run_validity(Answering(scorer))


def write_report(scorer: ItemScorer, path: Path) -> list[Check]:
    """Run the validity suite and write its outcome as JSON. Raises EndpointSilent, and writes
    nothing, where a judge left a question without an answer.
    """
    checks = run_whole(scorer)
    write_json(path, {"scorer": scorer.id, "checks": checks})
    return checks


def show_validity(scorer: ItemScorer, path: Path | None) -> None:
    """Run the validity suite, print its outcome as a table, and write it if a path is given."""
    from rich.console import Console

    with Console(stderr=True).status(f"Validity suite on {escape(scorer.id)}"):
        checks = run_whole(scorer) if path is None else write_report(scorer, path)
    table = plain_table(f"Validity of {scorer.id}")
    for column in ("test", "value", "95 % interval", "n", "passed"):
        table.add_column(column, justify="right" if column in ("value", "n") else "left")
    for c in checks:
        value, bounds = number(c.value, ".3f"), interval(c.low, c.high, ".3f")
        table.add_row(escape(c.name), value, bounds, str(c.n), "yes" if c.passed else "NO")
    Console().print(table)
    failed = [c for c in checks if not c.passed]
    click.echo(f"{len(checks) - len(failed)} of {len(checks)} tests passed.")
    for c in failed:
        click.echo(f"Not passed: {c.name}: {number(c.value, '.3f')}. Expected {c.rule}")


def read_report(path: Path) -> Report:
    """Read a report made by `write_report`. Raises UsageError."""
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
    """Check the report that is `named`, or else one that is made and kept in `folder`.

    `named` WAIVED skips the check. Raises UsageError for a report on another scorer, and for
    required tests that failed or are missing; EndpointSilent where a judge was silent.
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
