"""Writes the site: static pages, data files that pages load on demand, and exports.

The same rows give the same bytes: no clock, no randomness, a fixed order. The folder is built aside
and moved into place in one step. `site.json` lists every file with its hash, for `verify`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from r2w_eval.leaderboards import export, formats, pages
from r2w_eval.leaderboards.boards import Board, BoardOptions, build_boards
from r2w_eval.leaderboards.collect import Collection, Entry
from r2w_eval.leaderboards.evaluator import card_of, packaged_cards
from r2w_eval.leaderboards.heat import heat_maps
from r2w_eval.leaderboards.plots import Plot, board_plots
from r2w_eval.leaderboards.pooling import pool_entries
from r2w_eval.leaderboards.references import QuotedTable, load_references
from r2w_eval.leaderboards.rows import write_row
from r2w_eval.leaderboards.texts import write_dense, write_prompts, write_samples
from r2w_eval.leaderboards.traces import write_traces
from r2w_eval.leaderboards.training import training_curves

import r2w_eval
from r2w_eval.errors import DataError, UsageError
from r2w_eval.hashing import content_hash, file_hash, text_hash
from r2w_eval.stats.ratings import PairTest
from r2w_eval.store import write_json

MANIFEST = "site.json"
ASSETS = ("site.css", "theme.js", "table.js", "samples.js", "versus.js", "icon.svg")
MAX_TESTS_SHOWN = 300


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """The options of a site, recorded in `site.json`."""

    title: str = "Writing boards"
    boards: BoardOptions = BoardOptions()
    references: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """A written site."""

    path: Path
    boards: tuple[Board, ...]
    n_files: int
    n_bytes: int


def write_site(collection: Collection, out: Path, options: SiteOptions) -> Site:
    """Build aside, then replace `out`. Raises UsageError if `out` is something else than a site."""
    _check_target(out)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        boards = _Writer(aside, collection, options).write()
        names = _list_files(aside)
        write_json(aside / MANIFEST, _manifest(aside, out, names, collection, options))
        _put_in_place(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sizes = [(out / name).stat().st_size for name in names]
    return Site(out, tuple(boards), len(sizes), sum(sizes))


def _put_in_place(made: Path, out: Path) -> None:
    """Remove the old site only when the new one is in place; a kill in between leaves both."""
    before = made.with_name(made.name + ".before")
    if out.exists():
        os.replace(out, before)
    os.replace(made, out)
    shutil.rmtree(before, ignore_errors=True)


def _check_target(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise UsageError(
            f"--out {str(out)!r}: the folder holds other files and no {MANIFEST}. Expected a new "
            f"folder, or an earlier site, which is replaced"
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {str(out)!r}: is a file. Expected a folder")


def _list_files(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _manifest(
    aside: Path, out: Path, names: Iterable[str], collection: Collection, options: SiteOptions
) -> dict[str, Any]:
    """Hashes of all files, and each row's run folders relative to the site."""
    return {
        "schema": 1,
        "software": r2w_eval.__version__,
        "code": code_hash(),
        "options": options,
        "left_out": collection.left_out,
        "rows": {
            entry.row.slug: {
                "has_raw": entry.has_raw,
                "runs": [os.path.relpath(run.path, out) for run in entry.runs],
            }
            for entry in collection.entries
        },
        "files": {name: file_hash(aside / name) for name in names},
    }


def code_hash() -> str:
    """Hash of the code and templates: another version writes other bytes from the same rows."""
    folder = resources.files("r2w_eval.leaderboards")
    parts = [folder, folder.joinpath("templates")]
    names = sorted(
        (part.name, file.name, text_hash(file.read_text("utf-8")))
        for part in parts
        for file in part.iterdir()
        if file.name.endswith((".py", ".html", ".css", ".js", ".svg"))
    )
    return content_hash(names, 12)


