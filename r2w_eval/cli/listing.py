"""What `list`, `data` and `cache` print."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console

from r2w_eval.config import RunConfig
from r2w_eval.data import FileState, data_roots
from r2w_eval.errors import DataError, UsageError
from r2w_eval.models.cache import ReplyCache
from r2w_eval.models.names import KINDS
from r2w_eval.paths import cache_path
from r2w_eval.suites.groups import group_members
from r2w_eval.suites.suite import SuiteInfo, load_info, suite_folders
from r2w_eval.terminal import escape, plain_table, visible, warn


def print_listing(data_dir: str | None) -> None:
    """A table of suites, then what --model and --judge take."""
    console = Console()
    roots, infos = data_roots(data_dir), _readable()
    table = plain_table("Suites")
    table.add_column("suite", overflow="fold")
    table.add_column("samples", justify="right", no_wrap=True)
    for column in ("measures", "data"):
        table.add_column(column, overflow="fold")
    for info in infos:
        data = info.data(roots)
        here = all(data.find(name) for name in data.needed())
        table.add_row(
            info.name,
            f"{info.n_samples:,}",
            escape(info.measures),
            "here" if here else "not here",
        )
    console.print(table)
    for info in infos:
        console.print(
            f"{info.name} {info.version} ({', '.join(info.languages)}; "
            f"{info.licence.partition(' (')[0]}): {info.source}, published judge: "
            f"{info.published_judge}{_needs(info)}",
            soft_wrap=True,
        )
    for group, members in group_members().items():
        console.print(f"group {group}: {', '.join(members)}", soft_wrap=True)
    console.print("\n--model and --judge take: " + escape(", ".join(KINDS)), soft_wrap=True)


def _needs(info: SuiteInfo) -> str:
    """What a run must name beside its models."""
    own = [f"--{name} FILE" for name in info.required_inputs]
    own += ["--pages"] if info.pages == "required" else []
    return f"; needs {' and '.join(own)}" if own else ""


def print_ids(config: RunConfig) -> None:
    """One line a sample: id, language and category, between tabs. Raises UsageError."""
    from r2w_eval.run.planning import load_task

    info, suite = load_task(config.tasks, config.include_path)
    for sample in suite.load_samples(info.data(data_roots(config.data_dir), config.inputs)):
        category = sample.meta.get(info.category, "")
        sys.stdout.write(visible(f"{sample.id}\t{sample.language}\t{category}") + "\n")


def fetch_data(suites: Sequence[str]) -> None:
    """Download what has an address and is not in the cache; check everything. Raises DataError."""
    console = Console()
    for info in _infos(suites):
        data = info.data(data_roots(None))
        for name, file in info.files.items():
            if data.find(name) or file.is_public and name in data.needed():
                console.print(f"{info.name}: {escape(str(data.path(name)))} ok", soft_wrap=True)


def verify_data(suites: Sequence[str], data_dir: str | None) -> None:
    """One line per file. Raises DataError when a file is altered or the suite is not complete."""
    console = Console()
    problems = []
    for info in _infos(suites):
        data = info.data(data_roots(data_dir))
        states = {name: data.state(name) for name in info.files}
        missing = [n for n in data.needed() if states[n] is FileState.MISSING]
        for name, state in states.items():
            # another file of the suite, which is here, was made from it
            is_replaced = state is FileState.MISSING and name not in missing
            shown = "replaced" if is_replaced else state
            console.print(f"{info.name:24} {shown:8} {name}", highlight=False)
        altered = [name for name, state in states.items() if state is FileState.ALTERED]
        if altered or missing:
            problems.append(f"{info.name}: {', '.join(altered + missing)}")
    if problems:
        raise DataError(
            f"Missing or altered: {'; '.join(problems)}. Try: r2w-eval data fetch SUITE"
        )


def print_cache_stats() -> None:
    """Entries, size and age of the reply cache."""
    with ReplyCache(cache_path()) as cache:
        stats = cache.stats()
    now = time.time()
    age = "" if stats.oldest is None else f", oldest {(now - stats.oldest) / 86400:.1f} days"
    Console().print(
        f"{escape(str(stats.path))}: {stats.entries:,} replies, {stats.size_bytes / 1e6:.1f} "
        f"MB{age}",
        soft_wrap=True,
    )


def prune_cache(older_than_days: float, everything: bool) -> None:
    """Remove old replies, or the file itself (the way out of a damaged one)."""
    path = cache_path()
    if everything:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        Console().print(f"Removed {escape(str(path))}", soft_wrap=True)
        return
    with ReplyCache(path) as cache:
        removed = cache.prune(older_than_days * 86400)
    Console().print(f"Removed {removed:,} replies older than {older_than_days:g} days")


def _readable() -> list[SuiteInfo]:
    """Every suite but those whose task file is broken, which are told."""
    found = []
    for name in suite_folders():
        try:
            found.append(load_info(name))
        except UsageError as error:
            warn(str(error))
    return found


def _infos(suites: Sequence[str]) -> list[SuiteInfo]:
    return [load_info(name) for name in suites or suite_folders()]
