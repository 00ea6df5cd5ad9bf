"""Recomputes a row or a site from the raw files and reports every difference.

A copy of the run is reparsed: every stored judge text, every score over label probabilities, and
the aggregation. The resulting row must equal the signed one field by field. A site is rebuilt from
its rows and must match byte for byte. No judge is asked (specification: harness D5).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from r2w_eval.leaderboards.boards import BoardOptions
from r2w_eval.leaderboards.collect import (
    RAW_FILES,
    Collection,
    Entry,
    LeftOut,
    enter,
    enter_file,
    hash_raw_files,
)
from r2w_eval.leaderboards.pages import system_slug
from r2w_eval.leaderboards.recompute import (
    NO_FILES,
    PROGRAM,
    ROUNDING,
    UserFiles,
    check_verdicts,
    recompute_rows,
)
from r2w_eval.leaderboards.rows import Row, measure_headline, read_row
from r2w_eval.leaderboards.site import MANIFEST, SiteOptions, code_hash, write_site

from r2w_eval.errors import DataAbsent, DataError, R2WError, UsageError
from r2w_eval.hashing import file_hash, to_plain
from r2w_eval.models.cost import Price
from r2w_eval.store import RunFolder
from r2w_eval.suites.stock_tasks import is_stock
from r2w_eval.suites.suite import suite_folders

MAX_DIFFERENCES = 20
# file hashes are checked against the files themselves
_NOT_COMPUTED = ("evidence", "signature", "created", "software")
# prose may be worded differently by another version
_WORDING = frozenset({"note", "text"})
OTHER_CODE = (
    "the pages were laid out by another version of r2w-eval: rows and exports were compared, pages "
    "only with their hashes"
)


@dataclass(frozen=True, slots=True)
class Check:
    """What verification found; `computed` of `rows` were recomputed from raw files."""

    rows: int
    computed: int
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Nothing differs."""
        return not self.differences


def verify(path: Path, files: UserFiles = NO_FILES) -> Check:
    """A site, a row file, or a folder with rows. Raises UsageError for anything else."""
    if (path / MANIFEST).is_file():
        return verify_site(path, files)
    if (path / "rows").is_dir():
        rows = sorted((path / "rows").glob("*.json"))
        return _merge(verify_row_file(row, files) for row in rows)
    if path.is_file():
        return verify_row_file(path, files)
    raise UsageError(
        f"{str(path)!r}: neither a site ({MANIFEST}), a row file nor a folder with rows/. "
        f"Try: r2w-eval leaderboard verify site"
    )


def _merge(checks: Iterable[Check]) -> Check:
    found = list(checks)
    return Check(
        sum(check.rows for check in found),
        sum(check.computed for check in found),
        tuple(text for check in found for text in check.differences),
        tuple(dict.fromkeys(text for check in found for text in check.notes)),
    )


def verify_row_file(path: Path, files: UserFiles = NO_FILES) -> Check:
    """One row file, with the raw files that it points to."""
    try:
        entry = enter_file(path)
    except DataError as error:
        return Check(1, 0, (f"{path.name}: {error}",), ())
    return verify_entries([entry], files)


def verify_entries(entries: Sequence[Entry], files: UserFiles = NO_FILES) -> Check:
    """Rows against their raw files. Each run is recomputed once, for all its rows."""
    recompute = cache(lambda path: _recompute(RunFolder(path), files))
    return _merge(_verify_entry(entry, recompute) for entry in entries)


def _verify_entry(entry: Entry, recompute: Callable[[Path], list[Row] | R2WError]) -> Check:
    row = entry.row
    name = f"{row.model[:80]} on {row.task}"
    if not entry.runs:
        note = f"{name}: raw data gone, only the signature could be checked"
        return _check(name, 0, check_interval(row), (note,))
    run = entry.runs[0]
    found = DataAbsent(PROGRAM) if is_stock(row.task) else recompute(run.path)
    if isinstance(found, DataAbsent):
        note = f"{row.task}: files and signatures compared, no row computed: {found}"
        return _check(name, 0, (*changed_files(row, run), *check_interval(row)), (note,))
    if isinstance(found, R2WError):
        return _check(name, 0, (f"cannot be computed again: {found}",))
    return _check(name, 1, compare_row(row, found, run))


def _check(name: str, computed: int, found: Iterable[str], notes: tuple[str, ...] = ()) -> Check:
    """The check of one row; each difference is prefixed with the row's name."""
    return Check(1, computed, tuple(f"{name}: {text}" for text in found), notes)


def _recompute(run: RunFolder, files: UserFiles) -> list[Row] | R2WError:
    try:
        wrong = list(check_verdicts(run))
        return DataError(wrong[0]) if wrong else recompute_rows(run, files)
    except R2WError as error:
        return error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # a forged file must not stop the verification of the others
        return DataError(
            f"{run.path.name}: not the files of a run ({type(error).__name__}: {error!s:.200}). "
            f"Try: r2w-eval leaderboard submit RUN, which writes them again"
        )


def check_interval(row: Row) -> Iterable[str]:
    """Headline bounds that do not follow from the row's own items."""
    if row.task in suite_folders():
        measured = measure_headline(row, row.estimate)
        for bound in ("low", "high"):
            stated, found = getattr(row.headline, bound), getattr(measured, bound)
            yield from differing(stated, found, f"headline.{bound}")


