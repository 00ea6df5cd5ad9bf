"""The trace viewer's page of a row: drafts, reflections and revisions behind its answers.

Made from the answers, which are signed. A page that lies beside a run is its maker's program and is
never taken over; `r2w-eval reflect RUN` makes the one with a judge's score of each step.
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
    """Write the page, where there is anything to show; whether there was."""
    row = entry.row
    if not (entry.runs and row.reflection and row.reflection.get(_COUNT)):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    analyses = analyse_row(row, entry.runs)
    write_viewer(path, row.model, {row.task: analyses}, {row.task: summarise_reflection(analyses)})
    return True


def analyse_row(row: Row, runs: Sequence[RunFolder]) -> list[Analysis]:
    """The row's answers that have a text, each with its mean verdict, in the order of the files."""
    prompts = find_prompts(row, runs)
    scores = dict(zip(row.items.response_keys, row.items.values, strict=True))
    return [
        analyse(from_response(response, prompts.get(response.sample_id, ""), scores[response.key]))
        for run in runs
        for response in run.responses()
        if response.key in scores and (response.answer or response.thinking)
    ]
