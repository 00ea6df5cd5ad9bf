"""The labelled sets: finding them, checking their licences, and reading them.

A set is a folder with `SOURCE.json`. Sets with a permissive licence are used by default;
research-only sets need an explicit flag and must not go into a released checkpoint; an unknown
licence is refused (specification: reward-model.md section 5, licence gate).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import Item

from r2w_eval.data import read_jsonl
from r2w_eval.errors import DataError, UnknownName, UsageError
from r2w_eval.hashing import file_hash

# start of the licence string in SOURCE.json -> short name
PERMISSIVE = {
    "BSD-3-Clause": "BSD-3-Clause",
    "CC-BY-4.0": "CC-BY-4.0",
    "ODC-BY": "ODC-BY",
    "Apache-2.0": "Apache-2.0",
    "CC-BY-SA-4.0": "CC-BY-SA-4.0",
    "MIT": "MIT",
}
RESTRICTED = {
    "CC-BY-NC-4.0": "CC-BY-NC-4.0",
    "no licence": "none stated",
}
# used as a sanity check, which it is only as long as nothing is fitted to it
NEVER_TRAINED_ON = frozenset({"llmbar_public"})


class Permission(StrEnum):
    """What a licence allows here."""

    DEFAULT = "default"
    RESTRICTED = "restricted"


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """One set on disk."""

    name: str
    folder: Path
    licence: str
    permission: Permission

    def row(
        self,
        item: Item,
        group: str,
        kind: str,
        pair: str,
        labels: Mapping[str, float],
        *,
        lang: str = "en",
        **more: Any,
    ) -> Row:
        """A row of this set; `more` are its weight and meta."""
        return Row(item.id, self.name, self.licence, group, lang, kind, pair, item, labels, **more)

    def read(self, file: str) -> list[Any]:
        """The records of one of its files, after checking its hash. Raises DataError."""
        path = self.folder / file
        listed = {f["file"]: f["sha256"] for f in _source(self.folder)["output_files"]}
        if not path.is_file() or file not in listed:
            raise DataError(f"{path}: no such file of the set. Known: {', '.join(listed)}")
        if (actual := file_hash(path)) != listed[file]:
            raise DataError(
                f"{path}: sha256 is {actual}, SOURCE.json says {listed[file]}. Get the set again, "
                f"or leave it out: --without {self.name}"
            )
        return read_jsonl(path)


def reward_data_root(given: str | None = None) -> Path:
    """The folder of labelled sets: `given`, else `R2W_REWARD_DATA`. Raises DataError."""
    named = given or os.environ.get("R2W_REWARD_DATA")
    if not named:
        raise DataError(
            "Training needs the labelled sets. Try: --reward-data DIR, or R2W_REWARD_DATA=DIR, a "
            "folder with one sub-folder a set, each with its SOURCE.json"
        )
    if not Path(named).is_dir():
        raise DataError(f"--reward-data {named!r}: no such folder")
    return Path(named)


def find_sets(root: Path) -> dict[str, LabelledSet]:
    """All sets under `root`, by name. Raises DataError for a licence that is not known."""
    return {path.parent.name: _open_set(path.parent) for path in sorted(root.glob("*/SOURCE.json"))}


def choose_sets(
    root: Path, allow_restricted: bool = False, without: tuple[str, ...] = ()
) -> dict[str, LabelledSet]:
    """The sets that may be trained on. Raises UnknownName for a wrong name in `without`."""
    found = find_sets(root)
    for name in without:
        if name not in found:
            raise UnknownName("--without", name, "set", found, "ls the --reward-data folder")
    return {
        name: entry
        for name, entry in found.items()
        if name not in NEVER_TRAINED_ON
        and name not in without
        and (allow_restricted or entry.permission is Permission.DEFAULT)
    }


def classify_licence(text: str, where: str) -> tuple[str, Permission]:
    """Short name and permission of a licence string. Raises UsageError.

    >>> classify_licence("CC-BY-NC-4.0 (LICENSE.md)", "x")[1]
    <Permission.RESTRICTED: 'restricted'>
    """
    for known, permission in (
        (RESTRICTED, Permission.RESTRICTED),
        (PERMISSIVE, Permission.DEFAULT),
    ):
        for start, short in known.items():
            if text.startswith(start):
                return short, permission
    raise UsageError(
        f"{where}: licence {text[:80]!r} is not known. Allowed: {', '.join(PERMISSIVE)}; with "
        f"--allow-restricted also {', '.join(RESTRICTED)}. Leave the set out with --without"
    )


def _open_set(folder: Path) -> LabelledSet:
    licence, permission = classify_licence(_source(folder)["license"], folder.name)
    return LabelledSet(folder.name, folder, licence, permission)


def _source(folder: Path) -> dict[str, Any]:
    path = folder / "SOURCE.json"
    try:
        source: dict[str, Any] = json.loads(path.read_bytes())
        _ = source["license"] + "", [(f["file"], f["sha256"]) for f in source["output_files"]]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a description of a set ({type(error).__name__}: {error}). Expected "
            f"JSON with license and output_files. Get the set again, or move its folder away"
        ) from error
    return source
