"""All suites in one table, for the terminal and for docs/suites.md, from the tasks' metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from r2w_eval.data import data_roots
from r2w_eval.suites.suite import SuiteInfo, load_info, suite_folders, suites_with_cases
from r2w_eval.terminal import escape, plain_table

COLUMNS = (
    "suite",
    "measures",
    "version",
    "samples",
    "languages",
    "calls",
    "published judge",
    "licence",
    "from you",
    "checked",
)
COMMAND = "r2w-eval list --suites --markdown > docs/suites.md"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One suite: what it is, what a full run costs in calls, how far it is checked."""

    info: SuiteInfo
    states_cases: bool

    @property
    def calls(self) -> int:
        """Judge calls of a full run of one model, once each."""
        return round(self.info.n_samples * self.info.judge_calls_per_sample)

    @property
    def checked(self) -> str:
        """Whether published or recorded upstream figures are reproduced."""
        return "parity cases" if self.states_cases else "own tests only"

    @property
    def from_user(self) -> str:
        """Options that name files which only the user can supply."""
        return ", ".join(f"--{name}" for name in self.info.inputs) or "–"


def read_catalogue() -> list[CatalogueEntry]:
    """Every suite that is installed, by name."""
    with_cases = set(suites_with_cases())
    return [CatalogueEntry(load_info(name), name in with_cases) for name in suite_folders()]


def print_catalogue(data_dir: str | None) -> None:
    """The table, with whether the data is here."""
    console = Console()
    table = plain_table()
    table.add_column("suite", no_wrap=True)
    for title in ("samples", "judge\ncalls"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("data", min_width=len("--references,"))
    table.add_column("checked")
    for entry in read_catalogue():
        table.add_row(
            f"{entry.info.name}\n[dim]{escape(_origin(entry.info))}[/dim]",
            f"{entry.info.n_samples:,}",
            f"{entry.calls:,}",
            _data_state(entry, data_dir),
            entry.checked,
        )
    console.print(table)
    console.print("Get data: r2w-eval data fetch SUITE. Reproduce: r2w-eval data verify --parity")


def _origin(info: SuiteInfo) -> str:
    """Version, source and licence, a line each."""
    source = info.source.removeprefix("https://github.com/")
    return f"  {info.version}\n  {source}\n  {info.licence.partition(' (')[0]}"


def _data_state(entry: CatalogueEntry, data_dir: str | None) -> str:
    data = entry.info.data(data_roots(data_dir))
    absent = [name for name in data.needed() if not data.find(name)]
    here = "here" if not absent else f"{len(absent)} files not here"
    return f"{here}; takes {entry.from_user}" if entry.info.inputs else here


def write_markdown(entries: Sequence[CatalogueEntry]) -> str:
    """docs/suites.md."""
    head = (
        "# Suites",
        "",
        f"Made by `{COMMAND}` from the metadata of `tasks/*/*.yaml`; do not edit.",
        "",
        "Calls are judge calls of one model, every question asked once. *From you*: options for",
        "files that only you can supply. *Parity cases*: `r2w-eval data verify --parity` shows",
        "published or recorded figures beside ours.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
    )
    return "\n".join([*head, *map(_row, entries), "", *map(_section, entries)])


def _row(entry: CatalogueEntry) -> str:
    info = entry.info
    cells = (
        f"[`{info.name}`](../tasks/{info.name}/README.md)",
        info.measures,
        info.version,
        f"{info.n_samples:,}",
        ", ".join(info.languages),
        f"{entry.calls:,}",
        info.published_judge,
        info.licence,
        entry.from_user,
        entry.checked,
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _section(entry: CatalogueEntry) -> str:
    """Where each file of a suite comes from, with the hash that it must have."""
    info = entry.info
    rows = [f"## {info.title}", "", f"`{info.name}`: <{info.source}>", ""]
    if info.files:
        rows += ["| file | from | SHA-256 |", "|---|---|---|"]
    for file in info.files.values():
        origin = f"`{file.repo}@{file.commit[:7]}`" if file.path else "prepared folder"
        rows.append(f"| `{file.name}` | {origin} | `{file.sha256[:16]}…` |")
    return "\n".join([*rows, ""]) if info.files else "\n".join(rows)
