"""The data recipe: all rows of all chosen sets, the file they go to, and the data card.

Deterministic. The card counts the rows by set and kind and states the licences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r2w_eval.reward_models.data.edits import build_fgrlhf, build_tetra
from r2w_eval.reward_models.data.flaws import FILLINGS, Host, build_flaws, build_needless, host_of
from r2w_eval.reward_models.data.lamp import build_lamp
from r2w_eval.reward_models.data.reviews import (
    build_disapere,
    build_f1000rd,
    build_substanreview,
)
from r2w_eval.reward_models.data.rows import SAME_REFLECTION, Row, count
from r2w_eval.reward_models.data.sources import LabelledSet, Permission, choose_sets
from r2w_eval.reward_models.data.synthesis import SOURCE as SYNTHESIS
from r2w_eval.reward_models.data.synthesis import build_synthesis
from r2w_eval.reward_models.data.writing import (
    build_argrewrite,
    build_autoj,
    build_storyer,
    build_wpb,
)
from r2w_eval.reward_models.items import ReflectionItem, WritingItem

from r2w_eval.hashing import dump_line
from r2w_eval.store import write_atomically, write_jsonl

BUILDERS: Mapping[str, Callable[[LabelledSet], Iterator[Row]]] = {
    "lamp_train": build_lamp,
    "tetra_train": build_tetra,
    "fgrlhf_longform_qa": build_fgrlhf,
    "f1000rd_train": build_f1000rd,
    "substanreview_train": build_substanreview,
    "wpb_zh_dev": build_wpb,
    "argrewrite_train": build_argrewrite,
    "disapere_train": build_disapere,
    "storyer_small": build_storyer,
    "autoj_writing_dev": build_autoj,
}
# kinds that say nothing without their revision
NEED_REVISION = SAME_REFLECTION | {"neg_fixed"}


@dataclass(frozen=True, slots=True)
class Corpus:
    """All rows, with the licences of their sources and the research-only sets among them."""

    rows: tuple[Row, ...]
    licences: Mapping[str, str]
    restricted: tuple[str, ...]

    @property
    def hash(self) -> str:
        """Content hash of all rows."""
        return hash_of(self.rows)


def hash_of(rows: Iterable[Row]) -> str:
    """Content hash of rows, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(dump_line(row))
    return digest.hexdigest()[:24]


def build_corpus(
    root: Path,
    allow_restricted: bool = False,
    without: tuple[str, ...] = (),
    fillings: int = FILLINGS,
    synth: Sequence[str] = (),
) -> Corpus:
    """The rows of the labelled sets, of planted flaws (`fillings` variants of each text) and of
    `synth`, folders of `train synth`. Raises DataError, UsageError.
    """
    sets = choose_sets(root, allow_restricted, without)
    rows: list[Row] = []
    for name, entry in sets.items():
        if name in BUILDERS:
            rows += BUILDERS[name](entry)
    hosts = _hosts(rows)
    rows += build_flaws(fillings, hosts=hosts)
    rows += build_needless(fillings, hosts=hosts)
    rows += without_revision(rows)
    # a step that is in two folders counts once
    rows += {row.id: row for folder in synth for row in build_synthesis(Path(folder))}.values()
    used = {row.source: row.licence for row in rows}
    restricted = tuple(
        name for name in used if name in sets and sets[name].permission is Permission.RESTRICTED
    )
    return Corpus(tuple(rows), dict(sorted(used.items())), restricted)


def without_revision(rows: Sequence[Row]) -> Iterator[Row]:
    """A fifth of the pairs again without their revision, as in a trace still being written."""
    for row in rows:
        item = row.item
        if not isinstance(item, ReflectionItem) or item.revision is None:
            continue
        place = hashlib.sha256(row.pair_id.encode()).digest()[4] % 5
        labels = {axis: v for axis, v in row.labels.items() if axis != "effect"}
        if place == 0 and labels and row.kind not in NEED_REVISION:
            name = f"{row.id}:open"
            yield replace(
                row,
                id=name,
                pair_id=f"{row.pair_id}:open",
                item=replace(item, id=name, revision=None),
                labels=labels,
            )


def _hosts(rows: Sequence[Row]) -> list[tuple[str, Host]]:
    """Expert revisions as texts to plant flaws in, each with the split group of its draft."""
    found = []
    for row in rows:
        if row.source == "lamp_train" and row.kind == "revised":
            assert isinstance(row.item, WritingItem)
            host = host_of(row.item.prompt, row.item.response, row.lang)
            if host is not None:
                found.append((row.split_group, host))
    return found


def write_corpus(corpus: Corpus, path: Path) -> None:
    """Write the rows as JSON lines, and the data card beside them as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, corpus.rows)
    write_atomically(path.with_suffix(".md"), data_card(corpus).encode())


def data_card(corpus: Corpus) -> str:
    """Counts by set, kind and part, licences, and what the labels mean."""
    lines = [
        "# Data card",
        "",
        f"{len(corpus.rows)} rows, content hash `{corpus.hash}`. Parts are made by hashing the",
        "split group (draft, paper, writer or prompt): 60 % train, 20 % calibrate, 20 % test.",
        "Independent reconstruction after the abstract of arXiv 2604.03004; the authors published",
        "no code, prompts or data.",
        "",
        "| set | licence | kind | rows |",
        "|---|---|---|---|",
    ]
    for source, kinds in count(corpus.rows).items():
        for kind, n in kinds.items():
            lines.append(f"| {source} | {corpus.licences[source]} | {kind} | {n} |")
    used = ", ".join(corpus.restricted) or "none"
    lines += ["", f"Research-only sets used: {used}.", ""]
    if SYNTHESIS in corpus.licences:
        lines += [
            f"`{SYNTHESIS}`: texts of the models that manifest.json of each --synth folder names;",
            "the gain of its judge is their only label. Whoever releases weights fitted on them",
            "answers for the terms of those models.",
            "",
        ]
    return "\n".join(lines)


def reflection_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows of reflections."""
    return [row for row in rows if isinstance(row.item, ReflectionItem)]


def writing_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows of pieces of writing."""
    return [row for row in rows if isinstance(row.item, WritingItem)]
