"""The site in Chromium: sorting, search, links, themes, phones, hostile texts, accessibility."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from r2w_eval.leaderboards.site import Site
from support import open_chromium

AXE = "axe-core@4.10.3"
PAPER, DARK_PAPER = "rgb(252, 252, 251)", "rgb(20, 21, 23)"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as started:
        yield started


class Tab:
    """A page that records its requests and problems."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.address = address
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", self._note_failure)

    def _note_failure(self, request: Any) -> None:
        # on a busy machine the next page is opened before the icon has arrived
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"{request.url}: {request.failure}")

    def open(self, path: str) -> Any:
        self.page.goto(self.address + path)
        self.page.wait_for_load_state("networkidle")
        return self.page

    def check(self) -> None:
        assert self.problems == []
        assert all(url.startswith(self.address) for url in self.requests), self.requests
        assert self.page.evaluate("window.hacked") is None


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    opened = Tab(browser, address, viewport={"width": 1280, "height": 900})
    yield opened
    opened.check()
    opened.context.close()


def pages_of(site: Site) -> list[str]:
    """One page of every kind, and all pages of models and judges."""
    slug = site.boards[0].slug
    found = ["index.html", "methods.html", f"boards/{slug}.html", f"versus/{slug}.html"]
    for kind in ("models", "judges"):
        found += [f"{kind}/{path.name}" for path in sorted((site.path / kind).glob("*.html"))]
    return found


def column(page: Any, number: int) -> list[str]:
    return page.evaluate(  # type: ignore[no-any-return]
        "n => [...document.querySelectorAll('#ranking tbody tr')].filter(r => !r.hidden)"
        ".map(r => r.cells[n].textContent.trim())",
        number,
    )


def test_a_ranking_sorts_both_ways_and_keeps_missing_values_last(tab: Tab, site: Site) -> None:
    page = tab.open(f"boards/{site.boards[0].slug}.html")
    scores = [float(text) for text in column(page, 2)]
    assert scores == sorted(scores, reverse=True)
    button = page.get_by_role("button", name="score", exact=True)
    button.click()
    button.click()
    assert [float(text) for text in column(page, 2)] == sorted(scores)
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="length-adjusted").click()
    adjusted = column(page, 5)
    assert adjusted[-1] == "–" and adjusted[0] != "–"
    page.get_by_role("button", name="system", exact=True).focus()
    page.keyboard.press("Enter")
    names = [name.lower() for name in column(page, 1)]
    assert names[0] == sorted(names)[0]


def test_search_and_filters_leave_what_was_asked_for(tab: Tab, site: Site) -> None:
    page = tab.open(f"boards/{site.boards[0].slug}.html")
    n = len(column(page, 0))
    page.get_by_label("Null baselines").uncheck()
    assert len(column(page, 0)) == n - 1
    page.get_by_placeholder("Search systems").fill("ORG plain")
    assert len(column(page, 0)) == 2
    assert page.locator("#count").text_content() == f"2 of {n} systems"
    page.get_by_placeholder("Search systems").fill("-plain -gone")
    left = column(page, 1)
    assert 0 < len(left) < n - 3 and not any("gone" in text or "plain" in text for text in left)
    page.get_by_placeholder("Search systems").fill("no such system")
    assert column(page, 0) == []
    page.get_by_placeholder("Search systems").fill("")
    page.get_by_label("All columns").check()
    assert page.get_by_role("button", name="tokens / point").is_visible()


def test_the_length_adjusted_score_takes_the_place_of_the_raw_one(tab: Tab, site: Site) -> None:
    page = tab.open(f"boards/{site.boards[0].slug}.html")
    page.get_by_label("Score shown").select_option("adjusted")
    shown = [text for text in column(page, 2) if text != "–"]
    assert [float(t) for t in shown] == sorted((float(t) for t in shown), reverse=True)
    assert column(page, 2) == column(page, 5)


def test_a_sample_opens_with_prompt_thinking_answer_and_verdicts(tab: Tab, site: Site) -> None:
    thinking = next(s.row for s in site.boards[0].standings if s.row.model == "org/thinking")
    page = tab.open(f"models/{next((site.path / 'models').glob('org-thinking*')).name}")
    first = page.locator(".samples > div > details").first
    first.locator("summary").first.click()
    first.get_by_text("A thought tale.").wait_for()
    assert "lighthouse" in (first.text_content() or "")
    assert first.locator(".verdict").count() == 5
    folded = first.get_by_text("Thinking (")
    folded.click()
    assert first.get_by_text("Weak start. Cut it.").is_visible()
    first.get_by_text("What the judge wrote").first.click()
    assert '"score"' in (first.text_content() or "")
    values = page.locator(".samples summary b")
    page.get_by_label("Order").select_option("highest first")
    shown = [float(text) for text in values.all_text_contents()]
    assert shown == sorted((v for v in thinking.items.values if v is not None), reverse=True)


