"""One set of real runs, and one site made from it, for all leaderboard tests."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards import HOSTILE_NAMES, make_row, make_runs, sample_ids
from r2w_eval.leaderboards.collect import collect, rows_of_run
from r2w_eval.leaderboards.rows import write_row
from r2w_eval.leaderboards.site import Site, SiteOptions, write_site


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders by kind; not to be written to."""
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def sources(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Runs, and rows of hostile names whose raw data are gone."""
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
    """A whole site; not to be written to."""
    return write_site(collect(sources), tmp_path_factory.mktemp("made") / "site", SiteOptions())


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="session")
def address(site: Site) -> Iterator[str]:
    """The site on loopback."""
    handler = functools.partial(_Quiet, directory=str(site.path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()
