"""Real runs and a site made from them, shared by all leaderboard tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards import HOSTILE_NAMES, make_row, make_runs, sample_ids
from r2w_eval.leaderboards.collect import collect, rows_of_run
from r2w_eval.leaderboards.rows import write_row
from r2w_eval.leaderboards.site import Site, SiteOptions, write_site
from support import QuietHandler, serve


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders by kind; read-only."""
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def sources(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Runs, and rows with hostile names but without raw data."""
    folder = tmp_path_factory.mktemp("rows")
    levels = (8.0, 3.0, 6.0, 2.0, 9.0)
    real = rows_of_run(runs["plain"])[0]
    shared = {"judge": real.judge, "identity": real.identity, "score_key": real.score_key}
    for n, (name, level) in enumerate(zip(HOSTILE_NAMES, levels, strict=True)):
        values = {item: level + 0.1 * k for k, item in enumerate(sample_ids())}
        write_row(folder / f"{n}.json", make_row(name, values, **shared))
    return [*map(str, runs.values()), *map(str, sorted(folder.glob("*.json")))]


@pytest.fixture(scope="session")
def site(sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A whole site; read-only."""
    return write_site(collect(sources), tmp_path_factory.mktemp("made") / "site", SiteOptions())


@pytest.fixture(scope="session")
def address(site: Site) -> Iterator[str]:
    """The address of the site on loopback."""
    with serve(functools.partial(QuietHandler, directory=str(site.path))) as address:
        yield f"{address}/"
