"""Boards rebuilt from published judge texts: the ranking and every figure that was printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from r2w_eval.leaderboards.boards import BoardOptions, build_boards
from r2w_eval.leaderboards.collect import collect
from r2w_eval.leaderboards.submit import published_data
from support import ROOT

from r2w_eval.config import RunConfig
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import RunFolder
from r2w_eval.suites.suite import load_module, suite_folders
from r2w_eval.trace.links import word_grams

rebuilt: Any = load_module(ROOT / "benchmarks" / "eqbench_boards.py", "eqbench_boards")


@pytest.mark.slow
@pytest.mark.parametrize("source", rebuilt.SOURCES, ids=lambda source: source.suite)
def test_a_board_of_published_verdicts_is_the_published_ranking(
    source: Any, verification: Path, benchmarks: Path, tmp_path: Path
) -> None:
    if source.suite not in suite_folders():
        pytest.skip(f"the suite {source.suite} is not in this checkout")
    if not (verification / source.folder / "items").is_dir():
        pytest.skip(f"{verification / source.folder} is not here")
    runs = rebuilt.write_runs(source, verification, tmp_path, str(benchmarks))
    found = collect([str(run) for run in runs])
    # one model of Longform was published with 9 of its 12 stories
    (board,) = build_boards(found.entries, BoardOptions(allow_mixed=True))
    printed = {s.label: f"{round(s.value, 2):.{source.digits}f}" for s in board.standings}
    wanted = rebuilt.published(source, verification)
    ours = {model: value for model, value in printed.items() if model in wanted}
    assert list(ours.items()) == list(wanted.items())
    assert len(board.tests) == len(printed) * (len(printed) - 1) // 2
    best = board.standings[0]
    assert best.rank.best == 1 and best.label not in best.rank.tied_with


# this many words in a row are a benchmark's own, fewer are anyone's
QUOTE_WORDS = 8


def test_what_is_published_repeats_no_text_of_a_benchmark(benchmarks: Path) -> None:
    """Queries and descriptions of criteria; names of criteria and domains are in the verdicts."""
    config = RunConfig(model="m", tasks="writingbench", judge=("none",), data_dir=str(benchmarks))
    theirs: set[tuple[str, ...]] = set()
    for sample in plan_tasks(config)[0].samples():
        theirs |= word_grams(sample.messages[-1].content, QUOTE_WORDS)
        for entry in sample.material["checklist"]:
            theirs |= word_grams(entry["criteria_description"], QUOTE_WORDS)
    runs = [RunFolder(path) for path in sorted((published_data() / "runs").iterdir())]
    own = {r.key: f"{r.raw}\n{r.thinking or ''}" for run in runs for r in run.responses()}
    quoting = [key for key, text in own.items() if theirs & word_grams(text, QUOTE_WORDS)]
    assert len(own) > 100 and not quoting
