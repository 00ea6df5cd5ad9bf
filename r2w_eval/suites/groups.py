"""Groups of suites: lm-eval group files beside the task folders, expanded for `--tasks`.

A group stands for its members, in order, groups inside groups included. A member that cannot run
without something of the user's that was not given (a file, the web) is left out, and the run says
so; named by itself it is an error as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import yaml

from r2w_eval.errors import UnknownName, UsageError
from r2w_eval.paths import tasks_dir
from r2w_eval.suites.stock_tasks import PREFIX, is_stock
from r2w_eval.suites.suite import SuiteInfo, load_info, suite_folders


def group_members(root: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Members by group, from the YAML files that lie beside the task folders. Raises UsageError."""
    groups = {}
    for path in sorted((root or tasks_dir()).glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
            groups[str(content["group"])] = tuple(str(name) for name in content["task"])
        except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise UsageError(
                f"{path}: broken group file ({type(error).__name__}: {error}). Expected the keys "
                f"group and task, as in tasks/creative.yaml"
            ) from error
    return groups


def expand_groups(
    names: Sequence[str], given: Collection[str], root: Path | None = None
) -> tuple[list[str], list[str]]:
    """The suites behind `names`, each once, and a note for each member left out.

    `given` are the names of the options that the user supplied. Raises UnknownName, UsageError.
    """
    groups = group_members(root)
    suites: dict[str, None] = {}
    notes = []
    for name in names:
        if is_stock(name):
            suites[name] = None
            continue
        if name not in groups:
            _check(name, groups, root)
            suites[name] = None
            continue
        for member in _flatten(name, groups):
            needs = _needs(load_info(member, root))
            needed = [option for name, option in needs.items() if name not in given]
            if needed:
                options = " and ".join(needed)
                notes.append(f"{member} of the group {name} is left out: it needs {options}")
            else:
                suites[member] = None
    if not suites:
        raise UsageError("; ".join(notes) or f"--tasks {', '.join(names)}: an empty group")
    return list(suites), notes


def _needs(info: SuiteInfo) -> dict[str, str]:
    """What a suite cannot run without: the option with a value, by name."""
    files = {name: f"--{name} FILE" for name in info.required_inputs}
    return files | ({"pages": "--pages live"} if info.pages == "required" else {})


def _check(name: str, groups: Collection[str], root: Path | None) -> None:
    known = suite_folders(root)
    if name not in known:
        names = [*known, *groups, f"{PREFIX}NAME"]
        raise UnknownName("--tasks", name, "suite or group", names, "r2w-eval list")


def _flatten(
    name: str, groups: dict[str, tuple[str, ...]], trail: tuple[str, ...] = ()
) -> Iterator[str]:
    if name in trail:
        raise UsageError(f"The group {name} contains itself: {' -> '.join([*trail, name])}")
    for member in groups[name]:
        if member in groups:
            yield from _flatten(member, groups, (*trail, name))
        else:
            yield member
