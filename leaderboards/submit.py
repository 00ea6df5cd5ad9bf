"""Submissions: a run as row files with their raw verdicts, and the door they come in by.

`submit` writes a folder with `rows/<row>.json` and `runs/<run>/`; `merge` computes everything again
and copies it into the published data, or refuses with the reason: altered, unfinished, of mixed
identity, or there already.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r2w_eval.leaderboards.collect import RAW_FILES, ROWS, RUNS, Entry, enter, rows_of_run
from r2w_eval.leaderboards.lineage import keep_places
from r2w_eval.leaderboards.recompute import NO_FILES, Given
from r2w_eval.leaderboards.rows import Row, read_row, write_row
from r2w_eval.leaderboards.verify import verify_entries

from r2w_eval.errors import IdentityMismatch, UsageError
from r2w_eval.hashing import content_hash
from r2w_eval.paths import safe_name
from r2w_eval.store import RunFolder

MIN_COVERAGE = 0.98
MAX_TOLD = 3


class SubmissionRefused(UsageError):
    """A submission that may not stand on a board."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What was written."""

    folder: Path
    rows: tuple[Row, ...]


def submit(run: Path, out: Path, min_coverage: float = MIN_COVERAGE) -> Submission:
    """Row files and raw verdicts of a run. Raises UsageError, SubmissionRefused."""
    rows = rows_of_run(run)
    folder = RunFolder.existing(str(run))
    for row in rows:
        check_complete(row, min_coverage)
        check_identity(row, folder)
    name = f"{safe_name(rows[0].model, 40).lower()}-{content_hash(rows[0].evidence.files, 12)}"
    target = out / RUNS / name
    target.mkdir(parents=True, exist_ok=True)
    for file in RAW_FILES:
        shutil.copyfile(run / file, target / file)
    keep_places(run, target)
    written = []
    for row in rows:
        placed = replace(row, evidence=replace(row.evidence, folder=f"../{RUNS}/{name}"))
        (out / ROWS).mkdir(exist_ok=True)
        write_row(out / ROWS / f"{row.task}-{row.slug}.json", placed)
        written.append(placed)
    return Submission(out, tuple(written))


def merge(
    sources: Sequence[Path],
    into: Path,
    given: Given = NO_FILES,
    min_coverage: float = MIN_COVERAGE,
) -> list[Row]:
    """Check row files and add them to published data. Nothing is copied unless all are sound."""
    files = [file for source in sources for file in _row_files(source)]
    held = {row.signature: row for row in _held_rows(into)}
    accepted: list[tuple[Path, Entry]] = []
    for file in files:
        row = read_row(file)
        entry = enter(row, file.parent / row.evidence.folder if row.evidence.folder else None)
        check_acceptable(entry, file, list(held.values()), min_coverage)
        held[row.signature] = row
        accepted.append((file, entry))
    check = verify_entries([entry for _, entry in accepted], given)
    if not check.is_sound:
        told = "\n  ".join(check.differences[:MAX_TOLD])
        raise SubmissionRefused(
            f"{len(check.differences)} difference(s) to the raw verdicts:\n  {told}\n"
            f"Try: r2w-eval leaderboard submit RUN, which makes the rows anew"
        )
    if check.computed < check.rows:
        raise SubmissionRefused(
            f"{check.rows - check.computed} of {check.rows} row(s) could not be computed again: "
            f"{'; '.join(check.notes[:MAX_TOLD])}"
        )
    for file, entry in accepted:
        _copy(file, entry, into)
    return [entry.row for _, entry in accepted]


def _row_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if found := sorted((source / ROWS).glob("*.json")):
        return found
    raise UsageError(
        f"{str(source)!r}: neither a row file nor a submission ({ROWS}/*.json). "
        f"Try: r2w-eval leaderboard submit RUN --out {source}"
    )


def _held_rows(into: Path) -> list[Row]:
    return [read_row(file) for file in sorted((into / ROWS).glob("*.json"))]