def compare_row(row: Row, computed: Sequence[Row], run: RunFolder) -> Iterable[str]:
    """What differs between a signed row and the one recomputed from raw files."""
    yield from changed_files(row, run)
    same = [one for one in computed if (one.task, one.judge) == (row.task, row.judge)]
    if not same:
        yield f"the run holds no verdicts of judge {row.judge!r:.100}"
        return
    for field in Row.__dataclass_fields__:
        if field not in _NOT_COMPUTED:
            yield from differing(_compared(row, field), _compared(same[0], field), field)


def _compared(row: Row, field: str) -> Any:
    """A field's value. Notices of left-out samples may depend on files only the author has."""
    if field == "warnings":
        return [to_plain(notice) for notice in row.warnings if notice.code != "left_out"]
    return to_plain(getattr(row, field))


def changed_files(row: Row, run: RunFolder) -> Iterable[str]:
    """Raw files that differ from those the row was signed over."""
    actual = hash_raw_files(run.path)
    for name in dict.fromkeys((*RAW_FILES, *row.evidence.files)):
        if actual.get(name) != row.evidence.files.get(name):
            yield f"{name} is not the file that was signed ({actual.get(name, 'gone')[:12]})"


def differing(signed: Any, computed: Any, path: str) -> Iterable[str]:
    """Every leaf that differs, by name; prose is ignored.

    >>> list(differing({"value": 7.0}, {"value": 6.5}, "headline"))
    ['headline.value: the row says 7.0, the raw verdicts give 6.5']
    """
    if isinstance(signed, dict) and isinstance(computed, dict):
        for key in sorted((signed.keys() | computed.keys()) - _WORDING):
            yield from differing(signed.get(key), computed.get(key), f"{path}.{key}")
    elif isinstance(signed, list) and isinstance(computed, list) and len(signed) == len(computed):
        for i, (a, b) in enumerate(zip(signed, computed, strict=True)):
            yield from differing(a, b, f"{path}[{i}]")
    elif not _equal(signed, computed):
        yield f"{path}: the row says {signed!r:.80}, the raw verdicts give {computed!r:.80}"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=ROUNDING, abs_tol=ROUNDING)
    return bool(a == b)


def verify_site(path: Path, files: UserFiles = NO_FILES) -> Check:
    """Files against their hashes, rows against raw files, pages against the rows."""
    manifest = _read_manifest(path)
    wrong = list(check_files(path, manifest["files"]))
    entries, unreadable = _site_entries(path, manifest)
    check = verify_entries(entries, files)
    differences = [*wrong, *unreadable, *check.differences]
    is_same_code = manifest["code"] == code_hash()
    if not unreadable:
        differences += check_pages(path, manifest, entries, is_same_code)
    notes = check.notes if is_same_code else (*check.notes, OTHER_CODE)
    return replace(check, differences=tuple(differences), notes=notes)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
        return {name: content[name] for name in ("files", "rows", "options", "left_out", "code")}
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path / MANIFEST}: not the list of a site ({type(error).__name__}: {error}). "
            f"Try: r2w-eval leaderboard RUNS --out {path}"
        ) from error


def check_files(path: Path, expected: dict[str, str]) -> Iterable[str]:
    """Files that are missing, changed or unexpected."""
    for name, digest in expected.items():
        file = path / name
        if not file.is_file():
            yield f"{name}: missing"
        elif file_hash(file) != digest:
            yield f"{name}: changed since the site was made"
    present = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    for name in sorted(present - expected.keys() - {MANIFEST}):
        yield f"{name}: not part of the site"


def _site_entries(path: Path, manifest: dict[str, Any]) -> tuple[list[Entry], list[str]]:
    entries, unreadable = [], []
    for slug, facts in manifest["rows"].items():
        try:
            row = read_row(path / "rows" / f"{slug}.json")
        except DataError as error:
            unreadable.append(str(error))
            continue
        runs = tuple(run for name in facts["runs"] for run in enter(row, path / name).runs)
        entries.append(Entry(row, runs, facts["has_raw"]))
    return entries, unreadable


def check_pages(
    path: Path, manifest: dict[str, Any], entries: Sequence[Entry], is_same_code: bool
) -> list[str]:
    """Rebuild the site from its rows and compare file by file.

    Texts are skipped if their run is gone. Pages are skipped if another version laid them out; the
    exports, which hold every number, are compared all the same.
    """
    options = manifest["options"]
    prices = {name: Price(**price) for name, price in options["boards"]["prices"].items()}
    left_out = tuple(LeftOut(**one) for one in manifest["left_out"])
    with tempfile.TemporaryDirectory(prefix="r2w-verify-") as folder:
        rebuilt = Path(folder) / "site"
        site_options = SiteOptions(
            options["title"],
            BoardOptions(**{**options["boards"], "prices": prices}),
            options["references"],
        )
        site = write_site(Collection(tuple(entries), left_out), rebuilt, site_options)
        gone = {entry.row.slug for entry in entries if entry.has_raw and not entry.runs}
        skipped = [f"{kind}/{slug}" for slug in gone for kind in ("data", "traces")]
        skipped += [f"models/{system_slug(e.row)}" for e in entries if e.row.slug in gone]
        skipped += [f"data/{board.slug}/prompts" for board in site.boards] if gone else []
        made = json.loads((rebuilt / MANIFEST).read_bytes())["files"]
    names = sorted(made.keys() | manifest["files"].keys())
    return [
        f"{name}: does not match the rows of the site"
        for name in names
        if not name.startswith(tuple(skipped))
        and (is_same_code or name.startswith("exports/"))
        and made.get(name) != _actual(path / name)
    ]


def _actual(file: Path) -> str | None:
    return file_hash(file) if file.is_file() else None
