"""Submissions: a run as row files with their raw verdicts, and how they are accepted.

`submit` writes a folder with `rows/<row>.json` and `runs/<run>/`. `merge` recomputes everything and
copies it into the published data, or refuses with the reason: altered, unfinished, mixed identity,
or a duplicate.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2w_eval.leaderboards.collect import (
    RAW_FILES,
    ROWS,
    RUNS,
    Entry,
    enter_file,
    hash_raw_files,
    rows_of_run,
)
from r2w_eval.leaderboards.lineage import keep_places
from r2w_eval.leaderboards.recompute import NO_FILES, PROGRAM, UserFiles
from r2w_eval.leaderboards.rows import Row, write_row
from r2w_eval.leaderboards.verify import verify_entries

from r2w_eval.errors import IdentityMismatch, UsageError
from r2w_eval.hashing import content_hash, text_hash
from r2w_eval.paths import safe_name
from r2w_eval.records.plan import NO_JUDGE
from r2w_eval.results.coverage import FULL_COVERAGE
from r2w_eval.run.manifest import read_ensemble
from r2w_eval.store import RunFolder
from r2w_eval.suites.stock_tasks import is_stock

MAX_SHOWN = 3


class SubmissionRefused(UsageError):
    """A submission that is not accepted."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What was written."""

    folder: Path
    rows: tuple[Row, ...]


def submit(run: Path, out: Path, min_coverage: float = FULL_COVERAGE) -> Submission:
    """Write row files and raw verdicts of a run. Raises UsageError, SubmissionRefused.

    lm-eval tasks are left out: `merge` would have to run their programs.
    """
    rows = [row for row in rows_of_run(run) if not is_stock(row.task)]
    if not rows:
        raise SubmissionRefused(f"{str(run)!r}: nothing to submit: {PROGRAM}")
    folder = RunFolder.existing(str(run))
    for row in rows:
        check_complete(row, min_coverage)
        check_identity(row, folder)
    return Submission(out, tuple([_place(row, run, out) for row in rows]))


def _place(row: Row, run: Path, out: Path) -> Row:
    """Copy a row and its raw files. Names derive from the content, so no row overwrites another."""
    name = f"{safe_name(row.model, 40).lower()}-{content_hash(row.evidence.files, 12)}"
    target = out / RUNS / name
    target.mkdir(parents=True, exist_ok=True)
    for file in RAW_FILES:
        shutil.copyfile(run / file, target / file)
    keep_places(run, target)
    placed = replace(row, evidence=replace(row.evidence, folder=f"../{RUNS}/{name}"))
    (out / ROWS).mkdir(exist_ok=True)
    write_row(out / ROWS / f"{safe_name(row.task)}-{row.slug}.json", placed)
    return placed


def merge(sources: Sequence[Path], into: Path, files: UserFiles = NO_FILES) -> list[Row]:
    """Check row files and add them to the published data: all of them, or none."""
    row_files = [file for source in sources for file in _row_files(source)]
    held = [enter_file(file) for file in sorted((into / ROWS).glob("*.json"))]
    accepted: list[Entry] = []
    for file in row_files:
        entry = enter_file(file)
        try:
            check_acceptable(entry, file, [*held, *accepted])
        except (LookupError, TypeError, AttributeError) as error:
            raise SubmissionRefused(
                f"{file.name}: its run.json is none of this tool's ({type(error).__name__}: "
                f"{error}). Try: r2w-eval leaderboard submit RUN"
            ) from error
        accepted.append(entry)
    check = verify_entries(accepted, files)
    if not check.is_sound:
        shown = "\n  ".join(check.differences[:MAX_SHOWN])
        raise SubmissionRefused(
            f"{len(check.differences)} difference(s) to the raw verdicts:\n  {shown}\n"
            f"Try: r2w-eval leaderboard submit RUN, which writes the rows again"
        )
    if check.computed < check.rows:
        raise SubmissionRefused(
            f"{check.rows - check.computed} of {check.rows} row(s) could not be computed again: "
            f"{'; '.join(check.notes[:MAX_SHOWN])}"
        )
    return [_place(entry.row, entry.runs[0].path, into) for entry in accepted]