def check_acceptable(entry: Entry, file: Path, held: Sequence[Row], min_coverage: float) -> None:
    """Everything that can be said without computing. Raises SubmissionRefused."""
    row = entry.row
    if not entry.runs:
        raise SubmissionRefused(
            f"{file.name}: its raw files ({', '.join(RAW_FILES)}) are not at "
            f"{row.evidence.folder or 'any place'!r}, so nobody can compute it again. "
            f"Try: r2w-eval leaderboard submit RUN"
        )
    check_complete(row, min_coverage)
    check_identity(row, entry.runs[0])
    for other in held:
        if other.signature == row.signature:
            raise SubmissionRefused(f"{file.name}: this very row is there already ({row.id})")
        if _same_answers(other, row):
            raise SubmissionRefused(
                f"{file.name}: the same answers of {row.model!r:.80} under the same score key are "
                f"there already ({other.id}). Remove that row first, or submit another run"
            )


def _same_answers(first: Row, second: Row) -> bool:
    return (first.task, first.score_key) == (second.task, second.score_key) and (
        first.evidence.files.get("responses.jsonl") == second.evidence.files.get("responses.jsonl")
    )


def check_complete(row: Row, min_coverage: float = MIN_COVERAGE) -> None:
    """Raises SubmissionRefused for a row with too little scored."""
    unjudged = row.judging.get("status") == "excluded"
    if row.headline.value is None or unjudged or row.coverage < min_coverage:
        raise SubmissionRefused(
            f"{row.model!r:.80} on {row.task}: {row.told_scored} are "
            f"scored, expected {min_coverage:.0%}. Finish the run with the same command, or "
            f"--retry-failed"
        )


def check_identity(row: Row, run: RunFolder) -> None:
    """One writer, one judge, one identity, and the run's own. Raises IdentityMismatch."""
    manifest = run.manifest()
    name = f"{row.model!r:.80} on {row.task}"
    for who, returned in (
        ("writer", row.models_returned),
        ("judge", row.judging.get("models_returned", ())),
    ):
        if len(returned) > 1:
            raise IdentityMismatch(
                f"{name}: the {who}'s endpoint returned {len(returned)} model ids "
                f"({', '.join(returned)}), so this is a mixture. Run again against one model"
            )
    if content_hash(row.identity, 12) != row.score_key:
        raise IdentityMismatch(f"{name}: score key {row.score_key} is not that of its identity")
    if manifest.get("model") != row.model or row.task not in manifest["identity"]["tasks"]:
        raise IdentityMismatch(
            f"{name}: the raw files are of {str(manifest.get('model'))!r:.80} on "
            f"{', '.join(manifest['identity']['tasks'])}. Submit each run in a folder of its own"
        )
    if row.judge not in manifest["identity"]["judges"]:
        raise IdentityMismatch(
            f"{name}: its judge {row.judge!r:.80} is none of the run's: "
            f"{', '.join(manifest['identity']['judges'])}"
        )


def _copy(file: Path, entry: Entry, into: Path) -> None:
    (into / ROWS).mkdir(parents=True, exist_ok=True)
    source = entry.runs[0].path
    target = into / RUNS / safe_name(source.name)
    if target.exists() and not _same_files(source, target):
        target = into / RUNS / safe_name(f"{source.name}-{entry.row.id}")
    if not target.exists():
        target.mkdir(parents=True)
        for name in RAW_FILES:
            shutil.copyfile(source / name, target / name)
        keep_places(source, target)
    row = entry.row
    placed = replace(row, evidence=replace(row.evidence, folder=f"../{RUNS}/{target.name}"))
    write_row(into / ROWS / safe_name(file.name, 120), placed)


def _same_files(first: Path, second: Path) -> bool:
    return all(
        (second / name).is_file() and (first / name).read_bytes() == (second / name).read_bytes()
        for name in RAW_FILES
    )


def published_data() -> Path:
    """The package's own data folder."""
    from importlib import resources

    return Path(str(resources.files("r2w_eval.leaderboards").joinpath("data")))


def describe(row: Row) -> str:
    """One line about a row, for people."""
    head = row.headline
    value = "not scored" if head.value is None else f"{head.value:.2f}"
    name = json.dumps(row.model[:80], ensure_ascii=True)[1:-1]
    return (
        f"{row.id}  {row.task} {row.version}  {name}  {value} ({head.n_scored}/{head.n_expected})"
    )
