"""The site: same bytes for the same rows, small pages, hostile texts inert, exports readable."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from boards import HOSTILE_NAMES, LIMIT, answers, make_row, make_run, sample_ids
from r2w_eval.leaderboards.boards import BoardOptions, build_boards
from r2w_eval.leaderboards.collect import Collection, Entry, collect
from r2w_eval.leaderboards.evaluator import card_of, packaged_cards
from r2w_eval.leaderboards.export import COLUMNS, latex, quote_formula
from r2w_eval.leaderboards.heat import heat_maps
from r2w_eval.leaderboards.pages import make_environment, strengths
from r2w_eval.leaderboards.plots import length_plot
from r2w_eval.leaderboards.references import load_references, read_references
from r2w_eval.leaderboards.site import Site, SiteOptions, write_site
from r2w_eval.leaderboards.submit import submit
from r2w_eval.leaderboards.texts import packaged_prompts, read_prompts

from r2w_eval.errors import UsageError
from r2w_eval.estimates import AS_WRITTEN, SINGLE, WORDS
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.judge_check.card import read_card
from r2w_eval.store import RunFolder
from r2w_eval.types import Metric

MAX_PAGE_BYTES = 1_000_000


def metric(name: str, value: float, low: float, high: float) -> dict[str, object]:
    return {
        "name": name,
        "value": value,
        "low": low,
        "high": high,
        "n_scored": 50,
        "n_expected": 52,
    }


CARD = {
    "kind": "evaluator_card",
    "schema": 1,
    "judge": "j",
    "judge_facts": {"score_mode": "text"},
    "judge_decoding": {},
    "key": "abc",
    "created": "2026-01-02T00:00:00+00:00",
    "r2w_eval": "0.1.0",
    "identity": {},
    "models_returned": ["j"],
    "is_smoke_test": False,
    "signal": "partial",
    "verdict": ["Better than length on one set."],
    "flags": ["<b>careful</b>"],
    "sets": [
        {
            "name": "set",
            "kind": "pairs",
            "language": "en",
            "licence": "MIT",
            "sha256": "0",
            "n_prompts": 50,
            "n_texts": 100,
            "n_pairs": 48,
            "metrics": [metric("pair_accuracy", 0.61, 0.55, 0.67)],
            "baselines": [metric("longer", 0.58, 0.5, 0.65)],
            "best_baseline": "longer",
            "lift": metric("lift", 0.03, -0.02, 0.08),
        }
    ],
    "languages": [],
    "behaviour": [metric("length_slope", 0.2, 0.1, 0.3)],
    "nulls": [
        {
            "name": "repeat_prompt",
            "description": "the request itself",
            "n_prompts": 50,
            "mean": 5.0,
            "real_mean": 5.5,
            "below": metric("below", 0.6, 0.5, 0.7),
            "gap": metric("gap", 0.5, -0.1, 1.1),
        }
    ],
    "consumption": {
        "n_verdicts": 1,
        "n_usable": 1,
        "failures": {},
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "seconds_per_1000": None,
        "usd_per_1000": None,
    },
}


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(page: Path) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(page.read_text("utf-8"))
    return parser.found


def board_of(site: Site, name: str) -> Path:
    return site.path / name.format(slug=site.boards[0].slug)


def test_the_same_rows_give_the_same_bytes_in_any_order(sources: list[str], tmp_path: Path) -> None:
    chosen = sources[:3]
    first = write_site(collect(chosen), tmp_path / "site", SiteOptions())
    before = {p: p.read_bytes() for p in first.path.rglob("*") if p.is_file()}
    write_site(collect(chosen[::-1]), tmp_path / "site", SiteOptions())
    after = {p: p.read_bytes() for p in first.path.rglob("*") if p.is_file()}
    assert before == after


def test_every_link_leads_to_a_file_of_the_site(site: Site) -> None:
    dead = []
    for page in site.path.rglob("*.html"):
        for _, attributes in elements(page):
            for name in ("href", "src"):
                target = (attributes.get(name) or "").partition("#")[0]
                is_own = target and not target.startswith("https://")
                if is_own and not (page.parent / target).resolve().is_file():
                    dead.append(f"{page.name}: {target}")
    assert not dead, dead[:5]


def test_hostile_names_make_no_element_and_no_path(site: Site) -> None:
    for page in site.path.rglob("*.html"):
        text = page.read_text("utf-8")
        assert "window.hacked=1</script>" not in text and "<img" not in text
        assert "{{ 7*7 }}" in text or "7*7" not in text
        for tag, attributes in elements(page):
            assert tag not in ("iframe", "object", "embed", "form", "base")
            assert "style" not in attributes, f"{page.name}: the policy forbids style attributes"
            assert not [name for name in attributes if name.startswith("on")]
            if tag == "script":
                assert (attributes.get("src") or "").startswith(("assets/", "../assets/"))
    for path in site.path.rglob("*"):
        assert re.fullmatch(r"[A-Za-z0-9._-]+", path.name), path.name
        assert path.resolve().is_relative_to(site.path.resolve())


def test_pages_and_data_files_stay_small(site: Site) -> None:
    for path in site.path.rglob("*"):
        assert path.is_dir() or path.stat().st_size < MAX_PAGE_BYTES, path.name


def test_a_page_reads_whole_without_scripts(site: Site) -> None:
    text = board_of(site, "boards/{slug}.html").read_text("utf-8")
    for standing in site.boards[0].standings:
        assert f"{standing.value:.2f}" in text
    assert "3 of 6 items scored" in text and "null baseline" in text


def test_csv_has_every_row_and_no_formula(site: Site) -> None:
    content = board_of(site, "exports/{slug}.csv").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(content)))
    assert [row["model"] for row in rows].count("'=HYPERLINK(0)") == 1
    assert list(rows[0]) == [column.name for column in COLUMNS]
    assert len(rows) == len(site.boards[0].standings)
    assert not [c for row in rows for c in row.values() if c[:1] in "=+@" and c[:1]]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\n=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_quoted(cell: str) -> None:
    assert str(quote_formula(cell)).startswith("'")


def test_parquet_and_json_hold_the_same_figures_as_the_csv(site: Site) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    table = parquet.read_table(board_of(site, "exports/{slug}.parquet")).to_pylist()
    stored = json.loads(board_of(site, "exports/{slug}.json").read_text())["rows"]
    assert [r["score"] for r in table] == [r["score"] for r in stored]
    assert [r["low_95"] for r in table] == [r["low_95"] for r in stored]


def test_lm_evals_own_table_prints_a_row(site: Site) -> None:
    utils = pytest.importorskip("lm_eval.utils", reason="needs lm-eval")
    row = site.boards[0].standings[0].row
    content = json.loads((site.path / "exports" / row.slug / "results.json").read_text())
    table = utils.make_table(content)
    assert "quickstart" in table and f"{row.headline.value:.2f}" in table


def test_the_model_index_is_what_the_hub_reads(site: Site) -> None:
    for standing in site.boards[0].standings:
        text = (site.path / "exports" / standing.row.slug / "README.md").read_text("utf-8")
        front = yaml.safe_load(text.split("---\n")[1])
        (entry,) = front["model-index"]
        (metric,) = entry["results"][0]["metrics"]
        assert metric["value"] == standing.value
        assert entry["results"][0]["dataset"]["name"] == "quickstart"


def test_latex_and_markdown_hold_names_as_text(site: Site) -> None:
    tex = board_of(site, "exports/{slug}.tex").read_text("utf-8")
    assert "\\input{x}" not in tex and latex("\\input{x}") in tex
    text = board_of(site, "exports/{slug}.md").read_text("utf-8")
    assert "<b>" not in text and "<script>" not in text


def test_a_folder_with_other_files_is_not_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"no site\.json"):
        write_site(Collection((), ()), tmp_path, SiteOptions())
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_reflection_block_gets_its_column_and_its_figures(tmp_path: Path) -> None:
    rate = {**metric("effective_rate", 0.61, 0.5, 0.7), "note": ""}
    lost = {**metric("lost", 0.0, 0.0, 0.0), "value": None}
    block = {"n_reflections": 48, "judge": None, "metrics": [rate, lost]}
    values = {item: 5.0 + n / 10 for n, item in enumerate(sample_ids())}
    entries = (Entry(make_row("a", values, reflection=block)), Entry(make_row("b", values)))
    site = write_site(Collection(entries, ()), tmp_path / "site", SiteOptions())
    board = (site.path / "boards" / f"{site.boards[0].slug}.html").read_text("utf-8")
    assert "n reflections 48, effective rate 0.61 (0.50 to 0.70; n 50)" in board
    assert "reflection</button>" in board


def test_what_is_no_score_is_no_strength_and_a_column_says_of_how_many_prompts() -> None:
    def group(name: str, value: float, note: str = "") -> Metric:
        return Metric(name, value, None, None, 2, 3, note=f"{note}; {SINGLE}" if note else SINGLE)

    fault = f"{AS_WRITTEN}: of a fault, low is good"
    metrics = (
        group("genre/story", 5.0),
        group("genre/poem", 6.0),
        group("length/qa", 800.0, WORDS),
        group("length/chat", 900.0, WORDS),
        group("criterion/Meandering", 14.0, fault),
    )
    values = {item: 5.0 + n / 10 for n, item in enumerate(sample_ids())}
    entries = [Entry(replace(make_row(name, values), metrics=metrics)) for name in ("a", "b")]
    (board,) = build_boards(entries, BoardOptions())
    own = strengths(entries[0].row, {metric.name: 1.0 for metric in metrics})
    assert [s.name for s in own] == ["genre: poem", "genre: story"]
    genre, length = heat_maps(board)
    assert [(g.name, g.n, g.note) for g in genre.groups] == [("story", 3, ""), ("poem", 3, "")]
    assert length.note == WORDS


def test_points_in_one_place_share_one_label() -> None:
    values = {item: 5.0 + n / 10 for n, item in enumerate(sample_ids())}
    entries = [Entry(make_row(name, values)) for name in ("first", "second")]
    (board,) = build_boards(entries, BoardOptions())
    drawn = length_plot(board.standings)
    assert ("first" in drawn) != ("second" in drawn)


def test_a_row_with_reflections_has_its_trace_page_made_from_its_answers_alone(
    tmp_path: Path,
) -> None:
    thought = (
        "<think><draft>The sea was blue.</draft><reflection>“blue” is worn: name the light."
        "</reflection><revision>The sea was slate.</revision></think>The sea was slate."
    )
    with FakeServer() as server:
        judge = f"{server.base_url}#judge-0"
        run = make_run(tmp_path / "run", "org/thinking", answers(thought), judge)
    # an answer that was cut, and asked for again
    records = (run / "responses.jsonl").read_text("utf-8")
    first = {**json.loads(records.split("\n")[0]), "status": "unclosed_think", "answer": ""}
    (run / "responses.jsonl").write_text(json.dumps(first) + "\n" + records, "utf-8")
    submission = submit(run, tmp_path / "sent")
    for beside in (run, next((submission.folder / "runs").iterdir())):
        (beside / "reflect").mkdir()
        (beside / "traces.html").write_text("<script>stolen()</script>")
        (beside / "reflect" / "traces.html").write_text("<script>stolen()</script>")
    site = write_site(collect([str(submission.folder)]), tmp_path / "site", SiteOptions())
    assert not any(b"stolen" in file.read_bytes() for file in site.path.rglob("*.html"))
    (page,) = (site.path / "models").glob("*.html")
    (traces,) = (site.path / "traces").glob("*.html")
    text = traces.read_text("utf-8")
    assert f"../traces/{traces.name}" in page.read_text("utf-8")
    assert text.count('<article class="trace"') == LIMIT and "name the light" in text
    assert "lighthouse" in text, "the prompt comes from the suite"


@pytest.mark.parametrize("content", ["[1]\n", '{"doc": 5}\n', "{\n", '{"doc": {"id": 1}}\n'])
def test_a_damaged_file_of_prompts_ends_no_site(tmp_path: Path, content: str) -> None:
    (tmp_path / "lm_eval").mkdir()
    for task in ("**", "quickstart"):
        (tmp_path / "lm_eval" / f"samples_{task}_1.jsonl").write_text(content)
        assert not any(read_prompts(task, RunFolder(tmp_path)).values())


def test_quoted_figures_are_read_and_broken_ones_named() -> None:
    tables = load_references()
    longform = next(table for table in tables if table.suite == "eqbench_longform")
    assert (longform.rows[0].model, longform.rows[0].value) == (
        "deepseek-ai/DeepSeek-V3-0324",
        78.1,
    )
    assert all(table.source and table.judge and table.metric for table in tables)
    with pytest.raises(UsageError, match="table 0"):
        read_references([{"suite": "x"}])


def test_a_judge_finds_the_card_of_its_own_setting_only() -> None:
    card = read_card(CARD)
    identity = {"judge": "j", "judge_facts": {"score_mode": "text"}}
    assert card_of([card], identity) is card
    assert card_of([card], {**identity, "judge_facts": {"score_mode": "expected"}}) is None
    assert all(one.judge for one in packaged_cards())


def test_a_card_is_shown_whole_and_escaped() -> None:
    page = (
        make_environment()
        .get_template("judge.html")
        .render(
            root="../",
            page="",
            title="Boards",
            software="0",
            has_training=False,
            judge="j",
            card=read_card(CARD),
            boards=[],
            is_smoke_test=False,
        )
    )
    assert "pair accuracy" in page and "0.610" in page and "0.550 to 0.670" in page
    assert "judge minus best rule" in page and "&lt;b&gt;careful&lt;/b&gt;" in page
    assert "repeat prompt" in page and "not shown" in page


def test_names_of_rows_are_as_many_as_rows(site: Site) -> None:
    labels = [standing.label for standing in site.boards[0].standings]
    assert len(set(labels)) == len(labels) and HOSTILE_NAMES[0] in labels


def test_rows_of_a_packaged_suite_have_their_prompts_without_a_run() -> None:
    row = make_row("m", {"story-en-1": 5.0, "no such prompt": 5.0}, version="1")
    assert row.task == "quickstart"
    assert [*packaged_prompts(row)] == ["story-en-1"]
    assert packaged_prompts(replace(row, version="0")) == {}
    assert packaged_prompts(replace(row, task="writingbench")) == {}
