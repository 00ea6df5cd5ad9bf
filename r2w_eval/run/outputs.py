"""What a run writes once its records are there; reads the record files alone, asks nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.hashing import to_plain
from r2w_eval.models.cost import Price, load_prices
from r2w_eval.records.plan import TaskPlan
from r2w_eval.results.page_counts import add_page_counts
from r2w_eval.results.summary import RunFacts, TaskResult, summarise
from r2w_eval.run.manifest import read_ensemble
from r2w_eval.store import RunFolder, write_json


def write_outputs(
    folder: RunFolder, plans: Sequence[TaskPlan], manifest: Mapping[str, Any]
) -> list[TaskResult]:
    """results.json, performance.json, lm-eval files and the page, from the two record files
    alone.
    """
    from r2w_eval.results.lmeval_io import write_lm_eval_files
    from r2w_eval.results.report import write_report

    results = write_results(folder, plans, manifest)
    write_lm_eval_files(folder, results, plans, manifest)
    write_report(folder, results, plans, manifest)
    return results


def write_results(
    folder: RunFolder, plans: Sequence[TaskPlan], manifest: Mapping[str, Any]
) -> list[TaskResult]:
    """results.json and performance.json alone, for callers that need no page."""
    from r2w_eval.results.reflection import add_reflection

    identity = manifest["identity"]
    facts = RunFacts(
        writer_identity=identity["writer"],
        n_repeats=identity["samples"],
        judges=identity["judges"],
        n_judge_repeats=identity["repeats"],
        ensemble=read_ensemble(identity.get("ensemble")),
        prices=_stored_prices(manifest["config"].get("prices")),
    )
    results = add_page_counts(folder, summarise(folder, plans, facts))
    results = add_reflection(folder, results, plans)
    write_json(folder.results_path, [strip_performance(result) for result in results])
    write_json(folder.path / "performance.json", [result.performance for result in results])
    return results


def _stored_prices(path: str | None) -> Mapping[str, Price]:
    """Prices of the run's own file; one that has gone since leaves the costs unknown."""
    return load_prices(path) if path and Path(path).is_file() else {}


def strip_performance(result: TaskResult) -> dict[str, Any]:
    """A result as JSON, without what differs between two runs of the same work."""
    plain: dict[str, Any] = to_plain(result)
    plain.pop("performance")
    return plain
