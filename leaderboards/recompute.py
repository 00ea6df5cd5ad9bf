"""Recomputes the rows of a run, also of an untrusted one, from its raw files.

Of the stored settings only those that say which answers were asked for are used. No program or file
that the run names is opened; files come from the user (`UserFiles`).
"""

from __future__ import annotations

import asyncio
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.leaderboards.collect import RAW_FILES, rows_of_run
from r2w_eval.leaderboards.rows import Row

from r2w_eval.config import INPUT_OPTIONS, RunConfig, stored_config
from r2w_eval.errors import DataAbsent
from r2w_eval.hashing import path_hash
from r2w_eval.store import RunFolder, write_json
from r2w_eval.suites.stock_tasks import is_stock
from r2w_eval.types import Judgement

ROUNDING = 1e-9
PROGRAM = (
    "a task of lm-eval is a program, which runs only where you ask for it. Try: "
    "r2w-eval judge RUN --reparse"
)
# settings of a run that its rows depend on
_FROM_RUN = (
    "model",
    "mode",
    "ids",
    "shuffle",
    "limit",
    "only_recorded",
    "only_complete",
    "gen_kwargs",
    "judge_kwargs",
    "omit",
    "system_prompt",
    "samples",
    "repeats",
    "seed",
    "score_mode",
)


@dataclass(frozen=True, slots=True)
class UserFiles:
    """Files and folders that the user passes, under the names of the options of a run."""

    data_dir: str | None = None
    references: str | None = None
    baseline: str | None = None
    context: str | None = None
    pages: str | None = None

    def files_of(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """The inputs of a suite by name; `inputs` has their hashes. Raises DataAbsent."""
        named = {name: getattr(self, name) for name in inputs.keys() & {*INPUT_OPTIONS, "pages"}}
        for name, path in named.items():
            is_it = path is not None and (name == "pages" or _has_hash(Path(path), inputs[name]))
            if not is_it:
                raise DataAbsent(
                    f"the run was made with files of --{name}, hash {inputs[name]:.12}, and "
                    f"{path!r:.100} is not them. Try: the same command with --{name} and those"
                )
        return named


NO_FILES = UserFiles()


def _has_hash(path: Path, digest: str) -> bool:
    return path.exists() and path_hash(path) == digest


def recompute_rows(run: RunFolder, files: UserFiles) -> list[Row]:
    """The rows of a reparsed copy of the run."""
    from r2w_eval.run import judge_again
    from r2w_eval.run.outputs import write_results

    with tempfile.TemporaryDirectory(prefix="r2w-verify-") as folder:
        copy = RunFolder(Path(folder) / "run")
        copy.path.mkdir()
        for name in RAW_FILES:
            shutil.copyfile(run.path / name, copy.path / name)
        settings = safe_settings(copy, files)
        write_json(copy.manifest_path, {**copy.manifest(), "config": settings})
        asyncio.run(judge_again(copy, settings, reparse=True, write=write_results))
        return rows_of_run(copy.path)


def safe_settings(run: RunFolder, files: UserFiles) -> RunConfig:
    """The harmless settings of an untrusted run, with the user's own files.

    lm-eval tasks are left out because they are programs. Raises DataError, DataAbsent.
    """
    manifest = run.manifest()
    suites = manifest["identity"]["tasks"]
    config = {**manifest["config"], "tasks": ",".join(suites), "include_path": None}
    stored = stored_config({**manifest, "config": config}, str(run.path))
    kept: dict[str, Any] = {name: getattr(stored, name) for name in _FROM_RUN}
    kept["tasks"] = ",".join(name for name in stored.task_names if not is_stock(name))
    # recorded answers determine the samples: use the answers in the records
    kept["responses"] = str(run.responses_path) if stored.responses else None
    for facts in suites.values():
        kept.update(files.files_of(facts["inputs"]))
    return RunConfig(**kept, data_dir=files.data_dir, cache=False)


def check_verdicts(run: RunFolder) -> Iterable[str]:
    """Stored scores that their texts or probabilities do not support, with the reason."""
    judges = run.manifest()["identity"]["judges"]
    for judgement in run.judgements():
        facts = judges.get(judgement.judge, {})
        if doubt := find_doubt(judgement, str(facts.get("score_mode", ""))):
            yield f"verdict on {judgement.sample_id} / {judgement.criterion}: {doubt}"


def find_doubt(judgement: Judgement, score_mode: str) -> str:
    """What is wrong with a stored score; "" if its text or probabilities support it."""
    score = judgement.score
    if score.value is None or judgement.asks:
        return ""
    if score_mode == "text":
        return "a score, and no text of the judge that gives it"
    probabilities = score.parts.get("probabilities")
    if not isinstance(probabilities, dict):
        return "a score, and no probabilities that give it" if score_mode == "expected" else ""
    mean = expectation(probabilities)
    if mean is None or abs(mean - score.value) <= ROUNDING * max(1.0, abs(score.value)):
        return ""
    return f"the probabilities give {mean:.6g}, the stored score is {score.value:.6g}"


def expectation(probabilities: Mapping[str, float]) -> float | None:
    """Probability-weighted mean label; None if the labels are not numbers.

    >>> expectation({"3": 0.2, "4": 0.2})
    3.5
    """
    mass = math.fsum(probabilities.values())
    try:
        return math.fsum(float(label) * p for label, p in probabilities.items()) / mass
    except (ValueError, ZeroDivisionError):
        return None
