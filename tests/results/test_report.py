"""The report page: hostile texts stay inert, the page loads nothing, and it works in a browser."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support import open_chromium

from r2w_eval.config import RunConfig, stored_config
from r2w_eval.data import read_jsonl
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.plots import distribution_svg
from r2w_eval.results.report import MAX_TEXTS, choose_rows, write_report
from r2w_eval.results.summary import SampleRow
from r2w_eval.run import evaluate
from r2w_eval.run.outputs import write_results
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import RunFolder
from r2w_eval.suites.suite import load_info
from r2w_eval.types import Judgement, Response

HOSTILE = (
    '</div></script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">'
    "<a href='javascript:window.hacked=3'>x</a>\u202egnp\x00\u2028{{ 7*7 }} \ud800 &amp;"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real run over recorded, hostile answers."""
    folder = tmp_path_factory.mktemp("report")
    info = load_info("quickstart")
    samples = read_jsonl(info.folder / "samples.jsonl")
    rows = [
        {"id": s["id"], "text": f"<think>{HOSTILE}</think>{HOSTILE}" + "long " * 6000 * (n == 0)}
        for n, s in enumerate(samples)
    ]
    (folder / "answers.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with FakeServer() as server:
        config = RunConfig(
            model=HOSTILE[:60],
            tasks="quickstart",
            judge=(f"{server.base_url}#judge-0+injection=0.5",),
            responses=str(folder / "answers.jsonl"),
            out=str(folder / "run"),
            cache=False,
        )
        outcome = asyncio.run(evaluate(config))
    yield outcome.folder.report_path


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_hostile_texts_make_no_element(page: Path) -> None:
    elements = Elements()
    elements.feed(page.read_text("utf-8"))
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 1 and not {"img", "a", "iframe", "link", "object"} & set(tags)
    names = {name for tag, attributes in elements.found for name in attributes if tag != "svg"}
    assert not [name for name in names if name.startswith("on")]
    text = page.read_text("utf-8")
    assert "\x00" not in text and "\u202e" not in text and "{{ 7*7 }}" in text
    assert "[… cut:" in text


def test_the_page_names_nothing_outside_itself(page: Path) -> None:
    elements = Elements()
    elements.feed(page.read_text("utf-8"))
    for _, attributes in elements.found:
        for name in ("src", "href", "action", "data"):
            assert not (attributes.get(name) or "#").startswith(("http", "//"))


def test_the_page_says_what_the_project_is(page: Path) -> None:
    assert "Independent reconstruction after the abstract of arXiv 2604.03004" in page.read_text()


def row(number: int, value: float | None) -> SampleRow:
    return SampleRow(str(number), 0, "en", "ok", value, 5, 10, None, f"k{number}")


def test_many_answers_are_shown_by_a_stated_choice() -> None:
    rows = [row(n, None if n % 100 == 0 else float(n)) for n in range(1000)]
    chosen = choose_rows(rows)
    assert len(chosen) == MAX_TEXTS
    numbers = {int(r.sample_id) for r in chosen}
    assert {0, 100, 900, 1, 2, 999, 998} <= numbers
    assert choose_rows(rows[:50]) == rows[:50]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as started:
        yield started


@pytest.mark.slow
def test_the_page_works_in_a_browser(browser: Any, page: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    tab = context.new_page()
    requests: list[str] = []
    problems: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(page.as_uri())
    assert requests == [page.as_uri()] and problems == []
    assert tab.evaluate("window.hacked") is None
    overflow = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, "the page scrolls sideways on a phone"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 26)"
    for element in tab.query_selector_all("details"):
        element.evaluate("e => e.open = true")
    button = tab.get_by_role("button", name="score")
    button.first.click()
    values = tab.evaluate(
        "[...document.querySelector('th[aria-sort]').closest('table').tBodies[0].rows]"
        ".map(r => Number(r.cells[1].textContent))"
    )
    assert values == sorted(values) and len(set(values)) > 1
    assert tab.evaluate("window.hacked") is None and problems == []
    context.close()


def test_the_records_are_read_once_for_all_results(page: Path, tmp_path: Path) -> None:
    class Counting(RunFolder):
        reads = 0

        def responses(self) -> Iterator[Response]:
            self.reads += 1
            return super().responses()

        def judgements(self) -> Iterator[Judgement]:
            self.reads += 1
            return super().judgements()

    folder = Counting(Path(shutil.copytree(page.parent, tmp_path / "run")))
    config = stored_config(folder.manifest(), "run")
    plans, manifest = plan_tasks(config), folder.manifest()
    results = write_results(folder, plans, manifest)
    write_report(folder, results, plans, manifest)
    assert folder.report_path.read_bytes() == page.read_bytes()
    folder.reads = 0
    write_report(folder, results * 3, plans, manifest)
    assert folder.reads == 2
    assert folder.report_path.read_bytes().count(b"Evidence") > page.read_bytes().count(b"Evidence")


def test_values_that_differ_by_rounding_alone_have_a_histogram() -> None:
    assert "<svg" in distribution_svg([0.6, 0.6 + 2**-53], "Mean verdict", "answers")


def test_a_page_is_made_again_only_when_what_it_shows_has_changed(
    page: Path, tmp_path: Path
) -> None:
    folder = RunFolder.existing(str(shutil.copytree(page.parent, tmp_path / "run")))
    manifest = folder.manifest()
    write_report(folder, [], [], manifest)
    other = folder.report_path.read_bytes()
    assert other != page.read_bytes(), "other results, another page"
    folder.report_path.write_bytes(other + b"<!-- still here -->")
    write_report(folder, [], [], manifest)
    assert folder.report_path.read_bytes().endswith(b"<!-- still here -->")
    with folder.judgements_path.open("rb+") as file:
        verdict = file.readline()
        file.seek(0, os.SEEK_END)
        file.write(verdict)
    write_report(folder, [], [], manifest)
    assert folder.report_path.read_bytes() != other + b"<!-- still here -->"
