"""`r2w-eval doctor`: the findings as a table or JSON, and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from r2w_eval.cli.options import settings_options

if TYPE_CHECKING:
    from r2w_eval.doctor import Finding


@click.command()
@click.option("--endpoint", "endpoints", multiple=True, metavar="URL",
              help="Also ask this server, http://HOST:PORT/v1[#NAME], for its models.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON on standard output.")
@settings_options("data_dir")
def doctor(endpoints: Sequence[str], as_json: bool, data_dir: str | None) -> None:
    """What works here: packages, data, GPU, keys, endpoints.

    Exit code 1 when something is broken; what is only not installed breaks nothing.
    """
    from r2w_eval.doctor import State, examine

    findings = examine(endpoints, data_dir)
    broken = [finding for finding in findings if finding.state is State.BROKEN]
    if as_json:
        from r2w_eval.hashing import dump_line

        click.echo(dump_line({"ok": not broken, "findings": findings}).decode(), nl=False)
    else:
        _print(findings)
    if broken:
        raise SystemExit(1)


def _suites_together(findings: Sequence[Finding]) -> list[Finding]:
    """The suites that lack nothing as one finding: two dozen lines of `ok` hide the others."""
    from r2w_eval.doctor import Finding, State

    whole = [f for f in findings if f.area == "data" and f.state is State.OK]
    if not whole:
        return list(findings)
    place = findings.index(whole[0])
    told = Finding("data", "suites", State.OK, f"{len(whole)} are here: r2w-eval list")
    return [*findings[:place], told, *(f for f in findings[place:] if f not in whole)]


def _print(findings: Sequence[Finding]) -> None:
    from rich.console import Console

    from r2w_eval.doctor import State
    from r2w_eval.terminal import escape, plain_table

    styles = {State.OK: "green", State.WARNING: "yellow", State.BROKEN: "bold red"}
    table = plain_table()
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold", max_width=24)
    table.add_column("state", no_wrap=True)
    table.add_column("found", overflow="fold")
    area = ""
    for finding in _suites_together(findings):
        style = styles.get(finding.state, "dim")
        text = escape(finding.detail) + (
            f"\n[italic]try: {escape(finding.advice)}[/]" if finding.advice else ""
        )
        table.add_row(
            finding.area if finding.area != area else "",
            escape(finding.name),
            f"[{style}]{finding.state}[/]",
            text,
        )
        area = finding.area
    console = Console()
    console.print(table)
    counts = {state: sum(f.state is state for f in findings) for state in State}
    console.print("  " + ", ".join(f"{n} {state}" for state, n in counts.items() if n))