def _row_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if found := sorted((source / ROWS).glob("*.json")):
        return found
    raise UsageError(
        f"{str(source)!r}: neither a row file nor a submission ({ROWS}/*.json). "
        f"Try: r2w-eval leaderboard submit RUN --out {source}"
    )


def check_acceptable(entry: Entry, file: Path, held: Sequence[Entry]) -> None:
    """All checks that need no computation. Raises SubmissionRefused."""
    row = entry.row
    if not entry.runs:
        raise SubmissionRefused(
            f"{file.name}: its raw files ({', '.join(RAW_FILES)}) are not in "
            f"{row.evidence.folder or 'any folder'!r}, so it cannot be recomputed. "
            f"Try: r2w-eval leaderboard submit RUN"
        )
    check_complete(row)
    check_identity(row, entry.runs[0])
    if row.evidence.files != hash_raw_files(entry.runs[0].path):
        raise SubmissionRefused(
            f"{file.name}: not signed over its raw files ({', '.join(RAW_FILES)}). "
            f"Try: r2w-eval leaderboard submit RUN"
        )
    for other in held:
        if other.row.signature == row.signature:
            raise SubmissionRefused(f"{file.name}: this row exists already ({row.id})")
        if same_answers(other, entry):
            raise SubmissionRefused(
                f"{file.name}: the same answers of {row.model!r:.80} under the same score key "
                f"exist already ({other.row.id}). Remove that row first, or submit another run"
            )


def same_answers(first: Entry, second: Entry) -> bool:
    """Whether most answers of the second row equal those of the first, up to white space."""
    a, b = first.row, second.row
    if (a.task, a.score_key) != (b.task, b.score_key):
        return False
    if not first.runs:
        return bool(set(a.items.response_keys) & set(b.items.response_keys))
    before, after = _answers(first), _answers(second)
    n_same = sum(before.get(place) == text for place, text in after.items())
    return 2 * n_same > len(after)


def _answers(entry: Entry) -> dict[tuple[str, int], str]:
    """Hashes of the words of each answer, by prompt and repeat."""
    wanted = set(entry.row.items.response_keys)
    return {
        (r.sample_id, r.repeat): text_hash(" ".join(r.answer.split()))
        for r in entry.runs[0].responses()
        if r.key in wanted
    }


def check_complete(row: Row, min_coverage: float = FULL_COVERAGE) -> None:
    """Raises SubmissionRefused for a row with too little scored."""
    unjudged = row.judging.get("status") == "excluded"
    if row.headline.value is None or unjudged or row.coverage < min_coverage:
        raise SubmissionRefused(
            f"{row.model!r:.80} on {row.task}: {row.scored_text} are "
            f"scored, expected {min_coverage:.0%}. Finish the run with the same command, or "
            f"--retry-failed"
        )


def check_identity(row: Row, run: RunFolder) -> None:
    """Check that writer, judge and identity are single and the run's own.

    Raises IdentityMismatch.
    """
    manifest = RunFolder.existing(str(run.path)).manifest()
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
    if manifest.get("model") != row.model or row.task not in manifest["identity"]["tasks"]:
        raise IdentityMismatch(
            f"{name}: the raw files are of {str(manifest.get('model'))!r:.80} on "
            f"{', '.join(manifest['identity']['tasks'])}. Submit each run in a folder of its own"
        )
    if row.judge not in (judges := judges_of(manifest["identity"])):
        raise IdentityMismatch(
            f"{name}: its judge {row.judge!r:.80} is none of the run's: {', '.join(judges)}"
        )


def judges_of(identity: Mapping[str, Any]) -> tuple[str, ...]:
    """The judges that a run has rows of: its own, their ensemble, and none for unjudged suites."""
    ensemble = read_ensemble(identity.get("ensemble"))
    return (*identity["judges"], *([ensemble.id] if ensemble else []), NO_JUDGE)


def published_data() -> Path:
    """The package's own data folder."""
    from importlib import resources

    return Path(str(resources.files("r2w_eval.leaderboards").joinpath("data")))


def describe(row: Row) -> str:
    """A row as one line of text."""
    head = row.headline
    value = "not scored" if head.value is None else f"{head.value:.2f}"
    name = json.dumps(row.model[:80], ensure_ascii=True)[1:-1]
    return (
        f"{row.id}  {row.task} {row.version}  {name}  {value} ({head.n_scored}/{head.n_expected})"
    )
