"""The trace viewer's page of a row: drafts, reflections and revisions behind its answers.

What `r2w-eval reflect` put beside the run is taken as it is, for it may hold a judge's score of
each step. Else a page without them is made from the answers: published rows bring no more.
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

TRACE_PAGES = ("traces.html", "reflect/traces.html")
_COUNT = "n_reflections"


def write_traces(path: Path, entry: Entry) -> bool:
    """Write the page, where there is anything to show; whether there was."""
    made = (run.path / name for run in entry.runs for name in TRACE_PAGES)
    page = next((file for file in made if file.is_file()), None)
    row = entry.row
    if page is None and not (entry.runs and row.reflection and row.reflection.get(_COUNT)):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    if page is not None:
        path.write_bytes(page.read_bytes())
        return True
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