class _Writer:
    """Writes one site into a folder."""

    def __init__(self, root: Path, collection: Collection, options: SiteOptions) -> None:
        self.root = root
        self.rows = collection.entries
        self.left_out = collection.left_out
        self.options = options
        entries = collection.entries
        self.entries = pool_entries(entries) if options.boards.pool else list(entries)
        self.boards = build_boards(self.entries, options.boards)
        self.curves = training_curves(self.entries)
        self.references = load_references() if options.references else []
        self.environment = pages.make_environment()
        self.traced: set[str] = set()

    def write(self) -> list[Board]:
        for name in ASSETS:
            self._file(f"assets/{name}").write_text(pages.read_template(name), "utf-8")
        for entry in self.rows:
            row = replace(entry.row, evidence=replace(entry.row.evidence, folder=""))
            write_row(self._file(f"rows/{row.slug}.json"), row)
        for entry in self.entries:
            self._write_row_files(entry)
        for board in self.boards:
            self._write_board(board)
        self._write_models()
        self._write_judges()
        self._write_overview()
        return self.boards

    def _file(self, name: str) -> Path:
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise DataError(
                f"{name!r:.200}: a page outside the site. Leave out the row of that name"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _page(self, file: str, template: str, page: str = "", **facts: Any) -> None:
        text = self.environment.get_template(template).render(
            root="../" * file.count("/"),
            page=page,
            title=self.options.title,
            software=r2w_eval.__version__,
            has_training=bool(self.curves),
            **facts,
        )
        # a model's name may hold lone surrogates, which become question marks
        self._file(file).write_bytes(text.encode("utf-8", "replace"))

    def _write_row_files(self, entry: Entry) -> None:
        row = entry.row
        write_samples(self.root / "data" / row.slug, row, entry.runs)
        if write_traces(self.root / "traces" / f"{row.slug}.html", entry):
            self.traced.add(row.slug)
        self._file(f"exports/{row.slug}/results.json").write_bytes(formats.to_lm_eval(row))
        self._file(f"exports/{row.slug}/README.md").write_bytes(formats.to_model_card(row))

    def _write_board(self, board: Board) -> None:
        entries = [s.entry for s in board.standings] + [one.entry for one in board.apart]
        write_prompts(self.root / "data" / board.slug, ((e.row, e.runs) for e in entries))
        plots = board_plots(board)
        exports = [*self._write_exports(board), *self._write_figures(board, plots)]
        has_reflection = any(s.row.reflection for s in board.standings)
        self._page(
            f"boards/{board.slug}.html",
            "board.html",
            b=board,
            lines=board.standings,
            columns=list(pages.columns(has_reflection)),
            has_reflection=has_reflection,
            n_pairs=len(board.tests),
            plots=plots,
            heats=heat_maps(board),
            references=_of_suite(self.references, board.task),
            exports=exports,
        )
        if len(board.standings) > 1:
            self._write_versus(board)

    def _write_exports(self, board: Board) -> list[tuple[str, str]]:
        makers: dict[str, tuple[str, Callable[[Board], str | bytes]]] = {
            "CSV": (".csv", export.to_csv),
            "Markdown": (".md", export.to_markdown),
            "JSON": (".json", export.to_json),
            "LaTeX": (".tex", export.to_latex),
            "Dataset card": ("-card.md", formats.to_dataset_card),
        }
        if export.has_parquet():
            makers["Parquet"] = (".parquet", export.to_parquet)
        for ending, make in makers.values():
            made = make(board)
            content = made.encode("utf-8", "replace") if isinstance(made, str) else made
            self._file(f"exports/{board.slug}{ending}").write_bytes(content)
        return [(name, f"{board.slug}{ending}") for name, (ending, _) in makers.items()]

    def _write_figures(self, board: Board, plots: Sequence[Plot]) -> list[tuple[str, str]]:
        names = [f"{board.slug}-figure-{n}.svg" for n in range(1, len(plots) + 1)]
        for name, plot in zip(names, plots, strict=True):
            self._file(f"exports/{name}").write_bytes(plot.file.encode())
        return [(f"Figure {n}", name) for n, name in enumerate(names, 1)]

    def _write_versus(self, board: Board) -> None:
        slugs = {s.label: s.row.slug for s in board.standings}
        sides: dict[str, list[tuple[str, PairTest, int]]] = {slug: [] for slug in slugs.values()}
        for test in board.tests:
            first, second = slugs[test.first], slugs[test.second]
            sides[first].append((second, test, 1))
            sides[second].append((first, test, -1))
        for slug, own in sides.items():
            pairs = {other: _pair(test, sign) for other, test, sign in own}
            write_dense(self._file(f"data/{board.slug}/pairs/{slug}.json"), pairs)
        self._file(f"exports/{board.slug}-pairs.csv").write_bytes(export.pairs_to_csv(board))
        tests = board.tests if len(board.tests) <= MAX_TESTS_SHOWN else ()
        self._page(
            f"versus/{board.slug}.html",
            "versus.html",
            b=board,
            tests=tests,
            n_pairs=len(board.tests),
        )

    def _write_models(self) -> None:
        for slug, views in pages.row_views(self.boards).items():
            row = views[0].entry.row
            self._page(
                f"models/{slug}.html",
                "model.html",
                name=views[0].label,
                model=row.model,
                system=row.settings,
                is_null=row.is_null,
                views=views,
                traced=self.traced,
            )

    def _write_judges(self) -> None:
        by_judge: dict[str, list[Board]] = {}
        for board in self.boards:
            by_judge.setdefault(board.judge, []).append(board)
        cards = packaged_cards()
        for judge, own in sorted(by_judge.items()):
            self._page(
                f"judges/{pages.judge_slug(judge)}.html",
                "judge.html",
                judge=judge,
                card=card_of(cards, own[0].identity),
                boards=[pages.judge_view(board) for board in own],
                is_smoke_test=any(board.is_smoke_test for board in own),
            )

    def _write_overview(self) -> None:
        suites: dict[str, list[Board]] = {}
        for board in self.boards:
            suites.setdefault(board.task, []).append(board)
        rows = [entry.row for entry in self.entries]
        self._page(
            "index.html",
            "index.html",
            "overview",
            boards=self.boards,
            suites=suites,
            n_systems=len({row.page_key for row in rows}),
            n_answers=sum(row.n_answers for row in rows),
            newest=max(row.created[:10] for row in rows),
            left_out=self.left_out,
            references=[t for t in self.references if t.suite not in suites],
        )
        self._page("methods.html", "methods.html", "methods")
        if self.curves:
            self._page("training.html", "training.html", "training", curves=self.curves)


def _of_suite(references: Sequence[QuotedTable], task: str) -> list[QuotedTable]:
    return [table for table in references if table.suite == task]


def _pair(test: PairTest, sign: int) -> Mapping[str, float | int | None]:
    """One test from one side: `sign` is -1 for the second system."""

    def signed(value: float | None) -> float | None:
        return None if value is None else round(sign * value, 6)

    low, high = (test.low, test.high) if sign > 0 else (test.high, test.low)
    return {
        "difference": signed(test.difference),
        "low": signed(low),
        "high": signed(high),
        "p_value": test.p_value,
        "p_holm": test.p_holm,
        "n_common": test.n_common,
    }
