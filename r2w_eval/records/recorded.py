"""Bring your own answers: `--responses FILE` judges texts that were written elsewhere.

Reads JSON lines with an id (`id`, `sample_id`, `index`, `prompt_id`, `uid`) and a text (`response`,
`answer`, `text`, `output`, `article`, or the last of `messages`; `turns`, a list, for a whole
conversation), our own responses.jsonl, and lm-eval's `samples_*.jsonl`; each line says by its keys
which it is. A file named `.gz` is unpacked on the way. A folder stands for the one such file in it,
or holds one report a file (specification: harness G9, M6).
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from r2w_eval.data import open_bytes
from r2w_eval.errors import UsageError
from r2w_eval.hashing import path_hash
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.models.thinking import SplitText, ThinkTags, split_thinking
from r2w_eval.types import Sample, WriterStatus

ID_KEYS = ("sample_id", "id", "index", "prompt_id", "uid")
TEXT_KEYS = ("raw", "response", "answer", "text", "output", "article")
CLOSING_TAG = "</think>"
INDEXED = re.compile(r"idx-(\d+)(?:\..+)?", re.IGNORECASE)
TEXT_ENDINGS = (".md", ".txt", ".html")

# How a failure that another run recorded is told again; `error` was never an answer
FAILED_CALLS = {
    WriterStatus.TOO_LONG: CallStatus.CONTEXT,
    WriterStatus.CONTENT_FILTER: CallStatus.FILTERED,
}
NEVER_ANSWERED = (WriterStatus.ERROR, WriterStatus.NOT_SENT)


class Place(NamedTuple):
    """Which of a sample's texts; `task` is empty where the file does not say."""

    task: str
    repeat: int
    turn: int


@dataclass(frozen=True, slots=True)
class RecordedResponse:
    """One text and the sample it answers. `repeat` is None where the order of lines decides.

    A record with a `prompt` (DeepResearch Bench's own form) answers the sample that asks for it,
    whatever its id, as upstream joins them. `reasoning` is a server's own field; `known` is how the
    run that wrote the record split the text, if its thinking stands in there.
    """

    sample_id: str
    text: str
    model: str | None = None
    reasoning: str | None = None
    task: str = ""
    repeat: int | None = None
    turn: int = 0
    finish_reason: str | None = "stop"
    status: WriterStatus = WriterStatus.OK
    reason: str = ""
    prompt: str = ""
    known: SplitText | None = None

    def split(self, tags: ThinkTags) -> SplitText:
        """Thinking and answer; where these tags find no thinking, as the record has it."""
        if self.reasoning:
            return SplitText(self.reasoning, self.text.strip())
        found = split_thinking(self.text, tags)
        return self.known if self.known and found.thinking is None else found


@dataclass(frozen=True)
class RecordedResponses:
    """All texts of a file, by their id; `prompts` leads from a prompt to the id that answers it."""

    model: str
    sha256: str
    has_reasoning: bool
    texts: Mapping[str, Mapping[Place, RecordedResponse]]
    prompts: Mapping[str, str] = field(default_factory=dict)

    def key(self, sample: Sample) -> str:
        """The id under which the file would answer a sample."""
        asked = sample.material.get("prompt", sample.messages[-1].content)
        if asked in self.prompts:
            return self.prompts[asked]
        return "" if sample.id in self.prompts.values() else sample.id

    def find(self, sample: Sample) -> Mapping[Place, RecordedResponse]:
        """The texts for a sample; empty without one."""
        return self.texts.get(self.key(sample), {})

    def describe(self) -> dict[str, Any]:
        """The writer's identity: the file's content, whatever it is called.

        Thinking that is not in the file may have been stripped before: it is unknown, not absent.
        """
        return {
            "backend": "recorded",
            "model": self.model,
            "responses_sha256": self.sha256,
            "reasoning": "recorded" if self.has_reasoning else "not recorded",
        }

    async def generate(
        self, sample: Sample, request: ChatRequest, tags: ThinkTags = ThinkTags()
    ) -> tuple[Reply, SplitText]:
        """The recorded text, and how it is read. Raises CallFailed(NOT_SENT) for a sample without
        one.

        A file answers once: it is not asked again for a longer text.
        """
        if request.ask:
            raise CallFailed(CallStatus.NOT_SENT, "the file has no other answer")
        turn = sum(message.role == "assistant" for message in request.messages)
        own = self.find(sample)
        named, unnamed = (Place(task, request.index, turn) for task in (sample.task, ""))
        found = own.get(named) or own.get(unnamed)
        if found is None:
            raise CallFailed(CallStatus.NOT_SENT, f"the file has no answer for sample {sample.id}")
        if found.status is WriterStatus.ERROR:
            raise CallFailed(CallStatus.BAD_REQUEST, found.reason)
        if found.status in FAILED_CALLS:
            raise CallFailed(FAILED_CALLS[found.status], found.reason or str(found.status))
        refusal = found.reason or "refused" if found.status is WriterStatus.REFUSAL else None
        facts = found.text, found.finish_reason, found.reasoning, found.model
        return Reply(*facts, refusal=refusal), found.split(tags)


