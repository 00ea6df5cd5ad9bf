"""Bring your own answers: `--responses FILE` judges texts that were written elsewhere.

Reads JSON lines with an id (`id`, `sample_id`, `index`, `prompt_id`) and a text (`response`,
`answer`, `text`, `output`), our own responses.jsonl, and lm-eval's `samples_*.jsonl`; which one it
is, is seen from the first record (specification: harness G9, M6).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.errors import UsageError
from r2w_eval.hashing import file_hash
from r2w_eval.types import Sample

ID_KEYS = ("sample_id", "id", "index", "prompt_id")
TEXT_KEYS = ("raw", "response", "answer", "text", "output")


@dataclass(frozen=True, slots=True)
class RecordedResponse:
    """One text and the sample it answers."""

    sample_id: str
    text: str
    model: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True)
class RecordedResponses:
    """All texts of a file, by sample; a sample's texts are its repeats, in file order."""

    model: str
    sha256: str
    texts: Mapping[str, tuple[RecordedResponse, ...]]

    def describe(self) -> dict[str, Any]:
        """The writer's identity: the file's content, whatever it is called."""
        return {"backend": "recorded", "model": self.model, "responses_sha256": self.sha256}

    async def generate(self, sample: Sample, request: ChatRequest) -> Reply:
        """The recorded text. Raises CallFailed(NOT_SENT) for a sample without one."""
        own = self.texts.get(sample.id, ())
        if request.index >= len(own):
            raise CallFailed(CallStatus.NOT_SENT, f"the file has no answer for sample {sample.id}")
        recorded = own[request.index]
        return Reply(recorded.text, "stop", reasoning=recorded.reasoning, model=recorded.model)


def open_recorded(path: Path, model: str, n_repeats: int) -> RecordedResponses:
    """Read and check a file of answers. Raises UsageError naming file, line and what was
    expected.
    """
    texts: dict[str, list[RecordedResponse]] = defaultdict(list)
    for number, record in _read_lines(path):
        recorded = _read_record(record, f"{path}, line {number}")
        texts[recorded.sample_id].append(recorded)
    if not texts:
        raise UsageError(f"--responses {str(path)!r}: no record. Expected {_FORM}")
    for sample_id, own in texts.items():
        if len(own) > n_repeats:
            raise UsageError(
                f"--responses {path}: sample {sample_id!r} stands {len(own)} times, but "
                f"--samples is "
                f"{n_repeats}. Remove the doubles, or use --samples {len(own)}"
            )
    named = model or next((t.model for own in texts.values() for t in own if t.model), None)
    frozen = {sample_id: tuple(own) for sample_id, own in texts.items()}
    return RecordedResponses(named or path.stem, file_hash(path), frozen)


_FORM = 'one JSON object a line, such as {"id": "1", "response": "text"}'


def _read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records with line numbers; lines end at `\\n` only, since texts may hold U+2028."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(
            f"--responses {str(path)!r}: {error.strerror}. Expected {_FORM}"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{path}, line {number}: {error}. Expected {_FORM}, in UTF-8"
            ) from error
        if not isinstance(record, dict):
            raise UsageError(f"{path}, line {number}: a {type(record).__name__}. Expected {_FORM}")
        yield number, record


def _read_record(record: Mapping[str, Any], place: str) -> RecordedResponse:
    if "resps" in record and "doc" in record:
        return _read_lm_eval(record, place)
    sample_id = next((record[key] for key in ID_KEYS if record.get(key) is not None), None)
    text = next((record[key] for key in TEXT_KEYS if isinstance(record.get(key), str)), None)
    if sample_id is None or text is None:
        raise UsageError(
            f"{place}: has {', '.join(map(str, record))}. Expected an id ({', '.join(ID_KEYS)}) "
            f"and a text ({', '.join(TEXT_KEYS)})"
        )
    model, reasoning = record.get("model"), record.get("reasoning")
    return RecordedResponse(
        str(sample_id),
        text,
        model if isinstance(model, str) else None,
        reasoning if isinstance(reasoning, str) else None,
    )


def _read_lm_eval(record: Mapping[str, Any], place: str) -> RecordedResponse:
    """A row of lm-eval's samples file: the sample's id is in its document, the text in `resps`."""
    document = record["doc"]
    text = record["resps"]
    while isinstance(text, list) and text:
        text = text[0]
    sample_id = next((document[k] for k in ID_KEYS if document.get(k) is not None), None)
    if sample_id is None or not isinstance(text, str):
        raise UsageError(f"{place}: an lm-eval sample without a document id or a text in `resps`")
    return RecordedResponse(str(sample_id), text)
