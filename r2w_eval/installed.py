"""What is installed, read from package metadata alone: nothing is imported."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

PACKAGE = "r2w-eval"
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


@dataclass(frozen=True, slots=True)
class Need:
    """One requirement of a package and what is installed for it; `version` None: nothing is."""

    name: str
    wanted: str
    version: str | None
    extra: str = ""
    """The extra that asks for it; "" for the base."""

    @property
    def fits(self) -> bool:
        """Whether the installed version is one of those wanted.

        >>> Need("trl", "<1.17", "1.16.0").fits, Need("trl", "<1.17", None).fits
        (True, False)
        """
        if self.version is None:
            return False
        return Requirement(self.name + self.wanted).specifier.contains(
            self.version, prereleases=True
        )


@functools.cache
def version_of(name: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def own_needs() -> tuple[Need, ...]:
    """What this package and its extras ask for."""
    return tuple(
        _look_up(requirement, extra)
        for requirement, extra in _requirements(PACKAGE)
        if canonicalize_name(requirement.name) != PACKAGE
    )


def extra_of(module: str) -> str | None:
    """The first extra that asks for the package a module is of, by its name; None for no such."""
    name = canonicalize_name(module.partition(".")[0])
    found = (need.extra for need in own_needs() if canonicalize_name(need.name) == name)
    return next(filter(None, found), None)


def unmet_needs(names: Iterable[str]) -> tuple[tuple[str, Need], ...]:
    """Pairs (package, need) where an installed package asks for what is not here: `pip check`
    for a few packages. Extras are not looked at.
    """
    return tuple(
        (name, need)
        for name in names
        if version_of(name) is not None
        for requirement, extra in _requirements(name)
        if not extra and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
        if not (need := _look_up(requirement, "")).fits
    )


def _requirements(name: str) -> Iterator[tuple[Requirement, str]]:
    """Requirements with their extra. A line that nobody can read is passed over: it is the other
    package's, and pip has installed it.
    """
    try:
        lines = metadata.requires(name) or ()
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        found = _EXTRA.search(str(requirement.marker or ""))
        yield requirement, found[1] if found else ""


def _look_up(requirement: Requirement, extra: str) -> Need:
    return Need(requirement.name, str(requirement.specifier), version_of(requirement.name), extra)