def open_recorded(path: Path, model: str, n_repeats: int) -> RecordedResponses:
    """Read and check a file of answers. Raises UsageError naming file, line and what was
    expected.
    """
    path = find_file(path)
    texts: dict[str, dict[Place, RecordedResponse]] = {}
    for recorded in read_reports(path) if path.is_dir() else read_responses(path):
        own = texts.setdefault(recorded.sample_id, {})
        # a later line of our own files has the place of the earlier one, and replaces it
        own[_place(recorded, own)] = recorded
    if not texts:
        raise UsageError(f"--responses {str(path)!r}: no record. Expected {_FORM}")
    _check_repeats(path, texts, n_repeats)
    rows = [row for own in texts.values() for row in own.values()]
    own_name = Path(path.name.removesuffix(".gz")).stem
    named = model or next((row.model for row in rows if row.model), own_name)
    has_reasoning = any(row.reasoning or row.known or CLOSING_TAG in row.text for row in rows)
    prompts = {row.prompt: row.sample_id for row in rows if row.prompt}
    return RecordedResponses(named, _content_hash(path), has_reasoning, texts, prompts)


def _content_hash(path: Path) -> str:
    """The identity of the texts: a packed file has that of the file in it."""
    if path.is_dir():
        return path_hash(path)
    with open_bytes(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_repeats(
    path: Path, texts: Mapping[str, Mapping[Place, RecordedResponse]], n_repeats: int
) -> None:
    counts = {name: 1 + max(place.repeat for place in own) for name, own in texts.items()}
    sample_id = max(counts, key=lambda name: counts[name])
    if counts[sample_id] > n_repeats:
        raise UsageError(
            f"--responses {path}: sample {sample_id!r} stands {counts[sample_id]} times, but "
            f"--samples is {n_repeats}. Remove the doubles, or use --samples {counts[sample_id]}"
        )


def _place(recorded: RecordedResponse, own: Mapping[Place, RecordedResponse]) -> Place:
    repeat = recorded.repeat
    if repeat is None:
        repeat = sum((p.task, p.turn) == (recorded.task, recorded.turn) for p in own)
    return Place(recorded.task, repeat, recorded.turn)


_FORM = 'one JSON object a line, such as {"id": "1", "response": "text"}'


def find_file(path: Path) -> Path:
    """The file itself, or the one file of answers in a folder: a run's, or lm-eval's newest.

    A folder of reports is returned as it is. Raises UsageError when there is nothing to read, or
    several models or tasks to choose from.
    """
    if not path.is_dir() or report_files(path):
        return path
    if (own := path / "responses.jsonl").is_file():
        return own
    # samples_<task>_<time>.jsonl sorts by time within a task
    newest = {
        (file.parent, file.name.rpartition("_")[0]): file
        for file in sorted(path.rglob("samples_*.jsonl"))
    }
    if len(newest) == 1:
        return next(iter(newest.values()))
    found = ", ".join(str(file) for file in newest.values()) or "none"
    raise UsageError(
        f"--responses {str(path)!r}: a folder must hold responses.jsonl, the samples_*.jsonl of "
        f"one task, or reports named <id>.a or idx-<n>.md. Found: {found}. Try: --responses FILE"
    )


def report_files(folder: Path) -> dict[Path, str]:
    """Files of a folder that hold one report each, and the sample each answers.

    `<id>.a` as DeepResearchGym keeps them, `idx-<n>.<ending>` as DeepResearch Bench II does.
    """
    numbered = {path: INDEXED.fullmatch(path.name) for path in sorted(folder.iterdir())}
    found = {path: match[1] for path, match in numbered.items() if match}
    return found or {path: path.stem for path in numbered if path.suffix == ".a"}


def read_reports(folder: Path) -> Iterator[RecordedResponse]:
    """One answer a file; what is no text is an answer that cannot be judged. Raises UsageError."""
    for path, sample_id in report_files(folder).items():
        if path.suffix.lower() in (".a", *TEXT_ENDINGS):
            yield RecordedResponse(sample_id, _read_report(path))
        else:
            reason = f"unsupported_input: {path.name}, expected {', '.join(TEXT_ENDINGS)}"
            yield RecordedResponse(sample_id, "", status=WriterStatus.ERROR, reason=reason)


def _read_report(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--responses {path}: {error}. Expected a UTF-8 text file") from error


def read_responses(path: Path) -> Iterator[RecordedResponse]:
    """All texts of a file, one at a time. Raises UsageError."""
    filter_read: str | None = None
    for number, record in _read_lines(path):
        place = f"{path}, line {number}"
        if "resps" in record and isinstance(record.get("doc"), dict):
            # a task with several filters has each text once per filter
            filter_read = filter_read or str(record.get("filter"))
            if str(record.get("filter")) != filter_read:
                continue
            found = _read_lm_eval(record, place)
        elif isinstance(record.get("turns"), list):
            found = _read_turns(record, place)
        else:
            found = iter([_read_record(record, place)])
        yield from (recorded for recorded in found if recorded.status not in NEVER_ANSWERED)


def _read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records with line numbers; lines end at `\\n` only, since texts may hold U+2028."""
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _read_line(line, f"{path}, line {number}")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--responses {str(path)!r}: {reason}. Expected {_FORM}") from error


def _read_line(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: {error}. Expected {_FORM}, in UTF-8") from error
    if not isinstance(record, dict):
        raise UsageError(f"{place}: a {type(record).__name__}. Expected {_FORM}")
    return record


def _read_record(record: Mapping[str, Any], place: str) -> RecordedResponse:
    sample_id = _find_id(record)
    text = next((record[key] for key in TEXT_KEYS if isinstance(record.get(key), str)), None)
    text = _last_message(record) if text is None else text
    if sample_id is None or text is None:
        raise UsageError(
            f"{place}: has {', '.join(map(str, record))}. Expected an id ({', '.join(ID_KEYS)}) "
            f"and a text ({', '.join(TEXT_KEYS)}) or messages"
        )
    recorded = RecordedResponse(
        sample_id,
        text,
        _text_or_none(record, "model"),
        _text_or_none(record, "reasoning"),
        prompt=_text_or_none(record, "prompt") or "" if text is record.get("article") else "",
    )
    if not {"key", "raw", "status", "repeat"} <= record.keys():
        return recorded
    task, turn = _text_or_none(record, "task") or "", record.get("turn")
    recorded = replace(recorded, task=task, turn=turn if isinstance(turn, int) else 0)
    return _with_facts(recorded, record, place)


def _read_turns(record: Mapping[str, Any], place: str) -> Iterator[RecordedResponse]:
    """A whole conversation in one line: the writer's texts, in order."""
    for turn, text in enumerate(record["turns"]):
        if not isinstance(text, str):
            raise UsageError(f"{place}: `turns` holds a {type(text).__name__}. Expected texts")
        yield replace(_read_record({**record, "raw": text}, place), turn=turn)


def _with_facts(
    recorded: RecordedResponse, facts: Mapping[str, Any], place: str
) -> RecordedResponse:
    """Adds what our own files know of a text; sample and repeat are those stated in the record."""
    repeat = facts.get("repeat")
    if not isinstance(repeat, int) or facts.get("status") not in tuple(WriterStatus):
        raise UsageError(f"{place}: no repeat or no known status. Expected a line of our own files")
    thinking, status = _text_or_none(facts, "thinking"), WriterStatus(facts["status"])
    known = None
    if (answer := _text_or_none(facts, "answer")) is None:
        is_within = CLOSING_TAG in recorded.text
    elif is_within := answer != recorded.text.strip():
        # a server's own field would leave the whole text to the answer
        known = SplitText(thinking, answer, status is WriterStatus.UNCLOSED_THINK)
    return replace(
        recorded,
        reasoning=None if is_within else thinking,
        known=known,
        repeat=repeat,
        finish_reason=_text_or_none(facts, "finish_reason"),
        status=status,
        reason=_text_or_none(facts, "reason") or "",
    )


def _read_lm_eval(record: Mapping[str, Any], place: str) -> Iterator[RecordedResponse]:
    """A row of lm-eval's samples file: the id is in its document, the repeats in `resps`."""
    document, own = record["doc"], record.get("r2w")
    sample_id = _find_id(document)
    requests = record["resps"] if isinstance(record["resps"], list) else []
    texts = requests[0] if len(requests) == 1 else None
    if sample_id is None or not isinstance(texts, list) or not texts:
        raise UsageError(f"{place}: an lm-eval sample without a document id or a text in `resps`")
    task = _text_or_none(document, "suite") or ""
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"{place}: `resps` holds a {type(text).__name__}. Expected texts")
        recorded = RecordedResponse(sample_id, text, task=task)
        if isinstance(own, dict):
            # one text a row in our own files
            answers = record.get("filtered_resps")
            answer = answers[0] if isinstance(answers, list) and len(answers) == 1 else None
            recorded = _with_facts(recorded, {**own, "answer": answer}, place)
        yield recorded


def _last_message(record: Mapping[str, Any]) -> str | None:
    """The text of the last of `messages`, plain or as Arena-Hard writes it: {"answer": text}."""
    messages = record.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    content = content.get("answer") if isinstance(content, dict) else content
    return content if isinstance(content, str) else None


def _find_id(record: Mapping[str, Any]) -> str | None:
    found = next((record[key] for key in ID_KEYS if record.get(key) is not None), None)
    return None if found is None else str(found)


def _text_or_none(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    return value if isinstance(value, str) else None
