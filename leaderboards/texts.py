"""The texts behind a row, in small JSON files that a page loads one at a time.

A model's samples are split into files of about 200 kB, so that a board of 200 systems and 1,000
prompts stays fast: a page reads the list of samples first and a text when it is opened. Run folders
are streamed one after the other.
"""

from __future__ import annotations

import glob
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.leaderboards.rows import Row

from r2w_eval.errors import DataError
from r2w_eval.hashing import to_plain
from r2w_eval.results.report import cut_text
from r2w_eval.store import RecordIndex, RunFolder, iter_jsonl, read_response
from r2w_eval.suites.suite import load_info, load_suite, suite_folders
from r2w_eval.types import Judgement

CHUNK_BYTES = 200_000
MAX_CHARS = 20_000
MAX_RAW_CHARS = 4_000
MAX_VERDICTS = 40


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict as a page shows it: the parsed value and the judge's text."""

    criterion: str
    value: float | None
    status: str
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class SampleText:
    """One answer as a page shows it, truncated."""

    thinking: str
    answer: str
    verdicts: tuple[Verdict, ...]
    n_more_verdicts: int


class ChunkWriter:
    """Packs records into `<name>-<n>.json`, each about `CHUNK_BYTES` long."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._parts: list[str] = []
        self._size = 0
        self._number = 0

    def add(self, record: object) -> tuple[int, int]:
        """Add a record; returns (file number, position in the file)."""
        text = json.dumps(to_plain(record), separators=(",", ":"))
        if self._parts and self._size + len(text) > CHUNK_BYTES:
            self.close()
        self._parts.append(text)
        self._size += len(text)
        return self._number, len(self._parts) - 1

    def close(self) -> None:
        """Write the current file."""
        if self._parts:
            path = self._folder / f"{self._name}-{self._number}.json"
            path.write_text(f"[{','.join(self._parts)}]\n", "ascii")
            self._parts, self._size = [], 0
            self._number += 1


def write_samples(folder: Path, row: Row, runs: Sequence[RunFolder]) -> None:
    """Write `items.json`, the figures of every answer, and the texts of the available runs."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = row.items
    places: list[tuple[int, int] | None] = [None] * len(columns.ids)
    writer = ChunkWriter(folder, "texts")
    for i, text in enumerate(read_texts(row, runs) if runs else ()):
        places[i] = writer.add(text) if text else None
    writer.close()
    content = {
        "ids": columns.ids,
        "repeats": columns.repeats if any(columns.repeats) else [],
        "values": [None if v is None else round(v, 4) for v in columns.values],
        "statuses": columns.statuses,
        "characters": columns.answer_chars,
        "thinking": columns.thinking_chars if any(columns.thinking_chars) else [],
        "places": places if any(places) else [],
    }
    write_dense(folder / "items.json", content)


def write_dense(path: Path, content: object) -> None:
    """Write compact JSON."""
    path.write_text(json.dumps(to_plain(content), separators=(",", ":")) + "\n", "ascii")


def read_texts(row: Row, runs: Sequence[RunFolder]) -> Iterator[SampleText | None]:
    """Texts in the order of the row's answers; None where none was recorded."""
    indexes = [RecordIndex(run.responses_path) for run in runs]
    verdicts = {key: own for run in runs for key, own in read_verdicts(row, run).items()}
    for key in row.items.response_keys:
        found = (index.read(key) for index in indexes) if key else ()
        record = next((one for one in found if one is not None), None)
        if record is None:
            yield None
            continue
        response = read_response(record)
        own = verdicts.get(key, [])
        yield SampleText(
            thinking=cut_text(response.thinking or "", MAX_CHARS),
            answer=cut_text(response.answer or response.reason, MAX_CHARS),
            verdicts=tuple(_verdict(judgement) for judgement in own[:MAX_VERDICTS]),
            n_more_verdicts=max(0, len(own) - MAX_VERDICTS),
        )


def read_verdicts(row: Row, run: RunFolder) -> Mapping[str, list[Judgement]]:
    """The verdicts of the row's judge by response: the newest per question, in a fixed order."""
    newest: dict[str, dict[tuple[str, str, int], Judgement]] = defaultdict(dict)
    wanted = set(row.items.response_keys)
    for judgement in run.judgements():
        if judgement.judge == row.judge and judgement.response_key in wanted:
            question = (judgement.criterion, judgement.order, judgement.repeat)
            newest[judgement.response_key][question] = judgement
    return {key: [own[question] for question in sorted(own)] for key, own in newest.items()}


def write_prompts(folder: Path, rows: Iterable[tuple[Row, Sequence[RunFolder]]]) -> None:
    """Write the prompts of a board, shared by its systems; `prompts.json` locates each.

    They come from the first run that has them, else from the suite if its data is packaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = next(filter(None, (find_prompts(row, runs) for row, runs in rows)), {})
    writer = ChunkWriter(folder, "prompts")
    places = {item: writer.add(cut_text(text, MAX_CHARS)) for item, text in found.items()}
    writer.close()
    write_dense(folder / "prompts.json", places)


def find_prompts(row: Row, runs: Sequence[RunFolder]) -> Mapping[str, str]:
    """The row's prompts by item, from its runs or its suite; empty if neither has them."""
    kept = (read_prompts(row.task, run) for run in runs)
    return next(filter(None, kept), {}) or packaged_prompts(row)


def read_prompts(task: str, run: RunFolder) -> dict[str, str]:
    """Prompts from the run's lm-eval file; empty if that is missing or damaged."""
    files = sorted((run.path / "lm_eval").rglob(f"samples_{glob.escape(task)}_*.jsonl"))
    try:
        return dict(_prompts(iter_jsonl(files[-1]))) if files else {}
    except (DataError, AttributeError, TypeError):
        # this file is not among a run's checked records: show the row without prompts
        return {}


def packaged_prompts(row: Row) -> dict[str, str]:
    """The row's prompts if its suite comes packaged with data in that version, else empty."""
    if row.task not in suite_folders():
        return {}
    info = load_info(row.task)
    data = info.data(())
    folder = info.folder.parent / info.data_folder
    is_here = info.files and all((folder / name).is_file() for name in info.files)
    if info.version != row.version or not is_here:
        return {}
    wanted = set(row.items.ids)
    samples = load_suite(info.folder).bind(data).load_samples(data)
    return {s.id: s.messages[-1].content for s in samples if s.id in wanted}


def _prompts(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for record in records:
        document = record.get("doc", {})
        if "id" in document:
            yield str(document["id"]), str(document.get("prompt", ""))


def _verdict(judgement: Judgement) -> Verdict:
    score = judgement.score
    reason = str(score.parts.get("reason") or score.reason or "")
    raw = "\n\n[asked again]\n\n".join(judgement.asks)
    probabilities = score.parts.get("probabilities")
    if not raw and isinstance(probabilities, Mapping):
        raw = "label probabilities: " + ", ".join(
            f"{label} {float(p):.3g}" for label, p in probabilities.items()
        )
    return Verdict(
        criterion=" ".join(filter(None, (judgement.criterion, judgement.order))),
        value=score.value,
        status=str(score.status),
        reason=cut_text(reason, MAX_RAW_CHARS),
        raw=cut_text(raw, MAX_RAW_CHARS),
    )
