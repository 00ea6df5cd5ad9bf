"""The trace viewer's page of a row: drafts, reflections and revisions behind its answers.

Made from the signed answers. A page found in a run folder could hold any script and is never
copied; `r2w-eval reflect RUN` makes the page with a judge's score of each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2w_eval.leaderboards.collect import Entry
from r2w_eval.leaderboards.rows import Row
from r2w_eval.leaderboards.texts import find_prompts

from r2w_eval.reflection.analysis import Analysis, analyse
from r2w_eval.reflection.measures import summarise_reflection
from r2w_eval.reflection.report import write_viewer
from r2w_eval.reflection.sources import from_response
from r2w_eval.store import RunFolder

_COUNT = "n_reflections"


def write_traces(path: Path, entry: Entry) -> bool:
    """Write the page if there is anything to show; returns whether it was written."""
    row = entry.row
    if not (entry.runs and row.reflection and row.reflection.get(_COUNT)):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    analyses = analyse_row(row, entry.runs)
    write_viewer(path, row.model, {row.task: analyses}, {row.task: summarise_reflection(analyses)})
    return True


def analyse_row(row: Row, runs: Sequence[RunFolder]) -> list[Analysis]:
    """The row's non-empty answers, each with its mean verdict, in file order."""
    prompts = find_prompts(row, runs)
    scores = dict(zip(row.items.response_keys, row.items.values, strict=True))
    # one that was asked for again has the key of the one before
    newest = {r.key: r for run in runs for r in run.responses() if r.key in scores}
    return [
        analyse(from_response(response, prompts.get(response.sample_id, ""), scores[response.key]))
        for response in newest.values()
        if response.answer or response.thinking
    ]