def test_hostile_texts_are_shown_as_texts(tab: Tab, site: Site) -> None:
    hostile = next(s.row for s in site.boards[0].standings if "window.hacked" in s.row.model)
    page = tab.open(
        "models/"
        + next(
            p.name for p in (site.path / "models").iterdir() if p.stem.endswith(hostile.page_key)
        )
    )
    first = page.locator(".samples > div > details").first
    first.locator("summary").first.click()
    first.get_by_text("onerror=").first.wait_for()
    assert page.locator("main img").count() == 0 and page.locator("main script").count() == 0


def test_two_systems_are_compared_with_their_test_and_texts(tab: Tab, site: Site) -> None:
    board = site.boards[0]
    page = tab.open(f"versus/{board.slug}.html")
    first, second = board.standings[0], board.standings[-1]
    page.get_by_label("Second").select_option(second.row.slug)
    test = next(t for t in board.tests if {t.first, t.second} == {first.label, second.label})
    gap = abs(test.difference or 0.0)
    page.get_by_text(f"+{gap:.2f}").first.wait_for()
    figures = page.locator("#figures").text_content() or ""
    assert f"{test.n_common}" in figures and f"{test.p_holm:.4f}" in figures
    page.get_by_role("button", name="Swap").click()
    page.get_by_text(f"−{gap:.2f}").first.wait_for()
    difference = page.locator("#differences details").first
    difference.locator("summary").first.click()
    difference.get_by_role("group", name="Prompt").wait_for()
    assert page.url.endswith(f"#{second.row.slug},{first.row.slug}")


def test_links_lead_from_the_overview_to_a_sample(tab: Tab, site: Site) -> None:
    page = tab.open("index.html")
    page.get_by_role("link", name="quickstart 1").first.click()
    page.get_by_role("link", name="org/thinking").first.click()
    page.locator(".samples summary").first.wait_for()
    page.get_by_role("link", name="Compare with another system").click()
    page.get_by_text("Common prompts", exact=True).wait_for()
    assert page.locator("#first option:checked").text_content() == "org/thinking"
    page.get_by_role("link", name="Methods").click()
    assert page.get_by_role("heading", level=1).text_content() == "Methods"


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Any, address: str) -> None:
    tab = Tab(browser, address, color_scheme="dark")
    page = tab.open("index.html")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == DARK_PAPER
    page.get_by_role("button", name="Theme: system").click()
    assert page.evaluate(background) == PAPER
    page = tab.open("methods.html")
    assert page.evaluate(background) == PAPER, "the choice is kept from page to page"
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(background) == DARK_PAPER
    tab.check()
    tab.context.close()


def test_no_page_scrolls_sideways_on_a_phone_or_a_screen(tab: Tab, site: Site) -> None:
    for path in pages_of(site):
        page = tab.open(path)
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert overflow <= 0, f"{path} is {overflow} px too wide at {width} px"


def test_a_ranking_is_whole_without_scripts(browser: Any, address: str, site: Site) -> None:
    tab = Tab(browser, address, java_script_enabled=False)
    page = tab.open(f"boards/{site.boards[0].slug}.html")
    assert page.locator("#ranking tbody tr").count() == len(site.boards[0].standings)
    assert not page.locator("#controls").is_visible()
    tab.context.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, fetched by npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"no npm: install it to check accessibility with {AXE}")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "pack", "--silent", "--pack-destination", str(folder), AXE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    packed = list(folder.glob("*.tgz"))
    if done.returncode or not packed:
        pytest.skip(f"{AXE} could not be fetched by npm: {done.stderr[-200:]}")
    with tarfile.open(packed[0]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


@pytest.mark.parametrize(("scheme", "rules"), [("light", []), ("dark", ["color-contrast"])])
def test_axe_finds_nothing_serious(
    browser: Any, address: str, site: Site, axe: str, scheme: str, rules: list[str]
) -> None:
    """All rules in the light theme; in the dark one that of colours."""
    tab = Tab(browser, address, color_scheme=scheme, bypass_csp=True)
    found = []
    for path in pages_of(site)[:6] + [f"judges/{p.name}" for p in (site.path / "judges").iterdir()]:
        page = tab.open(path)
        for summary in page.locator("main details > summary").all()[:2]:
            summary.click()
        page.evaluate(axe)
        report = page.evaluate("rules => axe.run(rules.length ? {runOnly: rules} : {})", rules)
        found += [
            f"{path}: {v['id']}: {v['nodes'][0]['html'][:120]}"
            for v in report["violations"]
            if v["impact"] in ("serious", "critical", "moderate")
        ]
    assert not found, "\n".join(found)
    tab.context.close()
